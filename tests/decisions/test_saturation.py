"""How full slots are, from raw gauge samples."""

import numpy as np
import pytest

from control_plane.decisions.capacity import Demand
from control_plane.decisions.saturation import peak_demand, slot_use
from control_plane.slo.events import Series
from control_plane.topology import MONOLITH

FILES, SEARCH = "file-service", "search-service"
AT = 1000.0


def gauge(
    metric: str,
    values: list[float],
    service: str = FILES,
    deployment: str | None = None,
    replica: str = "r1",
    kind: str = "request",
    until: float = AT,
    step: float = 5.0,
) -> Series:
    times = np.asarray(until - step * np.arange(len(values))[::-1], dtype=np.float64)
    labels = {"__name__": metric, "service": service, "deployment": deployment or service, "replica": replica}
    return Series(labels | {"kind": kind}, times, np.array(values, dtype=float))


def slots(size: float = 16, count: int = 4, **labels: str | float) -> Series:
    return gauge("http_slots", [size] * count, **labels)  # type: ignore[arg-type]


def test_use_and_queue_of_all_replicas_are_added() -> None:
    use = slot_use(
        [
            slots(),
            slots(replica="r2"),
            gauge("http_slots_in_use", [16, 16, 16]),
            gauge("http_slots_in_use", [8, 8, 8], replica="r2"),
            gauge("http_queue_length", [4, 4, 4]),
        ],
        AT,
    )
    found = use.deployments[FILES]
    assert (found.replicas, found.slots, found.used) == (2, Demand(32), Demand(28))
    assert found.utilisation == 28 / 32
    assert use.services[FILES] == Demand(28)


def test_readings_are_averaged_because_each_one_is_chance() -> None:
    use = slot_use([slots(), gauge("http_slots_in_use", [99, 0, 6, 12])], AT)
    assert use.deployments[FILES].used.requests == 6


def test_a_replica_that_shows_slots_and_no_use_is_idle() -> None:
    assert slot_use([slots()], AT).deployments[FILES].used == Demand(0)


def test_a_replica_that_is_gone_holds_nothing_and_offers_nothing() -> None:
    use = slot_use([slots(until=AT - 13), gauge("http_slots_in_use", [9], until=AT - 13)], AT)
    assert FILES not in use.deployments


def test_streams_have_slots_of_their_own() -> None:
    found = slot_use(
        [slots(), slots(kind="stream"), gauge("http_slots_in_use", [15, 15, 15], kind="stream")], AT
    ).deployments[FILES]
    assert found.used == Demand(0, 15)
    assert found.utilisation == 15 / 16


def test_what_the_monolith_holds_is_known_by_service_and_as_a_whole() -> None:
    use = slot_use(
        [
            slots(48, service=MONOLITH, deployment=MONOLITH),
            gauge("http_slots_in_use", [3, 3, 3], service=FILES, deployment=MONOLITH),
            gauge("http_slots_in_use", [2, 2, 2], service=SEARCH, deployment=MONOLITH),
        ],
        AT,
    )
    assert use.deployments[MONOLITH].used == Demand(5)
    assert use.services == {FILES: Demand(3), SEARCH: Demand(2)}


def test_a_reading_that_is_no_number_is_left_out() -> None:
    use = slot_use([slots(), gauge("http_slots_in_use", [float("nan"), 4, 4])], AT)
    assert use.deployments[FILES].used.requests == 4


def test_the_peak_is_the_largest_demand_of_all_replicas_together() -> None:
    found = peak_demand(
        [
            slots(count=12),
            gauge("http_slots_in_use", [1, 1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
            gauge("http_slots_in_use", [1, 1, 2, 7, 1, 1, 1, 1, 1, 1, 1, 1], replica="r2"),
        ],
        AT,
        60,
    )
    assert found[FILES].requests == 11


@pytest.mark.parametrize("count", [5, 10])
def test_a_peak_over_a_time_that_was_not_seen_is_not_known(count: int) -> None:
    assert peak_demand([slots(count=count)], AT, 60) == {}
