"""Who gets in, and where a login may lead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.console.security import LoginLimiter, safe_next


class HandClock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_the_sixth_wrong_password_within_a_minute_has_to_wait() -> None:
    clock = HandClock()
    limiter = LoginLimiter(clock)
    for _ in range(5):
        assert limiter.wait_seconds("ada@127.0.0.1") == 0
        limiter.failed("ada@127.0.0.1")
    assert limiter.wait_seconds("ada@127.0.0.1") == 60
    assert limiter.wait_seconds("bob@127.0.0.1") == 0
    clock.seconds += 61
    assert limiter.wait_seconds("ada@127.0.0.1") == 0


def test_a_right_password_forgives_the_wrong_ones() -> None:
    limiter = LoginLimiter(HandClock())
    for _ in range(5):
        limiter.failed("ada")
    limiter.succeeded("ada")
    assert limiter.wait_seconds("ada") == 0


def test_guessing_names_does_not_fill_the_memory() -> None:
    limiter = LoginLimiter(HandClock(), remembered=100)
    for number in range(1000):
        limiter.failed(f"name{number}")
    assert len(limiter._failures) == 100


@pytest.mark.parametrize(
    "path", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "", "/a\r\nb"]
)
def test_signing_in_leads_to_no_other_site(path: str) -> None:
    assert safe_next(path) == "/"


def test_signing_in_leads_back_to_the_page_that_was_asked_for() -> None:
    assert safe_next("/slos?service=search-service") == "/slos?service=search-service"


@given(st.text())
def test_whatever_comes_the_answer_is_a_path_of_this_console(text: str) -> None:
    answer = safe_next(text)
    assert answer.startswith("/")
    assert not answer.startswith(("//", "/\\"))
