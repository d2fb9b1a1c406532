"""Who is at fault, by counted calls: the culprit and not its victims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.slo.events import Series
from control_plane.topology import Backend
from control_plane.tracing.call_attribution import (
    CALL_SELECTORS,
    Answers,
    AttributionVerdict,
    CallCounts,
    Calls,
    attribute_errors,
    attribute_latency,
    call_counts,
)

GATEWAY, IDENTITY, CONVERSATION, SEARCH = (
    "ai-gateway-service",
    "identity-service",
    "conversation-service",
    "search-service",
)
NOTIFICATION, STREAMING = "notification-service", "streaming-service"


def counts(answers: dict[str, Answers], calls: dict[tuple[str, str], Calls]) -> CallCounts:
    by_caller: dict[str, dict[str, Calls]] = {}
    for (caller, peer), made in calls.items():
        by_caller.setdefault(caller, {})[peer] = made
    return CallCounts({name: {Backend.SERVICE: found} for name, found in answers.items()}, by_caller)


def answered(total: float = 200, failed: float = 0, mean: float = 0.01, slow: float = 0) -> Answers:
    return Answers(total, failed, 0.0, total * mean, total, slow)


def made(total: float = 200, failed: float = 0, mean: float = 0.01) -> Calls:
    return Calls(total, failed, total * mean, total)


def test_failures_without_failing_peers_are_the_services_own() -> None:
    found = attribute_errors(counts({GATEWAY: answered(failed=40)}, {(GATEWAY, IDENTITY): made()}), GATEWAY)
    assert found.culprit == GATEWAY
    assert found.culprits[0].share == 1.0
    assert found.inherited_share == 0.0
    assert found.confidence > 0.9


def test_failures_of_a_peer_are_the_peers() -> None:
    seen = counts(
        {GATEWAY: answered(failed=40), IDENTITY: answered(300, failed=60)}, {(GATEWAY, IDENTITY): made(failed=40)}
    )
    assert attribute_errors(seen, GATEWAY).culprit == IDENTITY
    assert attribute_errors(seen, IDENTITY).culprit == IDENTITY


def test_failures_are_followed_through_the_whole_call_graph() -> None:
    seen = counts(
        {GATEWAY: answered(failed=40), CONVERSATION: answered(failed=40), SEARCH: answered(failed=40)},
        {(GATEWAY, CONVERSATION): made(failed=40), (CONVERSATION, SEARCH): made(failed=40)},
    )
    assert attribute_errors(seen, GATEWAY).culprit == SEARCH


def test_a_dead_peer_that_counts_nothing_itself_is_the_culprit() -> None:
    seen = counts({GATEWAY: answered(failed=200)}, {(GATEWAY, IDENTITY): made(failed=200)})
    assert attribute_errors(seen, GATEWAY).culprit == IDENTITY


def test_failing_calls_that_failed_nobody_are_not_blamed() -> None:
    """The gateway tells notification after the answer has left; nobody waits for that."""
    seen = counts({GATEWAY: answered(failed=0)}, {(GATEWAY, NOTIFICATION): made(failed=200)})
    found = attribute_errors(seen, GATEWAY)
    assert found.verdict is AttributionVerdict.UNSURE
    assert found.confidence == 0.0
    assert found.culprits == ()


def test_two_causes_of_equal_weight_leave_it_unsure() -> None:
    seen = counts({GATEWAY: answered(failed=40), IDENTITY: answered(failed=20)}, {(GATEWAY, IDENTITY): made(failed=20)})
    found = attribute_errors(seen, GATEWAY)
    assert found.verdict is AttributionVerdict.UNSURE
    assert found.culprit is None
    assert [round(culprit.share, 2) for culprit in found.culprits] == [0.5, 0.5]


def test_few_failures_leave_it_unsure() -> None:
    assert attribute_errors(counts({GATEWAY: answered(failed=4)}, {}), GATEWAY).culprit is None
    assert attribute_errors(counts({GATEWAY: answered(failed=8)}, {}), GATEWAY).culprit == GATEWAY


def test_services_that_call_each_other_in_a_circle_are_no_trap() -> None:
    seen = counts(
        {GATEWAY: answered(failed=40), IDENTITY: answered(failed=40)},
        {(GATEWAY, IDENTITY): made(failed=40), (IDENTITY, GATEWAY): made(failed=40)},
    )
    found = attribute_errors(seen, GATEWAY)
    assert sum(culprit.share for culprit in found.culprits) == pytest.approx(1.0)


BASELINE = counts(
    {GATEWAY: answered(), IDENTITY: answered(mean=0.004), NOTIFICATION: answered(mean=0.004)},
    {(GATEWAY, IDENTITY): made(mean=0.005), (GATEWAY, NOTIFICATION): made(mean=0.005)},
)


def test_a_service_that_is_slow_itself_is_the_culprit() -> None:
    slow = counts(
        {GATEWAY: answered(mean=0.21, slow=100), IDENTITY: answered(mean=0.004)},
        {(GATEWAY, IDENTITY): made(mean=0.005)},
    )
    assert attribute_latency(slow, BASELINE, GATEWAY).culprit == GATEWAY


@pytest.mark.parametrize("baseline", [BASELINE, None], ids=["with a baseline", "without one"])
def test_a_slow_peer_is_the_culprit(baseline: CallCounts | None) -> None:
    slow = counts(
        {GATEWAY: answered(mean=0.21, slow=100), IDENTITY: answered(mean=0.204, slow=100)},
        {(GATEWAY, IDENTITY): made(mean=0.205)},
    )
    found = attribute_latency(slow, baseline, GATEWAY)
    assert found.culprit == IDENTITY
    assert found.inherited_share > 0.9


def test_a_peer_is_charged_with_no_more_than_it_became_slower_itself() -> None:
    """Streaming waits at the gateway for the model; that the model is slow today is not the gateway's fault."""
    before = counts(
        {"streaming-service": answered(), GATEWAY: answered()}, {("streaming-service", GATEWAY): made(mean=1)}
    )
    now = counts(
        {"streaming-service": answered(mean=0.21, slow=100), GATEWAY: answered()},
        {("streaming-service", GATEWAY): made(mean=1.3)},
    )
    assert attribute_latency(now, before, "streaming-service").culprit == "streaming-service"


def test_a_slow_model_does_not_hide_that_the_service_before_it_is_slow() -> None:
    """The model happens to be faster than before, so the caller's clock shows nothing."""
    waiting = Answers(200, 0, 0, 200 * 0.01, 200, 0, waited_seconds=240)
    slow = Answers(200, 0, 0, 200 * 0.21, 200, 100, waited_seconds=200)
    edge = (STREAMING, GATEWAY)
    before = counts({STREAMING: answered(), GATEWAY: waiting}, {edge: made(mean=1.2)})
    now = counts({STREAMING: answered(mean=0.21, slow=100), GATEWAY: slow}, {edge: made(mean=1.2)})
    assert attribute_latency(now, before, STREAMING).culprit == GATEWAY


def test_a_peer_that_is_slow_for_others_only_is_not_charged() -> None:
    """Logins at identity got slow; the introspection that the gateway asks for did not."""
    now = counts(
        {GATEWAY: answered(mean=0.21, slow=100), IDENTITY: answered(mean=0.204)},
        {(GATEWAY, IDENTITY): made(mean=0.005)},
    )
    assert attribute_latency(now, BASELINE, GATEWAY).culprit == GATEWAY


def test_a_change_of_a_few_milliseconds_is_not_worth_explaining() -> None:
    found = attribute_latency(counts({GATEWAY: answered(mean=0.012, slow=3)}, {}), BASELINE, GATEWAY)
    assert found.verdict is AttributionVerdict.UNSURE
    assert found.events == 0


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")).filter(lambda edge: edge[0] != edge[1]),
        st.tuples(st.integers(0, 50), st.integers(0, 50)),
    ),
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 100)),
)
def test_shares_always_add_up_to_the_whole(
    edges: dict[tuple[str, str], tuple[int, int]], failed: dict[str, int]
) -> None:
    seen = counts(
        {name: answered(200, failed=count) for name, count in failed.items()},
        {edge: made(good + bad, failed=bad) for edge, (good, bad) in edges.items()},
    )
    found = attribute_errors(seen, "a")
    if failed.get("a", 0) > 0:
        assert sum(culprit.share for culprit in found.culprits) == pytest.approx(1.0)
        assert all(0 < culprit.share <= 1 + 1e-9 for culprit in found.culprits)
        assert 0 <= found.confidence <= 1
    else:
        assert found.culprits == ()


def series(metric: str, readings: list[tuple[float, float]], **labels: str) -> Series:
    times, values = zip(*readings, strict=True)
    return Series({"__name__": metric, "job": "suite", "instance": "r1", **labels}, np.array(times), np.array(values))


def test_counts_come_from_raw_samples_of_the_window_only() -> None:
    seen = call_counts(
        [
            series(
                "http_requests_total",
                [(0, 100), (5, 110), (10, 150)],
                service=GATEWAY,
                status_code="200",
                endpoint="/a",
            ),
            series("http_requests_total", [(0, 0), (5, 1), (10, 8)], service=GATEWAY, status_code="500", endpoint="/a"),
            series("http_requests_shed_total", [(5, 1), (10, 3)], service=GATEWAY),
            series("http_request_duration_seconds_sum", [(5, 50.0), (10, 64.0)], service=GATEWAY),
            series("http_request_own_duration_seconds_sum", [(5, 1.0), (10, 3.0)], service=GATEWAY),
            series("http_request_own_duration_seconds_count", [(5, 10), (10, 57)], service=GATEWAY),
            series("http_request_own_duration_seconds_bucket", [(5, 10), (10, 50)], service=GATEWAY, le="0.2"),
            series("http_client_requests_total", [(5, 7), (10, 9)], service=GATEWAY, peer=IDENTITY, outcome="ok"),
            series("http_client_requests_total", [(5, 0), (10, 4)], service=GATEWAY, peer=IDENTITY, outcome="timeout"),
        ],
        since=5,
        until=10,
    )
    assert seen.answers[GATEWAY][Backend.SERVICE] == Answers(47.0, 7.0, 2.0, 2.0, 47.0, 7.0, 12.0)
    assert seen.calls[GATEWAY][IDENTITY] == Calls(made=6.0, failed=4.0)


def test_a_restart_and_a_first_failure_are_counted_in_full() -> None:
    seen = call_counts(
        [
            series("http_requests_total", [(0, 500), (5, 3), (10, 9)], service=GATEWAY, status_code="200"),
            series("http_requests_total", [(10, 4)], service=GATEWAY, status_code="500"),
        ],
        since=0,
        until=10,
    )
    assert seen.answers[GATEWAY][Backend.SERVICE].answered == 13.0
    assert seen.answers[GATEWAY][Backend.SERVICE].failed == 4.0


def test_a_target_that_was_never_seen_before_counts_from_its_first_sample() -> None:
    seen = call_counts(
        [series("http_requests_total", [(5, 9000), (10, 9002)], service=GATEWAY, status_code="200")], 0, 10
    )
    assert seen.answers[GATEWAY][Backend.SERVICE].answered == 2.0


def test_the_monolith_answers_under_the_names_of_the_services() -> None:
    seen = call_counts(
        [
            series("http_requests_total", [(0, 0), (10, 5)], service=GATEWAY, status_code="200", backend="monolith"),
            series("http_requests_total", [(0, 0), (10, 7)], service=GATEWAY, status_code="200", backend="service"),
        ],
        0,
        10,
    )
    assert seen.answers[GATEWAY][Backend.MONOLITH].answered == 5.0
    assert seen.of(GATEWAY).answered == 12.0


def test_broken_streams_are_failures() -> None:
    seen = call_counts([series("http_stream_ends_total", [(0, 0), (10, 6)], service=GATEWAY, outcome="error")], 0, 10)
    assert seen.of(GATEWAY).failed == 6.0


def test_callers_are_found_through_others() -> None:
    seen = counts({}, {(GATEWAY, CONVERSATION): made(), (CONVERSATION, SEARCH): made()})
    assert seen.callers()[SEARCH] == {GATEWAY, CONVERSATION}
    assert seen.callers()[CONVERSATION] == {GATEWAY}


def test_every_metric_that_is_read_is_asked_for() -> None:
    assert len({selector.metric for selector in CALL_SELECTORS}) == len(CALL_SELECTORS)


CALL_GRAPH = {  # requests/s at the gateway, and calls per request
    GATEWAY: (20, {IDENTITY: 1.0, CONVERSATION: 0.8, NOTIFICATION: 0.8}),
    STREAMING: (10, {IDENTITY: 1.0, GATEWAY: 1.0}),
    CONVERSATION: (15, {SEARCH: 0.5}),
    IDENTITY: (10, {}),
    SEARCH: (10, {}),
    NOTIFICATION: (10, {}),
}
FIRE_AND_FORGET = {(GATEWAY, NOTIFICATION)}


def ten_seconds(culprit: str, failed: float, delay: float, random: np.random.Generator) -> CallCounts:
    """What the suite counts in ten seconds while `culprit` fails that share and is slower by `delay` on average."""
    arrivals = {name: random.poisson(rate * 10) for name, (rate, _) in CALL_GRAPH.items()}
    for name in (STREAMING, GATEWAY, CONVERSATION):  # callers first
        for peer, per_request in CALL_GRAPH[name][1].items():
            arrivals[peer] += random.binomial(arrivals[name], per_request)
    failing_share: dict[str, float] = {}
    mean: dict[str, float] = {}
    for name in (SEARCH, NOTIFICATION, IDENTITY, CONVERSATION, GATEWAY, STREAMING):  # peers first
        failing_share[name], mean[name] = 0.0005, 0.006 * random.lognormal(0, 0.2)
        if name == culprit:
            failing_share[name] += failed
            mean[name] += delay
        for peer, per_request in CALL_GRAPH[name][1].items():
            if (name, peer) not in FIRE_AND_FORGET:
                failing_share[name] += per_request * failing_share[peer]
                mean[name] += per_request * (mean[peer] + 0.001)
    answers = {}
    calls = {}
    for name, total in arrivals.items():
        slow = random.binomial(total, min(1.0, mean[name] / 0.4)) if mean[name] > 0.05 else 0
        waited = total * 1.2 if name == GATEWAY else 0.0
        failures = random.binomial(total, min(1.0, failing_share[name]))
        answers[name] = Answers(total, failures, 0.0, total * mean[name], total, slow, waited)
        own = failing_share[name]
        for peer, per_request in CALL_GRAPH[name][1].items():
            count = total * per_request
            inherited = per_request * failing_share[peer] / own if own > 0 else 0.0
            waits = (name, peer) not in FIRE_AND_FORGET
            lost = answers[name].failed * min(1.0, inherited) if waits else count * failing_share[peer]
            provider = random.normal(1.2, 0.1) if peer == GATEWAY else 0.0
            calls[(name, peer)] = Calls(count, lost, count * (mean[peer] + 0.001 + provider), count)
    return counts(answers, calls)


def burns_with(culprit: str) -> list[str]:
    """Services that wait for the culprit's answers, and itself."""
    found = [culprit]
    for name in (CONVERSATION, GATEWAY, STREAMING):
        waits_for = {peer for peer in CALL_GRAPH[name][1] if (name, peer) not in FIRE_AND_FORGET}
        if waits_for & set(found) and name not in found:
            found.append(name)
    return found


@pytest.mark.parametrize("culprit", CALL_GRAPH)
def test_the_right_service_is_blamed_on_the_real_call_graph(culprit: str) -> None:
    """Right, or unsure: blaming an innocent would roll it back."""
    random = np.random.default_rng(5)
    judged = right = wrong = 0
    for _ in range(40):
        healthy = ten_seconds("nobody", 0.0, 0.0, random)
        failing = ten_seconds(culprit, 0.2, 0.0, random)
        slow = ten_seconds(culprit, 0.0, 0.2, random)
        for victim in burns_with(culprit):
            for found in (attribute_errors(failing, victim), attribute_latency(slow, healthy, victim)):
                judged += 1
                right += found.culprit == culprit
                wrong += found.culprit not in (None, culprit)
    assert wrong == 0
    assert right / judged >= 0.95
