"""Runbook pages from their folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from control_plane.errors import InvalidDefinition
from control_plane.oncall.runbooks import Runbooks, SloAlert


def load_runbooks(folder: Path, alerts: Iterable[SloAlert]) -> Runbooks:
    """All `*.md` in `folder` but its README. Raises InvalidDefinition when there is no such folder."""
    if not folder.is_dir():
        raise InvalidDefinition(f"{folder} is no folder of runbooks: set BACKSTAY_RUNBOOKS_DIR")
    pages = sorted(path for path in folder.glob("*.md") if path.stem != "README")
    try:
        return Runbooks({path.stem: path.read_text(encoding="utf-8") for path in pages}, alerts)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDefinition(f"a runbook in {folder} cannot be read: {error}") from error
