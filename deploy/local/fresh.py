"""Proves on a bare Debian what the README promises: set-up, `make up`, `make down`, `make test`, as root and as a user.

A minimal root file system is made with mmdebstrap, HEAD is cloned into it, and a newcomer's commands run there in
namespaces of their own: when this program ends, by whatever way, its processes and mounts end with it.
Network settings of this machine (proxies, certificates, package index, apt's options) are carried in while it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HOME_OF = {"root": "/root", "user": "/home/newcomer"}
LOGIN_OF = {"root": "root", "user": "newcomer"}
STEPS = ("setup", "up", "test")
NEWCOMER_INSTALLS = ("python3", "make", "git", "ca-certificates")  # and python3-venv, once set-up has asked for it
LONGEST_STEP_SECONDS = 2400  # `make test` promises half of that
CLONE = "git -c advice.detachedHead=false clone --quiet /srv/backstay backstay"
NETWORK_VARIABLES = (
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"),
    *("PIP_CERT", "PIP_PROXY", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT"),
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT"),
)
NETWORK_OPTIONS_OF_APT = ("Acquire::http", "Acquire::https", "Acquire::Check-Date", "Acquire::Check-Valid-Until")


class Failed(Exception):
    """What the README promises did not happen."""


@dataclass(frozen=True)
class BareMachine:
    """A running root file system. `namespace` is the process whose namespaces hold everything that runs in it."""

    root: Path
    namespace: int

    def run(self, who: str, command: str, *, expect_failure: bool = False) -> str:
        """Runs a shell command as root or as the user, shows what it says, and returns that."""
        home = HOME_OF[who]
        variables = {
            "HOME": home,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            **carried(),
        }
        # setpriv and not su: su opens a session and rewrites the environment
        drop = ["setpriv", f"--reuid={LOGIN_OF[who]}", f"--regid={LOGIN_OF[who]}", "--init-groups"]
        inside = [
            "env",
            "-i",
            *(f"{name}={value}" for name, value in variables.items()),
            "sh",
            "-c",
            f"cd && {command}",
        ]
        print(f"\n[{who}] $ {command}", flush=True)
        started = time.monotonic()
        process = subprocess.Popen(
            [*self._enter(), *drop, *inside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said: list[str] = []
        listener = threading.Thread(target=_pass_on, args=(process.stdout, f"[{who}] ", said), daemon=True)
        listener.start()
        try:
            process.wait(LONGEST_STEP_SECONDS)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"as {who}, `{command}` had not ended after {late.timeout:.0f} s") from late
        listener.join(5)
        print(f"[{who}] ... {time.monotonic() - started:.1f} s", flush=True)
        if listener.is_alive():  # then `make up | tee log` would wait for ever, too
            raise Failed(f"as {who}, `{command}` ended, but something that it started still holds its output")
        if (process.returncode != 0) != expect_failure:
            raise Failed(f"as {who}, `{command}` ended with exit code {process.returncode}")
        return "".join(said)

    def _enter(self) -> list[str]:
        namespaces = ("--mount", "--pid", "--root", f"--wd=/proc/{self.namespace}/root")
        return ["nsenter", f"--target={self.namespace}", *namespaces]

    def still_running(self) -> list[str]:
        """Command lines of processes in the machine that belong to nobody who waits for them."""
        return subprocess.run(
            [*self._enter(), "python3", "-c", LOOK], check=True, capture_output=True, text=True
        ).stdout.splitlines()


def _pass_on(lines: Iterable[str], prefix: str, said: list[str]) -> None:
    for line in lines:
        said.append(line)
        print(prefix + line, end="", flush=True)


# Everything but the first process, its sleep, this look itself and what has ended already.
LOOK = """
import os, pathlib
for process in sorted(pathlib.Path('/proc').glob('[0-9]*')):
    try:
        words = (process / 'cmdline').read_bytes().split(b'\\0')
        parent = int((process / 'stat').read_text().rpartition(')')[2].split()[1])
    except OSError:
        continue
    if int(process.name) in (1, os.getpid()) or not words[0] or (parent == 1 and words[0] == b'sleep'):
        continue
    print(process.name, b' '.join(words).decode(errors='replace'))
"""


def carried() -> dict[str, str]:
    """This machine's network settings, and the ports to use where 7000 is taken."""
    wanted = (*NETWORK_VARIABLES, "BACKSTAY_PORT_BASE")
    return {name: os.environ[name] for name in wanted if os.environ.get(name)}


def make_root(folder: Path, suite: str, mirror: str | None) -> Path:
    """A minimal Debian with what a newcomer has installed, this machine's network settings, and the user."""
    root = folder / "root"
    options = subprocess.run(
        ("apt-config", "dump", "--no-empty", *NETWORK_OPTIONS_OF_APT), check=True, capture_output=True, text=True
    ).stdout
    apt_options = folder / "99network"
    apt_options.write_text(options)
    subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(NEWCOMER_INSTALLS)}"),
            *(f"--aptopt={apt_options}", suite, str(root), *([mirror] if mirror else [])),
        ],
        check=True,
    )
    for file in {*map(Path, carried().values()), Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/pip.conf")}:
        if file.is_absolute() and file.is_file():
            copy = root / file.relative_to("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    subprocess.run(("chroot", str(root), "useradd", "--create-home", LOGIN_OF["user"]), check=True)
    subprocess.run(
        ("git", "-C", str(REPOSITORY), "bundle", "create", "--quiet", f"{root}/srv/backstay", "HEAD"), check=True
    )
    return root


@contextlib.contextmanager
def running(root: Path) -> Iterator[BareMachine]:
    """The machine, from its first process to its last. Nothing of it is mounted or runs outside its own namespaces."""
    mounts = (
        f"mount -t proc proc {root}/proc && mount -t devpts -o newinstance,ptmxmode=0666 devpts {root}/dev/pts"
        f" && mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm"  # noqa: S108 - a mount point
        f" && exec chroot {root} sh -c 'echo ready; while :; do sleep 1; done'"  # a shell, because it collects orphans
    )
    unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "sh", "-c", mounts)
    first = subprocess.Popen(("setpriv", "--pdeathsig", "KILL", *unshare), stdout=subprocess.PIPE, text=True)
    try:
        if first.stdout is None or first.stdout.readline() != "ready\n":
            raise Failed("the bare machine did not start: namespaces or mounts are not allowed here")
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        yield BareMachine(root, int(children[0]))
    finally:
        first.kill()
        first.wait()


def prove(machine: BareMachine, identities: Sequence[str], until: str) -> None:
    machine.run("user", CLONE)
    refused = machine.run("user", "cd backstay && make setup", expect_failure=True)
    if "apt-get install python3-venv" not in refused:
        raise Failed("without the venv module, set-up did not say how to install it")
    machine.run(
        "root", "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq python3-venv >/dev/null"
    )
    machine.run(
        "root", "rm -rf /var/lib/apt/lists/*"
    )  # as in an image: the user has no package lists and may not write any
    for who in identities:
        if who == "root":
            machine.run("root", CLONE)
        for step in STEPS[: STEPS.index(until) + 1]:
            machine.run(who, f"cd backstay && make {step}")
            if step == "setup":
                machine.run(who, "cd backstay && make setup")  # the second time, which should cost nothing
            if step == "up":
                machine.run(who, "cd backstay && make down")
            if left := machine.still_running():
                raise Failed(f"after `make {step}` as {who} these still run:\n" + "\n".join(left))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fresh", description=__doc__)
    parser.add_argument("--as", dest="who", choices=("root", "user"), help="only as one of them (default: both)")
    parser.add_argument("--until", choices=STEPS, default="test", help="last step to prove (default: test)")
    parser.add_argument("--suite", default="bookworm", help="Debian release (default: bookworm)")
    parser.add_argument("--mirror", help="Debian mirror (default: mmdebstrap's)")
    arguments = parser.parse_args()

    missing = [program for program in ("mmdebstrap", "unshare", "nsenter", "setpriv") if not shutil.which(program)]
    if os.geteuid() != 0 or missing:
        needs = f"{', '.join(missing)} on PATH" if missing else "root"
        print(
            f"error: make fresh needs {needs}: on Debian, sudo apt-get install mmdebstrap; sudo make fresh",
            file=sys.stderr,
        )
        return 1
    if subprocess.run(("git", "-C", REPOSITORY, "diff", "--quiet", "HEAD"), check=False).returncode:
        print("note: what is not committed takes no part")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the clean-up below runs
    folder = Path(tempfile.mkdtemp(prefix="backstay-fresh-", dir="/var/tmp"))
    folder.chmod(0o755)  # the user must be able to reach its home in it
    started = time.monotonic()
    try:
        root = make_root(folder, arguments.suite, arguments.mirror)
        print(f"A bare {arguments.suite} stands after {time.monotonic() - started:.0f} s")
        with running(root) as machine:
            prove(machine, [arguments.who] if arguments.who else ["user", "root"], arguments.until)
    except (Failed, subprocess.CalledProcessError) as failure:
        said = shlex.join(map(str, failure.cmd)) if isinstance(failure, subprocess.CalledProcessError) else str(failure)
        print(f"\nerror: {said}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nA bare machine gets all of it, in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
