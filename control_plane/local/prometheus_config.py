"""How the stack's Prometheus and Alertmanager are started and what they read. Pure."""

from __future__ import annotations

from pathlib import Path

import yaml

from control_plane.local.layout import LOOPBACK, Layout

RETENTION = "35d"  # a 30-day window, and room to look back from its start
RETENTION_SIZE = "4GB"  # whichever is reached first


def prometheus_config(layout: Layout) -> str:
    """The text of prometheus.yml."""
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": "5s", "scrape_timeout": "4s", "evaluation_interval": "5s"},
            "rule_files": [str(layout.prometheus_dir / "rules" / "*.yml")],
            "alerting": {
                "alertmanagers": [{"static_configs": [{"targets": [_at(layout.alertmanager_port)]}], "timeout": "3s"}]
            },
            "scrape_configs": [
                {
                    "job_name": "gateway",
                    "scrape_interval": "1s",
                    "scrape_timeout": "900ms",
                    "metrics_path": "/stats/prometheus",
                    "static_configs": [{"targets": [_at(layout.envoy_admin_port)]}],
                },
                {
                    "job_name": "suite",
                    "file_sd_configs": [{"files": [str(layout.replica_targets_file)], "refresh_interval": "1m"}],
                },
                {"job_name": "backstay", "static_configs": [{"targets": [_at(layout.console_port)]}]},
                {
                    "job_name": "prometheus",
                    "scrape_interval": "15s",
                    "scrape_timeout": "10s",
                    "static_configs": [{"targets": [_at(layout.prometheus_port)]}],
                },
            ],
        },
        sort_keys=False,
    )


def prometheus_arguments(layout: Layout) -> tuple[str, ...]:
    """What follows the program's name."""
    return (
        f"--config.file={layout.prometheus_dir / 'prometheus.yml'}",
        f"--storage.tsdb.path={layout.prometheus_dir / 'data'}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--storage.tsdb.retention.size={RETENTION_SIZE}",
        f"--web.listen-address={_at(layout.prometheus_port)}",
        "--web.enable-lifecycle",  # rules are read again on POST /-/reload
        # An alert that fires before Alertmanager is discovered (5 s) would else be sent again only after a minute.
        "--rules.alert.resend-delay=1s",
        "--log.level=warn",
    )


def alertmanager_arguments(layout: Layout, config: Path) -> tuple[str, ...]:
    """What follows the program's name."""
    return (
        f"--config.file={config}",
        f"--storage.path={layout.alertmanager_dir}",
        f"--web.listen-address={_at(layout.alertmanager_port)}",
        "--cluster.listen-address=",  # alone: no gossip port
        "--log.level=warn",
    )


def _at(port: int) -> str:
    return f"{LOOPBACK}:{port}"
