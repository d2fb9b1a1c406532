"""`backstay up`, `down`, `status`: the whole local stack."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from control_plane.cli.client import ControlPlaneClient
from control_plane.cli.output import DryRunOption, Format, FormatOption, print_json, print_table, stdout
from control_plane.errors import ActuationRefused, BackstayError, SourceUnavailable
from control_plane.local import __main__ as supervisor
from control_plane.local.layout import Layout
from control_plane.local.lock import supervisor_pid
from control_plane.local.progress import STACK, Progress, Stage
from control_plane.settings import Settings

POLL_SECONDS = 0.1
DOWN_SECONDS = 60.0
FIRST_TICK_SECONDS = 30.0
ADMIN = "admin"

DetachOption = Annotated[bool, typer.Option("--detach", help="Return when all is ready, and leave it running.")]
WithoutOption = Annotated[list[str] | None, typer.Option("--without", help="A part not to start, e.g. load.")]


def up(
    detach: DetachOption = False,
    without: WithoutOption = None,
    dry_run: DryRunOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Start the suite, gateway, Prometheus, Alertmanager, traces, control plane and demo traffic on this machine.

    Example: backstay up --detach
    """
    settings = Settings()
    layout = _layout(settings)
    left_out = [word for name in without or () for word in ("--without", name)]
    pid = _running(layout)
    if dry_run:
        what = f"It runs already (process {pid})." if pid is not None else f"Would start in {layout.state_dir}:"
        _say_where(layout, password=None, output=output, first=what)
        return
    if not detach:
        sys.exit(supervisor.main(left_out))
    if pid is not None:
        _say_where(layout, password=None, output=output, first=f"It runs already (process {pid}).")
        return
    _start_detached(layout, left_out, quiet=output is Format.JSON)
    if "control-plane" in (without or ()):
        _say_where(layout, password=None, output=output, first="Backstay is up, without its control plane.")
        return
    client = ControlPlaneClient(settings)
    _await_first_tick(client)
    password = client.post("/admin/password", {"username": ADMIN, "only_if_missing": True})["password"]
    _say_where(layout, password, output, first="Backstay is up.")


def down(dry_run: DryRunOption = False, output: FormatOption = Format.TEXT) -> None:
    """Stop the local stack; nothing of it is left running. What it knows is kept.

    Example: backstay down
    """
    layout = _layout(Settings())
    pid = _running(layout)
    if pid is not None and not dry_run:
        _stop(pid, layout)
    if output is Format.JSON:
        print_json({"dry_run": True, "running": pid} if dry_run else {"stopped": pid})
    elif pid is None:
        stdout.print("Nothing runs.")
    else:
        stdout.print(f"Would stop process {pid}." if dry_run else "Stopped; nothing is left running.")


def _stop(pid: int, layout: Layout) -> None:
    try:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(DOWN_SECONDS)
    except psutil.NoSuchProcess:
        return  # it ended by itself in between
    except psutil.AccessDenied as error:
        raise SourceUnavailable(f"The stack (process {pid}) belongs to another user: run this as that user.") from error
    except psutil.TimeoutExpired as error:
        raise SourceUnavailable(
            f"The stack (process {pid}) has not stopped within {DOWN_SECONDS:.0f} s; see {layout.logs_dir}."
        ) from error


def _running(layout: Layout) -> int | None:
    """Process id of the supervisor; None when none runs."""
    try:
        return supervisor_pid(layout)
    except PermissionError as error:
        raise SourceUnavailable(f"{layout.lock_file} belongs to another user: run this as that user.") from error


def status(output: FormatOption = Format.TEXT) -> None:
    """What runs, where traffic goes, and what Backstay sees. Exit 1 when nothing runs.

    Example: backstay status
    """
    settings = Settings()
    layout = _layout(settings)
    if _running(layout) is None:
        if output is Format.JSON:
            print_json({"running": False})
        else:
            stdout.print(f"No stack runs in {layout.state_dir}. Start it with `make up`.")
        raise typer.Exit(1)
    answer = ControlPlaneClient(settings).get("/status")
    if output is Format.JSON:
        print_json({"running": True, "urls": _urls(layout), **answer})
        return
    if not answer["ready"]:
        stdout.print("The control plane has not finished its first look yet.")
        return
    rows = [
        [
            name,
            f"{service['ready']}/{service['desired']}",
            f"{service['weights']['service']} %" if service["weights"] else "",
            f"{rate:.1f}" if (rate := service["requests_per_second"]) is not None else "",
        ]
        for name, service in (answer["services"] or {}).items()
    ]
    print_table(["deployment", "ready", "own traffic", "req/s"], rows, "The runtime does not answer.")
    for source in answer["sources"]:
        stdout.print(f"{'ok     ' if source['ok'] else 'TROUBLE'} {source['name']}: {source['detail']}")
    stdout.print("Automatic: " + (f"frozen, {answer['frozen']}" if answer["frozen"] else str(answer["automatic"])))


def _layout(settings: Settings) -> Layout:
    return Layout(settings.port_base, settings.state_dir.absolute())


def _urls(layout: Layout) -> dict[str, str]:
    return {
        "console": layout.url(layout.console_port),
        "gateway": layout.url(layout.gateway_port),
        "prometheus": layout.url(layout.prometheus_port),
        "alertmanager": layout.url(layout.alertmanager_port),
        "traces": layout.url(layout.traces_port),
    }


def _start_detached(layout: Layout, left_out: list[str], *, quiet: bool) -> None:
    """Starts the supervisor in a session of its own and follows its progress to the last word of the start."""
    layout.logs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    progress_file = layout.logs_dir / "start.jsonl"
    progress_file.unlink(missing_ok=True)
    log_file = layout.logs_dir / "stack.log"
    with log_file.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "control_plane.local", "--progress", str(progress_file), *left_out],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        for step in _steps(progress_file, child):
            if step.part == STACK and step.stage is Stage.FAILED:
                child.wait(DOWN_SECONDS)
                raise ActuationRefused(step.detail)
            if step.stage is Stage.READY and not quiet:
                stdout.print(f"{step.after_seconds:6.1f} s  {step.part:<22} {step.detail}")
    except KeyboardInterrupt:
        child.terminate()
        child.wait(DOWN_SECONDS)
        raise
    if child.poll() is not None:
        raise SourceUnavailable(f"The stack ended while it started (exit code {child.returncode}); see {log_file}.")


def _steps(progress_file: Path, child: subprocess.Popen[bytes]) -> Iterator[Progress]:
    """Each step as it is written, up to the one that ends the start, or until the child is gone."""
    seen = 0
    while True:
        gone = child.poll() is not None
        lines = progress_file.read_text().splitlines(keepends=True) if progress_file.exists() else []
        for line in lines[seen:]:
            if not line.endswith("\n"):
                break
            seen += 1
            step = Progress.from_line(line)
            yield step
            if step.ends_start:
                return
        if gone:
            return
        time.sleep(POLL_SECONDS)


def _await_first_tick(client: ControlPlaneClient) -> None:
    deadline = time.monotonic() + FIRST_TICK_SECONDS
    while True:
        try:
            if client.get("/status")["ready"]:
                return
        except BackstayError:
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise SourceUnavailable("The control plane is up but has finished no tick; see its log control-plane.log.")
        time.sleep(POLL_SECONDS)


def _say_where(layout: Layout, password: str | None, output: Format, first: str) -> None:
    urls = _urls(layout)
    if output is Format.JSON:
        answer: dict[str, Any] = {"urls": urls, "username": ADMIN, "password": password}
        print_json(answer)
        return
    stdout.print()
    stdout.print(first)
    for name, url in urls.items():
        stdout.print(f"  {name:<13} {url}")
    if password is not None:
        stdout.print(
            f"  sign in as    {ADMIN}  {password}    (shown once; `backstay admin reset-password` makes a new one)"
        )
    stdout.print()
    stdout.print("Try this next:  .venv/bin/backstay drill errors --service ai-gateway-service")
