"""What users saw since a move: counted from raw samples, past restarts, births and lost scrapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from control_plane.actions.soundness import SampleCounts
from control_plane.errors import SourceUnavailable
from control_plane.runners.samples import REACH_BACK, ObjectiveSamples, provider_seconds
from control_plane.slo.events import Selector, Series
from control_plane.slo.labels import matches
from control_plane.slo.spec import Slo
from tests.slo.slo_builders import a_latency_slo, an_slo, at, counters, counting, readings

SERVICE = "search-service"
OTHER_TARGET = {"instance": "127.0.0.1:7003"}


@dataclass
class Recorded:
    """The EventSource port over series that a test wrote down."""

    series: list[Series]
    down: bool = False
    asked: list[tuple[Sequence[Selector], timedelta, datetime]] = field(default_factory=list)

    async def samples(self, selectors: Sequence[Selector], over: timedelta, at: datetime) -> Sequence[Series]:
        self.asked.append((selectors, over, at))
        if self.down:
            raise SourceUnavailable("Prometheus did not answer")
        start, end = (at - over).timestamp(), at.timestamp()
        found = []
        for each in self.series:
            if any(matches(selector, each.labels) for selector in selectors):
                within = (each.timestamps > start) & (each.timestamps <= end)
                found.append(Series(each.labels, each.timestamps[within], each.values[within]))
        return found

    async def history(
        self, selectors: Sequence[Selector], start: datetime, end: datetime, step: timedelta
    ) -> Sequence[Series]:
        raise NotImplementedError("nobody asks for history here")


async def counted(
    *series: Series, slos: Sequence[Slo] | None = None, since: float = 60, now: float = 100
) -> SampleCounts:
    wanted = slos if slos is not None else [an_slo(), a_latency_slo()]
    return await ObjectiveSamples(Recorded(list(series)), wanted, lambda: at(now)).since(SERVICE, at(since))


def all_good() -> list[Series]:
    """Ten requests a second, all of them quick and well, up to second 100."""
    return [
        counting("requests_total", 0, 100, lambda t: 10 * t),
        counting("errors_total", 0, 100, lambda t: 0),
        counting("seconds_count", 0, 100, lambda t: 10 * t),
        counting("seconds_bucket", 0, 100, lambda t: 10 * t, le="0.2"),
        counting("up", 0, 100, lambda t: 1),
    ]


async def test_requests_are_counted_from_the_instant_on() -> None:
    assert await counted(*all_good()) == SampleCounts(400, 0, 0)


async def test_what_was_asked_reaches_back_far_enough_to_count_from() -> None:
    source = Recorded(all_good())
    await ObjectiveSamples(source, [an_slo(), a_latency_slo()], lambda: at(100)).since(SERVICE, at(60))
    ((_, over, when),) = source.asked
    assert (over, when) == (timedelta(seconds=40) + REACH_BACK, at(100))


async def test_errors_and_slow_requests_are_counted_apart() -> None:
    series = all_good()
    series[1] = counting("errors_total", 0, 100, lambda t: 50 + max(0, t - 90))
    series[3] = counting("seconds_bucket", 0, 100, lambda t: 10 * t - max(0, t - 80), le="0.2")
    assert await counted(*series) == SampleCounts(400, 10, 20)


async def test_without_a_latency_objective_slowness_is_not_known() -> None:
    assert await counted(*all_good(), slos=[an_slo()]) == SampleCounts(400, 0, None)


async def test_without_any_objective_nothing_is_known_and_nothing_asked() -> None:
    source = Recorded(all_good())
    counts = await ObjectiveSamples(source, [], lambda: at(100)).since(SERVICE, at(60))
    assert counts == SampleCounts(0, 0, None)
    assert source.asked == []


async def test_bad_is_what_is_not_good_where_the_objective_counts_the_good() -> None:
    slo = replace(an_slo(), bad=None, good=counters("good_total"))
    series = [*all_good(), counting("good_total", 0, 100, lambda t: 10 * t - max(0, t - 70))]
    assert await counted(*series, slos=[slo]) == SampleCounts(400, 30, None)


async def test_an_objective_of_our_own_says_nothing_about_a_move() -> None:
    own = replace(a_latency_slo(), name="first-token", total=counters("other_total"), ours=True)
    assert await counted(*all_good(), slos=[own, an_slo(), a_latency_slo()]) == SampleCounts(400, 0, 0)


async def test_a_restart_loses_no_request_that_was_seen() -> None:
    series = all_good()
    series[2] = counting("seconds_count", 0, 100, lambda t: 10 * t if t < 80 else 10 * (t - 80))
    series[3] = counting("seconds_bucket", 0, 100, lambda t: 10 * t if t < 80 else 10 * (t - 80), le="0.2")
    assert (await counted(*series)).total == 190 + 200


async def test_a_series_that_is_born_after_the_instant_counts_whole() -> None:
    born = readings("errors_total", [90, 95, 100], [3, 4, 4], code="503")
    assert (await counted(*all_good(), born)).bad == 4


async def test_the_first_requests_of_a_new_replica_count() -> None:
    new = [
        readings("seconds_count", [85, 90, 95], [30, 60, 90], **OTHER_TARGET),
        readings("seconds_bucket", [85, 90, 95], [30, 60, 90], **OTHER_TARGET, le="0.2"),
        readings("up", [85, 90, 95], [1, 1, 1], **OTHER_TARGET),
    ]
    assert (await counted(*all_good(), *new)).total == 490


async def test_an_old_counter_whose_scrapes_failed_does_not_count_what_was_before() -> None:
    times = [float(t) for t in range(41, 101)]
    lost = [
        readings("errors_total", [80, 90], [5000, 5002], **OTHER_TARGET),
        readings("up", times, [0.0 if t < 80 else 1.0 for t in times], **OTHER_TARGET),
    ]
    assert (await counted(*all_good(), *lost)).bad == 2


async def test_series_that_nobody_asked_for_count_for_nobody() -> None:
    stranger = counting("seconds_bucket", 0, 100, lambda t: 7 * t, le="0.5")
    assert await counted(*all_good(), stranger) == SampleCounts(400, 0, 0)


async def test_a_part_is_no_answer() -> None:
    with pytest.raises(SourceUnavailable):
        await ObjectiveSamples(Recorded([], down=True), [an_slo()], lambda: at(100)).since(SERVICE, at(60))


# --- the wait for a provider


async def test_the_wait_for_a_provider_is_that_of_the_last_two_minutes() -> None:
    waits = [
        counting("provider_wait_seconds_sum", 0, 600, lambda t: t if t <= 480 else 480 + 3 * (t - 480), service="chat"),
        counting("provider_wait_seconds_count", 0, 600, lambda t: t, service="chat"),
        counting("provider_wait_seconds_sum", 0, 600, lambda t: 9 * t, service="other"),
    ]
    assert await provider_seconds(Recorded(waits), "chat", at(600)) == pytest.approx(3.0, rel=0.01)


async def test_a_wait_that_nobody_waited_for_is_not_known() -> None:
    with pytest.raises(SourceUnavailable, match="Nobody waited"):
        await provider_seconds(Recorded([]), "chat", at(600))
