"""Decisions and what became of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from control_plane.actions.plans import canonical_json
from control_plane.adapters.database import chain
from control_plane.adapters.database.connection import Connections, rows
from control_plane.adapters.database.schema import decisions
from control_plane.errors import ActuationRefused
from control_plane.ports import DecisionRecord


class DatabaseDecisions:
    """The DecisionStore port."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def add(self, records: Sequence[DecisionRecord]) -> None:
        if not records:
            return

        def change(connection: Connection) -> None:
            newest = select(decisions.c.hash).order_by(decisions.c.number.desc()).limit(1)
            before = connection.execute(newest).scalar() or chain.BEGINNING
            values = []
            for record in records:
                content = canonical_json(_content(record))
                before = chain.link(before, content)
                values.append(
                    {
                        "id": record.id,
                        "at": record.at,
                        "service": record.service,
                        "action": record.action,
                        "target": record.target,
                        "reason": record.reason,
                        "drill": record.drill,
                        "content": content,
                        "hash": before,
                        "state": record.state,
                        "saga_id": record.saga_id,
                    }
                )
            connection.execute(insert(decisions), values)

        await self._connections.write(change)

    async def set_state(self, decision_id: str, state: str, saga_id: str | None = None) -> None:
        values = {"state": state} if saga_id is None else {"state": state, "saga_id": saga_id}

        def change(connection: Connection) -> int:
            return connection.execute(update(decisions).where(decisions.c.id == decision_id).values(values)).rowcount

        if await self._connections.write(change) == 0:
            raise ActuationRefused(f"No decision has the id {decision_id}.")

    async def decision(self, decision_id: str) -> DecisionRecord | None:
        beginning = select(decisions).where(decisions.c.id.startswith(decision_id, autoescape=True)).limit(2)
        found = await self._connections.read(lambda connection: rows(connection, beginning))
        exact = [row for row in found if row["id"] == decision_id]
        if exact:
            return _record(exact[0])
        return _record(found[0]) if len(found) == 1 and decision_id else None

    async def latest(self, limit: int, service: str | None = None) -> Sequence[DecisionRecord]:
        query = select(decisions).order_by(decisions.c.number.desc()).limit(limit)
        if service is not None:
            query = query.where(decisions.c.service == service)
        return [_record(row) for row in await self._connections.read(lambda connection: rows(connection, query))]

    async def first_broken(self) -> str | None:
        query = select(decisions.c.id, decisions.c.content, decisions.c.hash).order_by(decisions.c.number)

        def check(connection: Connection) -> str | None:
            stored = connection.execution_options(yield_per=500).execute(query)
            return chain.first_broken((row.id, row.content, row.hash) for row in stored)

        return await self._connections.read(check)


def _content(record: DecisionRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "at": record.at.isoformat(),
        "service": record.service,
        "action": record.action,
        "target": record.target,
        "reason": record.reason,
        "sentence": record.sentence,
        "guards": [dict(guard) for guard in record.guards],
        "evidence": record.evidence,
        "body": record.body,
        "drill": record.drill,
    }


def _record(row: Mapping[str, Any]) -> DecisionRecord:
    content = json.loads(row["content"])
    return DecisionRecord(
        id=row["id"],
        at=row["at"],
        service=row["service"],
        action=row["action"],
        target=row["target"],
        reason=row["reason"],
        sentence=content["sentence"],
        guards=content["guards"],
        evidence=content["evidence"],
        body=content["body"],
        drill=row["drill"],
        state=row["state"],
        saga_id=row["saga_id"],
    )
