"""Where everything of one local stack is: its ports, from one base, and its files, from one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Layout:
    """Ports and paths of one stack. Two stacks with other bases and folders run side by side."""

    port_base: int
    state_dir: Path

    @property
    def gateway_port(self) -> int:
        return self.port_base

    @property
    def mesh_port(self) -> int:
        """Listener for calls between services."""
        return self.port_base + 1

    @property
    def envoy_admin_port(self) -> int:
        return self.port_base + 2

    @property
    def cluster_port(self) -> int:
        """The cluster's own API."""
        return self.port_base + 3

    @property
    def load_port(self) -> int:
        return self.port_base + 5

    @property
    def console_port(self) -> int:
        return self.port_base + 10

    @property
    def traces_port(self) -> int:
        return self.port_base + 18

    @property
    def prometheus_port(self) -> int:
        return self.port_base + 90

    @property
    def alertmanager_port(self) -> int:
        return self.port_base + 93

    @property
    def replica_ports(self) -> range:
        """Ports that replicas take, one each."""
        return range(self.port_base + 200, self.port_base + 1000)

    def url(self, port: int) -> str:
        return f"http://{LOOPBACK}:{port}"

    @property
    def run_dir(self) -> Path:
        return self.state_dir / "run"

    @property
    def logs_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def envoy_dir(self) -> Path:
        return self.state_dir / "envoy"

    @property
    def prometheus_dir(self) -> Path:
        return self.state_dir / "prometheus"

    @property
    def alertmanager_dir(self) -> Path:
        return self.state_dir / "alertmanager"

    @property
    def data_dir(self) -> Path:
        """Databases and files of the suite."""
        return self.state_dir / "data"

    @property
    def token_file(self) -> Path:
        """Bearer token of the cluster and load APIs, and of pinned requests at the gateway. Mode 0600."""
        return self.run_dir / "token"

    @property
    def lock_file(self) -> Path:
        """Held by the running supervisor; its text is the supervisor's process id."""
        return self.run_dir / "stack.lock"

    @property
    def cluster_file(self) -> Path:
        """Desired replicas, weights and the highest fence, across restarts of the stack."""
        return self.run_dir / "cluster.json"

    @property
    def gateway_access_log(self) -> Path:
        return self.logs_dir / "gateway-access.json"

    @property
    def mesh_access_log(self) -> Path:
        return self.logs_dir / "mesh-access.json"

    @property
    def bootstrap_file(self) -> Path:
        return self.envoy_dir / "bootstrap.json"

    def routes_file(self, listener: str) -> Path:
        return self.envoy_dir / "routes" / f"{listener}.json"

    def endpoints_file(self, cluster: str) -> Path:
        return self.envoy_dir / "endpoints" / f"{cluster}.json"

    @property
    def replica_targets_file(self) -> Path:
        """Prometheus's file_sd list of replicas."""
        return self.prometheus_dir / "targets" / "suite.json"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that has to exist before anything starts, parents first."""
        return (
            self.state_dir,
            self.run_dir,
            self.logs_dir,
            self.data_dir,
            self.envoy_dir,
            self.envoy_dir / "routes",
            self.envoy_dir / "endpoints",
            self.prometheus_dir,
            self.prometheus_dir / "rules",
            self.prometheus_dir / "targets",
            self.alertmanager_dir,
        )
