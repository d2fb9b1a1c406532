"""The journal of sagas. An entry is on disk before what it announces is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from control_plane.actions.journal import Entry, EntryKind, Saga, SagaState
from control_plane.actions.plans import canonical_json, plan_from_json, plan_json
from control_plane.adapters.database.connection import Connections, rows
from control_plane.adapters.database.schema import fences, saga_entries, sagas
from control_plane.errors import ActuationRefused, StaleFence
from control_plane.ports import SagaJournal


class DatabaseSagaJournal(SagaJournal):
    """The SagaJournal port. Each write checks the fencing token in its own transaction."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def begin(self, saga: Saga, *, fence: int) -> None:
        def change(connection: Connection) -> None:
            _check(connection, fence)
            connection.execute(
                insert(sagas).values(
                    id=saga.id,
                    kind=saga.plan.kind.value,
                    target=saga.plan.target,
                    plan=canonical_json(plan_json(saga.plan)),
                    plan_hash=saga.plan.hash,
                    by=saga.by,
                    reason=saga.reason,
                    automatic=saga.automatic,
                    drill=saga.drill,
                    decision_id=saga.decision_id,
                    began_at=saga.began_at,
                    state=SagaState.RUNNING.value,
                )
            )

        await self._connections.write(change)

    async def append(self, saga_id: str, position: int, entry: Entry, *, fence: int) -> None:
        data = canonical_json(dict(entry.data))

        def change(connection: Connection) -> None:
            _check(connection, fence)
            there = rows(
                connection,
                select(saga_entries).where(saga_entries.c.saga_id == saga_id, saga_entries.c.position == position),
            )
            if there:  # the answer to an earlier attempt was lost
                if (there[0]["kind"], there[0]["step"], there[0]["data"]) != (entry.kind.value, entry.step, data):
                    raise ActuationRefused(f"Entry {position} of saga {saga_id} is another one already.")
                return
            connection.execute(
                insert(saga_entries).values(
                    saga_id=saga_id,
                    position=position,
                    at=entry.at,
                    kind=entry.kind.value,
                    step=entry.step,
                    data=data,
                    fence=fence,
                )
            )
            if entry.kind is EntryKind.ENDED:
                ended = {"state": entry.data["state"], "ended_at": entry.at}
                connection.execute(update(sagas).where(sagas.c.id == saga_id).values(ended))

        await self._connections.write(change)

    async def saga(self, saga_id: str) -> Saga | None:
        found = await self._read(select(sagas).where(sagas.c.id == saga_id))
        return found[0] if found else None

    async def unfinished(self) -> Sequence[Saga]:
        running = sagas.c.state == SagaState.RUNNING.value
        return await self._read(select(sagas).where(running).order_by(sagas.c.began_at, sagas.c.id))

    async def recent(self, since: datetime, *, drills: bool | None = None) -> Sequence[Saga]:
        query = select(sagas).where(sagas.c.began_at >= since).order_by(sagas.c.began_at.desc(), sagas.c.id)
        if drills is not None:
            query = query.where(sagas.c.drill.is_(drills))
        return await self._read(query)

    async def _read(self, query: Select[Any]) -> list[Saga]:
        def read(connection: Connection) -> list[Saga]:
            found = rows(connection, query)
            ids = [row["id"] for row in found]
            entries: dict[str, list[Entry]] = {saga_id: [] for saga_id in ids}
            in_order = saga_entries.c.saga_id, saga_entries.c.position
            for row in rows(
                connection, select(saga_entries).where(saga_entries.c.saga_id.in_(ids)).order_by(*in_order)
            ):
                entries[row["saga_id"]].append(_entry(row))
            return [_saga(row, tuple(entries[row["id"]])) for row in found]

        return await self._connections.read(read)


def _check(connection: Connection, fence: int) -> None:
    newest = connection.execute(select(func.max(fences.c.token))).scalar() or 0
    if fence < newest:
        raise StaleFence(f"Token {fence} is stale: another process took {newest} and acts now.")


def _entry(row: Mapping[str, Any]) -> Entry:
    return Entry(EntryKind(row["kind"]), row["at"], row["step"], json.loads(row["data"]))


def _saga(row: Mapping[str, Any], entries: tuple[Entry, ...]) -> Saga:
    return Saga(
        id=row["id"],
        plan=plan_from_json(json.loads(row["plan"])),
        by=row["by"],
        reason=row["reason"],
        automatic=row["automatic"],
        began_at=row["began_at"],
        drill=row["drill"],
        decision_id=row["decision_id"],
        entries=entries,
    )
