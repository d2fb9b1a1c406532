"""`backstay runbooks`: are the pages that alerts lead to fit to be read at night?"""

from __future__ import annotations

import typer

from control_plane.adapters.runbook_files import load_runbooks
from control_plane.adapters.slo_files import read_texts
from control_plane.cli.output import Format, FormatOption, print_json, stdout
from control_plane.oncall.runbooks import slo_alert
from control_plane.settings import Settings
from control_plane.slo import loading

runbooks = typer.Typer(no_args_is_help=True, help="Runbooks: one page an alert.")


@runbooks.callback()
def _group() -> None:
    """Keeps `runbooks check` two words while it is the only command."""


@runbooks.command()
def check(output: FormatOption = Format.TEXT) -> None:
    """Every alert has its page, every page its four sections, no value is unquoted. Exit 1 on findings.

    Example: backstay runbooks check
    """
    settings = Settings()
    slos = loading.load(read_texts([settings.slos_dir])).slos
    alerts = [slo_alert(slo.name, slo.service, slo.kind, slo.description) for slo in slos]
    pages = load_runbooks(settings.runbooks_dir, [alert for alert in alerts if alert is not None])
    findings = pages.lint()
    if output is Format.JSON:
        print_json({"findings": [{"page": f.page, "code": f.code, "message": f.message} for f in findings]})
    else:
        for finding in findings:
            stdout.print(str(finding))
        if not findings:
            stdout.print(f"{len(pages.names())} pages, no findings.")
    raise typer.Exit(1 if findings else 0)
