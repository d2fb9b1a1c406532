"""Changes to services: what was deployed, shifted or configured, and when."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert, select

from control_plane.actions.plans import canonical_json
from control_plane.adapters.database.connection import Connections, rows
from control_plane.adapters.database.schema import changes
from control_plane.ports import Change


class DatabaseChanges:
    """The Changes port."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def record(self, change: Change) -> None:
        statement = insert(changes).values(
            at=change.at,
            service=change.service,
            kind=change.kind,
            version=change.version,
            by=change.by,
            detail=canonical_json(dict(change.detail)),
        )
        await self._connections.write(lambda connection: connection.execute(statement))

    async def since(self, at: datetime, service: str | None = None) -> Sequence[Change]:
        query = select(changes).where(changes.c.at >= at).order_by(changes.c.at.desc(), changes.c.number.desc())
        if service is not None:
            query = query.where(changes.c.service == service)
        return [
            Change(row["at"], row["service"], row["kind"], row["version"], row["by"], json.loads(row["detail"]))
            for row in await self._connections.read(lambda connection: rows(connection, query))
        ]
