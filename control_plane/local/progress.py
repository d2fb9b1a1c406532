"""What a starting stack tells whoever waits for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum

STACK = "stack"
"""Name of the whole, in the last word of a start."""


class Stage(StrEnum):
    """How far a part is."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a start or a stop."""

    part: str  # a part's name, a deployment, or `stack` for the whole
    stage: Stage
    detail: str = ""  # a sentence for people; a URL for a part that has one
    after_seconds: float = 0.0  # since the start began

    @property
    def ends_start(self) -> bool:
        """True for the last word of a start, good or bad."""
        return self.part == STACK and self.stage in (Stage.READY, Stage.FAILED, Stage.STOPPED)

    def as_line(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Progress:
        body = json.loads(line)
        return cls(body["part"], Stage(body["stage"]), body["detail"], float(body["after_seconds"]))


OnProgress = Callable[[Progress], None]
