"""What happened, newest first, from everything that Backstay wrote down. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from control_plane.actions.journal import Saga, SagaState, progress_of
from control_plane.actions.steps import MILESTONES
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
        found += _of_exclusion(exclusion)
    # Of what happened at the same instant, what came of the rest stands above it.
    newest_first = sorted(enumerate(found), key=lambda each: (each[1].at, each[0]), reverse=True)
    return [moment for _, moment in newest_first[:limit]]


def _of_exclusion(exclusion: Exclusion) -> list[Moment]:
    drill = exclusion.reason.startswith("drill ")
    if drill and not exclusion.reason.endswith(f" on {exclusion.service}"):
        return []  # of a service that was harmed along with the one it is about, which has an entry already
    what = "drill" if drill else "exclusion"
    ends = [("began", exclusion.began_at), ("ended", exclusion.ended_at)]
    return [
        Moment(at, Tone.CHANGE, f"{what} {happened}", exclusion.reason, exclusion.service)
        for happened, at in ends
        if at is not None
    ]


def _of_saga(saga: Saga) -> list[Moment]:
    progress = progress_of(saga)
    link = f"/decisions/{saga.decision_id}" if saga.decision_id else None
    found = []
    if saga.by != "backstay":
        text = f"{saga.reason} (by {saga.by})"
        found.append(Moment(saga.began_at, Tone.CHANGE, saga.plan.title, text, saga.plan.target, link))
    for index, entry in progress.done.items():
        step = saga.plan.steps[index]
        detail = str(entry.data.get("detail", ""))
        if not entry.data.get("met", True):
            found.append(Moment(entry.at, Tone.NOTE, step.name, detail, saga.plan.target, link))
        elif step.kind in MILESTONES:
            found.append(Moment(entry.at, Tone.GOOD, MILESTONES[step.kind], detail, saga.plan.target, link))
    if progress.ended is not None and progress.state is not SagaState.DONE:
        title = f"{saga.plan.title}: {progress.state.value}"
        found.append(Moment(progress.ended.at, Tone.BAD, title, progress.outcome, saga.plan.target, link))
    return found
