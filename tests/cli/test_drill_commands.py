"""`backstay drill`: the story while it happens, and a shape and an exit code that make it a test."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from control_plane.actions.drills import FAULTS, Blame, DrillTimes, drill_result
from control_plane.errors import ActuationRefused
from tests.cli.conftest import Backstay
from tests.console.console_builders import NOON, CommandsInMemory, HostInMemory

CHAT = "ai-gateway-service"


def a_result(*problems: str, next_step: str | None = None) -> dict[str, Any]:
    times = DrillTimes(NOON, *(NOON + timedelta(seconds=second) for second in range(1, 7)))
    action = ("roll_back", CHAT)
    return drill_result(FAULTS["errors"], CHAT, times, action, 1234, Blame((), ()), list(problems), next_step)


class Drilling(CommandsInMemory):
    """A drill that tells one thing at the first look, another at the second, and then its result."""

    def __init__(self, result: dict[str, Any]) -> None:
        super().__init__()
        self.started: list[tuple[str, str | None, str, bool]] = []
        told = [
            {"after_s": 0.0, "at": "", "event": "injected", "detail": "20 % [of it]"},
            {"after_s": 4.25, "at": "", "event": "detected", "detail": "40 of 200"},
        ]
        self._looks = [
            {"finished": False, "timeline": told[:1], "result": None},
            {"finished": True, "timeline": told, "result": result},
        ]

    async def start_drill(
        self, name: str, service: str | None, *, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]:
        self.started.append((name, service, reason, dry_run))
        if name == "gremlins":
            raise ActuationRefused("A drill runs already: errors on search-service. Wait until it has ended.")
        lines = ["1. break it", "2. watch"]
        return {"drill_id": None if dry_run else "d1", "service": service or CHAT, "limit_s": 240.0, "lines": lines}

    async def drill(self, drill_id: str) -> dict[str, Any] | None:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]


def test_a_drill_is_told_while_it_happens(backstay: Backstay, host: HostInMemory) -> None:
    host.commands = commands = Drilling(a_result())
    ran = backstay("drill", "errors", "--service", CHAT)
    assert ran.code == 0
    assert commands.started == [("errors", CHAT, "practice", False)]
    assert ran.out.splitlines() == [
        f"Drill errors on {CHAT}; it ends by itself in at most 240 s.",
        "    0.0 s  injected         20 % [of it]",
        "    4.2 s  detected         40 of 200",
        "",
        "PASSED  1234 requests sent, 0 failed by the fault, 0 lost to the shift",
    ]


def test_a_failed_drill_tells_its_problems_and_how_to_go_on(backstay: Backstay, host: HostInMemory) -> None:
    host.commands = Drilling(a_result("Lost after the move: message", next_step="To go on: cutover"))
    ran = backstay("drill", "errors")
    assert ran.code == 1
    assert ran.out.splitlines()[-3:] == [
        "FAILED  1234 requests sent, 0 failed by the fault, 0 lost to the shift",
        "  Lost after the move: message",
        "  To go on: cutover",
    ]


@pytest.mark.parametrize(("problems", "code"), [((), 0), (("It was not over after 235 s.",), 1)])
def test_programs_get_one_document_with_the_fields_that_they_rely_on(
    backstay: Backstay, host: HostInMemory, problems: tuple[str, ...], code: int
) -> None:
    host.commands = Drilling(a_result(*problems))
    ran = backstay("drill", "errors", "--format", "json")
    assert ran.code == code
    result = ran.json
    assert (result["drill"], result["service"]) == ("errors", CHAT)
    assert result["outcome"] == ("failed" if problems else "passed")
    assert result["action"] == {"kind": "roll_back", "target": CHAT}
    assert result["requests"] == {"sent": 1234, "failed_by_fault": 0, "lost_to_shift": 0}
    times = ("detected_after_s", "decided_after_s", "moved_after_s", "recovered_after_s")
    assert [result[name] for name in times] == [1.0, 2.0, 4.0, 5.0]


def test_a_drill_that_is_refused_did_not_start(backstay: Backstay, host: HostInMemory) -> None:
    host.commands = Drilling(a_result())
    ran = backstay("drill", "gremlins")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("backstay: A drill runs already: errors on search-service.")


def test_a_dry_run_tells_what_would_be_done(backstay: Backstay, host: HostInMemory) -> None:
    host.commands = commands = Drilling(a_result())
    ran = backstay("drill", "latency", "--dry-run", "--reason", "audit")
    assert (ran.code, ran.out) == (0, "1. break it\n2. watch\n")
    assert commands.started == [("latency", None, "audit", True)]
    assert backstay("drill", "latency", "--dry-run", "--format", "json").json["drill_id"] is None


def test_a_drill_that_the_control_plane_forgot_is_named(backstay: Backstay, host: HostInMemory) -> None:
    class Forgotten(Drilling):
        async def drill(self, drill_id: str) -> dict[str, Any] | None:
            return None

    host.commands = Forgotten(a_result())
    ran = backstay("drill", "errors")
    assert (ran.code, ran.err) == (2, "backstay: No drill has the id d1.\n")
