"""Faults that a drill switches on."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from fastapi import APIRouter
from pydantic import ValidationError

from services import faults as faults_module
from services.faults import Fault, Faults
from tests.services.a_replica import a_replica

FOREVER = 4e9


def routes() -> APIRouter:
    router = APIRouter()

    @router.get("/api/users/me")
    async def me() -> str:
        return "fine"

    return router


def faults_at(now: float, share_of_chance: int = 1) -> Faults:
    return Faults(lambda: now, crash=lambda: None, chance=random.Random(share_of_chance))


async def test_errors_hit_their_share_of_requests_with_a_marked_500(tmp_path: Path) -> None:
    async with a_replica(tmp_path, routes()) as one:
        one.replica.faults.set(Fault(kind="errors", share=1.0, until=FOREVER))
        answer = await one.http.get("/api/users/me")
        assert (answer.status_code, answer.headers["x-backstay-fault"]) == (500, "errors")
        assert one.sample("http_requests_total", endpoint="unmatched", method="GET", status_code="500") is None
        labels = {"endpoint": "/api/users/me", "method": "GET", "status_code": "500"}
        assert one.sample("http_requests_total", **labels) == 1


def test_without_a_share_a_fifth_of_requests_fails() -> None:
    faults = faults_at(0)
    faults.set(Fault(kind="errors", until=FOREVER))
    hit = sum(faults.draw() is not None for _ in range(10_000))
    assert 1_850 < hit < 2_150


async def test_latency_delays_and_marks_but_does_not_fail(tmp_path: Path) -> None:
    async with a_replica(tmp_path, routes()) as one:
        one.replica.faults.set(Fault(kind="latency", share=1.0, delay_ms=120, until=FOREVER))
        answer = await one.http.get("/api/users/me")
        assert (answer.status_code, answer.headers["x-backstay-fault"]) == (200, "latency")
        assert (one.sample("http_request_own_duration_seconds_sum", endpoint="/api/users/me", method="GET") or 0) > 0.11


async def test_probes_know_no_faults(tmp_path: Path) -> None:
    async with a_replica(tmp_path, routes()) as one:
        one.replica.faults.set(Fault(kind="errors", share=1.0, until=FOREVER))
        for path in ("/health", "/ready", "/metrics"):
            assert (await one.http.get(path)).status_code == 200


def test_a_fault_ends_by_itself() -> None:
    faults = faults_at(now=100)
    faults.set(Fault(kind="errors", share=1.0, until=100))
    assert faults.active is None
    assert faults.draw() is None


def test_a_fault_that_is_taken_back_hits_nobody() -> None:
    faults = faults_at(0)
    faults.set(Fault(kind="errors", share=1.0, until=FOREVER))
    faults.set(None)
    assert faults.draw() is None


async def test_a_crash_comes_a_moment_after_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults_module, "CRASH_DELAY_SECONDS", 0.02)
    async with a_replica(tmp_path, routes()) as one:
        one.replica.faults.set(Fault(kind="crash", until=FOREVER))
        assert (await one.http.get("/api/users/me")).status_code == 200
        await asyncio.sleep(0.05)
        assert len(one.crashes) == 1


async def test_a_crash_that_is_taken_back_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults_module, "CRASH_DELAY_SECONDS", 0.02)
    async with a_replica(tmp_path, routes()) as one:
        one.replica.faults.set(Fault(kind="crash", until=FOREVER))
        one.replica.faults.set(None)
        await asyncio.sleep(0.05)
        assert one.crashes == []


@pytest.mark.parametrize(
    "wrong", [{"kind": "meteor", "until": 1}, {"kind": "errors"}, {"kind": "errors", "share": 2, "until": 1}]
)
def test_a_fault_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Fault.model_validate(wrong)
