"""Pages that must follow the code and the folders: the map of the house, the settings, the list of decisions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from control_plane.settings import Settings
from docs.settings import page
from services.settings import SuiteSettings

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = sorted(
    str(package.parent.relative_to(REPOSITORY))
    for top in ("control_plane", "services")
    for package in (REPOSITORY / top).glob("*/__init__.py")
)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_architecture_page_names_every_package(package: str) -> None:
    assert f"`{package}`" in (REPOSITORY / "ARCHITECTURE.md").read_text()


def test_the_architecture_page_names_no_package_that_is_gone() -> None:
    named = re.findall(r"`((?:control_plane|services)/[a-z_]+)`", (REPOSITORY / "ARCHITECTURE.md").read_text())
    assert sorted(set(named)) == PACKAGES


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", *(f"docs/{p.name}" for p in (REPOSITORY / "docs").glob("*.md"))])
def test_every_module_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", (REPOSITORY / page).read_text())
    roots = (REPOSITORY, REPOSITORY / "control_plane")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_the_settings_page_is_what_the_settings_say() -> None:
    assert (REPOSITORY / "docs" / "settings.md").read_text() == page(), "run `make docs`"


@pytest.mark.parametrize("settings", [Settings, SuiteSettings])
def test_every_setting_has_a_description(settings: type[Settings] | type[SuiteSettings]) -> None:
    assert [name for name, field in settings.model_fields.items() if not field.description] == []


def test_the_list_of_decisions_has_every_page_and_its_title() -> None:
    folder = REPOSITORY / "docs" / "adr"
    listed = (folder / "README.md").read_text()
    pages = sorted(folder.glob("[0-9]*.md"))
    assert [file.name[:4] for file in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for file in pages:
        title = file.read_text().splitlines()[0].removeprefix(f"# {file.name[:4]} ")
        assert f"[{file.name[:4]}]({file.name}) | {title} |" in listed
        assert re.search(r"^Status: (accepted|replaced by \d{4}), \d{4}-\d\d-\d\d$", file.read_text(), re.MULTILINE)


def test_no_document_holds_a_placeholder() -> None:
    for file in (*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")):
        assert re.search(r"\b(TODO|TBD|FIXME|lorem ipsum|coming soon)\b", file.read_text(), re.IGNORECASE) is None, file
