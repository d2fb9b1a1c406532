"""What happened, newest first, from everything that Backstay wrote down. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from control_plane.actions.journal import Saga, SagaState, progress_of
from control_plane.ports import Change, DecisionRecord, Exclusion
from control_plane.situation import Moment, Tone


def moments(
    decisions: Iterable[DecisionRecord],
    sagas: Iterable[Saga],
    changes: Iterable[Change],
    exclusions: Iterable[Exclusion],
    limit: int,
) -> Sequence[Moment]:
    """At most `limit` entries. Holding still is only worth an entry when a guard stopped something."""
    found: list[Moment] = []
    for record in decisions:
        acts = record.action != "hold"
        stopped = record.body.get("move") is not None and not acts
        if acts or stopped:
            found.append(
                Moment(
                    record.at,
                    Tone.BAD if acts and "roll" in record.action else Tone.NOTE,
                    f"{record.action.replace('_', ' ').upper()} {record.target if acts else record.service}",
                    f"{record.reason.upper()}: {record.sentence}",
                    record.service,
                    f"/decisions/{record.id}",
                )
            )
    for saga in sagas:
        found += _of_saga(saga)
    for change in changes:
        if change.kind == "deploy":
            text = f"{change.service} {change.version} by {change.by}"
            found.append(Moment(change.at, Tone.CHANGE, "deploy", text, change.service))
    for exclusion in exclusions:
        if not exclusion.reason.endswith(f" on {exclusion.service}"):
            continue  # of a service that was harmed along with the one it is about, which has an entry already
        found.append(Moment(exclusion.began_at, Tone.CHANGE, "drill began", exclusion.reason, exclusion.service))
        if exclusion.ended_at is not None:
            found.append(Moment(exclusion.ended_at, Tone.CHANGE, "drill ended", exclusion.reason, exclusion.service))
    found.sort(key=lambda moment: moment.at, reverse=True)
    return found[:limit]


_MILESTONES = {
    "await_ready": "capacity ready",
    "prove_moved": "traffic moved",
    "drain": "drained",
    "verify": "recovered",
}
"""Steps that tell a reader how far a plan is, and what they mean; the others are in the plan itself."""


def _of_saga(saga: Saga) -> list[Moment]:
    progress = progress_of(saga)
    link = f"/decisions/{saga.decision_id}" if saga.decision_id else None
    found = []
    for index, entry in progress.done.items():
        title = _MILESTONES.get(saga.plan.steps[index].kind)
        if title is not None:
            detail = str(entry.data.get("detail", ""))
            found.append(Moment(entry.at, Tone.GOOD, title, detail, saga.plan.target, link))
    if saga.by != "backstay":
        text = f"{saga.reason} (by {saga.by})"
        found.append(Moment(saga.began_at, Tone.CHANGE, saga.plan.title, text, saga.plan.target, link))
    if progress.ended is not None and progress.state is not SagaState.DONE:
        title = f"{saga.plan.title}: {progress.state.value}"
        found.append(Moment(progress.ended.at, Tone.BAD, title, progress.outcome, saga.plan.target, link))
    return found
