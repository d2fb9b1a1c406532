"""Runs a drill: break one thing for a while, watch the engine mend it, put everything back, tell what was seen."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from control_plane.actions.capacity import Demand
from control_plane.actions.drills import (
    FAULT_LIMIT,
    Blame,
    DrillTimes,
    FailedRequest,
    Fault,
    blame,
    drill_result,
    fault_for,
)
from control_plane.actions.journal import SagaState, progress_of
from control_plane.actions.planning import restore_plan
from control_plane.actions.plans import PlanKind, PlanPolicy
from control_plane.clock import Clock
from control_plane.decisions.evidence import Drill, Evidence
from control_plane.decisions.policy import Decision
from control_plane.decisions.reasons import Action
from control_plane.errors import ActuationRefused, BackstayError, SourceUnavailable
from control_plane.ports import AuditLog, DrillGround, Exclusions, Runtime
from control_plane.runners.sagas import EventKind, SagaEvent, SagaRunner
from control_plane.slo.state import Verdict
from control_plane.topology import MONOLITH, SERVICES, Backend, RuntimeState, Weights

log = logging.getLogger(__name__)

DEFAULT_SERVICE = "ai-gateway-service"
REASON = "drill"
SETTLE_SECONDS = 3.0
"""Requests that were in flight at the end get this long to tell how they fared."""
OVERLOAD = 2.0
"""Requests at the same time, as a multiple of the slots of the running replicas."""
CALM_TICKS = 2
"""Looks in a row without harm after which a saturation counts as over."""


@dataclass
class _Run:
    """One drill in progress."""

    id: str
    fault: Fault
    service: str
    by: str
    times: DrillTimes
    replicas: dict[str, int]
    weights: Weights
    demand: Mapping[str, Demand]  # before the drill: an overload of its own making is none
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    action: tuple[str, str] | None = None
    saga_id: str | None = None
    saga_ended: str | None = None
    calm_ticks: int = 0
    problems: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None

    def note(self, at: datetime, event: str, detail: str) -> None:
        after = (at - self.times.injected).total_seconds()
        self.timeline.append({"after_s": round(after, 1), "at": at.isoformat(), "event": event, "detail": detail})
        self.changed.set()


class DrillRunner:
    """At most one drill at a time. Feed it ticks and saga events; it acts only through faults and one restore plan."""

    def __init__(
        self,
        *,
        ground: DrillGround,
        runtime: Runtime,
        sagas: SagaRunner,
        exclusions: Exclusions,
        audit: AuditLog,
        plan_policy: PlanPolicy,
        clock: Clock,
        evidence: Callable[[], Evidence | None],
        demand: Callable[[], Mapping[str, Demand]],
        callers: Callable[[str], frozenset[str]],
        seconds_each: Callable[[str], Awaitable[float]],
        announce: Callable[[Drill | None], None],
        acts: Callable[[], bool],
    ) -> None:
        """`callers` of a service are harmed with it; `seconds_each` is how long one of its requests holds a slot.

        `announce` tells the tick which drill runs; `acts` says whether Backstay acts by itself here.
        """
        self._ground = ground
        self._runtime = runtime
        self._sagas = sagas
        self._exclusions = exclusions
        self._audit = audit
        self._plan_policy = plan_policy
        self._clock = clock
        self._evidence = evidence
        self._demand = demand
        self._callers = callers
        self._seconds_each = seconds_each
        self._announce = announce
        self._acts = acts
        self._runs: dict[str, _Run] = {}
        self._current: _Run | None = None
        self._task: asyncio.Task[None] | None = None

    # --- orders

    async def begin(self, name: str, service: str | None, *, by: str, dry_run: bool) -> dict[str, Any]:
        """Starts a drill and returns its id; refused while another runs, or when it would prove nothing."""
        service = service or DEFAULT_SERVICE
        fault = fault_for(name, service)
        if self._current is not None:
            running = self._current
            raise ActuationRefused(
                f"A drill runs already: {running.fault.name} on {running.service}. Wait until it has ended."
            )
        state = await self._runtime.state()
        self._refuse_unless_sound(service, state)
        lines = [
            f"1. {fault.summary} ({service}, at most {FAULT_LIMIT.total_seconds():.0f} s)",
            f"2. watch until Backstay has decided to {fault.expected_action.replace('_', ' ')} {service}, and done it",
            "3. take the fault away, and see that nothing that was written is lost",
            f"4. put weights ({state.weights[service].service} % on the service) and replicas back, gate by gate",
        ]
        if dry_run:
            return {"drill_id": None, "service": service, "limit_s": FAULT_LIMIT.total_seconds(), "lines": lines}
        run = _Run(
            id=uuid.uuid4().hex[:12],
            fault=fault,
            service=service,
            by=by,
            times=DrillTimes(self._clock()),
            replicas={name: state.deployments[name].desired for name in (service, MONOLITH)},
            weights=state.weights[service],
            demand=dict(self._demand()),
        )
        self._current = self._runs[run.id] = run
        await self._audit.record(by, f"drill {name}", service, {"drill": run.id})
        self._task = asyncio.create_task(self._carry_out(run), name=f"drill {run.id}")
        return {"drill_id": run.id, "service": service, "limit_s": FAULT_LIMIT.total_seconds(), "lines": lines}

    def progress(self, drill_id: str) -> dict[str, Any] | None:
        run = self._runs.get(drill_id)
        if run is None:
            return None
        return {
            "drill_id": run.id,
            "finished": run.result is not None,
            "timeline": list(run.timeline),
            "result": run.result,
        }

    async def clean_up(self) -> None:
        """After a crash in the middle of a drill: no fault stays, and no exclusion stays open."""
        for service in SERVICES:
            await self._quietly(self._ground.clear(service), f"clear faults of {service}")
        await self._quietly(self._ground.end_overload(DEFAULT_SERVICE), "end extra load")
        now = self._clock()
        for each in await self._exclusions.overlapping(now - timedelta(days=1), now):
            if each.ended_at is None and each.reason.startswith(REASON):
                await self._exclusions.end(each.id, now)

    async def close(self) -> None:
        """Ends a drill that runs, and waits until it has put away its fault."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _refuse_unless_sound(self, service: str, state: RuntimeState) -> None:
        """A drill on a system that is already hurt, or that will not act, proves nothing and may do harm."""
        if not self._acts():
            raise ActuationRefused("Backstay only observes here, so a drill would harm users and prove nothing.")
        if state.weights[service].service < 100:
            share = state.weights[service].monolith
            raise ActuationRefused(
                f"{share} % of {service} is on the monolith. Bring it back first: "
                f"`backstay cutover {service} --to 100`."
            )
        if self._sagas.running():
            raise ActuationRefused("A plan is being carried out. Wait until it has ended.")
        evidence = self._evidence()
        if evidence is None:
            raise ActuationRefused("Backstay has not finished its first look yet. Try again in a few seconds.")
        if evidence.kill_switch is not None:
            raise ActuationRefused(f"Automatic action is frozen ({evidence.kill_switch}). `backstay thaw` ends that.")
        hurt = [s.service for s in evidence.services if s.breach_since is not None]
        if hurt:
            raise ActuationRefused(f"{', '.join(hurt)}: users are being hurt already. Mend that first.")
        mine = next(s for s in evidence.services if s.service == service)
        if mine.requests_per_second is None or mine.requests_per_second < 1:
            raise ActuationRefused(f"{service} gets no measured traffic, so nothing could be seen.")
        if any(slo.verdict is Verdict.UNKNOWN for slo in mine.slos if not slo.name.endswith("throughput")):
            raise ActuationRefused(f"An SLO of {service} is unknown, so Backstay would not act. See `backstay status`.")

    # --- what is seen

    def saw_tick(self, evidence: Evidence, decisions: Sequence[Decision], now: datetime) -> None:
        """One tick has ended."""
        run = self._current
        if run is None:
            return
        mine = next(s for s in evidence.services if s.service == run.service)
        fired = [test for test in mine.fast_paths if test.result.fired]
        acting = [d for d in decisions if d.executes and d.target in (run.service, "all")]
        strays = [d for d in decisions if d.executes and d.target not in (run.service, MONOLITH, "all")]
        if run.times.detected is None and (fired or acting):
            run.times = replace(run.times, detected=now)
            what = fired[0].result.sentence("were bad") if fired else acting[0].sentence
            run.note(now, "detected", what)
        if run.times.decided is None and acting:
            decision = acting[0]
            kind = "scale" if decision.action is Action.SCALE else decision.action.value
            run.action = (kind, decision.target)
            run.times = replace(run.times, decided=now)
            run.note(now, "decided", f"{decision.action.value} {decision.target}: {decision.sentence}")
        for decision in strays:
            run.problems.append(f"Backstay also chose {decision.action.value} of {decision.target}.")
        full = mine.saturation is not None and mine.saturation.utilisation >= 1.0
        calm = mine.saturation is not None and not fired and not full
        run.calm_ticks = run.calm_ticks + 1 if calm else 0
        run.changed.set()

    def saw_saga(self, event: SagaEvent) -> None:
        """A step of some plan began or ended."""
        run = self._current
        if run is None or not event.saga.drill or event.saga.plan.kind is PlanKind.RESTORE:
            return
        run.saga_id = event.saga.id
        if event.kind is EventKind.STEP_DONE:
            run.note(event.at, event.step_kind.replace("_", " "), f"{event.name}: {event.detail}")
            if event.step_kind == "await_ready":
                run.times = replace(run.times, capacity_ready=event.at)
                if run.fault.expected_action == "scale":
                    run.times = replace(run.times, moved=event.at)
                    run.calm_ticks = 0
            elif event.step_kind == "prove_moved":
                run.times = replace(run.times, moved=event.at)
            elif event.step_kind == "verify":
                run.times = replace(run.times, recovered=event.at)
        elif event.kind is EventKind.RETREATING:
            run.note(event.at, "stopped", event.detail)
        elif event.kind is EventKind.ENDED:
            run.saga_ended = progress_of(event.saga).state.value
            run.note(event.at, "plan ended", event.detail)
        run.changed.set()

    # --- the drill

    async def _carry_out(self, run: _Run) -> None:
        exclusions: list[str] = []
        next_step: str | None = None
        try:
            markers = await self._ground.write_markers()
            for harmed in sorted({run.service, *self._callers(run.service)}):
                reason = f"{REASON} {run.fault.name} on {run.service}"
                exclusions.append(await self._exclusions.begin(harmed, self._clock(), reason))
            self._announce(Drill(run.fault.name, run.service))
            await self._hurt(run)
            await self._watch(run)
            await self._heal(run)
            missing = await self._ground.missing_markers(markers)
            run.problems += [f"Lost after the move: {what}" for what in missing]
            next_step = await self._put_back(run)
            await asyncio.sleep(SETTLE_SECONDS)
            await self._conclude(run, next_step)
        except BackstayError as error:
            run.problems.append(str(error))
            log.warning("drill %s ended early: %s", run.id, error)
        except Exception as error:
            run.problems.append(f"Backstay itself failed: {error!r}")
            log.exception("drill %s failed", run.id)
        finally:
            await self._quietly(self._heal(run), "take the fault away")
            for exclusion in exclusions:
                await self._quietly(self._exclusions.end(exclusion, self._clock()), "end an exclusion")
            self._announce(None)
            if run.result is None:
                run.result = drill_result(
                    run.fault, run.service, run.times, run.action, 0, Blame((), ()), run.problems, next_step
                )
            run.changed.set()
            self._current = None

    async def _hurt(self, run: _Run) -> None:
        run.times = replace(run.times, injected=self._clock())
        if run.fault.name == "saturation":
            rate = await self._overload_rate(run)
            await self._ground.overload(run.service, rate, FAULT_LIMIT)
            run.note(self._clock(), "injected", f"{rate:.1f} requests/s more than usual")
        else:
            await self._ground.inject(run.fault, run.service, FAULT_LIMIT)
            run.note(self._clock(), "injected", run.fault.summary)

    async def _overload_rate(self, run: _Run) -> float:
        """Requests per second that, with what runs already, keep twice the slots busy (Little's law)."""
        evidence = self._evidence()
        mine = next(s for s in evidence.services if s.service == run.service) if evidence else None
        if mine is None or mine.saturation is None or mine.demand is None:
            raise SourceUnavailable(f"Slots and demand of {run.service} are not measured yet. Try again in a minute.")
        busy = OVERLOAD * mine.saturation.slots.requests - mine.demand.requests
        return max(1.0, busy / await self._seconds_each(run.service))

    async def _watch(self, run: _Run) -> None:
        """Until the engine has mended it, or its time is over. The fault stays on, so that nothing heals by itself."""
        limit = FAULT_LIMIT - timedelta(seconds=5)
        try:
            async with asyncio.timeout(limit.total_seconds()):
                while not self._is_over(run):
                    await run.changed.wait()
                    run.changed.clear()
                    if run.times.first_failure is None and run.fault.name != "latency":
                        await self._look_for_first_failure(run)
        except TimeoutError:
            run.problems.append(f"It was not over after {limit.total_seconds():.0f} s.")
        if run.saga_ended not in (None, SagaState.DONE.value):
            run.problems.append(f"The plan ended {run.saga_ended}.")

    def _is_over(self, run: _Run) -> bool:
        if run.fault.expected_action != "scale":
            return run.saga_ended is not None
        over = run.times.moved is not None and run.calm_ticks >= CALM_TICKS and not self._sagas.running()
        if over and run.times.recovered is None:
            now = self._clock()
            run.times = replace(run.times, recovered=now)
            run.note(now, "recovered", "no slot is waited for any more")
        return over

    async def _look_for_first_failure(self, run: _Run) -> None:
        found = await self._ground.outcomes(run.times.injected)
        harmed = [failure.at for failure in found.failures if failure.at >= run.times.injected]
        if harmed:
            run.times = replace(run.times, first_failure=min(harmed))
            run.note(min(harmed), "first failure", f"{len(harmed)} requests have failed so far")

    async def _heal(self, run: _Run) -> None:
        if run.fault.name == "saturation":
            await self._ground.end_overload(run.service)
        else:
            await self._ground.clear(run.service)

    async def _put_back(self, run: _Run) -> str | None:
        """Weights and replicas as they were; what to do by hand when a gate did not open."""
        run.note(self._clock(), "healed", "the fault was taken away")
        state = await self._runtime.state()
        plan = restore_plan(run.service, run.replicas, run.weights, state, run.demand, self._plan_policy)
        if not plan.steps:
            return None
        saga_id = await self._sagas.begin(
            plan, by=run.by, reason=f"{REASON} {run.fault.name} is over", automatic=False, drill=True
        )
        progress = progress_of(await self._sagas.wait(saga_id))
        run.note(self._clock(), "put back", progress.outcome)
        if progress.state is SagaState.DONE:
            return None
        where = "the monolith" if (await self._runtime.state()).weights[run.service].monolith else "its own replicas"
        return f"{run.service} stays on {where}. To go on: .venv/bin/backstay cutover {run.service} --to 100"

    async def _conclude(self, run: _Run, next_step: str | None) -> None:
        found = await self._ground.outcomes(run.times.injected)
        seen: Sequence[str] | set[str] = ()
        if run.fault.name == "crash":
            cluster = f"{run.service}.{Backend.SERVICE.value}"
            seen = set(await asyncio.to_thread(self._ground.requests_seen_at, cluster, run.times.injected))
        if not found.complete:
            run.problems.append("More requests failed than are kept, so not all could be counted.")
        failures: list[FailedRequest] = [f for f in found.failures if f.at >= run.times.injected]
        run.result = drill_result(
            run.fault,
            run.service,
            run.times,
            run.action,
            found.sent,
            blame(failures, run.fault, frozenset(seen)),
            run.problems,
            next_step,
        )

    async def _quietly(self, work: Any, what: str) -> None:
        try:
            await work
        except BackstayError as error:
            log.warning("could not %s: %s", what, error)
