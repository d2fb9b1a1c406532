"""Stretches of time that SLOs are also shown without."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, or_, select, update

from control_plane.adapters.database.connection import Connections, rows
from control_plane.adapters.database.schema import exclusions
from control_plane.errors import ActuationRefused
from control_plane.ports import Exclusion


class DatabaseExclusions:
    """The Exclusions port."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def begin(self, service: str, at: datetime, reason: str) -> str:
        exclusion_id = uuid.uuid4().hex
        statement = insert(exclusions).values(id=exclusion_id, service=service, began_at=at, reason=reason)
        await self._connections.write(lambda connection: connection.execute(statement))
        return exclusion_id

    async def end(self, exclusion_id: str, at: datetime) -> None:
        open_one = (exclusions.c.id == exclusion_id) & exclusions.c.ended_at.is_(None)

        def change(connection: Connection) -> bool:
            changed = connection.execute(update(exclusions).where(open_one).values(ended_at=at)).rowcount
            known = select(exclusions.c.id).where(exclusions.c.id == exclusion_id)
            return bool(changed) or connection.execute(known).scalar() is not None

        if not await self._connections.write(change):
            raise ActuationRefused(f"No exclusion has the id {exclusion_id}.")

    async def overlapping(self, start: datetime, end: datetime) -> Sequence[Exclusion]:
        query = (
            select(exclusions)
            .where(
                exclusions.c.began_at < end,
                or_(exclusions.c.ended_at.is_(None), exclusions.c.ended_at > start),
            )
            .order_by(exclusions.c.began_at)
        )
        return [Exclusion(**row) for row in await self._connections.read(lambda connection: rows(connection, query))]
