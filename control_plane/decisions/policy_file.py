"""Reads the policy file: text in, frozen `Policy` out, and every mistake named with its file, line and field."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from control_plane.decisions.reasons import Autonomy, Move
from control_plane.decisions.terms import FastPathTerms, Limit, Policy, ScaleTerms
from control_plane.errors import InvalidDefinition
from control_plane.slo.documents import MalformedYaml, Node, documents
from control_plane.slo.durations import parse_duration
from control_plane.slo.findings import Finding, Severity
from control_plane.topology import SERVICES


class InvalidPolicy(InvalidDefinition):
    """A policy file with at least one error; carries every finding, so that one run shows all there is to mend."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        self.findings = tuple(sorted(findings))
        super().__init__("\n".join(map(str, self.findings)))


def _duration(value: object) -> timedelta:
    if not isinstance(value, str):
        raise ValueError("write a whole number with a unit, e.g. 30s or 15m")
    return parse_duration(value)


def _service(value: object) -> str:
    if value not in SERVICES:
        near = difflib.get_close_matches(str(value), SERVICES, n=1)
        raise ValueError(f"{value!r} is no service: " + (f"did you mean {near[0]!r}?" if near else ", ".join(SERVICES)))
    return str(value)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Ratio = Annotated[float, Field(gt=0, lt=1)]
ServiceName = Annotated[str, BeforeValidator(_service)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EvidenceSection(_Section):
    max_age: Duration
    unknown_pages_after: Duration


class FastPathSection(_Section):
    alpha: Annotated[float, Field(gt=0, le=0.01)]
    windows: Annotated[tuple[Duration, ...], Field(min_length=1)]
    bad_seconds: Annotated[int, Field(ge=1, le=60)]
    errors_times_budget: Annotated[float, Field(ge=1)]
    latency_times_budget: Annotated[float, Field(ge=1)]

    @field_validator("windows")
    @classmethod
    def _windows_rise(cls, windows: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        seconds = [window.total_seconds() for window in windows]
        if seconds != sorted(set(seconds)) or any(s != int(s) for s in seconds):
            raise ValueError("windows must rise and be whole seconds, e.g. [10s, 20s, 30s, 60s]")
        if seconds[-1] > 120:
            raise ValueError("windows end at 120s, because seconds are remembered no longer")
        return windows


class ChangesSection(_Section):
    blamed_for: Duration


class CulpritSection(_Section):
    min_confidence: Ratio
    crash_restarts: Annotated[int, Field(ge=1)]


class RollBackSection(_Section):
    headroom: Annotated[float, Field(ge=1, le=10)]
    irreversible: tuple[ServiceName, ...] = ()
    watch_only: tuple[str, ...] = ()


class FullRollbackSection(_Section):
    independent_culprits: Annotated[int, Field(ge=2)]
    within: Duration


class ScaleSection(_Section):
    target_utilisation: Ratio
    tolerance: Ratio
    saturated_from: Annotated[float, Field(gt=0, le=1)]
    busier_from: Annotated[float, Field(ge=1)]
    stable_for: Duration

    @field_validator("saturated_from")
    @classmethod
    def _above_target(cls, saturated_from: float, info: ValidationInfo) -> float:
        target = info.data.get("target_utilisation")
        if target is not None and saturated_from <= target:
            raise ValueError(
                f"{saturated_from:g} must be above target_utilisation {target:g}: on its target nothing is saturated"
            )
        return saturated_from


class LimitSection(_Section):
    cooldown: Duration
    actions: Annotated[int, Field(ge=0)]
    per: Duration


class ProfileSection(_Section):
    autonomy: dict[Move, Autonomy] = {}
    services: dict[ServiceName, dict[Move, Autonomy]] = {}


class PolicyFile(_Section):
    """The whole file."""

    evidence: EvidenceSection
    fast_path: FastPathSection
    changes: ChangesSection
    culprit: CulpritSection
    roll_back: RollBackSection
    full_rollback: FullRollbackSection
    scale: ScaleSection
    limits: dict[Move, LimitSection] = {}
    profiles: dict[str, ProfileSection]


def load_policy(text: str, *, file: str, profile: str) -> Policy:
    """The policy of one profile. Raises InvalidPolicy with every mistake, each as `file:line: CODE field: what`."""
    node = _document(text, file)
    repeated = tuple(_repeated(node, file))
    try:
        read = PolicyFile.model_validate(_value(node))
    except ValidationError as error:
        raise InvalidPolicy((*repeated, *(_finding(file, node, each) for each in error.errors()))) from error
    if repeated:
        raise InvalidPolicy(repeated)
    chosen = read.profiles.get(profile)
    if chosen is None:
        known = ", ".join(sorted(read.profiles)) or "none"
        place = node.fields["profiles"]
        raise InvalidPolicy((_error(file, place, "unknown-profile", f"no profile {profile!r}; defined: {known}"),))
    policy = Policy(
        profile=profile,
        max_evidence_age=read.evidence.max_age,
        unknown_pages_after=read.evidence.unknown_pages_after,
        fast_path=FastPathTerms(
            alpha=read.fast_path.alpha,
            windows_seconds=tuple(int(window.total_seconds()) for window in read.fast_path.windows),
            bad_seconds=read.fast_path.bad_seconds,
            errors_times_budget=read.fast_path.errors_times_budget,
            latency_times_budget=read.fast_path.latency_times_budget,
        ),
        change_blamed_for=read.changes.blamed_for,
        min_culprit_confidence=read.culprit.min_confidence,
        crash_restarts=read.culprit.crash_restarts,
        headroom=read.roll_back.headroom,
        full_rollback_culprits=read.full_rollback.independent_culprits,
        full_rollback_within=read.full_rollback.within,
        scale=ScaleTerms(
            target_utilisation=read.scale.target_utilisation,
            tolerance=read.scale.tolerance,
            saturated_from=read.scale.saturated_from,
            busier_from=read.scale.busier_from,
            stable_for=read.scale.stable_for,
        ),
        limits={move: Limit(limit.cooldown, limit.actions, limit.per) for move, limit in read.limits.items()},
        autonomy=dict(chosen.autonomy),
        autonomy_by_service={service: dict(own) for service, own in chosen.services.items()},
        irreversible=tuple(sorted(read.roll_back.irreversible)),
        watch_only=tuple(sorted(read.roll_back.watch_only)),
    )
    return replace(policy, digest=policy_digest(policy))


def policy_digest(policy: Policy) -> str:
    """SHA-256 of the terms, so that the audit log names exactly the policy that a decision was made under."""
    terms = TypeAdapter(Policy).dump_python(replace(policy, digest=""), mode="json")
    return hashlib.sha256(json.dumps(terms, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _document(text: str, file: str) -> Node:
    try:
        found = list(documents(text))
    except MalformedYaml as error:
        raise InvalidPolicy((Finding(file, error.line, ".", "yaml", Severity.ERROR, str(error)),)) from error
    if len(found) != 1 or found[0].shape != "mapping":
        message = f"must hold one document that maps names to values, not {len(found)} documents"
        if len(found) == 1:
            message = "must map names to values"
        raise InvalidPolicy((Finding(file, 1, ".", "one-document", Severity.ERROR, message),))
    return found[0]


def _value(node: Node) -> Any:
    if node.shape == "mapping":
        return {key: _value(value) for key, value in node.fields.items()}
    if node.shape == "list":
        return [_value(item) for item in node.items]
    match node.tag:
        case "nothing":
            return None
        case "truth":
            return node.text.lower() in ("true", "yes", "on")
        case _:  # pydantic reads numbers from text, so that 1e-6 is a number although YAML 1.1 says it is not
            return node.text


def _repeated(node: Node, file: str) -> list[Finding]:
    found = [_error(file, again, "repeated-field", "is written twice in the same place") for again in node.repeated]
    for child in (*node.fields.values(), *node.items):
        found += _repeated(child, file)
    return found


def _error(file: str, node: Node, code: str, message: str) -> Finding:
    return Finding(file, node.line, node.path or ".", code, Severity.ERROR, message)


def _finding(file: str, root: Node, error: Any) -> Finding:
    """A pydantic error at the line of the value it is about, or of the nearest one around it."""
    node, missing = root, False
    location: tuple[str | int, ...] = tuple(part for part in error["loc"] if part != "[key]")
    for part in location:
        below = node.fields.get(str(part)) if node.shape == "mapping" else None
        if isinstance(part, int) and node.shape == "list" and part < len(node.items):
            below = node.items[part]
        if below is None:
            missing = True
            break
        node = below
    path = ".".join(map(str, location)) or "."
    kind = error["type"]
    if kind == "missing":
        return Finding(file, node.line, path, "missing-field", Severity.ERROR, "is missing")
    if kind == "extra_forbidden":
        known = _known_fields(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return Finding(file, node.line, path, "unknown-field", Severity.ERROR, f"is not known here: {hint}")
    message = error["msg"].removeprefix("Value error, ")
    written = str(location[-1]) if error["loc"][-1] == "[key]" else node.text
    shown = "" if missing or node.shape != "scalar" or kind == "value_error" else f", not {written!r}"
    return Finding(file, node.line, path, "bad-value", Severity.ERROR, f"{message}{shown}")


def _known_fields(location: tuple[str | int, ...]) -> list[str]:
    """Names of the fields at a place of the file."""
    model: type[BaseModel] = PolicyFile
    annotation: Any = PolicyFile
    for part in location:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            annotation = annotation.model_fields[str(part)].annotation
        else:  # a mapping of names to sections
            annotation = get_args(annotation)[1]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
