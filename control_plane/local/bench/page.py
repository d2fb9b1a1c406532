"""The page of measurements: one section a part, each with its own command, machine, date and commit. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TITLES: Mapping[str, str] = {
    "requests": "Requests a second of one core",
    "start": "Start",
    "stack": "The whole stack at demo traffic",
    "tick": "A tick's arithmetic",
    "drills": "Drills",
    "repeats": "The errors drill, run after run",
}
"""Title of each part, in the order of the page."""

HEAD = """# Benchmarks

`make bench` measures and writes this page: all of it, or a part with `python -m control_plane.local.bench --only tick`,
which leaves the other sections as they were; `--only drills --drills 10` repeats the errors drill instead. It starts
a stack of its own, on other ports and in a temporary folder. Each section names its machine, on which nothing was
tuned, and other programs ran where it says so.
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One number against the limit that it must keep."""

    what: str
    value: str  # with its unit
    limit: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under their headings."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What one part measured. With a `problem` it could not be measured, and the problem says why."""

    part: str
    checks: tuple[Check, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()  # one paragraph each
    problem: str | None = None

    @property
    def kept(self) -> bool:
        return self.problem is None and all(check.kept for check in self.checks)


def section(result: Result, made: str) -> str:
    """A part as Markdown. `made` is when, where and by which command it was measured, in one line."""
    blocks = [f"## {TITLES[result.part]}", made]
    if result.problem is not None:
        blocks.append(f"**Not measured:** {result.problem}")
    if result.checks:
        rows = [(c.what, c.value, c.limit, "yes" if c.kept else "**no**") for c in result.checks]
        blocks.append(_table(("what", "measured", "limit", "kept"), rows))
    blocks += [_table(table.headings, table.rows) for table in result.tables]
    blocks += result.notes
    return "\n\n".join(blocks) + "\n"


def page(sections: Mapping[str, str], before: str = "") -> str:
    """The whole page: the new sections by part, and those of the page `before` that were not measured again."""
    kept = {**_sections(before), **sections}
    return "\n".join([HEAD, *(kept[part] for part in TITLES if part in kept)])


def _sections(text: str) -> dict[str, str]:
    found = {}
    for block in re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]:
        title = block.splitlines()[0].removeprefix("## ").strip()
        for part, known in TITLES.items():
            if title == known:
                found[part] = block.rstrip("\n") + "\n"
    return found


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(headings) + " |", "| " + " | ".join("---" for _ in headings) + " |"]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
