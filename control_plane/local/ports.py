"""Which ports of this machine are free, and who has those that are not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Mapping

import psutil

from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.local.layout import LOOPBACK


def is_free(port: int) -> bool:
    """True when a server could listen on the port of loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a closed connection's port may be taken again
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def refuse_taken(wanted: Mapping[str, int]) -> None:
    """Raises ActuationRefused that names every port of `wanted` (by what it is for) that is taken, and by whom."""
    taken = {what: port for what, port in wanted.items() if not is_free(port)}
    if not taken:
        return
    owners = _owners(taken.values())
    sentences = [
        f"port {port} ({what}) is taken by {owners.get(port, 'another process')}" for what, port in taken.items()
    ]
    text = "; ".join(sentences)
    raise ActuationRefused(
        f"{text[0].upper()}{text[1:]}. "
        f"Stop it, or choose other ports with BACKSTAY_PORT_BASE (now {min(wanted.values())})."
    )


def _owners(ports: Collection[int]) -> dict[int, str]:
    """Names of the processes that listen; those of other users stay unnamed unless we are root."""
    owners = {}
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, OSError):
        return {}
    for connection in connections:
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address.port in ports and connection.pid:
            owners[address.port] = _describe(connection.pid)
    return owners


def _describe(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"process {pid}"


class PortPool:
    """Hands out ports of a range in turn, so that a port just given back rests as long as can be."""

    def __init__(self, ports: range, free: Callable[[int], bool] = is_free) -> None:
        self._ports = ports
        self._free = free
        self._next = 0
        self._taken: set[int] = set()

    def take(self) -> int:
        """A port that nobody listens on. Raises SourceUnavailable when all are taken."""
        for step in range(len(self._ports)):
            position = (self._next + step) % len(self._ports)
            port = self._ports[position]
            if port not in self._taken and self._free(port):
                self._next = position + 1
                self._taken.add(port)
                return port
        raise SourceUnavailable(
            f"every port from {self._ports.start} to {self._ports.stop - 1} is taken: no room for another replica"
        )

    def renew(self, port: int) -> int:
        """The same port if it is still free, else another one."""
        if self._free(port):
            return port
        other = self.take()
        self.give_back(port)
        return other

    def give_back(self, port: int) -> None:
        self._taken.discard(port)
