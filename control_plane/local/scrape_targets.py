"""The replicas that Prometheus asks for metrics. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from control_plane.local.layout import LOOPBACK
from control_plane.topology import MONOLITH, Backend


def scrape_targets(replicas: Iterable[tuple[str, str, int]]) -> str:
    """A file_sd list of (deployment, replica id, port). Services do not name these labels themselves: they cannot know.

    No `service` label: the monolith speaks for several, and says itself which.
    """
    return json.dumps(
        [
            {
                "targets": [f"{LOOPBACK}:{port}"],
                "labels": {
                    "deployment": deployment,
                    "replica": replica,
                    "backend": Backend.MONOLITH if deployment == MONOLITH else Backend.SERVICE,
                },
            }
            for deployment, replica, port in sorted(replicas)
        ],
        indent=1,
    )
