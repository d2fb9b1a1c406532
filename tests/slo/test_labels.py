from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.slo.events import Selector
from control_plane.slo.fetch_plan import covering
from control_plane.slo.labels import boundary, le_pattern, matches, written

LABELS = {"__name__": "requests", "code": "500", "route": "search"}


@pytest.mark.parametrize(
    ("matcher", "hit"),
    [
        (("code", "=", "500"), True),
        (("code", "!=", "500"), False),
        (("code", "=~", "5.."), True),
        (("code", "=~", "5"), False),  # patterns match whole values
        (("code", "!~", "4.."), True),
        (("absent", "=", ""), True),
        (("absent", "=~", ".+"), False),
        (("absent", "!=", "x"), True),
    ],
)
def test_labels_match_as_in_prometheus(matcher: tuple[str, str, str], hit: bool) -> None:
    assert matches(Selector("requests", (matcher,)), LABELS) is hit


def test_another_metric_never_matches() -> None:
    assert not matches(Selector("other"), LABELS)


def test_values_are_written_so_that_prometheus_reads_them_back() -> None:
    assert written(Selector("m", (("path", "=", 'a"b\\c\n'),))) == 'm{path="a\\"b\\\\c\\n"}'


@given(st.decimals(min_value="0.0001", max_value="10000", places=4).filter(lambda d: d > 0))
def test_every_spelling_of_a_boundary_is_matched_and_no_other_boundary(value: Decimal) -> None:
    pattern = le_pattern(value)
    spellings = {str(value), f"{value.normalize():f}", repr(float(value)), f"{float(value):e}", f"{value:.6f}"}
    for spelling in spellings:
        if boundary(spelling) == value:
            assert re.fullmatch(pattern, spelling), (pattern, spelling)
    for other in (value * 10, value / 10, value + 1):
        assert not re.fullmatch(pattern, f"{other.normalize():f}")


SELECTORS = st.builds(
    Selector,
    st.sampled_from(["a", "b"]),
    st.lists(
        st.tuples(
            st.sampled_from(["x", "y"]),
            st.sampled_from(["=", "=~", "!=", "!~"]),
            st.sampled_from(["1", "2", "1|2", ""]),
        ),
        max_size=3,
    ).map(tuple),
)
SERIES = st.fixed_dictionaries(
    {"__name__": st.sampled_from(["a", "b"])},
    optional={"x": st.sampled_from(["1", "2", "3"]), "y": st.sampled_from(["1", "2"])},
)


@given(st.lists(SELECTORS, max_size=6), SERIES)
def test_the_plan_asks_for_every_series_that_anyone_wants(selectors: list[Selector], labels: dict[str, str]) -> None:
    plan = covering(selectors)
    if any(matches(selector, labels) for selector in selectors):
        assert any(matches(selector, labels) for selector in plan)
    assert len(plan) == len({selector.metric for selector in selectors})


def test_a_thousand_slos_on_one_metric_are_one_query() -> None:
    routes = [f"route.{i}" for i in range(1000)]
    (family,) = covering(Selector("m", (("host", "=", "gateway"), ("route", "=", route))) for route in routes)
    assert ("host", "=", "gateway") in family.matchers
    assert matches(family, {"__name__": "m", "host": "gateway", "route": "route.7"})
    assert not matches(family, {"__name__": "m", "host": "gateway", "route": "routeX7"})
