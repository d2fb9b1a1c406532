"""What the documents tell a reader to type exists, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from control_plane.cli.main import app
from control_plane.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def typed(page: Path, pattern: str) -> set[str]:
    """What matches `pattern` in the code of a page: fenced lines, and words between backticks."""
    text = page.read_text()
    code = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)
    return {found for piece in code for found in re.findall(pattern, piece, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_make_command_of_a_page_is_in_the_makefile(page: Path) -> None:
    assert typed(page, r"(?:^|`|; )(?:[A-Z_]+=\S+ )*make ([a-z-]+)") <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_backstay_command_of_a_page_is_in_the_command_line(page: Path) -> None:
    for words in typed(page, r"(?:^|/|\s)backstay ((?:[a-z][a-z-]* ?)+)"):
        command = typer.main.get_command(app)
        for word in words.split():
            commands = getattr(command, "commands", {})
            if not commands:
                break  # what follows is an argument
            assert word in commands, f"`backstay {words}`"
            command = commands[word]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_of_a_page_leads_to_something_in_this_repository_or_on_the_web(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


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
