"""What people switch on and off while Backstay runs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from control_plane.adapters.database.connection import Connections
from control_plane.adapters.database.schema import switches
from control_plane.ports import Freeze

FREEZE = "freeze"


class DatabaseSwitches:
    """The Switches port. That there is a row means that the switch is on."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def freeze(self, *, reason: str, by: str, at: datetime) -> None:
        on = switches.c.name == FREEZE

        def change(connection: Connection) -> None:
            if not connection.execute(update(switches).where(on).values(reason=reason, by=by)).rowcount:
                connection.execute(insert(switches).values(name=FREEZE, at=at, by=by, reason=reason))

        await self._connections.write(change)

    async def thaw(self) -> None:
        off = delete(switches).where(switches.c.name == FREEZE)
        await self._connections.write(lambda connection: connection.execute(off))

    async def frozen(self) -> Freeze | None:
        query = select(switches).where(switches.c.name == FREEZE)
        row = await self._connections.read(lambda connection: connection.execute(query).first())
        return None if row is None else Freeze(row.at, row.by, row.reason)
