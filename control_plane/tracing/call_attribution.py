"""Who is at fault, from what services count of their answers and of their calls to peers: known within seconds.

A service that fails because a peer failed it is a victim. So a failing answer belongs to the service itself only as far
as failing calls to its peers do not explain it; the rest is handed on to those peers, and so on down the call graph.
Latency is treated alike, with the time beyond a healthy baseline in place of failures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import sqrt

import numpy as np

from control_plane.slo.events import Selector, Series
from control_plane.slo.increments import TargetKey, increments, target_key
from control_plane.topology import Backend

CALL_SELECTORS: tuple[Selector, ...] = (
    Selector("http_requests_total"),
    Selector("http_requests_shed_total"),
    Selector("http_stream_ends_total", (("outcome", "=", "error"),)),
    Selector("http_request_duration_seconds_sum"),
    Selector("http_request_own_duration_seconds_sum"),
    Selector("http_request_own_duration_seconds_count"),
    Selector("http_request_own_duration_seconds_bucket", (("le", "=~", r"0?\.20*"),)),
    Selector("http_client_requests_total"),
    Selector("http_client_request_duration_seconds_sum"),
    Selector("http_client_request_duration_seconds_count"),
)
"""Everything that attribution reads: as many queries as there are lines, whatever the number of services."""

LATENCY_FLOOR_SECONDS = 0.010
"""Mean excess per request below which latency is not worth explaining."""

PROVIDER_WAIT_SECONDS = 0.020
"""Mean wait for a model provider from which callers' clocks say little about the service between."""

MIN_CONFIDENCE = 0.6
"""Lower bound of a culprit's share from which the verdict is `culprit`: six failures of one origin, or more of two."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one service answered on one backend, over some window. Streams that broke count as failed."""

    answered: float = 0.0
    failed: float = 0.0  # 5xx and broken streams
    shed: float = 0.0  # of the failed: refused because every slot stayed taken
    own_seconds: float = 0.0  # total time of all answers, without waiting for a model provider
    timed: float = 0.0  # answers in `own_seconds`
    slow: float = 0.0  # of those, longer than 0.2 s
    waited_seconds: float = 0.0  # total time that the answers waited for a model provider

    def __add__(self, other: Answers) -> Answers:
        return Answers(
            self.answered + other.answered,
            self.failed + other.failed,
            self.shed + other.shed,
            self.own_seconds + other.own_seconds,
            self.timed + other.timed,
            self.slow + other.slow,
            self.waited_seconds + other.waited_seconds,
        )

    @property
    def mean_seconds(self) -> float | None:
        return self.own_seconds / self.timed if self.timed > 0 else None

    @property
    def waits_for_provider(self) -> bool:
        """Whether a caller's clock mostly shows how slow the model was."""
        return self.waited_seconds > PROVIDER_WAIT_SECONDS * self.timed


@dataclass(frozen=True, slots=True)
class Calls:
    """Calls of one service to one peer, as the caller saw them, over the same window."""

    made: float = 0.0
    failed: float = 0.0  # error, timeout or unreachable
    seconds: float = 0.0  # total duration; streams to their first byte
    timed: float = 0.0  # calls in `seconds`

    @property
    def mean_seconds(self) -> float | None:
        return self.seconds / self.timed if self.timed > 0 else None


@dataclass(frozen=True, slots=True)
class CallCounts:
    """Answers and calls of a window. A service or an edge without data is absent, which is not the same as zero."""

    answers: Mapping[str, Mapping[Backend, Answers]] = field(default_factory=dict)
    calls: Mapping[str, Mapping[str, Calls]] = field(default_factory=dict)  # by service, then by peer

    def of(self, service: str) -> Answers:
        """Answers of a service on all its backends."""
        total = Answers()
        for answers in self.answers.get(service, {}).values():
            total += answers
        return total

    def callers(self) -> Mapping[str, frozenset[str]]:
        """For each service, all that depend on it, directly or through others."""
        direct: dict[str, set[str]] = {}
        for caller, peers in self.calls.items():
            for peer in peers:
                direct.setdefault(peer, set()).add(caller)
        found: dict[str, frozenset[str]] = {}
        for service in direct:
            seen: set[str] = set()
            waiting = [service]
            while waiting:
                for caller in direct.get(waiting.pop(), ()):
                    if caller not in seen and caller != service:
                        seen.add(caller)
                        waiting.append(caller)
            found[service] = frozenset(seen)
        return found


class Symptom(StrEnum):
    """What the users of the victim suffer from."""

    ERRORS = "errors"
    LATENCY = "latency"


class AttributionVerdict(StrEnum):
    CULPRIT = "culprit"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Culprit:
    """A service and its share of the victim's trouble, in (0, 1]."""

    service: str
    share: float


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whose fault a victim's trouble is."""

    victim: str
    symptom: Symptom
    verdict: AttributionVerdict
    confidence: float  # lower 95 % bound (Wilson) of the first culprit's share; 0 when there is nothing to go by
    culprits: tuple[Culprit, ...]  # largest share first; the shares add up to 1
    inherited_share: float  # of the trouble that came from peers, whoever these were
    events: float  # failing or slow answers of the victim that this rests on

    @property
    def culprit(self) -> str | None:
        """The service to act on; None when unsure."""
        return self.culprits[0].service if self.verdict is AttributionVerdict.CULPRIT else None


def attribute_errors(counts: CallCounts, victim: str, min_confidence: float = MIN_CONFIDENCE) -> Attribution:
    """Splits the failing answers of `victim` over the services where they began.

    A service that callers see fail, but that counts no failure of its own (it is dead or cannot be reached), is where
    they began.
    """

    def split(service: str) -> tuple[float, Mapping[str, float]]:
        failed = counts.of(service).failed
        by_peer = {peer: calls.failed for peer, calls in counts.calls.get(service, {}).items() if calls.failed > 0}
        seen = sum(by_peer.values())
        if failed <= 0 or seen <= 0:
            return 1.0, {}
        explained = min(failed, seen) / failed
        return 1 - explained, {peer: explained * share / seen for peer, share in by_peer.items()}

    return _attribution(victim, Symptom.ERRORS, counts.of(victim).failed, split, min_confidence)


def attribute_latency(
    incident: CallCounts, baseline: CallCounts | None, victim: str, min_confidence: float = MIN_CONFIDENCE
) -> Attribution:
    """Splits the time that answers of `victim` take beyond the baseline over the services that spend it.

    A peer is charged with what its callers wait longer for it, and with no more than it became slower by its own count.
    Where it waits for a model provider only its own count is asked: there the callers' clocks follow the model. Without
    a baseline all time counts as excess.
    """
    before = baseline or CallCounts()

    def slower(now: float | None, then: float | None) -> float:
        return 0.0 if now is None else now - (then or 0.0)

    def excess(service: str) -> float:
        return slower(incident.of(service).mean_seconds, before.of(service).mean_seconds)

    def split(service: str) -> tuple[float, Mapping[str, float]]:
        total = excess(service)
        answers = incident.of(service)
        if total <= LATENCY_FLOOR_SECONDS or answers.timed <= 0:
            return 1.0, {}
        by_peer: dict[str, float] = {}
        for peer, calls in incident.calls.get(service, {}).items():
            was = before.calls.get(service, {}).get(peer, Calls()).mean_seconds
            per_call = slower(calls.mean_seconds, was)
            peer_answers = incident.of(peer)
            if peer_answers.waits_for_provider:
                per_call = excess(peer)
            elif peer_answers.timed > 0:
                per_call = min(per_call, excess(peer))
            if per_call > 0:
                by_peer[peer] = per_call * calls.timed / answers.timed
        seen = sum(by_peer.values())
        if seen <= 0:
            return 1.0, {}
        explained = min(1.0, seen / total)
        return 1 - explained, {peer: explained * share / seen for peer, share in by_peer.items()}

    now, then = incident.of(victim), before.of(victim)
    slow = now.slow - (then.slow / then.timed * now.timed if then.timed > 0 else 0.0)
    if excess(victim) <= LATENCY_FLOOR_SECONDS:
        slow = 0.0
    return _attribution(victim, Symptom.LATENCY, max(0.0, slow), split, min_confidence)


Split = Callable[[str], tuple[float, Mapping[str, float]]]
"""Own part of a service's trouble, and the parts that came from its peers; together 1."""


def _attribution(victim: str, symptom: Symptom, events: float, split: Split, min_confidence: float) -> Attribution:
    if events <= 0:
        return Attribution(victim, symptom, AttributionVerdict.UNSURE, 0.0, (), 0.0, 0.0)
    splits = _reachable(victim, split)
    shares: dict[str, float] = {}
    mass = {victim: 1.0}
    for service in _callers_first(victim, splits):
        own, inherited = splits[service]
        here = mass.get(service, 0.0)
        handed_on = 0.0
        for peer, part in inherited.items():
            mass[peer] = mass.get(peer, 0.0) + here * part
            handed_on += part
        shares[service] = here * (1 - handed_on if inherited else own)
    ranked = sorted(
        (Culprit(service, share) for service, share in shares.items() if share > 1e-9),
        key=lambda culprit: (-culprit.share, culprit.service),
    )
    confidence = _lower_bound(ranked[0].share, events)
    verdict = AttributionVerdict.CULPRIT if confidence >= min_confidence else AttributionVerdict.UNSURE
    return Attribution(victim, symptom, verdict, confidence, tuple(ranked), 1 - splits[victim][0], events)


def _reachable(victim: str, split: Split) -> dict[str, tuple[float, dict[str, float]]]:
    """Splits of every service that trouble is handed on to, without the calls that would lead back in a circle."""
    found: dict[str, tuple[float, dict[str, float]]] = {}
    open_path: set[str] = set()
    waiting = [(victim, False)]
    while waiting:
        service, leaving = waiting.pop()
        if leaving:
            open_path.discard(service)
            continue
        if service in found:
            continue
        own, inherited = split(service)
        open_path.add(service)
        onward = {peer: part for peer, part in inherited.items() if peer not in open_path}
        found[service] = own + sum(inherited.values()) - sum(onward.values()), onward
        waiting.append((service, True))
        waiting += [(peer, False) for peer in onward]
    return found


def _callers_first(victim: str, splits: Mapping[str, tuple[float, Mapping[str, float]]]) -> list[str]:
    """Services in an order in which each comes after all that hand trouble on to it."""
    incoming = dict.fromkeys(splits, 0)
    for _, inherited in splits.values():
        for peer in inherited:
            incoming[peer] += 1
    ordered: list[str] = []
    ready = [victim]
    while ready:
        service = ready.pop()
        ordered.append(service)
        for peer in splits[service][1]:
            incoming[peer] -= 1
            if incoming[peer] == 0:
                ready.append(peer)
    return ordered


def _lower_bound(share: float, events: float, z: float = 1.96) -> float:
    """Lower end of the Wilson interval."""
    if events <= 0:
        return 0.0
    centre = share + z * z / (2 * events)
    reach = z * sqrt(max(0.0, share * (1 - share) / events + z * z / (4 * events * events)))
    return max(0.0, (centre - reach) / (1 + z * z / events))


def call_counts(series: Sequence[Series], since: float, until: float) -> CallCounts:
    """What happened in (since, until], Unix seconds, from raw samples of `CALL_SELECTORS`.

    A counter that appears on a target that was scraped before without it began at 0: the first 500 of a service counts.
    """
    first_scrape: dict[TargetKey, float] = {}
    for each in series:
        if len(each.timestamps):
            key = target_key(each.labels)
            first = float(each.timestamps[0])
            first_scrape[key] = min(first, first_scrape.get(key, first))
    answers: dict[str, dict[Backend, dict[str, float]]] = {}
    calls: dict[str, dict[str, dict[str, float]]] = {}
    for each in series:
        labels = each.labels
        service = labels.get("service")
        if service is None:
            continue
        amount = _increase(each, since, until, first_scrape)
        if amount is None:
            continue
        metric = labels.get("__name__", "")
        if metric.startswith("http_client_"):
            fields = calls.setdefault(service, {}).setdefault(labels.get("peer", ""), {})
            for name in _CALL_FIELDS[metric]:
                if name != "failed" or labels.get("outcome") != "ok":
                    fields[name] = fields.get(name, 0.0) + amount
        elif metric in _ANSWER_FIELDS:
            backend = Backend.MONOLITH if labels.get("backend") == Backend.MONOLITH.value else Backend.SERVICE
            fields = answers.setdefault(service, {}).setdefault(backend, {})
            for name in _ANSWER_FIELDS[metric]:
                if metric != "http_requests_total" or name != "failed" or labels.get("status_code", "")[:1] == "5":
                    fields[name] = fields.get(name, 0.0) + amount
    return CallCounts(
        {
            service: {backend: _answers(fields) for backend, fields in backends.items()}
            for service, backends in answers.items()
        },
        {service: {peer: Calls(**fields) for peer, fields in peers.items()} for service, peers in calls.items()},
    )


_CALL_FIELDS: Mapping[str, tuple[str, ...]] = {
    "http_client_requests_total": ("made", "failed"),
    "http_client_request_duration_seconds_sum": ("seconds",),
    "http_client_request_duration_seconds_count": ("timed",),
}
_ANSWER_FIELDS: Mapping[str, tuple[str, ...]] = {
    "http_requests_total": ("answered", "failed"),
    "http_requests_shed_total": ("shed",),
    "http_stream_ends_total": ("failed",),
    "http_request_duration_seconds_sum": ("whole_seconds",),
    "http_request_own_duration_seconds_sum": ("own_seconds",),
    "http_request_own_duration_seconds_count": ("timed",),
    "http_request_own_duration_seconds_bucket": ("quick",),
}


def _answers(fields: Mapping[str, float]) -> Answers:
    timed, quick = fields.get("timed", 0.0), fields.get("quick")
    return Answers(
        answered=fields.get("answered", 0.0),
        failed=fields.get("failed", 0.0),
        shed=fields.get("shed", 0.0),
        own_seconds=fields.get("own_seconds", 0.0),
        timed=timed,
        slow=0.0 if quick is None else max(0.0, timed - quick),
        waited_seconds=max(0.0, fields.get("whole_seconds", 0.0) - fields.get("own_seconds", 0.0)),
    )


def _increase(series: Series, since: float, until: float, first_scrape: Mapping[TargetKey, float]) -> float | None:
    """Growth of a counter in (since, until]; None when it has no sample in there."""
    times, values = series.timestamps, series.values
    first, last = int(np.searchsorted(times, since, side="right")), int(np.searchsorted(times, until, side="right"))
    if last == first:
        return None
    if first > 0:
        first -= 1  # the last sample before the window is what the first one in it is compared with
        born = False
    else:
        born = first_scrape[target_key(series.labels)] < float(times[0])
    return float(increments(None, born, times[first:last], values[first:last]).amounts.sum())
