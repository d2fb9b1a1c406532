"""Makes `.venv` with everything Backstay and its checks need, at the pinned versions, and fetches the stack's programs.

Run by setup.sh with the machine's own Python, before anything is installed: standard library only. A second run costs a
tenth of a second; a run that was interrupted, or that a change of the pins made stale, is put right by the next one.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PINS = "requirements.txt"
PROGRESS = ("Downloading", "Prepared", "Installed", "Bytecode")  # lines of uv that are worth a reader's time


class Environment:
    """The project's virtual environment, and a stamp in it that says what it was made from."""

    def __init__(self, repository: Path, run: Callable[..., None] | None = None) -> None:
        self.repository = repository
        self._run = run or run_step
        self.folder = repository / ".venv"
        self.python = self.folder / "bin" / "python"
        self._stamp_file = self.folder / "backstay-setup.json"

    def wanted_stamp(self) -> dict[str, str]:
        """What a right environment was made from. Its path counts: its scripts hold it, so a moved one is broken."""
        return {
            "folder": str(self.folder),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "pins": _digest(self.repository / PINS),
            "project": _digest(self.repository / "pyproject.toml"),
        }

    def stamp(self) -> dict[str, str] | None:
        """What this environment was made from; None when it is missing or broken, or its set-up did not end."""
        if not self.python.exists():  # a link to a Python that an upgrade has removed
            return None
        try:
            found = json.loads(self._stamp_file.read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def is_current(self) -> bool:
        return self.stamp() == self.wanted_stamp()

    def make(self) -> None:
        """Brings the environment to its wanted state, from whatever state it is in."""
        made_from, wanted = self.stamp() or {}, self.wanted_stamp()
        changed = {key for key in wanted if made_from.get(key) != wanted[key]}
        self._stamp_file.unlink(missing_ok=True)  # from here on an interruption shows
        if changed & {"folder", "python"}:
            self._create()
        if changed & {"folder", "python", "pins"}:
            self._install_pins()
        self._install_project()
        self._stamp_file.write_text(json.dumps(wanted, indent=2) + "\n")

    def _create(self) -> None:
        if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
            fail(f"{sys.executable} has no venv module. {_venv_remedy()}")
        say(f"Creating .venv with Python {sys.version.split()[0]}")
        # Emptied first: of what an interrupted installation left behind, nothing can be trusted.
        self._run("Creating .venv", sys.executable, "-I", "-m", "venv", "--clear", str(self.folder))

    def _install_pins(self) -> None:
        pins = self.repository / PINS
        say(f"Installing the packages that {PINS} pins")
        with tempfile.TemporaryDirectory() as folder:
            only_uv = Path(folder) / PINS
            only_uv.write_text(_block_of("uv", pins.read_text()))
            pip = (str(self.python), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            self._run("Installing uv", *pip, "--require-hashes", "--no-deps", "-r", str(only_uv))
        # Bytecode is compiled now: uv does not do it by itself, and where PYTHONDONTWRITEBYTECODE is set Python never
        # does either, which costs every process of the stack seconds at each start.
        self._uv("sync", "--require-hashes", "--no-build", "--compile-bytecode", str(pins))

    def _install_project(self) -> None:
        self._uv("install", "--no-deps", "--no-build-isolation", "--editable", str(self.repository))

    def _uv(self, command: str, *arguments: str) -> None:
        uv = (str(self.folder / "bin" / "uv"), "pip", command, "--python", str(self.python))
        self._run("Installing the packages", *uv, *arguments, environment=self._uv_environment())

    def _uv_environment(self) -> dict[str, str]:
        """The environment for uv, with what the machine's pip is configured with: uv does not read pip's files."""
        environment = dict(os.environ)
        listed = subprocess.run(
            (str(self.python), "-I", "-m", "pip", "config", "list"), capture_output=True, text=True, check=False
        ).stdout
        for name, value in uv_settings(listed).items():
            environment.setdefault(name, value)
        environment.pop("VIRTUAL_ENV", None)  # of another project, whose shell this may be
        return environment


def uv_settings(pip_config_list: str) -> dict[str, str]:
    """uv's environment variables that mean what `pip config list` prints. Later lines win, as in pip."""
    same_meaning = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "trusted-host": "UV_INSECURE_HOST",
        "cert": "SSL_CERT_FILE",
        "proxy": "ALL_PROXY",
        "timeout": "UV_HTTP_TIMEOUT",
        "default-timeout": "UV_HTTP_TIMEOUT",
    }
    settings: dict[str, str] = {}
    for key, value in re.findall(r"^(?:global|install|:env:)\.([a-z-]+)='(.*)'$", pip_config_list, re.MULTILINE):
        if key in same_meaning:
            settings[same_meaning[key]] = " ".join(value.replace("\\n", " ").split())
    return settings


def _block_of(package: str, requirements: str) -> str:
    """The lines of a requirements file that pin one package, with its hashes."""
    found = re.search(rf"^{package}==.*(?:\n[ \t]+--hash=.*)+\n", requirements, re.MULTILINE)
    if found is None:
        fail(f"{PINS} does not pin {package}: run `make lock`")
    return found[0]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _venv_remedy() -> str:
    if shutil.which("apt-get"):
        # Debian's own Python has one package name for it, every other minor version another.
        own = Path("/usr/bin/python3").resolve() == Path(sys.executable).resolve()
        package = "python3-venv" if own else f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        return f"Run `sudo apt-get install {package}`, then the same command again."
    return "Install it with your package manager, or name another Python: PYTHON=/path/to/python3 make setup"


def run_step(doing: str, *command: str, environment: dict[str, str] | None = None) -> None:
    """Runs a step and passes on its progress; when it fails, shows its words, says the next step, and ends."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    said = []
    for line in process.stdout or ():
        said.append(line)
        if line.startswith(PROGRESS):
            say("  " + line.strip())
    if process.wait() != 0:
        words = "".join(said[-40:]).strip()
        print(words, file=sys.stderr)
        fail(f"{doing} failed: {next_step(words)}")


def next_step(said: str) -> str:
    """What to do about the words of a pip or uv that failed."""
    causes = (
        (r"(?i)no space left", "the disk is full: free about 2 GB, then run the same command again"),
        (
            r"(?i)certificate|SSL|TLS",
            "a certificate was not trusted: point SSL_CERT_FILE and PIP_CERT at your certificates",
        ),
        (
            r"(?i)failed to fetch|connect|resolve|dns|network|timed? ?out|no matching distribution",
            "the package index was not reached: check the network and proxy settings, then run the same command again",
        ),
        (r"(?i)hash", f"a downloaded package is not the one that {PINS} pins"),
        (r"(?i)permission denied", "a file belongs to another user: check who owns .venv"),
    )
    return next((then for pattern, then in causes if re.search(pattern, said)), "its own words are above")


def say(line: str) -> None:
    print(line, flush=True)


def fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def fetch_tools(environment: Environment) -> int:
    """Prometheus and Alertmanager. Asked at every run, because they live in a cache that anybody may empty."""
    tools = (str(environment.python), "-m", "control_plane.local.tools", "--quiet")
    return subprocess.run(tools, check=False, cwd=environment.repository).returncode


def main(arguments: list[str]) -> int:
    environment = Environment(REPOSITORY)
    if "--is-current" in arguments:
        return 0 if environment.is_current() and fetch_tools(environment) == 0 else 1
    with (REPOSITORY / PINS).open() as pins:
        fcntl.flock(pins, fcntl.LOCK_EX)  # a `make test` beside a `make up` waits here instead of mixing with it
        if not environment.is_current():
            started = time.monotonic()
            environment.make()
            say(f"Set up in {time.monotonic() - started:.0f} s")
        return fetch_tools(environment)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        fail("interrupted: the next `make setup` goes on from here")
