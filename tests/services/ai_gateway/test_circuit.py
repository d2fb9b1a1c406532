"""The circuit breaker."""

from __future__ import annotations

from dataclasses import dataclass

from services.ai_gateway.circuit import Circuit, CircuitState


@dataclass
class Seconds:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def an_open_circuit(clock: Seconds) -> Circuit:
    circuit = Circuit(open_after=3, open_for=10, monotonic=clock)
    for _ in range(3):
        circuit.failed()
    return circuit


def test_failures_in_a_row_open_it() -> None:
    circuit = an_open_circuit(Seconds())
    assert circuit.state is CircuitState.OPEN
    assert not circuit.admit()


def test_a_success_between_failures_keeps_it_closed() -> None:
    circuit = Circuit(open_after=3, open_for=10, monotonic=Seconds())
    for _ in range(5):
        circuit.failed()
        circuit.failed()
        circuit.succeeded()
    assert circuit.state is CircuitState.CLOSED


def test_after_a_while_exactly_one_request_tries() -> None:
    clock = Seconds()
    circuit = an_open_circuit(clock)
    clock.now = 10
    assert [circuit.admit() for _ in range(3)] == [True, False, False]


def test_a_trial_that_succeeds_closes_it() -> None:
    clock = Seconds()
    circuit = an_open_circuit(clock)
    clock.now = 10
    circuit.admit()
    circuit.succeeded()
    assert circuit.admit()
    assert circuit.state is CircuitState.CLOSED


def test_a_trial_that_fails_opens_it_anew() -> None:
    clock = Seconds()
    circuit = an_open_circuit(clock)
    clock.now = 10
    circuit.admit()
    circuit.failed()
    clock.now = 19.9
    assert not circuit.admit()
    clock.now = 20
    assert circuit.admit()


def test_a_trial_whose_caller_left_does_not_block_it_for_ever() -> None:
    clock = Seconds()
    circuit = an_open_circuit(clock)
    clock.now = 10
    circuit.admit()  # and never a word of it again
    clock.now = 20
    assert circuit.admit()
