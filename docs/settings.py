"""Writes docs/settings.md from the settings themselves: `make docs`."""

from __future__ import annotations

from pathlib import Path

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from control_plane.settings import REPOSITORY, Settings
from services.settings import SuiteSettings

HEAD = """# Settings

Every setting is an environment variable with a default; a wrong value is refused at start, with its name.
Without any of them `make up` runs as the README says. `make docs` writes this page.
"""
SECTIONS: tuple[tuple[str, str, type[BaseSettings]], ...] = (
    ("Backstay", "Read by the control plane, by the stack of `backstay up` and by the commands.", Settings),
    ("The suite", "Read by each replica. Under `backstay up` the stack sets them; elsewhere you do.", SuiteSettings),
)
BOUNDS = ((Ge, "at least", "ge"), (Gt, "above", "gt"), (Le, "at most", "le"), (Lt, "below", "lt"))


def page() -> str:
    """The whole page, in Markdown."""
    parts = [HEAD]
    for title, who_reads, settings in SECTIONS:
        prefix = settings.model_config["env_prefix"]
        rows = [_row(prefix + name.upper(), field) for name, field in settings.model_fields.items()]
        parts.append(f"## {title}\n\n{who_reads}\n\n| variable | default | what it is |\n| --- | --- | --- |\n")
        parts[-1] += "".join(f"{row}\n" for row in rows)
    return "\n".join(parts)


def _row(variable: str, field: FieldInfo) -> str:
    meaning = " ".join((field.description or "").split())
    bounds = [
        f"{words} {getattr(bound, attribute):g}"
        for kind, words, attribute in BOUNDS
        for bound in field.metadata
        if isinstance(bound, kind)
    ]
    allowed = f" ({' and '.join(bounds)})" if bounds else ""
    return f"| `{variable}` | {_shown(field.default)} | {meaning.replace('|', chr(92) + '|')}{allowed} |"


def _shown(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, Path) and default.is_relative_to(REPOSITORY):
        return f"`{default.relative_to(REPOSITORY)}` in this folder"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    print(page(), end="")
