"""When each SLO was first measured."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from control_plane.adapters.database.connection import Connections
from control_plane.adapters.database.schema import first_seen


class DatabaseFirstSeen:
    """The FirstSeen port."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def note(self, seen: Mapping[str, datetime]) -> None:
        if not seen:
            return

        def change(connection: Connection) -> None:
            known = _all(connection)
            new = [{"slo": slo, "at": at} for slo, at in seen.items() if slo not in known]
            if new:
                connection.execute(insert(first_seen), new)
            for slo, at in seen.items():
                if slo in known and at < known[slo]:
                    connection.execute(update(first_seen).where(first_seen.c.slo == slo).values(at=at))

        await self._connections.write(change)

    async def all(self) -> Mapping[str, datetime]:
        return await self._connections.read(_all)


def _all(connection: Connection) -> dict[str, datetime]:
    return {row.slo: row.at for row in connection.execute(select(first_seen))}
