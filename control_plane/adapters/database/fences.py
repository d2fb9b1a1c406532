"""Fencing tokens."""

from __future__ import annotations

from sqlalchemy import Connection, func, insert, select

from control_plane.adapters.database.connection import Connections
from control_plane.adapters.database.schema import fences
from control_plane.clock import Clock


class DatabaseFences:
    """The Fences port. Every token ever given out is kept, with who took it."""

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock

    async def take(self, holder: str) -> int:
        now = self._clock()

        def change(connection: Connection) -> int:
            token = int(connection.execute(select(func.max(fences.c.token))).scalar() or 0) + 1
            connection.execute(insert(fences).values(token=token, holder=holder, at=now))
            return token

        return await self._connections.write(change)

    async def newest(self) -> int:
        query = select(func.max(fences.c.token))
        return await self._connections.read(lambda connection: int(connection.execute(query).scalar() or 0))
