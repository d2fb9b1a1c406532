"""What is wrong with an SLO file, said so that its author can mend it without asking."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from control_plane.errors import InvalidDefinition


class Severity(StrEnum):
    ERROR = "error"  # the file cannot be used
    WARNING = "warning"  # it can, but probably not as meant


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One remark about one place. `code` is stable: programs and suppressions may rely on it."""

    file: str
    line: int  # counted from 1
    path: str  # property path inside the document, e.g. "spec.objectives[0].target"
    code: str
    severity: Severity
    message: str  # what is wrong and the way out

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.code} {self.path}: {self.message}"


class InvalidSlo(InvalidDefinition):
    """SLO files with at least one error; carries every finding, so that one run shows all there is to mend."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(sorted(findings))
        super().__init__("\n".join(map(str, self.findings)))
