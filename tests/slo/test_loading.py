from __future__ import annotations

from decimal import Decimal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.errors import InvalidDefinition
from control_plane.slo.check import check, check_buckets
from control_plane.slo.findings import Finding, InvalidSlo, Severity
from control_plane.slo.loading import load, read
from control_plane.slo.spec import Budgeting, Slo
from control_plane.slo.state import Kind

SERVICE = """\
apiVersion: openslo/v1
kind: Service
metadata: {name: search-service, displayName: Search}
spec: {}
---
apiVersion: openslo/v1
kind: DataSource
metadata:
  name: gateway
  annotations: {backstay.dev/scrape-interval: 1s}
spec: {type: Prometheus}
"""
ERRORS = """\
apiVersion: openslo/v1
kind: SLO
metadata:
  name: search-service-errors
  annotations:
    backstay.dev/kind: errors
spec:
  service: search-service
  budgetingMethod: Occurrences
  timeWindow:
    - duration: 30d
      isRolling: true
  objectives:
    - target: 0.999
  indicator:
    spec:
      ratioMetric:
        counter: true
        bad:
          metricSource:
            metricSourceRef: gateway
            spec: {query: 'sum(errors{code="5"}) + sum(broken)'}
        total:
          metricSource:
            metricSourceRef: gateway
            spec: {query: requests}
"""


def slo_of(text: str) -> Slo:
    return load({"services.yaml": SERVICE, "slo.yaml": text}).slos[0]


def findings_of(text: str) -> tuple[Finding, ...]:
    return read({"services.yaml": SERVICE, "slo.yaml": text})[1]


def test_an_slo_is_read_with_its_counters_and_its_scrape_interval() -> None:
    slo = slo_of(ERRORS)
    assert (slo.kind, slo.budgeting, slo.objective.target) == (Kind.ERRORS, Budgeting.OCCURRENCES, Decimal("0.999"))
    assert slo.bad is not None
    assert [s.metric for s in slo.bad.selectors] == ["errors", "broken"]
    assert slo.bad.selectors[0].matchers == (("code", "=", "5"),)
    assert slo.scrape_interval.total_seconds() == 1


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("target: 0.999", "0.999"),
        ("targetPercent: 99.9", "0.999"),
        ("target: '0.9990'", "0.999"),
        ("targetPercent: 95", "0.95"),
    ],
)
def test_targets_are_the_decimals_that_the_file_says(written: str, target: str) -> None:
    slo = slo_of(ERRORS.replace("target: 0.999", written))
    assert slo.objective.target_text == target
    assert slo.objective.error_budget == 1 - Decimal(target)


@pytest.mark.parametrize(
    ("right", "wrong", "code", "path"),
    [
        ("target: 0.999", "target: 1", "target-of-one", "spec.objectives[0].target"),
        ("target: 0.999", "targetPercent: 100.0", "target-of-one", "spec.objectives[0].targetPercent"),
        ("target: 0.999", "target: 99.9", "target-range", "spec.objectives[0].target"),
        ("target: 0.999", "target: much", "wrong-type", "spec.objectives[0].target"),
        ("target: 0.999", "target: .nan", "wrong-type", "spec.objectives[0].target"),
        ("target: 0.999", "targetPercnt: 99.9", "unknown-field", "spec.objectives[0].targetPercnt"),
        ("target: 0.999", "displayName: x", "one-target", "spec.objectives[0]"),
        ("duration: 30d", "duration: 30x", "bad-window", "spec.timeWindow[0].duration"),
        ("duration: 30d", "duration: 1M", "bad-window", "spec.timeWindow[0].duration"),
        ("duration: 30d", "duration: 90d", "bad-window", "spec.timeWindow[0].duration"),
        ("isRolling: true", "isRolling: false", "calendar-window", "spec.timeWindow[0]"),
        ("budgetingMethod: Occurrences", "budgetingMethod: RatioTimeslices", "bad-budgeting", "spec.budgetingMethod"),
        ("service: search-service", "service: serach-service", "unknown-service", "spec.service"),
        ("counter: true", "counter: false", "not-a-counter", "spec.indicator.spec.ratioMetric.counter"),
        ("query: requests", "query: 'rate(requests[5m])'", "not-a-counter-query", "total.metricSource.spec.query"),
        ("query: requests", "query: 'requests / 2'", "not-a-counter-query", "total.metricSource.spec.query"),
        ("query: requests", "query: 'sum by (x) (requests)'", "not-a-counter-query", "total.metricSource.spec.query"),
        ("query: requests", "query: 'requests{'", "not-a-counter-query", "total.metricSource.spec.query"),
        ("metricSourceRef: gateway", "metricSourceRef: gatewy", "unknown-source", "total.metricSource.metricSourceRef"),
        ("kind: errors", "kind: error", "no-kind", "metadata.annotations.backstay.dev/kind"),
        ("name: search-service-errors", "name: Search Errors", "bad-name", "metadata.name"),
        ("apiVersion: openslo/v1", "apiVersion: openslo/v2", "not-openslo", "apiVersion"),
        ("kind: SLO", "kind: Slo", "unknown-kind", "kind"),
        ("        bad:", "        good:", None, None),
        ("        bad:", "        worse:", "good-or-bad", "spec.indicator.spec.ratioMetric"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_line_its_path_and_a_stable_code(
    right: str, wrong: str, code: str | None, path: str | None
) -> None:
    assert right in ERRORS
    text = ERRORS.replace(right, wrong)
    found = {finding.code: finding for finding in findings_of(text) if finding.severity is Severity.ERROR}
    if code is None:
        assert not found
        return
    assert code in found
    assert found[code].path.endswith(path or "")
    line = text[: text.rindex(wrong)].count("\n") + 1
    assert found[code].line in (line - 1, line)  # what is wrong with a whole mapping is told at its first line
    with pytest.raises(InvalidSlo, match=code) as refused:
        slo_of(text)
    assert isinstance(refused.value, InvalidDefinition)
    assert str(found[code]).startswith(f"slo.yaml:{found[code].line}: {code} ")


def test_a_latency_slo_without_a_bucket_is_refused() -> None:
    assert [f.code for f in findings_of(ERRORS.replace("kind: errors", "kind: latency"))] == ["latency-without-bucket"]


def test_all_findings_are_told_at_once() -> None:
    text = ERRORS.replace("target: 0.999", "target: 1").replace("duration: 30d", "duration: x")
    assert {finding.code for finding in findings_of(text)} >= {"target-of-one", "bad-window"}


def test_the_same_name_twice_is_refused_and_says_where_the_first_is() -> None:
    (found,) = read({"a.yaml": SERVICE, "b.yaml": ERRORS, "c.yaml": ERRORS})[1]
    assert (found.code, found.file) == ("duplicate-name", "c.yaml")
    assert "b.yaml:1" in found.message


def test_a_field_that_is_written_twice_is_refused() -> None:
    text = ERRORS.replace("    - target: 0.999", "    - target: 0.999\n      target: 0.99")
    assert [finding.code for finding in findings_of(text)] == ["repeated-field"]


def test_text_that_is_no_yaml_is_named_with_its_line() -> None:
    (found,) = (f for f in findings_of("a: b\n c: [") if f.file == "slo.yaml")
    assert (found.code, found.line) == ("yaml", 2)


def test_a_small_file_that_unfolds_into_a_huge_one_is_refused() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    assert "too many" in next(f for f in findings_of(bomb) if f.file == "slo.yaml").message


def test_an_indicator_may_stand_in_an_object_of_its_own() -> None:
    document = yaml.safe_load(ERRORS)
    indicator = document["spec"].pop("indicator")
    document["spec"]["indicatorRef"] = "search-errors"
    sli = {"apiVersion": "openslo/v1", "kind": "SLI", "metadata": {"name": "search-errors"}, **indicator}
    assert slo_of(yaml.safe_dump_all([document, sli])).bad == slo_of(ERRORS).bad


LATENCY = (
    ERRORS.replace("kind: errors", "kind: latency")
    .replace("        bad:", "        good:")
    .replace("""'sum(errors{code="5"}) + sum(broken)'""", """'sum(seconds_bucket{le="0.20"})'""")
    .replace("query: requests", "query: sum(seconds_count)")
)


def test_the_bucket_of_a_latency_slo_is_a_number_and_not_a_spelling() -> None:
    bucket = slo_of(LATENCY).bucket
    assert bucket is not None
    assert (bucket.boundary, bucket.count_metric) == (Decimal("0.2"), "seconds_count")


def test_a_total_of_another_metric_than_the_histogram_is_warned_about() -> None:
    (found,) = findings_of(LATENCY.replace("seconds_count", "requests"))
    assert (found.code, found.severity) == ("other-histogram", Severity.WARNING)


def test_time_slices_need_a_width_and_a_share() -> None:
    text = ERRORS.replace("Occurrences", "Timeslices")
    missing = sorted(f.path for f in findings_of(text) if f.code == "missing-field")
    assert missing == ["spec.objectives[0].timeSliceTarget", "spec.objectives[0].timeSliceWindow"]
    whole = "target: 0.999\n      timeSliceTarget: 0.95\n      timeSliceWindow: 1m"
    slices = slo_of(text.replace("target: 0.999", whole)).slices
    assert slices is not None
    assert (slices.target, slices.width.total_seconds()) == (Decimal("0.95"), 60)
    uneven = text.replace("target: 0.999", whole.replace("1m", "7m"))
    assert [f.code for f in findings_of(uneven)] == ["bad-slices"]


def test_a_service_without_slos_is_warned_about() -> None:
    (found,) = check({"services.yaml": SERVICE})
    assert (found.code, found.severity, found.line) == ("no-slo", Severity.WARNING, 1)


def test_a_threshold_that_a_full_outage_cannot_reach_is_reported_with_the_one_in_force() -> None:
    found = check({"services.yaml": SERVICE, "slo.yaml": ERRORS.replace("target: 0.999", "target: 0.9")})
    assert {f.code for f in found} == {"unreachable-threshold"}
    assert "14.4x" in found[0].message
    assert "fires at 9x" in found[0].message


def test_a_scrape_interval_too_long_for_the_shortest_window_is_reported() -> None:
    slow = SERVICE.replace("1s", "2m")
    assert [f.code for f in check({"services.yaml": slow, "slo.yaml": ERRORS})] == ["too-few-scrapes"]


def test_a_missing_bucket_is_reported_with_the_one_to_add() -> None:
    catalogue = load({"services.yaml": SERVICE, "slo.yaml": LATENCY})
    series = [{"__name__": "seconds_bucket", "le": le} for le in ("0.1", "0.25", "0.5", "+Inf")]
    (found,) = check_buckets(catalogue, series)
    assert found.code == "bucket-missing"
    assert "only at 0.1 and 0.25: add the bucket 0.2" in found.message
    assert check_buckets(catalogue, [*series, {"__name__": "seconds_bucket", "le": "0.200"}]) == ()
    assert [f.code for f in check_buckets(catalogue, [])] == ["no-series"]


LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))


DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
)


@given(st.lists(st.sampled_from(ERRORS.splitlines()), max_size=40).map("\n".join) | DOCUMENTS.map(yaml.safe_dump))
@settings(max_examples=150, deadline=None)
def test_whatever_a_file_holds_it_is_read_or_refused_with_findings(text: str) -> None:
    catalogue, findings = read({"slo.yaml": text})
    assert catalogue.slos or findings or not list(yaml.compose_all(text, Loader=yaml.SafeLoader))


@given(st.integers(0, ERRORS.count("\n") - 1), st.integers(0, ERRORS.count("\n") - 1), LEAVES)
@settings(max_examples=150, deadline=None)
def test_a_good_file_with_a_line_lost_and_a_value_changed_never_breaks_the_reader(
    lost: int, changed: int, value: object
) -> None:
    lines = ERRORS.splitlines()
    lines[changed] = lines[changed].partition(":")[0] + ": " + repr(value)
    del lines[lost]
    read({"services.yaml": SERVICE, "slo.yaml": "\n".join(lines)})


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_is_read_or_refused_with_findings(text: str) -> None:
    read({"slo.yaml": text})
