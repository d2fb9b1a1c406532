"""Builders for console tests: a situation, and a host that serves it from memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.console.host import DecisionShown, GuardShown, Login
from control_plane.errors import ActuationRefused
from control_plane.situation import Moment, Situation, SourceHealth, Tone
from control_plane.slo.events import EventCounts
from control_plane.slo.state import Interval, Kind, SloState, Verdict
from control_plane.topology import MONOLITH, SERVICES, Backend, BackendTraffic, Deployment, RuntimeState, Weights

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
TOKEN = "token-of-the-state-folder"


def an_slo_state(service: str = "identity-service", kind: Kind = Kind.ERRORS, **changes: Any) -> SloState:
    state = SloState(
        name=f"{service}-{kind.value}",
        service=service,
        kind=kind,
        target="0.999",
        window=timedelta(days=30),
        verdict=Verdict.OK,
        reason="All burn rates are below their factors.",
        sli=Interval(0.9999, 0.9999, 0.9999),
        sli_without_exclusions=Interval(0.9999, 0.9999, 0.9999),
        budget_remaining_ratio=0.9,
        burn_rates={"5m": 0.1, "30m": 0.1, "1h": 0.4, "2h": 0.1, "6h": 0.1, "1d": 0.1, "3d": 0.1},
        alerts=(),
        coverage_ratio=1.0,
        measured_ratio=0.01,
        events=EventCounts(10_000, 1),
        time_to_exhaustion=None,
        first_seen=NOON - timedelta(hours=2),
        last_sample_at=NOON - timedelta(seconds=1),
        as_of=NOON,
        recent=None,
    )
    return replace(state, **changes)


def a_runtime(**weights: int) -> RuntimeState:
    """All services on themselves, but those named (underscores for dashes) at the given percent."""
    percents = {name.replace("_", "-"): percent for name, percent in weights.items()}
    return RuntimeState(
        at=NOON,
        deployments={name: Deployment(name, 2, 2, 0, 6, 16) for name in (*SERVICES, MONOLITH)},
        weights={s: Weights(percents.get(s, 100), 100 - percents.get(s, 100)) for s in SERVICES},
        traffic={s: {b: BackendTraffic(0, 0, 0) for b in Backend} for s in SERVICES},
    )


def a_situation(**changes: Any) -> Situation:
    """Calm: every service keeps every promise."""
    states = tuple(
        an_slo_state(s, k) for s in SERVICES for k in (Kind.AVAILABILITY, Kind.ERRORS, Kind.LATENCY, Kind.THROUGHPUT)
    )
    calm = Situation(
        at=NOON,
        states=states,
        runtime=a_runtime(),
        sources=(SourceHealth("Prometheus", True, "ok"),),
        request_rates=dict.fromkeys(SERVICES, 12.0),
        automatic=True,
        tick_took=timedelta(seconds=0.1),
        queries=4,
    )
    return replace(calm, **changes)


def with_state(situation: Situation, **changes: Any) -> Situation:
    """The same situation with the errors SLO of ai-gateway-service changed."""
    states = tuple(
        replace(s, **changes) if (s.service, s.kind) == ("ai-gateway-service", Kind.ERRORS) else s
        for s in situation.states
    )
    return replace(situation, states=states)


class AccountsInMemory:
    """One user, `ada` with the password `right`."""

    def __init__(self) -> None:
        self.sessions: dict[str, Login] = {}

    async def sign_in(self, username: str, password: str) -> str | None:
        if (username, password) != ("ada", "right"):
            return None
        token = f"session-{len(self.sessions)}"
        self.sessions[token] = Login("ada", "csrf-of-" + token)
        return token

    async def login_of(self, token: str) -> Login | None:
        return self.sessions.get(token)

    async def sign_out(self, token: str) -> None:
        self.sessions.pop(token, None)

    async def new_password(self, username: str) -> str:
        self.sessions.clear()
        return "new-password"

    async def exists(self, username: str) -> bool:
        return username == "ada"


class CommandsInMemory:
    """Remembers what was ordered."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, str, int | None, str, str, bool]] = []

    async def order(
        self, kind: str, target: str, amount: int | None, *, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]:
        if target == "billing-service":
            raise ActuationRefused("There is no billing-service.")
        self.orders.append((kind, target, amount, reason, by, dry_run))
        return {"plan": {"lines": ["1. scale the monolith"]}, "saga_id": None if dry_run else "s1"}

    async def progress(self, saga_id: str) -> dict[str, Any] | None:
        return {"saga_id": saga_id, "state": "DONE", "steps": [], "outcome": "done"} if saga_id == "s1" else None

    async def freeze(self, *, reason: str, by: str) -> dict[str, Any]:
        return {"frozen": reason}

    async def thaw(self, *, reason: str, by: str) -> dict[str, Any]:
        return {"frozen": None}

    async def record_change(self, service: str, version: str, *, reason: str, by: str, dry_run: bool) -> dict[str, Any]:
        return {"service": service, "version": version}

    async def new_password(self, username: str, *, reason: str, by: str) -> dict[str, Any]:
        return {"username": username, "password": "new-password"}

    async def start_drill(
        self, name: str, service: str | None, *, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]:
        return {"drill_id": "d1", "service": service, "limit_s": 240.0}

    async def drill(self, drill_id: str) -> dict[str, Any] | None:
        return None

    async def replay(self, decision_id: str) -> dict[str, Any] | None:
        return {"identical": True} if decision_id == "d" * 12 else None


class HostInMemory:
    """A control plane that always shows the same situation."""

    def __init__(self, situation: Situation | None, moments: Sequence[Moment] = ()) -> None:
        self._situation = situation
        self._moments = moments
        self.accounts = AccountsInMemory()
        self.commands = CommandsInMemory()
        self.environment = "local"
        self.local_token: str | None = TOKEN
        self.secure_cookies = False

    def situation(self) -> Situation | None:
        return self._situation

    async def situations(self) -> AsyncIterator[Situation]:
        if self._situation is not None:
            yield self._situation

    async def moments(self, limit: int) -> Sequence[Moment]:
        return self._moments[:limit]

    async def decisions(self, limit: int, service: str | None = None) -> Sequence[DecisionShown]:
        return [a_shown_decision()]

    async def decision(self, decision_id: str) -> DecisionShown | None:
        return a_shown_decision() if decision_id == "d" * 12 else None

    def runbook_names(self) -> Sequence[str]:
        return ["AiGatewayErrors"]

    def runbook(self, name: str) -> str | None:
        return "<h1>AiGatewayErrors</h1>" if name == "AiGatewayErrors" else None

    def metrics(self) -> bytes:
        return b"backstay_ticks_total 1.0\n"


def a_shown_decision() -> DecisionShown:
    return DecisionShown(
        id="d" * 12,
        at=NOON,
        service="ai-gateway-service",
        action="ROLL_BACK",
        target="ai-gateway-service",
        reason="ERRORS_WITHOUT_SATURATION",
        sentence="188 of 960 requests failed in 10 s.",
        state="done",
        guards=(GuardShown("fresh evidence", True, "3 s old"),),
        evidence={"label": "<script>alert(1)</script>"},
    )


def a_moment(**changes: Any) -> Moment:
    return replace(Moment(NOON, Tone.GOOD, "recovered", "0 bad of 2 304 requests since the move"), **changes)
