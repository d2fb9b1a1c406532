"""What a journal of a saga means: entries in order, and the progress that they add up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from control_plane.actions.plans import Plan
from control_plane.actions.steps import Shift, Step


class SagaState(StrEnum):
    """Where a saga stands. All but RUNNING are final."""

    RUNNING = "RUNNING"
    DONE = "DONE"  # every step was seen to hold
    HELD = "HELD"  # stopped at an unmet condition; traffic stays where it is served
    REVERTED = "REVERTED"  # everything is as it was before


class EntryKind(StrEnum):
    """What an entry of the journal records."""

    STARTED = "started"  # intent of a step, durable before its effect; `counters` as they were
    TESTED = "tested"  # what user journeys found: `sent`, `passed`, `failures`
    DONE = "done"  # postcondition seen; `detail` says what was seen, `counters` as they were
    RETREAT = "retreat"  # the plan stops: `reason`, `end`, and the `effects` that leave things safe
    RESUMED = "resumed"  # another process went on from here
    ENDED = "ended"  # `state` and `outcome`


@dataclass(frozen=True, slots=True)
class Entry:
    """One durable line of a saga. `step` is the index in the plan; None where it is about the whole."""

    kind: EntryKind
    at: datetime
    step: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)  # JSON values


@dataclass(frozen=True)
class Saga:
    """A plan that is being carried out, with everything that was recorded of it."""

    id: str
    plan: Plan
    by: str  # person or "backstay"
    reason: str
    automatic: bool  # decided by Backstay itself; the kill switch forbids these
    began_at: datetime
    drill: bool = False  # part of a drill: uses up no cooldown and no action budget
    decision_id: str | None = None
    entries: tuple[Entry, ...] = ()

    @cached_property
    def progress(self) -> Progress:
        """Where it stands, from its journal alone."""
        return _folded(self)

    def with_entry(self, entry: Entry) -> Saga:
        return replace(self, entries=(*self.entries, entry))


@dataclass(frozen=True, slots=True)
class Progress:
    """A journal, folded."""

    done: Mapping[int, Entry]
    started: Mapping[int, Entry]
    tests: tuple[Entry, ...]  # of the current step, since it started
    passed_tests: frozenset[int]  # steps whose latest journeys all passed
    resumes: int  # since the current step started
    retreat: Entry | None
    ended: Entry | None
    last_at: datetime

    @property
    def current(self) -> int:
        """Index of the first step that is not done; the number of steps when all are."""
        index = 0
        while index in self.done:
            index += 1
        return index

    @property
    def state(self) -> SagaState:
        return SagaState.RUNNING if self.ended is None else SagaState(self.ended.data["state"])

    @property
    def outcome(self) -> str:
        """Why and how it ended, in one sentence; empty while it runs."""
        return "" if self.ended is None else str(self.ended.data["outcome"])


def progress_of(saga: Saga) -> Progress:
    """Where the saga stands, from its journal alone."""
    return saga.progress


def _folded(saga: Saga) -> Progress:
    done: dict[int, Entry] = {}
    started: dict[int, Entry] = {}
    tests: list[Entry] = []
    passed: set[int] = set()
    resumes = 0
    retreat: Entry | None = None
    ended: Entry | None = None
    for entry in saga.entries:
        match entry.kind:
            case EntryKind.STARTED if entry.step is not None:
                started[entry.step] = entry
                tests, resumes = [], 0
            case EntryKind.DONE if entry.step is not None:
                done[entry.step] = entry
                tests, resumes = [], 0
            case EntryKind.TESTED if entry.step is not None:
                tests.append(entry)
                if all_passed(entry):
                    passed.add(entry.step)
                else:
                    passed.discard(entry.step)
            case EntryKind.RETREAT:
                retreat, resumes = entry, 0
            case EntryKind.RESUMED:
                resumes += 1
            case EntryKind.ENDED:
                ended = entry
            case _:
                pass
    last_at = saga.entries[-1].at if saga.entries else saga.began_at
    return Progress(done, started, tuple(tests), frozenset(passed), resumes, retreat, ended, last_at)


def all_passed(test: Entry) -> bool:
    """Whether journeys were run and every one of them was right."""
    sent, passed = int(test.data["sent"]), int(test.data["passed"])
    return sent > 0 and passed == sent


def started_shifts(saga: Saga) -> dict[str, list[Shift]]:
    """Shifts whose intent was recorded, by service, oldest first: each may or may not have taken effect."""
    shifts: dict[str, list[Shift]] = {}
    for index in sorted(saga.progress.started):
        step: Step = saga.plan.steps[index]
        if isinstance(step, Shift):
            shifts.setdefault(step.service, []).append(step)
    return shifts


def saga_json(saga: Saga) -> dict[str, Any]:
    """A saga as programs and the console read it."""
    progress = saga.progress
    stopped = progress.retreat is not None or progress.ended is not None
    steps = []
    for index, step in enumerate(saga.plan.steps):
        begun, finished = progress.started.get(index), progress.done.get(index)
        if finished is not None:
            state = "done"
        elif begun is not None:
            state = "failed" if stopped else "running"
        else:
            state = "skipped" if stopped else "waiting"
        detail = finished.data.get("detail", "") if finished else ""
        if state == "failed" and progress.retreat is not None:
            detail = progress.retreat.data["reason"]
        steps.append(
            {
                "name": step.name,
                "kind": step.kind,
                "state": state,
                "started_at": begun.at.isoformat() if begun else None,
                "ended_at": finished.at.isoformat() if finished else None,
                "detail": detail,
            }
        )
    return {
        "saga_id": saga.id,
        "plan_hash": saga.plan.hash,
        "kind": saga.plan.kind.value,
        "target": saga.plan.target,
        "by": saga.by,
        "reason": saga.reason,
        "automatic": saga.automatic,
        "drill": saga.drill,
        "decision_id": saga.decision_id,
        "began_at": saga.began_at.isoformat(),
        "ended_at": progress.ended.at.isoformat() if progress.ended else None,
        "state": progress.state.value,
        "outcome": progress.outcome,
        "steps": steps,
    }


def step_in_hand(saga: Saga) -> Step | None:
    """The step that is being carried out, or comes next; None when all are done."""
    index = saga.progress.current
    return saga.plan.steps[index] if index < len(saga.plan.steps) else None
