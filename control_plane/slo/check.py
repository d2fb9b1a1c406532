"""The spec doctor: what is wrong with SLO files, and what will not work as meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from control_plane.slo.alerts import TIERS, factor_in_force
from control_plane.slo.durations import format_duration
from control_plane.slo.events import Selector
from control_plane.slo.findings import Finding, Severity
from control_plane.slo.labels import boundary, matches
from control_plane.slo.loading import read
from control_plane.slo.routing import INFINITY, Neighbours, neighbours
from control_plane.slo.spec import Catalogue, Slo
from control_plane.slo.windows import BURN_WINDOWS

FEWEST_SCRAPES = 4
"""Samples that the shortest window must hold, so that one lost scrape does not empty it."""


def check(files: Mapping[str, str]) -> tuple[Finding, ...]:
    """Every finding about the files (name -> text) that needs no Prometheus, in order of place."""
    catalogue, findings = read(files)
    return tuple(sorted({*findings, *_meaning(catalogue)}))


def check_buckets(catalogue: Catalogue, series: Iterable[Mapping[str, str]]) -> tuple[Finding, ...]:
    """Findings about thresholds that are no bucket boundary, given the labels of the series that exist."""
    labels = tuple(series)
    return tuple(finding for slo in catalogue.slos for finding in _bucket(slo, labels))


def _meaning(catalogue: Catalogue) -> Iterator[Finding]:
    for slo in catalogue.slos:
        if slo.total is None:
            continue
        for tier in TIERS:
            factor, lowered = tier.factor(slo.objective), factor_in_force(tier, slo.objective)
            if lowered != factor:
                yield _remark(
                    slo, "spec.objectives[0]", "unreachable-threshold",
                    f"{tier.name} asks for {factor.normalize():f}x, which a full outage cannot reach with a target of "
                    f"{slo.objective.target_text}: it fires at {lowered:.3g}x instead",
                )  # fmt: skip
        shortest = next(iter(BURN_WINDOWS.values()))
        if FEWEST_SCRAPES * slo.scrape_interval > shortest:
            yield _remark(
                slo, "spec.indicator", "too-few-scrapes",
                f"a scrape every {format_duration(slo.scrape_interval)} puts fewer than {FEWEST_SCRAPES} samples into "
                f"{format_duration(shortest)}: scrape more often",
            )  # fmt: skip


def _bucket(slo: Slo, labels: Iterable[Mapping[str, str]]) -> Iterator[Finding]:
    if slo.bucket is None:
        return
    wanted = Selector(slo.bucket.metric, slo.bucket.matchers)
    found: set[Decimal] = set()
    for each in labels:
        limit = boundary(each.get("le", "")) if matches(wanted, each) else None
        if limit is not None:
            found.add(limit)
    threshold = slo.bucket.boundary
    if not found:
        yield _remark(slo, "spec.indicator", "no-series", f"no series of {slo.bucket.metric} exists for this SLO")
    elif threshold not in found:
        yield _remark(slo, "spec.indicator", "bucket-missing", _way_out(slo, neighbours(threshold, found)))


def _way_out(slo: Slo, between: Neighbours) -> str:
    metric, threshold = (slo.bucket.metric, slo.bucket.boundary) if slo.bucket else ("", Decimal(0))
    upper = "+Inf" if between.above == INFINITY else f"{between.above:f}"
    return (
        f"{metric} has no bucket at {threshold}, only at {between.below or 0:f} and {upper}: "
        f"add the bucket {threshold}; until then the SLI is an interval"
    )


def _remark(slo: Slo, path: str, code: str, message: str) -> Finding:
    return Finding(slo.file, slo.line, path, code, Severity.WARNING, message)
