from __future__ import annotations

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.local.ports import PortPool, is_free, refuse_taken


def test_a_port_that_somebody_listens_on_is_not_free_and_is_named_with_its_process() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        with pytest.raises(ActuationRefused) as refused:
            refuse_taken({"gateway": port})
        assert f"Port {port} (gateway) is taken by" in str(refused.value)
        assert f"(process {os.getpid()})" in str(refused.value)
    assert is_free(port)
    refuse_taken({"gateway": port})


def test_ports_are_handed_out_in_turn_and_rest_after_use() -> None:
    pool = PortPool(range(10, 13), free=lambda _: True)
    assert pool.take() == 10
    pool.give_back(10)
    assert [pool.take(), pool.take(), pool.take()] == [11, 12, 10]
    with pytest.raises(SourceUnavailable, match="from 10 to 12"):
        pool.take()


def test_a_port_that_was_taken_meanwhile_is_exchanged() -> None:
    taken = {11}
    pool = PortPool(range(10, 14), free=lambda port: port not in taken)
    assert pool.take() == 10
    assert pool.renew(10) == 10
    taken.add(10)
    assert pool.renew(10) == 12


@given(st.sets(st.integers(100, 119)))
def test_no_port_is_handed_out_twice_or_while_somebody_has_it(taken: set[int]) -> None:
    pool = PortPool(range(100, 120), free=lambda port: port not in taken)
    given_out = [pool.take() for _ in range(20 - len(taken))]
    assert len(set(given_out)) == len(given_out)
    assert not taken & set(given_out)
