"""Large values by name."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from control_plane.adapters.database.connection import Connections
from control_plane.adapters.database.schema import snapshots
from control_plane.errors import SourceUnavailable


class DatabaseSnapshots:
    """The Snapshots port. A checksum tells a damaged payload from a whole one."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def save(self, name: str, at: datetime, payload: bytes) -> None:
        def change(connection: Connection) -> None:
            connection.execute(delete(snapshots).where(snapshots.c.name == name))
            values = {"name": name, "at": at, "payload": payload, "sha256": hashlib.sha256(payload).hexdigest()}
            connection.execute(insert(snapshots).values(values))

        await self._connections.write(change)

    async def load(self, name: str) -> tuple[datetime, bytes] | None:
        query = select(snapshots).where(snapshots.c.name == name)
        row = await self._connections.read(lambda connection: connection.execute(query).first())
        if row is None:
            return None
        payload = bytes(row.payload)
        if hashlib.sha256(payload).hexdigest() != row.sha256:
            raise SourceUnavailable(f"The stored snapshot {name!r} is damaged; it is made anew from its source.")
        return row.at, payload
