"""The recorder: exact by the second, for two hours, in memory that does not grow."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.load import recorder as module
from services.load.recorder import KEPT_SECONDS, Failure, Recorder

AI, FILE = "ai-gateway-service", "file-service"


@dataclass
class Time:
    now: float = 1_800_000_000.25

    def __call__(self) -> float:
        return self.now


def a_failure(at: float, service: str = AI, **changes: Any) -> Failure:
    values = {
        "at": at,
        "service": service,
        "journey": "chat",
        "step": "chat",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 500,
        "kind": "status",
        "fault": "errors",
        "request_id": "r",
        "detail": "",
    }
    return Failure(**{**values, **changes})


STEPS = st.lists(
    st.tuples(st.floats(0, 3) | st.floats(0, 5000), st.sampled_from([AI, FILE]), st.booleans()), min_size=1, max_size=60
)


@given(STEPS, st.floats(0, 1), st.floats(0, 1))
def test_any_window_counts_what_ended_in_its_seconds(
    steps: list[tuple[float, str, bool]], start_share: float, end_share: float
) -> None:
    time = Time()
    begin = time.now
    recorder = Recorder(time, (AI, FILE))
    ended: list[tuple[float, str, bool]] = []
    for pause, service, ok in steps:
        time.now += pause
        ended.append((time.now, service, ok))
        if ok:
            recorder.succeeded(service, 0.1)
        else:
            recorder.failed(a_failure(time.now, service), 0.1)
    since = begin + start_share * (time.now - begin)
    until = since + end_share * (time.now - since)
    told = recorder.outcomes(since, until)
    oldest = max(math.floor(begin), math.floor(time.now) - KEPT_SECONDS + 1)
    within = [e for e in ended if told["from"] <= e[0] < told["to"]]
    assert told["from"] == max(math.floor(since), oldest)
    assert told["truncated"] is (math.floor(since) < oldest)
    for service, numbers in told["services"].items():
        mine = [e for e in within if e[1] == service]
        assert (numbers["sent"], numbers["ok"]) == (len(mine), sum(e[2] for e in mine))
        assert numbers["failed"] == numbers["sent"] - numbers["ok"]
    assert len(told["failures"]) == sum(not e[2] for e in within)
    assert told["sent"] == len(within)


def test_without_a_window_everything_since_the_start_is_told() -> None:
    time = Time()
    recorder = Recorder(time)
    recorder.succeeded(FILE, 0.1)
    time.now += 100
    told = recorder.outcomes()
    assert (told["from"], told["to"], told["sent"], told["truncated"]) == (1_800_000_000, 1_800_000_101, 1, False)


def test_a_window_of_the_future_or_turned_round_is_empty() -> None:
    time = Time()
    recorder = Recorder(time)
    recorder.succeeded(FILE, 0.1)
    assert recorder.outcomes(time.now + 100)["sent"] == 0
    assert recorder.outcomes(time.now, time.now - 50)["sent"] == 0
    assert recorder.outcomes(time.now - 5000)["truncated"] is False  # before the start there was nothing to lose


def test_more_failures_than_are_kept_say_so_and_are_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_FAILURES", 10)
    time = Time()
    recorder = Recorder(time)
    for _ in range(15):
        recorder.failed(a_failure(time.now), 0.1)
        time.now += 1
    told = recorder.outcomes()
    assert (told["services"][AI]["failed"], len(told["failures"]), told["truncated"]) == (15, 10, True)
    assert recorder.outcomes(time.now - 5)["truncated"] is False


def test_a_clock_that_goes_back_loses_and_doubles_nothing() -> None:
    time = Time()
    recorder = Recorder(time)
    recorder.succeeded(FILE, 0.1)
    time.now -= 3600
    recorder.succeeded(FILE, 0.1)
    assert recorder.outcomes()["sent"] == 2


def test_latency_is_told_as_the_end_of_its_bucket() -> None:
    recorder = Recorder(Time())
    for milliseconds in [4] * 90 + [180] * 9 + [60_000]:
        recorder.succeeded(FILE, milliseconds / 1000)
    numbers = recorder.outcomes()["services"][FILE]
    assert (numbers["p50_ms"], numbers["p95_ms"]) == (5, 200)
    assert recorder.outcomes()["services"][AI]["p95_ms"] is None
