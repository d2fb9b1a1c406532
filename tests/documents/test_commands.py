"""What the documents tell a reader to type exists, and what they point to is there."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from control_plane.cli.main import app
from control_plane.console import pages
from control_plane.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
PAGES += sorted((REPOSITORY / "runbooks").glob("*.md"))
PAGES += [REPOSITORY / folder / "README.md" for folder in ("alerts", "services")]
CONSOLE = {
    Settings(_env_file=None).console_at + path.rstrip("/")
    for path in re.findall(r'routes\.get\("([^"{]+)"\)', inspect.getsource(pages))
}
"""Addresses of the console's pages."""
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def code_of(page: Path) -> list[str]:
    """Lines of shell, and words between backticks. A runbook's expressions stand for one word."""
    text = re.sub(r"\{\{.*?\}\}", "SERVICE", page.read_text())
    fenced = re.findall(r"^ *```(?:sh|bash)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [line.strip() for block in fenced for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)


def typed(page: Path, pattern: str) -> set[str]:
    """What matches `pattern` in the code of a page."""
    return {found for piece in code_of(page) for found in re.findall(pattern, piece, re.MULTILINE)}


def backstay_commands(page: Path) -> Iterator[list[str]]:
    """Each use of `backstay` as its words, without what a shell would not hand to it."""
    for line in code_of(page):
        words = shlex.split(line, comments=True)
        for place, word in enumerate(words):
            if word == "backstay" or word.endswith("/bin/backstay"):
                following = words[place + 1 :]
                ends = [at for at, each in enumerate(following) if each in ("|", ">", "&&", ";", "...")]
                yield following[: min(ends, default=len(following))]


def wrong_about(words: list[str], command: Any) -> str | None:
    """Why the command line would refuse these words; None when it takes them."""
    left = list(words)
    while left and (below := getattr(command, "commands", {})):
        if left[0].startswith("--help"):
            return None
        if left[0] not in below:
            return f"there is no {left[0]!r}"
        command = below[left.pop(0)]
    options = {name: option for option in command.params for name in option.opts if name.startswith("-")}
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    given = 0
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            given += 1
        elif word not in (*options, "--help"):
            return f"{command.name} has no {word}"
        elif word != "--help" and not options[word].is_flag:
            if not left:
                return f"{word} lacks its value"
            left.pop(0)
    most = sum(each.nargs for each in arguments) if all(each.nargs > 0 for each in arguments) else given
    return f"{command.name} takes {most} words" if given > most else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_make_command_of_a_page_is_in_the_makefile(page: Path) -> None:
    assert typed(page, r"(?:^|`|; )(?:[A-Z_]+=\S+ )*make ([a-z-]+)") <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_backstay_command_of_a_page_is_in_the_command_line(page: Path) -> None:
    for words in backstay_commands(page):
        assert wrong_about(words, typer.main.get_command(app)) is None, f"backstay {shlex.join(words)}"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("decisions lst", "there is no 'lst'"),
        ("rollback search-service --reson x", "rollback has no --reson"),
        ("cutover search-service --to", "--to lacks its value"),
        ("freeze now", "freeze takes 0 words"),
        ("cutover search-service --to 100 --reason fixed", None),
    ],
)
def test_a_wrong_command_is_seen(words: str, why: str | None) -> None:
    assert wrong_about(words.split(), typer.main.get_command(app)) == why


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_of_a_page_leads_to_something_in_this_repository_or_on_the_web(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        from_console = target.startswith("/runbooks/") and page.parent.name == "runbooks"
        known = target.startswith("https://") or from_console or "{{" in target or target in CONSOLE
        assert known or (page.parent / target).exists(), target


def test_every_make_command_says_what_it_does() -> None:
    undocumented = re.findall(r"^([a-z-]+):(?!.*## )", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert undocumented == []


def test_the_readme_gives_the_addresses_that_the_settings_have() -> None:
    settings = Settings(_env_file=None)
    readme = (REPOSITORY / "README.md").read_text()
    for address in (
        settings.console_at,
        settings.gateway_at,
        settings.prometheus_at,
        settings.alertmanager_at,
        settings.jaeger_at,
    ):
        assert address in readme
