"""Runs a drill: break one thing for a while, watch the engine mend it, put everything back, tell what was seen."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from control_plane.actions.capacity import Demand
from control_plane.actions.drills import (
    FAULT_LIMIT,
    FAULTS,
    Blame,
    DrillTimes,
    FailedRequest,
    Fault,
    blame,
    drill_result,
    fault_for,
)
from control_plane.actions.journal import SagaState, progress_of
from control_plane.actions.planning import ALL_SERVICES, restore_plan
from control_plane.actions.plans import PlanKind, PlanPolicy
from control_plane.actions.steps import MILESTONES
from control_plane.clock import Clock, Monotonic
from control_plane.decisions.evidence import Drill, Evidence, FastPath
from control_plane.decisions.policy import Decision
from control_plane.decisions.reasons import Action
from control_plane.errors import ActuationRefused, BackstayError, SourceUnavailable
from control_plane.ports import AuditLog, DrillGround, Exclusions, Runtime
from control_plane.runners.sagas import EventKind, Pause, SagaEvent, SagaRunner, pause_until
from control_plane.slo.state import Kind, Verdict
from control_plane.topology import MONOLITH, SERVICES, Backend, RuntimeState, Weights

log = logging.getLogger(__name__)

DEFAULT_SERVICE = "ai-gateway-service"
REASON = "drill"
SETTLE_SECONDS = 3.0
"""Requests that were in flight at the end get this long to tell how they fared."""
WATCH_SECONDS = FAULT_LIMIT.total_seconds() - 5.0
"""Longest time to watch: it ends before the fault ends by itself."""
HEAL_ATTEMPTS = 3
AFTERMATH_SECONDS = 90.0
"""Longest time after a drill in which what is still seen of its fault counts as the drill's."""
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
    began_at: datetime
    replicas: dict[str, int]
    weights: Weights
    demand: Mapping[str, Demand]  # before the drill: an overload of its own making is none
    times: DrillTimes = field(default_factory=DrillTimes)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    action: tuple[str, str] | None = None
    saga_ended: SagaState | None = None
    calm_ticks: int = 0
    problems: list[str] = field(default_factory=list)
    result: dict[str, Any] | None = None

    def note(self, at: datetime, event: str, detail: str) -> None:
        after = (at - (self.times.injected or self.began_at)).total_seconds()
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
        acts: Callable[[str, Action], bool],
        spent: Callable[[str, Action, Evidence], str | None],
        monotonic: Monotonic,
        pause: Pause = pause_until,
    ) -> None:
        """`callers` of a service are harmed with it; `seconds_each` is how long one of its requests holds a slot.

        `announce` tells the tick which drill runs; `acts` says whether Backstay may do that to a service by itself,
        and `spent` which cooldown or budget of real actions forbids it now (None: neither does).
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
        self._spent = spent
        self._monotonic = monotonic
        self._pause = pause
        self._runs: dict[str, _Run] = {}
        self._current: _Run | None = None
        self._task: asyncio.Task[None] | None = None

    # --- orders

    async def begin(self, name: str, service: str | None, *, reason: str, by: str, dry_run: bool) -> dict[str, Any]:
        """Starts a drill and returns its id; refused while another runs, or when it would prove nothing."""
        service = service or DEFAULT_SERVICE
        fault = fault_for(name, service)
        self._refuse_a_second()
        state = await self._runtime.state()
        self._refuse_unless_sound(fault, service, state)
        lines = [
            f"1. {fault.summary} ({service}, at most {FAULT_LIMIT.total_seconds():.0f} s)",
            f"2. watch until Backstay has decided to {fault.expected_action.replace('_', ' ')} {service}, and done it",
            "3. take the fault away, and see that nothing that was written is lost",
            f"4. put weights ({state.weights[service].service} % on the service) and replicas back, gate by gate",
        ]
        if dry_run:
            return {"drill_id": None, "service": service, "limit_s": FAULT_LIMIT.total_seconds(), "lines": lines}
        self._refuse_a_second()  # another may have begun while the runtime was asked
        run = _Run(
            id=uuid.uuid4().hex[:12],
            fault=fault,
            service=service,
            by=by,
            began_at=self._clock(),
            replicas={name: state.deployments[name].desired for name in (service, MONOLITH)},
            weights=state.weights[service],
            demand=dict(self._demand()),
        )
        self._current = run
        try:
            await self._audit.record(by, f"drill {name}", service, {"drill": run.id, "reason": reason})
        except BaseException:
            self._current = None
            raise
        self._runs[run.id] = run
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
        await asyncio.gather(
            *(self._quietly(self._ground.clear(name), f"clear faults of {name}") for name in SERVICES),
            *(
                self._quietly(self._ground.end_overload(name), f"end extra load on {name}")
                for name in FAULTS["saturation"].services
            ),
            self._quietly(self._end_exclusions(), "end exclusions of an earlier drill"),
        )

    async def _end_exclusions(self) -> None:
        now = self._clock()
        for each in await self._exclusions.overlapping(now - timedelta(days=1), now + timedelta(days=1)):
            if each.ended_at is None and each.reason.startswith(REASON):
                log.warning("%s was interrupted; %s may still be on the monolith", each.reason, each.service)
                await self._exclusions.end(each.id, now)

    async def close(self) -> None:
        """Ends a drill that runs, and waits until it has put away its fault."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _refuse_a_second(self) -> None:
        if self._current is not None:
            running = self._current
            raise ActuationRefused(
                f"A drill runs already: {running.fault.name} on {running.service}. Wait until it has ended."
            )

    def _refuse_unless_sound(self, fault: Fault, service: str, state: RuntimeState) -> None:
        """A drill on a system that is already hurt, or that will not act, proves nothing and may do harm."""
        if not self._acts(service, Action(fault.expected_action)):
            wanted = fault.expected_action.replace("_", " ")
            raise ActuationRefused(
                f"Backstay only observes here: its policy does not let it {wanted} {service} by itself, so a drill "
                "would harm users and prove nothing."
            )
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
        spent = self._spent(service, Action(fault.expected_action), evidence)
        if spent is not None:
            raise ActuationRefused(f"Backstay would hold still now ({spent}), so a drill would only harm users.")
        hurt = [s.service for s in evidence.services if s.breach_since is not None]
        if hurt:
            raise ActuationRefused(f"{', '.join(hurt)}: users are being hurt already. Mend that first.")
        mine = next(s for s in evidence.services if s.service == service)
        if mine.requests_per_second is None or mine.requests_per_second < 1:
            raise ActuationRefused(f"{service} gets no measured traffic, so nothing could be seen.")
        if any(slo.verdict is Verdict.UNKNOWN for slo in mine.slos if slo.kind is not Kind.THROUGHPUT):
            raise ActuationRefused(f"An SLO of {service} is unknown, so Backstay would not act. See `backstay status`.")

    # --- what is seen

    def saw_tick(self, evidence: Evidence, decisions: Sequence[Decision], now: datetime) -> None:
        """One tick has ended."""
        run = self._current
        if run is None or run.times.injected is None:
            return
        mine = next(s for s in evidence.services if s.service == run.service)
        fired = [test for test in mine.fast_paths if test.result.fired]
        acting = [d for d in decisions if d.executes and d.target in (run.service, ALL_SERVICES)]
        strays = [d for d in decisions if d.executes and d.target not in (run.service, MONOLITH, ALL_SERVICES)]
        if run.times.detected is None and (fired or acting):
            run.times = replace(run.times, detected=now)
            run.note(now, "detected", _said(fired[0]) if fired else acting[0].sentence)
        if run.times.decided is None and acting:
            decision = acting[0]
            run.action = (decision.action.value, decision.target)
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
        run, plan = self._current, event.saga.plan
        if run is None or not event.saga.drill or plan.target not in (run.service, ALL_SERVICES):
            return
        if plan.kind is PlanKind.RESTORE:
            return
        if event.kind is EventKind.STEP_DONE:
            happened = MILESTONES.get(event.step_kind, event.step_kind)
            run.note(event.at, happened, f"{event.name}: {event.detail}")
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
            if plan.kind is PlanKind.ROLLBACK or run.fault.expected_action == "scale":
                run.saga_ended = progress_of(event.saga).state
            run.note(event.at, "plan ended", event.detail)
        run.changed.set()

    # --- the drill

    async def _carry_out(self, run: _Run) -> None:
        exclusions: list[str] = []
        markers: list[str] = []
        next_step: str | None = None
        result: dict[str, Any] | None = None
        try:
            if await self._goes_well(run, self._prepare(run, markers, exclusions)):
                await self._goes_well(run, self._watch(run))
            if run.times.injected is not None:
                seen_with_fault = self._evidence()
                healed = await self._goes_well(run, self._heal_patiently(run))
                await self._goes_well(run, self._look_for_losses(run, markers[0]))
                next_step = await self._put_back(run) if healed else _wait_and_cut_over(run)
                await self._see_it_through(run, seen_with_fault)
                await self._pause(asyncio.Event(), SETTLE_SECONDS)
                result = await self._counted(run, next_step)
        except Exception as error:
            run.problems.append(f"Backstay itself failed: {error!r}")
            log.exception("drill %s failed", run.id)
        finally:
            if run.times.injected is not None:
                await self._quietly(self._heal(run), "take the fault away")
            now = self._clock()
            for exclusion in exclusions:
                await self._quietly(self._exclusions.end(exclusion, now), "end an exclusion")
            self._announce(None)
            self._current = None
            run.result = result or self._result(run, 0, Blame((), ()), next_step)

    async def _goes_well(self, run: _Run, part: Coroutine[Any, Any, None]) -> bool:
        """Carries out a part; what went wrong is a problem of the drill, and the parts that put things back follow."""
        try:
            await part
        except BackstayError as error:
            run.problems.append(str(error))
            log.warning("drill %s: %s", run.id, error)
            return False
        except Exception as error:
            run.problems.append(f"Backstay itself failed: {error!r}")
            log.exception("drill %s failed", run.id)
            return False
        return True

    async def _prepare(self, run: _Run, markers: list[str], exclusions: list[str]) -> None:
        markers.append(await self._ground.write_markers())
        now = self._clock()
        for harmed in sorted({run.service, *self._callers(run.service)}):
            reason = f"{REASON} {run.fault.name} on {run.service}"
            exclusions.append(await self._exclusions.begin(harmed, now, reason))
        self._announce(Drill(run.fault.name, run.service))
        await self._hurt(run)

    async def _hurt(self, run: _Run) -> None:
        if run.fault.name == "saturation":
            rate = await self._overload_rate(run)
            run.times = DrillTimes(self._clock())  # before the call: harm may come before its answer
            await self._injected(run, self._ground.overload(run.service, rate, FAULT_LIMIT))
            run.note(self._clock(), "injected", f"{rate:.1f} requests/s more than usual")
        else:
            run.times = DrillTimes(self._clock())
            await self._injected(run, self._ground.inject(run.fault, run.service, FAULT_LIMIT))
            run.note(self._clock(), "injected", run.fault.summary)

    async def _injected(self, run: _Run, injecting: Coroutine[Any, Any, None]) -> None:
        try:
            await injecting
        except ActuationRefused:
            run.times = DrillTimes()  # nothing was changed
            raise

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
        deadline = self._monotonic() + WATCH_SECONDS
        while not self._is_over(run):
            left = deadline - self._monotonic()
            if left <= 0:
                run.problems.append(f"It was not over after {WATCH_SECONDS:.0f} s.")
                break
            await self._pause(run.changed, left)
            run.changed.clear()
            await self._quietly(self._look_for_first_failure(run), "look for the first failure")
        if run.saga_ended not in (None, SagaState.DONE):
            run.problems.append(f"The plan ended {run.saga_ended.value}.")

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
        if run.times.first_failure is None and run.times.injected is not None:
            self._note_first_failure(run, (await self._ground.outcomes(run.times.injected)).failures)

    def _note_first_failure(self, run: _Run, failures: Sequence[FailedRequest]) -> None:
        """Slow answers are no failures, so a latency's times count from its injection."""
        injected, named = run.times.injected, run.fault.name
        if run.times.first_failure is not None or injected is None or named == "latency":
            return
        harmed = [each.at for each in failures if each.at >= injected and (named != "errors" or each.fault == named)]
        if harmed:
            run.times = replace(run.times, first_failure=min(harmed))
            run.note(min(harmed), "first failure", f"{len(harmed)} requests have failed so far")

    async def _heal(self, run: _Run) -> None:
        if run.fault.name == "saturation":
            await self._ground.end_overload(run.service)
        else:
            await self._ground.clear(run.service)

    async def _look_for_losses(self, run: _Run, markers: str) -> None:
        run.problems += [f"Lost after the move: {what}" for what in await self._ground.missing_markers(markers)]

    async def _heal_patiently(self, run: _Run) -> None:
        for attempt in range(1, HEAL_ATTEMPTS + 1):
            try:
                await self._heal(run)
            except BackstayError:
                if attempt == HEAL_ATTEMPTS:
                    raise
                await self._pause(asyncio.Event(), SETTLE_SECONDS)
            else:
                run.note(self._clock(), "healed", "the fault was taken away")
                return

    async def _put_back(self, run: _Run) -> str | None:
        """Weights and replicas as they were; what to do by hand when that could not be."""
        try:
            for saga in self._sagas.running():  # a plan that outlasted the drill's time ends first
                if run.service in (saga.plan.target, *saga.plan.services):
                    await self._sagas.wait(saga.id)
            state = await self._runtime.state()
            plan = restore_plan(run.service, run.replicas, run.weights, state, run.demand, self._plan_policy)
            if not plan.steps:
                return None
            reason = f"{REASON} {run.fault.name} is over"
            saga_id = await self._sagas.begin(plan, by=run.by, reason=reason, automatic=False, drill=True)
            progress = progress_of(await self._sagas.wait(saga_id))
            run.note(self._clock(), "put back", progress.outcome)
            if progress.state is SagaState.DONE:
                return None
            weights = (await self._runtime.state()).weights[run.service]
        except BackstayError as error:
            run.problems.append(f"It was not put back: {error}")
            return f"See `.venv/bin/backstay status`, then: .venv/bin/backstay cutover {run.service} --to 100"
        if weights == run.weights:
            before = run.replicas[run.service]
            return f"Its replicas were not put back. To go on: .venv/bin/backstay scale {run.service} {before}"
        where = "the monolith" if weights.monolith == 100 else f"the monolith with {weights.monolith} %"
        return f"{run.service} stays on {where}. To go on: .venv/bin/backstay cutover {run.service} --to 100"

    async def _see_it_through(self, run: _Run, before: Evidence | None) -> None:
        """Keeps the drill announced while its fault is still in what is measured: nothing real may be done about it.

        `before` is the last look with the fault; there has to be another.
        """
        deadline = self._monotonic() + AFTERMATH_SECONDS
        harmed = {run.service, *self._callers(run.service)}
        while (left := deadline - self._monotonic()) > 0:
            evidence = self._evidence()
            calm = evidence is None or all(s.breach_since is None for s in evidence.services if s.service in harmed)
            if calm and evidence is not before:
                return
            await self._pause(run.changed, left)
            run.changed.clear()

    async def _counted(self, run: _Run, next_step: str | None) -> dict[str, Any] | None:
        """The result, with every request since the injection; None when these cannot be counted."""
        injected = run.times.injected or run.began_at
        seen: Collection[str] = ()
        try:
            found = await self._ground.outcomes(injected)
            if run.fault.name == "crash":
                cluster = f"{run.service}.{Backend.SERVICE.value}"
                seen = frozenset(await asyncio.to_thread(self._ground.requests_seen_at, cluster, injected))
        except BackstayError as error:
            run.problems.append(f"Requests could not be counted: {error}")
            return None
        if not found.complete:
            run.problems.append("More requests failed than are kept, so not all could be counted.")
        failures = [each for each in found.failures if each.at >= injected]
        self._note_first_failure(run, failures)
        return self._result(run, found.sent, blame(failures, run.fault, seen), next_step)

    def _result(self, run: _Run, sent: int, blamed: Blame, next_step: str | None) -> dict[str, Any]:
        return drill_result(run.fault, run.service, run.times, run.action, sent, blamed, run.problems, next_step)

    async def _quietly(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """What has to be tried on every exit, whatever became of the rest."""
        try:
            await work
        except BackstayError as error:
            log.warning("could not %s: %s", what, error)
        except Exception:
            log.exception("could not %s", what)


def _wait_and_cut_over(run: _Run) -> str:
    minutes = FAULT_LIMIT.total_seconds() / 60
    return (
        f"The fault on {run.service} ends by itself {minutes:.0f} min after its injection. "
        f"Then: .venv/bin/backstay cutover {run.service} --to 100"
    )


def _said(test: FastPath) -> str:
    return test.result.sentence("failed" if test.kind is Kind.ERRORS else "were slow")
