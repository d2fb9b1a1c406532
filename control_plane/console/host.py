"""What the console asks of the running control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from control_plane.ports import Login as Login
from control_plane.situation import Moment, Situation


class Accounts(Protocol):
    """Who may sign in. Hashing happens off the event loop; unknown names and wrong passwords answer alike."""

    async def sign_in(self, username: str, password: str) -> str | None:
        """Token of a new session; None when name or password is wrong."""
        ...

    async def login_of(self, token: str) -> Login | None:
        """The session behind a token; None when it is unknown, ended or expired."""
        ...

    async def sign_out(self, token: str) -> None: ...

    async def new_password(self, username: str) -> str:
        """Sets a random password, ends the user's sessions and returns the password: the only time it is seen."""
        ...

    async def exists(self, username: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class GuardShown:
    name: str
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class DecisionShown:
    """A stored decision as people and programs read it."""

    id: str
    at: datetime
    service: str
    action: str
    target: str
    reason: str
    sentence: str
    state: str
    guards: tuple[GuardShown, ...]
    evidence: Mapping[str, Any]


class Commands(Protocol):
    """What people order by hand. Each is audited before it takes effect; answers are JSON objects.

    Every method raises ActuationRefused when nothing was changed, and InvalidDefinition when the order makes no sense.
    """

    async def order(
        self, kind: str, target: str, amount: int | None, *, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]:
        """`kind` is rollback, scale or cutover. Answers `{plan, saga_id}`; saga_id is None on a dry run."""
        ...

    async def progress(self, saga_id: str) -> dict[str, Any] | None:
        """`{saga_id, state, steps: [{name, state, started_at, ended_at, detail}], outcome, ...}`; None when unknown.

        A step is waiting, running, done, failed or skipped; the whole is RUNNING, DONE, HELD or REVERTED.
        """
        ...

    async def freeze(self, *, reason: str, by: str) -> dict[str, Any]: ...

    async def thaw(self, *, reason: str, by: str) -> dict[str, Any]: ...

    async def record_change(
        self, service: str, version: str, *, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]: ...

    async def new_password(self, username: str, *, reason: str, by: str) -> dict[str, Any]:
        """`{username, password}`: the only time that the password is seen."""
        ...

    async def start_drill(
        self, name: str, service: str | None, *, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]:
        """Answers `{drill_id, ...}`; refused while another runs."""
        ...

    async def drill(self, drill_id: str) -> dict[str, Any] | None:
        """`{drill_id, finished, timeline: [...], result: {...} | None}`."""
        ...

    async def replay(self, decision_id: str) -> dict[str, Any] | None:
        """`{identical, stored, replayed}`; None when the decision is unknown."""
        ...


class ConsoleHost(Protocol):
    """The running control plane, as far as pages and the API may see it."""

    @property
    def environment(self) -> str: ...

    @property
    def accounts(self) -> Accounts: ...

    @property
    def commands(self) -> Commands: ...

    @property
    def local_token(self) -> str | None:
        """Bearer token of programs that may read the state folder; None where there is no local stack."""
        ...

    @property
    def secure_cookies(self) -> bool:
        """Whether people reach the console over TLS."""
        ...

    def situation(self) -> Situation | None:
        """The latest; None before the first tick."""
        ...

    def situations(self) -> AsyncIterator[Situation]:
        """The latest at once, then each new one."""
        ...

    async def moments(self, limit: int) -> Sequence[Moment]:
        """Timeline, newest first."""
        ...

    async def decisions(self, limit: int, service: str | None = None) -> Sequence[DecisionShown]:
        """Stored decisions, newest first."""
        ...

    async def decision(self, decision_id: str) -> DecisionShown | None: ...

    def runbook_names(self) -> Sequence[str]: ...

    def runbook(self, name: str) -> str | None:
        """The page as HTML that is safe to embed; None when there is no such runbook."""
        ...

    def metrics(self) -> bytes:
        """Backstay's own metrics in Prometheus' text format."""
        ...
