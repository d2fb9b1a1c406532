"""Opening the database: migrations first, then one store a concern on one connection."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from control_plane.adapters.database.accounts import DatabaseAccounts
from control_plane.adapters.database.audit import DatabaseAuditLog
from control_plane.adapters.database.changes import DatabaseChanges
from control_plane.adapters.database.connection import Connections, engine_for, problem
from control_plane.adapters.database.decisions import DatabaseDecisions
from control_plane.adapters.database.exclusions import DatabaseExclusions
from control_plane.adapters.database.fences import DatabaseFences
from control_plane.adapters.database.first_seen import DatabaseFirstSeen
from control_plane.adapters.database.sagas import DatabaseSagaJournal
from control_plane.adapters.database.snapshots import DatabaseSnapshots
from control_plane.adapters.database.switches import DatabaseSwitches
from control_plane.clock import Clock
from control_plane.errors import ActuationRefused, InvalidDefinition

MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Every store, on one connection. Close it, or use it in `async with`."""

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock
        self.decisions = DatabaseDecisions(connections)
        self.sagas = DatabaseSagaJournal(connections)
        self.fences = DatabaseFences(connections, clock)
        self.audit = DatabaseAuditLog(connections, clock)
        self.exclusions = DatabaseExclusions(connections)
        self.first_seen = DatabaseFirstSeen(connections)
        self.snapshots = DatabaseSnapshots(connections)
        self.changes = DatabaseChanges(connections)
        self.switches = DatabaseSwitches(connections)

    def accounts(self, session_length: timedelta) -> DatabaseAccounts:
        """Users and sessions of the console."""
        return DatabaseAccounts(self._connections, self._clock, session_length)

    async def close(self) -> None:
        await self._connections.close()

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def open_database(url: str, clock: Clock) -> Database:
    """The database at an SQLAlchemy URL, brought to this version's schema.

    Raises InvalidDefinition when the URL makes no sense or the database belongs to a newer Backstay, and
    ActuationRefused when it cannot be opened or migrated; then nothing was changed.
    """
    connections = Connections(engine_for(url))
    try:
        await connections.outside_transaction(_migrate)
    except SQLAlchemyError as error:
        await connections.close()
        raise ActuationRefused(f"The database {connections.shown} cannot be opened: {problem(error)}.") from error
    except BaseException:
        await connections.close()
        raise
    return Database(connections, clock)


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        with connection.execution_options(backstay_writes=False).begin():
            found = MigrationContext.configure(connection).get_current_revision()
        if found == newest:
            return
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise InvalidDefinition(
                f"The database {engine.url.database} is at version {found!r}, which this Backstay does not know: "
                f"it was made by a newer one. Start that version, or restore a backup."
            ) from error
