"""Programs whose package was only unpacked."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from control_plane.local.relocation import here, runnable

DATA = "/usr/share/thing/pages"


def a_package(folder: Path) -> Path:
    """An unpacked package with a program that has its data folder compiled in."""
    program = folder / "package" / "usr" / "bin" / "thing"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x00\x01" + DATA.encode() + b"/ui\xff" + DATA.encode())
    program.chmod(0o755)
    (folder / "package" / DATA.lstrip("/")).mkdir(parents=True)
    return program


def test_a_program_that_was_only_unpacked_finds_its_data_from_its_working_directory(tmp_path: Path) -> None:
    program = a_package(tmp_path)
    found = runnable(program, DATA, installed_root=tmp_path / "root")
    assert found.folder == tmp_path / "package" / "usr" / "share" / "thing" / "pages"
    content = found.program.read_bytes()
    assert len(content) == len(program.read_bytes())
    assert DATA.encode() not in content
    assert os.access(found.program, os.X_OK)
    assert DATA.encode() in program.read_bytes()  # what was signed is as it was


def test_an_installed_program_runs_as_it_is(tmp_path: Path) -> None:
    program = a_package(tmp_path)
    (tmp_path / "root" / DATA.lstrip("/")).mkdir(parents=True)
    found = runnable(program, DATA, installed_root=tmp_path / "root")
    assert (found.program, found.folder) == (program, None)


def test_a_program_from_elsewhere_runs_as_it_is(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "thing"
    program.parent.mkdir()
    program.write_bytes(b"no data folder")
    found = runnable(program, DATA, installed_root=tmp_path / "root")
    assert (found.program, found.folder) == (program, None)


def test_a_newer_program_is_relocated_anew(tmp_path: Path) -> None:
    program = a_package(tmp_path)
    first = runnable(program, DATA, installed_root=tmp_path / "root").program
    program.write_bytes(b"newer" + DATA.encode())
    os.utime(program, (2e9, 2e9))
    assert runnable(program, DATA, installed_root=tmp_path / "root").program.read_bytes().startswith(b"newer")
    assert first.exists()


@given(st.integers(2, 200))
def test_the_working_directory_can_be_spelt_at_any_length(length: int) -> None:
    spelt = here(length)
    assert len(spelt) == length
    assert os.path.normpath(spelt) == b"."
