"""A newcomer's first minute: which Python is taken, what set-up does, and what it says when it cannot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local import setup

LOCAL = Path(__file__).resolve().parents[2] / "deploy" / "local"
PINS = f"six==1.0.0 \\\n    --hash=sha256:{'1' * 64}\nuv==1.2.3 \\\n    --hash=sha256:{'0' * 64}\n    # via backstay\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "deploy" / "local").mkdir(parents=True)
    for script in ("setup.sh", "setup.py"):
        shutil.copy(LOCAL / script, folder / "deploy" / "local")
    (folder / "requirements.txt").write_text(PINS)
    (folder / "pyproject.toml").write_text('[project]\nname = "backstay"\n')
    return folder


# --- which Python ---

A_GOOD_PYTHON = f'case "$*" in *setup.py*) echo "set up with $0" ;; *) exec {sys.executable} "$@" ;; esac'
AN_OLD_PYTHON = "echo 3.9"
A_PYTHON_FROM_THE_FUTURE = "echo 3.15"
A_SHIM_OF_NO_VERSION = 'echo "command not found" >&2; exit 127'


@pytest.fixture
def set_up_with(checkout: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs setup.sh on a PATH that holds the given programs and nothing else."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "dirname").symlink_to(shutil.which("dirname") or "/usr/bin/dirname")

    def run(pythons: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
        for name, script in pythons.items():
            (programs / name).write_text(f"#!/bin/sh\n{script}\n")
            (programs / name).chmod(0o755)
        return subprocess.run(
            ["/bin/sh", "deploy/local/setup.sh"],
            cwd=checkout,
            env={"PATH": str(programs), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_set_up_passes_over_a_shim_that_does_not_run(
    set_up_with: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = set_up_with({"python3": A_SHIM_OF_NO_VERSION, "python3.12": A_GOOD_PYTHON})
    assert ended.returncode == 0
    assert "python3.12" in ended.stdout


def test_set_up_prefers_a_newer_python_to_one_that_is_too_old(
    set_up_with: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = set_up_with({"python3": AN_OLD_PYTHON, "python3.11": A_GOOD_PYTHON})
    assert "python3.11" in ended.stdout


def test_set_up_says_which_python_is_too_old(set_up_with: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ended = set_up_with({"python3": AN_OLD_PYTHON})
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "needs Python 3.11 to 3.14, but python3 is 3.9" in ended.stderr


def test_set_up_prefers_a_python_that_the_pins_know_to_a_newer_one(
    set_up_with: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = set_up_with({"python3": A_PYTHON_FROM_THE_FUTURE, "python3.13": A_GOOD_PYTHON})
    assert "python3.13" in ended.stdout


def test_set_up_without_any_python_says_what_to_install(
    set_up_with: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = set_up_with({})
    assert ended.returncode == 1
    assert "apt-get install python3 python3-venv" in ended.stderr


def test_set_up_takes_the_python_it_is_told(set_up_with: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    ended = set_up_with({"python3": A_GOOD_PYTHON, "mine": A_GOOD_PYTHON}, PYTHON="mine")
    assert "mine" in ended.stdout


def test_set_up_says_that_the_python_it_was_told_does_not_run(
    set_up_with: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = set_up_with({"python3": A_GOOD_PYTHON}, PYTHON="/nowhere/python3")
    assert ended.returncode == 1
    assert "PYTHON=/nowhere/python3 does not run" in ended.stderr


def test_set_up_names_the_missing_venv_module_and_its_fix(checkout: Path) -> None:
    without_it = "import runpy, sys; sys.modules['ensurepip'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    ended = subprocess.run(
        [sys.executable, "-I", "-c", without_it, str(checkout / "deploy" / "local" / "setup.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "has no venv module" in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (checkout / ".venv").exists()


# --- what it does ---


class Steps:
    """Writes down the steps instead of taking them, and leaves behind just enough of each."""

    def __init__(self, checkout: Path) -> None:
        self.taken: list[str] = []
        self.pinned_for_pip = ""
        self.fails_at: str | None = None
        self._checkout = checkout

    def __call__(self, doing: str, *command: str, environment: dict[str, str] | None = None) -> None:
        step = next(word for word in ("venv", "sync", "--editable", "pip") if word in command)
        if step == self.fails_at:
            raise KeyboardInterrupt
        self.taken.append(step)
        if step == "venv":
            assert "--clear" in command
            (self._checkout / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
            (self._checkout / ".venv" / "bin" / "python").unlink(missing_ok=True)
            (self._checkout / ".venv" / "bin" / "python").symlink_to("/bin/true")
        if step == "pip":
            self.pinned_for_pip = Path(command[-1]).read_text()
        if step in ("pip", "sync"):
            assert "--require-hashes" in command


EVERYTHING = ["venv", "pip", "sync", "--editable"]


def made(checkout: Path) -> Steps:
    steps = Steps(checkout)
    environment = setup.Environment(checkout, steps)
    if not environment.is_current():
        environment.make()
    assert environment.is_current()
    return steps


def test_the_first_set_up_takes_every_step_in_order(checkout: Path) -> None:
    assert made(checkout).taken == EVERYTHING


def test_only_uv_is_installed_by_pip_with_its_hashes(checkout: Path) -> None:
    assert made(checkout).pinned_for_pip == f"uv==1.2.3 \\\n    --hash=sha256:{'0' * 64}\n"


def test_a_second_set_up_takes_no_step(checkout: Path) -> None:
    made(checkout)
    assert made(checkout).taken == []


def test_changed_pins_are_installed_into_the_same_environment(checkout: Path) -> None:
    made(checkout)
    (checkout / "requirements.txt").write_text(PINS.replace("1.0.0", "1.0.1"))
    assert made(checkout).taken == ["pip", "sync", "--editable"]


def test_a_changed_project_file_installs_the_project_alone(checkout: Path) -> None:
    made(checkout)
    (checkout / "pyproject.toml").write_text('[project]\nname = "backstay"\nversion = "2"\n')
    assert made(checkout).taken == ["--editable"]


def test_a_checkout_that_was_moved_is_set_up_anew(checkout: Path) -> None:
    made(checkout)
    moved = checkout.rename(checkout.with_name("elsewhere"))
    assert made(moved).taken == EVERYTHING


def test_an_environment_whose_python_is_gone_is_set_up_anew(checkout: Path) -> None:
    made(checkout)
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert made(checkout).taken == EVERYTHING


@pytest.mark.parametrize("step", ["pip", "sync", "--editable"])
def test_an_interrupted_set_up_is_done_anew(checkout: Path, step: str) -> None:
    steps = Steps(checkout)
    steps.fails_at = step
    with pytest.raises(KeyboardInterrupt):
        setup.Environment(checkout, steps).make()
    assert made(checkout).taken == EVERYTHING


def test_an_interrupted_change_of_pins_is_done_anew(checkout: Path) -> None:
    made(checkout)
    (checkout / "requirements.txt").write_text(PINS.replace("1.0.0", "1.0.1"))
    steps = Steps(checkout)
    steps.fails_at = "sync"
    with pytest.raises(KeyboardInterrupt):
        setup.Environment(checkout, steps).make()
    assert made(checkout).taken == EVERYTHING


# --- what it passes on, and what it says ---


def test_uv_gets_the_index_and_certificates_that_pip_is_configured_with() -> None:
    listed = (
        "global.cert='/etc/ca.pem'\n"
        "global.index-url='https://index.example/simple'\n"
        ":env:.extra-index-url='https://a.example https://b.example'\n"
        ":env:.find-links='/opt/wheels'\n"
        "global.timeout='60'\n"
    )
    assert setup.uv_settings(listed) == {
        "SSL_CERT_FILE": "/etc/ca.pem",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "UV_INDEX": "https://a.example https://b.example",
        "UV_HTTP_TIMEOUT": "60",
    }


@pytest.mark.parametrize(
    ("said", "step"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("error: Failed to fetch: `https://index.example/six/`\n  Caused by: dns error", "network and proxy settings"),
        ("ERROR: Could not find a version (from versions: none)\nNo matching distribution found", "network and proxy"),
        ("invalid peer certificate: UnknownIssuer", "SSL_CERT_FILE"),
        ("error: Hash mismatch for `six==1.0.0`", "not the one that requirements.txt pins"),
        ("error: Permission denied (os error 13)", "who owns .venv"),
        ("something nobody foresaw", "its own words are above"),
    ],
)
def test_a_failed_step_is_followed_by_what_to_do(said: str, step: str) -> None:
    assert step in setup.next_step(said)


# --- the pins themselves ---

REPOSITORY = LOCAL.parents[1]


def test_every_pin_has_a_hash_and_no_index_address_is_kept() -> None:
    pins = (REPOSITORY / "requirements.txt").read_text()
    assert "://" not in pins
    assert "--index-url" not in pins
    for block in pins.split("\n\n")[0].replace(" \\\n    --hash", " --hash").splitlines():
        if not block.lstrip().startswith("#"):
            assert "--hash=sha256:" in block, block


def test_set_up_pins_the_installer_it_uses() -> None:
    assert setup._block_of("uv", (REPOSITORY / "requirements.txt").read_text()).startswith("uv==")
