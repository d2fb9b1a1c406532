"""Reads the fields of one document and notes everything that is wrong with them, instead of stopping at the first."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TypeVar

from control_plane.slo.documents import Node
from control_plane.slo.findings import Finding, Severity

T = TypeVar("T")


@dataclass(slots=True)
class Reader:
    """Collects findings for one file. Every getter answers None after it has noted why."""

    file: str
    findings: list[Finding] = field(default_factory=list)

    def note(self, node: Node, code: str, message: str, severity: Severity = Severity.ERROR, path: str = "") -> None:
        self.findings.append(Finding(self.file, node.line, path or node.path or ".", code, severity, message))

    def warn(self, node: Node, code: str, message: str) -> None:
        self.note(node, code, message, Severity.WARNING)

    def mapping(self, node: Node | None, known: Iterable[str] | None) -> Node | None:
        """The node if it is a mapping; keys outside `known` are noted with the nearest right spelling."""
        if node is None:
            return None
        if node.shape != "mapping":
            self.note(node, "wrong-type", "must be a mapping of names to values")
            return None
        for again in node.repeated:
            self.note(again, "repeated-field", "is written twice in the same place: keep one")
        if known is not None:
            known = tuple(known)
            for key, value in node.fields.items():
                if key not in known:
                    near = difflib.get_close_matches(key, known, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
                    self.note(value, "unknown-field", f"{key!r} is not known here: {hint}")
        return node

    def required(self, node: Node, key: str, why: str) -> Node | None:
        """The field, or None with a finding when it is absent or empty."""
        value = node.fields.get(key)
        if value is None or value.tag == "nothing":
            path = f"{node.path}.{key}" if node.path else key
            self.note(value or node, "missing-field", f"{key!r} is missing: {why}", path=path)
            return None
        return value

    def text(self, node: Node | None) -> str | None:
        if node is None:
            return None
        if node.shape != "scalar" or node.tag == "nothing":
            self.note(node, "wrong-type", "must be text")
            return None
        return node.text

    def truth(self, node: Node | None) -> bool | None:
        """YAML's or quoted `true` and `false`."""
        text = self.text(node)
        if node is None or text is None:
            return None
        if text.lower() not in ("true", "false"):
            self.note(node, "wrong-type", f"must be true or false, not {text!r}")
            return None
        return text.lower() == "true"

    def decimal(self, node: Node | None) -> Decimal | None:
        """The number exactly as it is written, never through a float."""
        text = self.text(node)
        if node is None or text is None:
            return None
        try:
            number = Decimal(text)
        except InvalidOperation:
            number = Decimal("NaN")
        if not number.is_finite():
            self.note(node, "wrong-type", f"must be a number, not {text!r}")
            return None
        return number

    def parsed(self, node: Node | None, code: str, parse: Callable[[str], T]) -> T | None:
        """Text through a parser that raises ValueError with the way out."""
        text = self.text(node)
        if node is None or text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.note(node, code, str(error))
            return None

    def only_item(self, node: Node | None, code: str, what: str) -> Node | None:
        """The single entry of a list that must hold exactly one."""
        if node is None:
            return None
        if node.shape != "list" or len(node.items) != 1:
            self.note(node, code, f"must be a list of exactly one {what}")
            return None
        return node.items[0]
