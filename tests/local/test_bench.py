"""Measurements: what their numbers mean, and how they become a page. The measuring itself needs a quiet machine."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from control_plane.adapters.slo_files import read_texts
from control_plane.errors import InvalidDefinition, SourceUnavailable
from control_plane.local.bench import drills, footprint, start, ticks, trivial_route
from control_plane.local.bench.__main__ import command_line, wanted
from control_plane.local.bench.footprint import Cost
from control_plane.local.bench.machine import REPOSITORY, OtherLoad, commit, machine
from control_plane.local.bench.page import TITLES, Check, Result, Table, page, section
from control_plane.slo import loading
from control_plane.slo.engine import SloEngine
from control_plane.slo.state import Kind, Verdict

GIB = 1024**3
SLOS = loading.load(read_texts([REPOSITORY / "slos"])).slos


def a_drill(**changes: Any) -> dict[str, Any]:
    """A drill that went well."""
    return {
        "drill": "errors",
        "service": "ai-gateway-service",
        "outcome": "passed",
        "detected_after_s": 6.2,
        "decided_after_s": 6.2,
        "capacity_ready_after_s": 7.0,
        "moved_after_s": 14.0,
        "recovered_after_s": 30.0,
        "action": {"kind": "roll_back", "target": "ai-gateway-service"},
        "requests": {"sent": 4000, "failed_by_fault": 25, "lost_to_shift": 0},
        "problems": [],
        "next_step": None,
        **changes,
    }


def test_a_page_of_some_parts_leaves_the_other_sections_as_they_were() -> None:
    before = page({part: section(Result(part, notes=("old",)), "made before") for part in TITLES})
    after = page({"tick": section(Result("tick", notes=("new",)), "made now")}, before)
    assert after.count("made before") == len(TITLES) - 1
    assert after.index(TITLES["stack"]) < after.index("made now") < after.index(TITLES["drills"])
    assert page({}, after) == after


def test_a_section_shows_which_limits_were_not_kept() -> None:
    checks = (Check("memory", "3.0 GiB", "< 2.5 GiB", False), Check("processor", "1 core", "< 1.5 cores", True))
    text = section(Result("stack", checks, (Table(("a",), (("x | y",),)),)), "made now")
    assert "| memory | 3.0 GiB | < 2.5 GiB | **no** |" in text
    assert "| processor | 1 core | < 1.5 cores | yes |" in text
    assert r"| x \| y |" in text


def test_a_part_that_could_not_be_measured_says_why_and_keeps_no_limit() -> None:
    result = Result("requests", problem="`wrk` is not installed.")
    assert not result.kept
    assert "**Not measured:** `wrk` is not installed." in section(result, "made now")


def test_parts_are_chosen_by_name_and_a_wrong_name_lists_the_right_ones() -> None:
    assert wanted(None, None) == ("requests", "tick", "start", "stack", "drills")
    assert wanted("stack, tick", None) == ("tick", "stack")
    assert wanted(None, "drills,start") == ("requests", "tick", "stack")
    assert wanted("drills,tick", None, repeats=10) == ("tick", "repeats")
    with pytest.raises(InvalidDefinition, match=r"no part 'stak'.*requests, tick, start, stack, drills"):
        wanted("stak", None)


def test_the_page_names_the_command_without_what_changes_no_number() -> None:
    chosen = Namespace(only="stack,tick", skip=None, drills=10, port_base=9000, out="elsewhere.md")
    assert command_line(chosen) == "python -m control_plane.local.bench --only stack,tick --drills 10"


def test_a_machine_and_a_commit_are_named() -> None:
    assert "cores" in machine()
    assert "CPython" in machine() or "PyPy" in machine()
    assert "commit" in commit()


def test_other_programs_load_is_what_is_left_after_ones_own() -> None:
    moments, own = iter([0.0, 10.0]), iter([0.0, 1e6])
    assert OtherLoad(own_cpu_seconds=lambda: next(own), now=lambda: next(moments)).cores() == 0.0


def test_memory_is_the_largest_look_and_processor_time_what_was_added_between_the_first_and_the_last() -> None:
    first = {1: Cost("envoy", GIB, GIB // 2, 5.0), 2: Cost("load", GIB, GIB // 2, 1.0)}
    middle = {1: Cost("envoy", 3 * GIB, 2 * GIB, 20.0), 2: Cost("load", GIB, GIB, 20.0)}
    last = {1: Cost("envoy", GIB, GIB, 35.0), 3: Cost("load", GIB, GIB // 2, 6.0)}  # its process began anew
    found = footprint.result([first, middle, last], 60.0, {"file-service": 12.0}, others=0.1, tick=0.05)
    assert [(check.value, check.kept) for check in found.checks] == [
        ("3.00 GiB", False),
        ("0.60 cores", True),
        ("12.0 requests/s", True),
    ]
    assert found.tables[0].rows[0] == ("envoy", "1", "2048 MiB", "3072 MiB", "0.50")
    assert found.tables[0].rows[-1] == ("all", "2", "3072 MiB", "4096 MiB", "0.60")


def test_memory_without_pss_is_called_rss() -> None:
    costs = {1: Cost("envoy", GIB, None, 0.0)}
    found = footprint.result([costs, costs], 60.0, {"file-service": 12.0}, others=0.0, tick=None)
    assert found.checks[0].what == "memory (RSS, all processes)"
    assert "the true sum is smaller" in found.notes[0]


def test_demo_traffic_that_lacks_a_service_keeps_no_limit() -> None:
    costs = {1: Cost("envoy", GIB, GIB, 0.0)}
    assert not footprint.result([costs, costs], 60.0, {}, others=0.0, tick=None).kept


def test_processes_are_named_by_the_cluster_and_replicas_by_their_deployment() -> None:
    state = {
        "deployments": {"file-service": {"replicas": [{"pid": 7, "id": "file-service-1"}, {"pid": None, "id": "x"}]}},
        "processes": {"file-service-1": {"pid": 7}, "envoy": {"pid": 8}},
    }
    assert footprint.names_of(state) == {7: "file-service", 8: "envoy"}


def test_ticks_are_read_from_the_control_planes_metrics() -> None:
    text = "backstay_tick_seconds_count 12.0\nbackstay_tick_seconds_sum 0.6\n"
    assert footprint.tick_seconds(text) == (12.0, 0.6)
    with pytest.raises(SourceUnavailable):
        footprint.tick_seconds("up 1\n")


def test_every_copy_of_an_slo_reads_series_of_its_own() -> None:
    many = ticks.copies(SLOS, 3)
    assert len({slo.name for slo in many}) == 3 * len(SLOS)
    events = {slo.total.selectors for slo in many if slo.total is not None and slo.kind is Kind.LATENCY}
    assert len(events) == 3 * len({s.total.selectors for s in SLOS if s.total is not None and s.kind is Kind.LATENCY})


def test_made_up_series_are_good_evidence_for_every_slo() -> None:
    engine, sources = SloEngine(many := ticks.copies(SLOS, 2)), ticks.counters(ticks.copies(SLOS, 2))
    for number in range(1, 30):
        now = ticks.START + number * ticks.EVERY
        end = now.timestamp()
        engine.observe([source.samples(end - engine.reach(now).total_seconds(), end) for source in sources], now)
    judged = [state for state in engine.states(now) if state.kind is not Kind.THROUGHPUT]
    assert {state.verdict for state in judged} == {Verdict.OK}
    assert all(state.events is not None and state.events.total > 0 for state in judged)
    assert len(judged) == sum(slo.total is not None for slo in many)


def test_a_tick_is_timed_without_the_making_of_its_samples() -> None:
    found = ticks.cost(SLOS, ticks=2)
    assert (found.slos, len(found.observe_seconds), len(found.states_seconds)) == (len(SLOS), 2, 2)
    assert found.samples > found.series > 0
    row = ticks.result([found], 1.0, 0.01).tables[0].rows[0]
    assert row[0] == str(len(SLOS))


def test_history_is_taken_in_whole() -> None:
    filled, tick = ticks.history(SLOS[:2])
    assert filled > 0
    assert tick > 0


def test_the_trivial_route_is_compared_within_the_same_rounds() -> None:
    found = trivial_route.result({"bare": [4000, 3000, 3600], "0.1": [2500], "1.0": [2100, 2250, 1900]}, 0.2, 3, 3)
    assert found.checks[0] == Check("requests/s, everything on", "2100", "> 2000", True)
    assert found.tables[0].rows[2][1:] == ("2100 (1900 to 2250)", "58%")


def test_the_second_start_has_a_limit() -> None:
    found = start.result(first=100.0, stopped=4.0, second=20.0, parts={"load": 15.0, "envoy": 1.0})
    assert [check.kept for check in found.checks] == [True, False]
    assert [row[0] for row in found.tables[0].rows] == ["envoy", "load"]


def test_drills_are_kept_to_their_limits_by_the_slowest_run() -> None:
    found = drills.result("drills", [a_drill(), a_drill(moved_after_s=46.0)], [], wanted=2)
    assert [(check.what, check.value, check.kept) for check in found.checks] == [
        ("drills passed", "2 of 2", True),
        ("requests lost to the shift, all drills", "0", True),
        ("errors: detected", "6.2 s, slowest of 2", True),
        ("errors: traffic on the monolith", "46.0 s, slowest of 2", False),
    ]


def test_a_drill_that_failed_or_was_refused_shows() -> None:
    failed = a_drill(outcome="failed", recovered_after_s=None, problems=["3 requests were lost to the shift."])
    failed["requests"] = {"sent": 10, "failed_by_fault": 1, "lost_to_shift": 3}
    found = drills.result("drills", [failed], ["The drill `crash` could not be started: busy"], wanted=2)
    assert not found.kept
    assert "never" in found.tables[0].rows[0]
    assert any("3 requests were lost" in note for note in found.notes)
    assert found.checks[0].value == "0 of 2"
