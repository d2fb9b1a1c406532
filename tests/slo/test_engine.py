from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.slo.engine import UP, SloEngine
from control_plane.slo.events import Series
from control_plane.slo.exclusions import Exclusion
from control_plane.slo.snapshot import UnreadableSnapshot
from control_plane.slo.spec import Objective
from control_plane.slo.state import SloState, Verdict
from tests.slo.slo_builders import (
    a_latency_slo,
    an_availability_slo,
    an_slo,
    at,
    counters,
    counting,
    observed,
    readings,
)


def steady(rate: float, start: float, end: float, metric: str = "requests_total", base: float = 0) -> Series:
    return counting(metric, start, end, lambda t: base + rate * t)


def test_events_are_counted_from_the_first_sample_that_was_ever_seen() -> None:
    state = observed(SloEngine([an_slo()]), steady(10, 0, 60, base=5000), now=60)
    assert state.events is not None
    assert (state.events.total, state.events.bad) == (600, 0)
    assert state.verdict is Verdict.OK


def test_an_error_series_born_on_a_live_target_counts_in_full() -> None:
    engine = SloEngine([an_slo()])
    state = observed(engine, steady(10, 0, 60), readings("errors_total", [41, 42], [3, 5]), now=60)
    assert state.events is not None
    assert state.events.bad == 5


def test_an_error_series_born_between_two_readings_counts_in_full() -> None:
    engine = SloEngine([an_slo()])
    engine.observe([steady(10, 0, 60)], at(60))
    state = observed(engine, steady(10, 61, 65), readings("errors_total", [61, 65], [7, 7]), now=65)
    assert state.events is not None
    assert state.events.bad == 7


def test_a_new_target_counts_from_its_first_sample_because_nobody_knows_since_when_it_runs() -> None:
    engine = SloEngine([an_slo()])
    engine.observe([steady(10, 0, 60)], at(60))
    replica = counting("requests_total", 61, 65, lambda t: 900 + t, instance="127.0.0.1:7300")
    state = observed(engine, replica, steady(10, 61, 65), now=65)
    assert state.events is not None
    assert state.events.total == 650 + 4


def test_up_tells_that_a_target_without_other_series_was_already_scraped() -> None:
    engine = SloEngine([an_slo()])
    assert UP in engine.selectors
    suite = {"job": "suite", "instance": "127.0.0.1:7200"}
    alive = readings("up", [30, 35, 40], [1, 1, 1], **suite)
    state = observed(engine, steady(10, 0, 60), alive, readings("errors_total", [40], [2], **suite), now=60)
    assert state.events is not None
    assert state.events.bad == 2


def test_a_failed_scrape_is_no_proof_that_a_target_was_there() -> None:
    suite = {"job": "suite", "instance": "127.0.0.1:7200"}
    dead = readings("up", [30, 35, 40], [0, 0, 1], **suite)
    late = readings("errors_total", [40], [2], **suite)
    state = observed(SloEngine([an_slo()]), steady(10, 0, 60), dead, late, now=60)
    assert state.events is not None
    assert state.events.bad == 0


def test_a_restart_loses_no_event_that_was_seen() -> None:
    times = [0, 10, 20, 30]
    state = observed(SloEngine([an_slo()]), readings("requests_total", times, [100, 150, 20, 40]), now=30)
    assert state.events is not None
    assert state.events.total == 50 + 20 + 20


def test_a_clock_that_jumps_an_hour_ahead_makes_the_state_unknown_and_counts_nothing_twice() -> None:
    engine = SloEngine([an_slo()])
    before = observed(engine, steady(10, 0, 60), now=60)
    ahead = observed(engine, now=3660)
    after = observed(engine, steady(10, 30, 60), now=60)
    assert ahead.verdict is Verdict.UNKNOWN
    assert (after.verdict, after.events) == (Verdict.OK, before.events)


def test_a_clock_that_jumps_back_makes_the_state_unknown() -> None:
    engine = SloEngine([an_slo()])
    engine.observe([steady(10, 3500, 3600)], at(3600))
    state = observed(engine, now=0)
    assert state.verdict is Verdict.UNKNOWN
    assert "ahead of this clock" in state.reason


def test_samples_of_the_future_are_refused() -> None:
    engine = SloEngine([an_slo()])
    state = observed(engine, steady(10, 0, 60), readings("requests_total", [9000], [10**9], instance="other"), now=60)
    assert state.events is not None
    assert state.events.total == 600


def test_a_gap_is_not_measured_and_its_events_are_not_lost() -> None:
    engine = SloEngine([an_slo()])
    engine.observe([steady(10, 0, 60)], at(60))
    state = observed(engine, steady(10, 660, 720), now=720)
    assert state.events is not None
    assert state.events.total == pytest.approx(7200)
    assert state.coverage_ratio is not None
    assert 0.1 < state.coverage_ratio < 0.2


def test_a_complete_young_source_has_full_coverage_and_a_small_measured_share() -> None:
    state = observed(SloEngine([an_slo()]), steady(10, 0, 3600), now=3600)
    assert state.coverage_ratio == 1.0
    assert state.measured_ratio == pytest.approx(3600 / (30 * 86400), rel=0.01)


def test_bad_events_come_as_total_less_good_where_good_is_counted() -> None:
    slo = an_slo(good=counters("served_total"), bad=None)
    state = observed(SloEngine([slo]), steady(10, 0, 60), steady(9, 0, 60, "served_total"), now=60)
    assert state.events is not None
    assert (state.events.total, state.events.bad) == (600, 60)


# --- latency


def bucket(le: str, rate: float, start: float = 0, end: float = 60) -> Series:
    return counting("seconds_bucket", start, end, lambda t: rate * t, le=le)


@pytest.mark.parametrize("spelling", ["0.2", "0.20", "0.200", ".2", "2e-01"])
def test_the_bucket_at_the_threshold_is_found_however_it_is_spelt(spelling: str) -> None:
    state = observed(
        SloEngine([a_latency_slo()]), steady(10, 0, 60, "seconds_count"), bucket(spelling, 9), bucket("0.5", 10), now=60
    )
    assert state.sli is not None
    assert state.sli.lower == state.sli.estimate == state.sli.upper == pytest.approx(0.9)


def test_without_a_bucket_at_the_threshold_the_sli_is_the_interval_between_its_neighbours() -> None:
    engine = SloEngine([a_latency_slo()])
    buckets = [bucket("0.1", 6), bucket("0.25", 9), bucket("0.5", 10), bucket("+Inf", 10)]
    state = observed(engine, steady(10, 0, 60, "seconds_count"), *buckets, now=60)
    assert state.sli is not None
    assert state.sli.lower == pytest.approx(0.6)
    assert state.sli.upper == pytest.approx(0.9)
    assert state.sli.estimate == pytest.approx(0.6 + 0.3 * 2 / 3)
    assert "add the bucket 0.2" in state.reason


def test_only_the_buckets_that_are_needed_are_fetched_once_they_are_known() -> None:
    engine = SloEngine([a_latency_slo()])
    (wide,) = (s for s in engine.selectors if s.metric == "seconds_bucket")
    engine.observe([steady(10, 0, 60, "seconds_count"), bucket("0.2", 9), bucket("0.5", 9)], at(60))
    (narrow,) = (s for s in engine.selectors if s.metric == "seconds_bucket")
    assert wide.matchers == ()
    assert [label for label, _, _ in narrow.matchers] == ["le"]


def test_a_histogram_that_shows_no_buckets_is_unknown_and_not_slow() -> None:
    state = observed(SloEngine([a_latency_slo()]), steady(10, 0, 60, "seconds_count"), now=60)
    assert state.verdict is Verdict.UNKNOWN
    assert "no buckets" in state.reason


def test_a_bucket_that_is_asked_for_late_does_not_bring_its_whole_past() -> None:
    engine = SloEngine([a_latency_slo()])
    engine.observe([steady(10, 0, 60, "seconds_count"), bucket("0.2", 9)], at(60))
    # a second histogram, on the same target, without the bucket that is asked for
    count_b = [counting("seconds_count", a, a + 5, lambda t: 100 * t, endpoint="/b") for a in (61, 66, 71)]
    bucket_b = [counting("seconds_bucket", a, a + 5, lambda t: 100 * t, le="0.25", endpoint="/b") for a in (66, 71)]
    engine.observe([steady(10, 61, 66, "seconds_count"), bucket("0.2", 9, 61, 66), count_b[0]], at(66))
    engine.observe([steady(10, 67, 71, "seconds_count"), bucket("0.2", 9, 67, 71), count_b[1], bucket_b[0]], at(71))
    tally = engine.view(0).tally(at(0).timestamp(), at(71).timestamp())
    assert (tally.total, tally.bad, tally.unsure) == (710 + 7100, 71, 7100)  # nothing is known of the second one


# --- availability


def test_minutes_are_up_when_enough_of_their_requests_were_served() -> None:
    def failed(t: float) -> float:  # 4 % in the second minute, 6 % in the third
        return 0.4 * min(max(t - 60, 0), 60) + 0.6 * min(max(t - 120, 0), 60)

    engine = SloEngine([an_availability_slo()])
    state = observed(engine, steady(10, 0, 240), counting("errors_total", 0, 240, failed), now=241)
    assert state.events is not None
    assert (state.events.total, state.events.bad) == (4, 1)


def test_exactly_the_slice_target_is_up() -> None:
    engine = SloEngine([an_availability_slo()])
    errors = counting("errors_total", 0, 60, lambda t: t / 2)
    state = observed(engine, steady(10, 0, 61), errors, now=62)
    assert state.events is not None
    assert (state.events.total, state.events.bad) == (1, 0)


def test_late_errors_correct_a_minute_that_was_judged() -> None:
    engine = SloEngine([an_availability_slo()])
    first = observed(engine, steady(10, 0, 130), readings("errors_total", [0], [0], job="suite"), now=130)
    second = observed(engine, steady(10, 131, 135), readings("errors_total", [50], [100], job="suite"), now=135)
    assert first.events is not None
    assert second.events is not None
    assert (first.events.bad, second.events.bad) == (0, 1)
    assert second.events.total == first.events.total


def test_minutes_without_requests_are_neither_up_nor_down() -> None:
    state = observed(SloEngine([an_availability_slo()]), steady(0, 0, 300, base=7), now=301)
    assert state.events is None


# --- unknown


def test_a_failed_reading_is_unknown_and_loses_nothing() -> None:
    engine = SloEngine([an_slo()])
    engine.observe([steady(10, 0, 60)], at(60))
    engine.observe_failure("Prometheus did not answer within 3 s.", at(65))
    state = engine.states(at(65))[0]
    assert (state.verdict, state.reason) == (Verdict.UNKNOWN, "Prometheus did not answer within 3 s.")
    assert state.events is not None
    assert state.events.total == 600
    assert not any(alert.firing for alert in state.alerts)


def test_the_next_good_reading_ends_a_failure() -> None:
    engine = SloEngine([an_slo()])
    engine.observe_failure("down", at(0))
    assert observed(engine, steady(10, 0, 60), now=60).verdict is Verdict.OK


def test_after_two_missed_scrapes_the_data_is_stale() -> None:
    engine = SloEngine([an_slo()])
    engine.observe([steady(10, 0, 60)], at(60))
    assert engine.states(at(63))[0].verdict is Verdict.OK
    late = engine.states(at(65))[0]
    assert late.verdict is Verdict.UNKNOWN
    assert "5 s old" in late.reason


def test_a_total_that_was_never_seen_is_unknown_even_with_errors() -> None:
    state = observed(SloEngine([an_slo()]), steady(1, 0, 60, "errors_total"), now=60)
    assert state.verdict is Verdict.UNKNOWN
    assert state.sli is None


def test_missing_errors_beside_a_live_total_are_no_errors() -> None:
    state = observed(SloEngine([an_slo()]), steady(10, 0, 60), now=60)
    assert state.sli is not None
    assert (state.verdict, state.sli.estimate) == (Verdict.OK, 1.0)


def test_a_counter_that_reads_nan_is_unknown() -> None:
    state = observed(SloEngine([an_slo()]), steady(10, 0, 60), readings("errors_total", [58, 59], [1, np.nan]), now=60)
    assert (state.verdict, state.reason) == (Verdict.UNKNOWN, "A counter reads NaN.")


def test_more_bad_events_than_events_are_a_contradiction() -> None:
    state = observed(SloEngine([an_slo()]), steady(1, 0, 60), steady(5, 0, 60, "errors_total"), now=60)
    assert state.verdict is Verdict.UNKNOWN
    assert "disagree" in state.reason


def test_counters_that_stand_still_are_no_traffic_and_not_unknown() -> None:
    state = observed(SloEngine([an_slo()]), steady(0, 0, 400, base=50), now=400)
    assert state.verdict is Verdict.NO_TRAFFIC


# --- alerts


def test_an_outage_of_a_fifth_of_requests_pages() -> None:
    errors = counting("errors_total", 0, 4000, lambda t: 4 * max(0.0, t - 3700))
    state = observed(SloEngine([an_slo()]), steady(20, 0, 4000), errors, now=4000)
    assert state.verdict is Verdict.PAGE
    assert state.alerts[0].firing
    assert state.alerts[0].factor == 14.4


def test_one_failure_of_the_first_few_requests_pages_nobody() -> None:
    errors = readings("errors_total", [3, 10], [1, 1])
    assert observed(SloEngine([an_slo()]), steady(1, 0, 10), errors, now=10).verdict is Verdict.OK


# --- exclusions


def a_drill(start: float, end: float | None, **changes: Any) -> Exclusion:
    return replace(Exclusion(at(start), None if end is None else at(end), "drill errors"), **changes)


def drilled(slo: Any = None, exclusions: tuple[Exclusion, ...] = (), now: float = 600) -> SloState:
    """20 % errors from 120 s to 240 s."""
    engine = SloEngine([slo or an_slo()])
    errors = counting("errors_total", 0, now, lambda t: 2 * min(max(0.0, t - 120), 120))
    engine.observe([steady(10, 0, now), errors], at(now))
    return engine.states(at(now), exclusions)[0]


def test_a_drill_costs_no_budget_and_is_shown_with_and_without() -> None:
    state = drilled(exclusions=(a_drill(120, 240),))
    assert state.sli is not None
    assert state.sli_without_exclusions is not None
    assert state.sli.estimate == 1.0
    assert state.sli_without_exclusions.estimate == pytest.approx(1 - 240 / 6000)
    assert state.verdict is Verdict.OK


def test_a_drill_that_runs_is_excluded_up_to_now_and_still_seen_by_the_fast_path() -> None:
    state = drilled(exclusions=(a_drill(120, None),), now=200)
    assert state.sli is not None
    assert state.recent is not None
    assert state.sli.estimate == 1.0
    assert sum(state.recent.bad) == 160


def test_exclusions_of_another_service_do_not_count() -> None:
    state = drilled(exclusions=(a_drill(120, 240, services=frozenset({"file-service"})),))
    assert state.sli == state.sli_without_exclusions


def test_overlapping_exclusions_are_subtracted_once() -> None:
    state = drilled(exclusions=(a_drill(120, 200), a_drill(150, 240)), now=300)
    assert state.events is not None
    assert state.events.total == 3000 - 1210  # one scrape more than the drill: an event shows at the next sample


def test_minutes_touched_by_a_drill_are_excluded_whole() -> None:
    state = drilled(slo=an_availability_slo(), exclusions=(a_drill(130, 235),))
    assert state.events is not None
    assert (state.events.total, state.events.bad) == (8, 0)


def test_an_exclusion_stays_exact_for_weeks() -> None:
    engine = SloEngine([an_slo()])
    errors = counting("errors_total", 0, 600, lambda t: 2 * min(max(0.0, t - 120), 120))
    engine.observe([steady(10, 0, 600), errors], at(600))
    drill = (a_drill(120, 240),)
    engine.states(at(600), drill)
    day = 86400
    engine.observe([counting("requests_total", day, 20 * day, lambda t: 10 * t, every=day)], at(20 * day))
    state = engine.states(at(20 * day), drill)[0]
    assert state.events is not None
    assert state.events.bad == 0
    assert state.sli_without_exclusions is not None
    assert state.sli_without_exclusions.estimate < 1


# --- the fast path


def test_recent_events_come_one_entry_a_scrape() -> None:
    slo = an_slo(total=counters("requests_total", every=5))
    total = counting("requests_total", 0, 60, lambda t: 10 * t, every=5)
    state = observed(SloEngine([slo]), total, readings("errors_total", [0, 30, 31], [0, 0, 4]), now=60)
    assert state.recent is not None
    assert set(np.diff(state.recent.seconds)) == {5}
    assert state.recent.total[-1] == 50
    assert sum(state.recent.bad) == 4


def test_clumped_errors_raise_the_dispersion_and_one_incident_does_not() -> None:
    def clumps(t: float) -> float:
        return 30.0 * (t // 300)

    def incident(t: float) -> float:
        return 5 * min(max(0.0, t - 1000), 300)

    for errors, least, most in ((clumps, 10, 60), (incident, 1, 3)):
        engine = SloEngine([an_slo()])
        engine.observe([steady(50, 0, 3600), counting("errors_total", 0, 3600, errors)], at(3600))
        recent = engine.states(at(3600))[0].recent
        assert recent is not None
        assert least <= recent.dispersion <= most


# --- memory


def test_a_snapshot_goes_on_where_it_ended() -> None:
    slos = [an_slo(), an_availability_slo(), a_latency_slo()]
    engine = SloEngine(slos)
    start = [steady(10, 0, 200), steady(1, 0, 200, "errors_total"), steady(10, 0, 200, "seconds_count")]
    engine.observe([*start, bucket("0.1", 6, 0, 200), bucket("0.25", 9, 0, 200)], at(200))
    engine.states(at(200), [a_drill(50, 70)])
    again = SloEngine.restore(slos, engine.snapshot())
    more = [steady(10, 201, 400), steady(1, 201, 400, "errors_total"), steady(10, 201, 400, "seconds_count")]
    for each in (engine, again):
        each.observe([*more, bucket("0.1", 6, 201, 400), bucket("0.25", 9, 201, 400)], at(400))
    assert again.states(at(400), [a_drill(50, 70)]) == engine.states(at(400), [a_drill(50, 70)])
    assert again.selectors == engine.selectors


def test_a_snapshot_serves_other_slos_and_forgets_what_now_counts_otherwise() -> None:
    engine = SloEngine([an_slo(), an_slo(name="gone")])
    engine.observe([steady(10, 0, 60)], at(60))
    objective = Objective(Decimal("0.99"), timedelta(days=7))
    slos = [an_slo(name="new"), an_slo(objective=objective), an_slo(name="gone", bad=counters("other_total"))]
    new, kept, changed = SloEngine.restore(slos, engine.snapshot()).states(at(60))
    assert kept.events is not None
    assert kept.events.total == 600
    assert (new.events, changed.events) == (None, None)


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"backstay-slo-1\nnonsense"])
def test_a_damaged_snapshot_is_refused(damage: bytes) -> None:
    with pytest.raises(UnreadableSnapshot):
        SloEngine.restore([an_slo()], damage)


def test_a_short_gap_is_read_raw_and_a_long_one_from_history() -> None:
    engine = SloEngine([an_slo()])
    cold = engine.backfill(at(0))
    assert cold[0].start < at(-34 * 86400)
    assert cold[-1].end == at(0)
    engine.observe([steady(10, 0, 60)], at(60))
    assert engine.backfill(at(600)) == ()
    assert engine.reach(at(600)) == timedelta(seconds=570)
    (part,) = engine.backfill(at(7200))
    assert (part.start, part.end, part.step) == (at(60), at(7200), timedelta(minutes=1))


def test_what_a_jumping_clock_made_us_miss_is_read_later() -> None:
    engine = SloEngine([an_slo()])
    engine.observe([steady(10, 0, 60)], at(60))
    for ahead in (3660, 3720):
        engine.observe([], at(ahead))
    assert engine.reach(at(180)) == timedelta(seconds=150)


# --- one result


@st.composite
def histories(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[int]]:
    """Increments per second of total and bad over some minutes, and the seconds of the ticks that read them."""
    length = draw(st.integers(120, 500))
    chance = np.random.default_rng(draw(st.integers(0, 2**31)))
    total = chance.poisson(draw(st.sampled_from([0.2, 5, 40])), length)
    bad = chance.binomial(total, draw(st.sampled_from([0, 0.01, 0.3])))
    restart = draw(st.integers(1, length - 1))
    counts, errors = np.cumsum(total), np.cumsum(bad)
    counts[restart:] -= counts[restart - 1]
    errors[restart:] -= errors[restart - 1]
    ticks, now = [], 0
    while now < length - 1:
        now = min(length - 1, now + draw(st.integers(1, 25)))
        ticks.append(now)
    return counts, errors, ticks


@given(histories())
@settings(max_examples=20, deadline=None)
def test_live_backfilled_and_replayed_readings_give_the_same_state(
    history: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], list[int]],
) -> None:
    counts, errors, ticks = history
    slos = [an_slo(), an_availability_slo()]

    def reading(first: int, last: int) -> list[Series]:
        span = list(range(max(0, first), last + 1))
        return [
            readings("requests_total", span, counts[span].tolist()),
            readings("errors_total", span, errors[span].tolist()),
        ]

    end = ticks[-1]
    live, replayed, backfilled = SloEngine(slos), SloEngine(slos), SloEngine(slos)
    for now in ticks:
        live.observe(reading(now - 30, now), at(now))
        replayed.observe(reading(now - 30, now), at(now))
        replayed.observe(reading(now - 30, now), at(now))  # every tick twice
        if now is ticks[len(ticks) // 2]:
            replayed = SloEngine.restore(slos, replayed.snapshot())
    backfilled.observe(reading(0, end), at(end))
    assert live.states(at(end)) == replayed.states(at(end)) == backfilled.states(at(end))
