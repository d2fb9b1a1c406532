"""Where the programs of the stack are found, and how a machine without them gets them."""

from __future__ import annotations

import re
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from control_plane.errors import ToolMissing
from control_plane.local.tools import TOOLS, Shelf, install_hint

FOUR = ("prometheus", "promtool", "alertmanager", "amtool")

# An apt-get that hands out two packages; without package lists it first wants an update, as the real one does.
APT_GET = """
case "$*" in
*" update"*) touch {folder}/updated ;;
*" download "*)
    [ -e {folder}/lists ] || [ -e {folder}/updated ] || {{ echo "E: Unable to locate package" >&2; exit 100; }}
    touch prometheus_2.42.0_amd64.deb prometheus-alertmanager_0.25.0_amd64.deb ;;
esac
"""
DPKG_DEB = """
case "$2" in
*prometheus_2*) names="prometheus promtool" ;;
*) names="prometheus-alertmanager amtool" ;;
esac
/bin/mkdir -p "$3/usr/bin"
for name in $names; do
    printf '#!/bin/sh\\necho "%s, version 2.42.0+ds (branch: debian)"\\n' "$name" > "$3/usr/bin/$name"
    /bin/chmod 755 "$3/usr/bin/$name"
done
"""


class Machine:
    """A PATH and a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.cache = folder / "cache"
        self.shelf = Shelf(path=str(self.programs), cache=self.cache)

    def has(self, programs: Mapping[str, str], folder: Path | None = None) -> None:
        """Puts shell scripts on PATH, or into another folder."""
        folder = folder or self.programs
        folder.mkdir(parents=True, exist_ok=True)
        for name, script in programs.items():
            (folder / name).write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
            (folder / name).chmod(0o755)

    def has_apt(self) -> None:
        self.has({"apt-get": APT_GET.format(folder=self.folder), "dpkg-deb": DPKG_DEB})


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def a_version(version: str) -> str:
    return f'echo "prometheus, version {version} (branch: HEAD)"'


def test_a_program_on_path_is_preferred_to_an_unpacked_one(machine: Machine) -> None:
    machine.has({"prometheus": ""})
    machine.has({"prometheus": ""}, machine.cache / "prometheus" / "usr" / "bin")
    assert machine.shelf.find("prometheus") == machine.programs / "prometheus"


def test_alertmanager_is_found_under_the_name_that_debian_gives_it(machine: Machine) -> None:
    machine.has({"prometheus-alertmanager": ""})
    assert machine.shelf.find("alertmanager") == machine.programs / "prometheus-alertmanager"


def test_an_unpacked_program_is_found_where_path_has_none(machine: Machine) -> None:
    unpacked = machine.cache / "prometheus-alertmanager" / "usr" / "bin"
    machine.has({"prometheus-alertmanager": "", "amtool": ""}, unpacked)
    assert machine.shelf.find("alertmanager") == unpacked / "prometheus-alertmanager"
    assert machine.shelf.find("amtool") == unpacked / "amtool"


def test_a_missing_program_is_said_in_one_line_with_the_next_step(machine: Machine) -> None:
    with pytest.raises(ToolMissing, match=r"^promtool is not on this machine: .+$"):
        machine.shelf.find("promtool")


def test_a_missing_program_that_set_up_can_fetch_says_so(machine: Machine) -> None:
    machine.has_apt()
    with pytest.raises(ToolMissing, match="run `make setup`"):
        machine.shelf.find("prometheus")


def test_envoy_comes_from_the_virtual_environment_and_runs(machine: Machine) -> None:
    found = machine.shelf.find("envoy")
    assert found.stat().st_mode & stat.S_IXUSR


def test_fetching_unpacks_every_missing_program_and_leaves_nothing_else(machine: Machine) -> None:
    machine.has_apt()
    (machine.folder / "lists").touch()
    machine.shelf.fetch()
    for name in FOUR:
        assert machine.shelf.find(name).is_relative_to(machine.cache)
    assert sorted(entry.name for entry in machine.cache.iterdir()) == ["prometheus", "prometheus-alertmanager"]
    assert not (machine.folder / "updated").exists(), "lists that serve are not read anew"


def test_fetching_reads_private_package_lists_where_the_machine_has_none(machine: Machine) -> None:
    machine.has_apt()
    machine.shelf.fetch()
    assert (machine.folder / "updated").exists()
    assert machine.shelf.versions_of(*FOUR)["prometheus"][1] == "2.42.0"


def test_fetching_where_all_is_on_path_asks_nobody(machine: Machine) -> None:
    machine.has(dict.fromkeys(FOUR, ""))
    machine.shelf.fetch()
    assert not machine.cache.exists()


def test_fetching_without_a_package_manager_says_what_to_install(machine: Machine) -> None:
    with pytest.raises(ToolMissing, match=r"prometheus and prometheus-alertmanager: not on PATH\. .*make setup"):
        machine.shelf.fetch()


def test_a_failed_download_says_why_and_leaves_no_half_package(machine: Machine) -> None:
    machine.has({"apt-get": 'echo "E: Could not resolve the mirror" >&2; exit 100', "dpkg-deb": DPKG_DEB})
    with pytest.raises(ToolMissing, match="Could not resolve the mirror"):
        machine.shelf.fetch()
    assert list(machine.cache.iterdir()) == []


def test_a_package_that_cannot_be_unpacked_leaves_no_half_package(machine: Machine) -> None:
    machine.has_apt()
    machine.has({"dpkg-deb": DPKG_DEB + '\necho "dpkg-deb: error: no space left on device" >&2; exit 2'})
    with pytest.raises(ToolMissing, match="no space left on device"):
        machine.shelf.fetch()
    assert list(machine.cache.iterdir()) == []


def test_a_program_that_is_too_old_is_named_with_its_version(machine: Machine) -> None:
    machine.has({"prometheus": a_version("2.31.2")})
    with pytest.raises(ToolMissing, match=r"prometheus is 2\.31\.2, and 2\.42 or newer is needed"):
        machine.shelf.versions_of("prometheus")


def test_versions_compare_as_numbers(machine: Machine) -> None:
    machine.has({"prometheus": a_version("2.100.0")})
    assert machine.shelf.versions_of("prometheus")["prometheus"][1] == "2.100.0"


def test_a_program_that_does_not_run_is_said_to(machine: Machine) -> None:
    machine.has({"promtool": "exit 127"})
    with pytest.raises(ToolMissing, match="does not run as promtool"):
        machine.shelf.versions_of("promtool")


def test_unpacked_programs_that_no_longer_run_are_fetched_anew(machine: Machine) -> None:
    machine.has_apt()
    machine.shelf.fetch()
    (machine.cache / "prometheus" / "usr" / "bin" / "promtool").write_text("#!/bin/sh\nexit 127\n")
    machine.shelf.discard_broken()
    machine.shelf.fetch()
    assert machine.shelf.versions_of("promtool")["promtool"][1] == "2.42.0"


def test_broken_programs_on_path_are_left_alone(machine: Machine) -> None:
    machine.has({"promtool": "exit 127"})
    machine.shelf.discard_broken()
    assert (machine.programs / "promtool").exists()


@pytest.mark.parametrize("platform", ["linux", "darwin", "freebsd"])
def test_every_platform_gets_one_sentence_that_ends_in_the_next_command(platform: str) -> None:
    hint = install_hint(platform)
    assert "\n" not in hint
    assert hint.endswith("`make setup` again.")


@pytest.mark.stack
@pytest.mark.parametrize("name", sorted(TOOLS))
def test_the_programs_of_this_machine_are_new_enough(name: str) -> None:
    found, version = Shelf().versions_of(name)[name]
    assert shutil.which(found) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
