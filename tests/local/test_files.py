"""Files that others read while they change: written, rotated, locked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.local.files import write_atomically
from control_plane.local.layout import Layout
from control_plane.local.lock import only_supervisor, supervisor_pid
from control_plane.local.log_files import last_words, rotate_by_copy, rotate_by_name
from control_plane.local.stack import make_folders, token_of, writing_to


def a_layout(folder: Path) -> Layout:
    layout = Layout(7000, folder / "state")
    make_folders(layout)
    return layout


def test_a_file_is_replaced_whole_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    write_atomically(path, "old")
    with path.open() as reader:
        write_atomically(path, "new", durable=True)
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["routes.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        write_atomically(tmp_path / "taken", "text")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]


def test_a_long_log_is_moved_aside_and_its_writer_goes_on_at_the_start(tmp_path: Path) -> None:
    log = tmp_path / "envoy.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        assert not rotate_by_copy(log, limit_bytes=100)
        writer.write(b"y")
        assert rotate_by_copy(log, limit_bytes=100)
        writer.write(b"new")
    assert log.read_bytes() == b"new"
    assert (tmp_path / "envoy.log.1").stat().st_size == 101


def test_a_long_access_log_is_renamed_and_loses_nothing(tmp_path: Path) -> None:
    log = tmp_path / "access.json"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 101)
        assert rotate_by_name(log, limit_bytes=100)
        writer.write(b"late")
    assert not log.exists()
    assert (tmp_path / "access.json.1").read_bytes().endswith(b"late")
    assert not rotate_by_name(log, limit_bytes=100)


def test_last_words_are_those_of_this_run_that_tell_of_trouble(tmp_path: Path) -> None:
    log = tmp_path / "prometheus.log"
    log.write_text("error of yesterday\n")
    before = log.stat().st_size
    with log.open("a") as writer:
        writer.write("starting\npanic: no room\ngoroutine 1\nmain.main()\n")
    assert last_words(log, before).startswith("panic: no room (log: ")
    assert last_words(tmp_path / "none.log", 0).startswith("none (log: ")


def test_one_supervisor_holds_the_folder_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    layout = a_layout(tmp_path)
    assert supervisor_pid(layout) is None
    with only_supervisor(layout):
        assert supervisor_pid(layout) == os.getpid()
        with pytest.raises(ActuationRefused, match=f"process {os.getpid()}"), only_supervisor(layout):
            pass
    assert supervisor_pid(layout) is None

    program = (
        "import os, pathlib, sys\n"
        "from control_plane.local.layout import Layout\n"
        "from control_plane.local.lock import only_supervisor\n"
        "with only_supervisor(Layout(7000, pathlib.Path(sys.argv[1]))):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run((sys.executable, "-c", program, str(layout.state_dir)), check=False)
    assert layout.lock_file.read_text()
    assert supervisor_pid(layout) is None
    with only_supervisor(layout):
        pass


def test_a_nearly_full_disk_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match=r"MiB are free where .* BACKSTAY_STATE_DIR"):
        make_folders(Layout(7000, tmp_path / "state"), needed_bytes=2**70)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(SourceUnavailable, match=r"cannot be written: Not a directory.*BACKSTAY_STATE_DIR"),
        writing_to(tmp_path / "file"),
    ):
        make_folders(Layout(7000, tmp_path / "file" / "state"))


def test_the_token_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    layout = a_layout(tmp_path)
    token = token_of(layout)
    assert len(token) >= 32
    assert token_of(layout) == token
    assert layout.token_file.stat().st_mode & 0o777 == 0o600
