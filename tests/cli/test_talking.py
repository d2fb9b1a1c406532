"""How commands speak to the control plane, and what they say when that does not work: one line, the next step, 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

from control_plane.cli.client import ControlPlaneClient
from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable
from control_plane.settings import Settings
from tests.cli.conftest import Backstay, Switchboard
from tests.console.console_builders import HostInMemory

SEARCH = "search-service"


def answering(status: int, body: Any) -> FastAPI:
    """A control plane that answers everything alike."""
    app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    async def everything(path: str) -> Any:
        return JSONResponse(body, status) if not isinstance(body, str) else HTMLResponse(body, status)

    return app


def test_without_a_stack_a_command_says_how_to_start_one(backstay: Backstay, state_dir: Path) -> None:
    (state_dir / "run" / "token").unlink()
    ran = backstay("slo", "status")
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.count("\n") == 1
    assert ran.err.startswith(f"backstay: No stack has run in {state_dir}. Start it with `make up`")


def test_a_control_plane_that_is_not_there_is_named_with_its_address(
    backstay: Backstay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKSTAY_PORT_BASE", "1024")  # nobody listens on 1034
    ran = backstay("slo", "status")
    assert ran.code == 2
    assert "does not answer at http://127.0.0.1:1034. Start it with" in ran.err


def test_a_token_that_cannot_be_read_is_explained(backstay: Backstay, state_dir: Path) -> None:
    (state_dir / "run" / "token").unlink()
    (state_dir / "run" / "token").mkdir()
    ran = backstay("slo", "status")
    assert (ran.code, "cannot be read" in ran.err) == (2, True)


def test_another_stack_on_the_port_is_suspected_when_the_token_does_not_fit(
    backstay: Backstay, state_dir: Path
) -> None:
    (state_dir / "run" / "token").write_text("of another stack")
    ran = backstay("slo", "status")
    assert ran.code == 2
    assert "BACKSTAY_STATE_DIR" in ran.err


@pytest.mark.parametrize("body", ["<html>It works!</html>", ["a", "list"]])
def test_something_else_on_the_port_is_not_taken_for_backstay(
    backstay: Backstay, board: Switchboard, body: Any
) -> None:
    board.app = answering(200, body)
    ran = backstay("slo", "status")
    assert (ran.code, "Something else than Backstay answers" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, InvalidDefinition), (422, InvalidDefinition), (409, ActuationRefused), (503, SourceUnavailable)],
)
def test_what_the_control_plane_says_keeps_its_meaning(
    backstay: Backstay, board: Switchboard, status: int, error: type[Exception]
) -> None:
    board.app = answering(status, {"detail": "Not now."})
    with pytest.raises(error, match="Not now"):
        ControlPlaneClient(Settings()).get("/slos")
    ran = backstay("slo", "status")
    assert (ran.code, ran.err.startswith("backstay: Not now.")) == (2, True)


def test_an_error_in_other_words_is_told_too(backstay: Backstay, board: Switchboard) -> None:
    board.app = answering(502, "<h1>Bad\n Gateway</h1>")
    ran = backstay("slo", "status")
    assert ran.err == "backstay: <h1>Bad Gateway</h1> (HTTP 502)\n"


def test_a_field_that_is_wrong_is_named(backstay: Backstay) -> None:
    ran = backstay("freeze", "--reason", "")
    assert ran.code == 2
    assert "reason: String should have at least 1 character" in ran.err


def test_a_wrong_setting_is_named_in_one_line(backstay: Backstay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSTAY_PORT_BASE", "eighty")
    ran = backstay("status")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("backstay: BACKSTAY_PORT_BASE is 'eighty': Input should be a valid integer")


@pytest.mark.parametrize("arguments", [("nonsense",), ("scale", SEARCH), ("scale", SEARCH, "-1"), ("cutover", SEARCH)])
def test_a_command_that_makes_no_sense_is_a_usage_error(backstay: Backstay, arguments: tuple[str, ...]) -> None:
    ran = backstay(*arguments)
    assert ran.code == 2
    assert "Usage: backstay" in ran.err


@pytest.mark.parametrize(
    ("name", "expected"), [("ada", "ada (command line)"), ("\u0219tefan", "?tefan (command line)")]
)
def test_who_ordered_it_is_told_whatever_letters_the_name_has(
    backstay: Backstay, host: HostInMemory, monkeypatch: pytest.MonkeyPatch, name: str, expected: str
) -> None:
    monkeypatch.setenv("LOGNAME", name)
    assert backstay("rollback", SEARCH, "--dry-run").code == 0
    assert host.commands.orders[0][4] == expected


def test_following_survives_a_control_plane_that_is_started_again(
    backstay: Backstay, board: Switchboard, host: HostInMemory
) -> None:
    console, refused = board.app, list[str]()

    async def restarting(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["path"].startswith("/api/v1/plans/") and not refused:
            refused.append(scope["path"])
            await answering(503, {"detail": "starting"})(scope, receive, send)
        else:
            await console(scope, receive, send)

    board.app = restarting
    ran = backstay("rollback", SEARCH)
    assert (ran.code, len(refused)) == (0, 1)
    assert "DONE" in ran.out


def test_following_is_given_up_after_a_while(backstay: Backstay, board: Switchboard) -> None:
    board.app = answering(503, {"detail": "starting"})
    with pytest.raises(SourceUnavailable, match="starting"):
        ControlPlaneClient(Settings(), patience_seconds=0).follow("/plans/s1")


def test_every_command_says_what_it_does_with_an_example(backstay: Backstay) -> None:
    for command in ("up", "down", "status", "rollback", "scale", "cutover", "freeze", "thaw", "drill"):
        ran = backstay(command, "--help")
        assert ran.code == 0
        assert f"Example: backstay {command}" in ran.out
        assert "--format" in ran.out


@pytest.mark.parametrize(
    "command",
    [
        ("rollback",),
        ("scale",),
        ("cutover",),
        ("freeze",),
        ("thaw",),
        ("drill",),
        ("deploys", "record"),
        ("admin", "reset-password"),
    ],
)
def test_every_command_that_changes_something_has_a_dry_run_and_a_reason(
    backstay: Backstay, command: tuple[str, ...]
) -> None:
    help_text = backstay(*command, "--help").out
    assert "--dry-run" in help_text
    assert "--reason" in help_text
