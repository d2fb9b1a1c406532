"""The audit log."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from control_plane.actions.plans import canonical_json
from control_plane.adapters.database import chain
from control_plane.adapters.database.connection import Connections, rows
from control_plane.adapters.database.schema import audit
from control_plane.clock import Clock
from control_plane.ports import AuditRecord


class DatabaseAuditLog:
    """The AuditLog port."""

    def __init__(self, connections: Connections, clock: Clock) -> None:
        self._connections = connections
        self._clock = clock

    async def record(self, actor: str, action: str, target: str, detail: Mapping[str, Any]) -> AuditRecord:
        at = self._clock()
        said = {"at": at.isoformat(), "actor": actor, "action": action, "target": target, "detail": dict(detail)}
        content = canonical_json(said)

        def change(connection: Connection) -> AuditRecord:
            newest = select(audit.c.hash).order_by(audit.c.number.desc()).limit(1)
            linked = chain.link(connection.execute(newest).scalar() or chain.BEGINNING, content)
            written = connection.execute(
                insert(audit).values(
                    at=at, actor=actor[:100], action=action[:100], target=target[:100], content=content, hash=linked
                )
            )
            number = int(written.inserted_primary_key[0]) if written.inserted_primary_key else 0
            return AuditRecord(number, at, actor, action, target, detail, linked)

        return await self._connections.write(change)

    async def latest(self, limit: int) -> Sequence[AuditRecord]:
        query = select(audit).order_by(audit.c.number.desc()).limit(limit)
        return [_record(row) for row in await self._connections.read(lambda connection: rows(connection, query))]

    async def first_broken(self) -> int | None:
        query = select(audit.c.number, audit.c.content, audit.c.hash).order_by(audit.c.number)

        def check(connection: Connection) -> int | None:
            stored = connection.execution_options(yield_per=500).execute(query)
            return chain.first_broken((row.number, row.content, row.hash) for row in stored)

        return await self._connections.read(check)


def _record(row: Mapping[str, Any]) -> AuditRecord:
    said = json.loads(row["content"])
    return AuditRecord(
        row["number"], row["at"], said["actor"], said["action"], said["target"], said["detail"], row["hash"]
    )
