from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.errors import ToolMissing
from control_plane.local.tools import Shelf
from control_plane.slo.events import Selector
from control_plane.slo.rules import alert_names, rules, rules_text
from control_plane.slo.spec import Counters, Objective, Slo
from control_plane.slo.state import Kind
from tests.slo.slo_builders import a_latency_slo, an_availability_slo, an_slo

BASE = "http://127.0.0.1:7010"
MINUTE_OF_STEPS = 12  # the series below are scraped every 5 s


def promtool() -> str:
    try:
        return str(Shelf().find("promtool"))
    except ToolMissing:
        found = shutil.which("promtool")
        if found is None:
            pytest.skip("promtool is not installed: `make setup` fetches it")
        return found


def an_exported_slo(**changes: Any) -> Slo:
    """Two bad counters, as the gateway's SLOs have them."""
    bad = Counters((Selector("errors_total", (("code", "=", "5"),)), Selector("broken_total")), timedelta(seconds=5))
    return an_slo(bad=bad, title="Search: errors", **changes)


def prometheus_agrees(folder: Path, slos: Sequence[Slo], series: dict[str, str], cases: dict[str, Any]) -> None:
    """Runs `promtool test rules` on the exported rules."""
    (folder / "rules.yaml").write_text(rules_text(slos, BASE))
    document = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30s",
        "tests": [
            {
                "interval": "5s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                **cases,
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(document))
    run = subprocess.run([promtool(), "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def sample(expression: str, at: str, value: float) -> dict[str, Any]:
    return {"expr": expression, "eval_time": at, "exp_samples": [{"labels": "{}", "value": value}]}


ON_GATEWAY = 'job="gateway",instance="g"'
UP = {f"up{{{ON_GATEWAY}}}": "1x2000"}
BAD_EVENTS = "sum(backstay:slo_bad_events:increase)"
EVENTS = "sum(backstay:slo_events:increase)"


def test_alerts_are_named_after_their_slo_and_a_capacity_has_none() -> None:
    capacity = an_slo(name="search-service-throughput", kind=Kind.THROUGHPUT, total=None, bad=None)
    assert alert_names([an_slo(), a_latency_slo(), capacity]) == ("SearchErrors", "SearchLatency")


def test_every_alert_tells_its_tier_its_severity_and_its_runbook() -> None:
    document = rules([an_exported_slo()], BASE + "/")
    alerts = [rule for group in document["groups"] for rule in group["rules"] if "alert" in rule]
    assert [(a["labels"]["tier"], a["labels"]["severity"]) for a in alerts] == [
        ("page_fast", "page"),
        ("page_slow", "page"),
        ("ticket_fast", "ticket"),
        ("ticket_slow", "ticket"),
    ]
    for alert in alerts:
        assert alert["labels"]["slo"] == "search-service-errors"
        assert alert["labels"]["service"] == "search-service"
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == BASE + "/runbooks/SearchErrors"


def test_a_capacity_has_no_rules() -> None:
    capacity = an_slo(kind=Kind.THROUGHPUT, total=None, bad=None, capacity_per_second=Decimal(1000))
    assert rules([capacity], BASE) == {"groups": []}


def test_prometheus_accepts_the_rules_of_every_kind(tmp_path: Path) -> None:
    good = an_slo(name="served", good=Counters((Selector("served_total"),), timedelta(seconds=1)), bad=None)
    file = tmp_path / "rules.yaml"
    file.write_text(rules_text([an_exported_slo(), an_availability_slo(), a_latency_slo(), good], BASE))
    run = subprocess.run([promtool(), "check", "rules", str(file)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_steady_counter_is_counted_exactly(tmp_path: Path) -> None:
    prometheus_agrees(
        tmp_path,
        [an_exported_slo()],
        {**UP, f"requests_total{{{ON_GATEWAY}}}": "100+7x200"},
        {"promql_expr_test": [sample(EVENTS, "5m", 42), sample(BAD_EVENTS, "5m", 0)]},
    )


def test_errors_of_a_series_that_is_born_late_are_all_counted(tmp_path: Path) -> None:
    prometheus_agrees(
        tmp_path,
        [an_exported_slo()],
        {
            **UP,
            f"requests_total{{{ON_GATEWAY}}}": "100+7x200",
            f'errors_total{{code="5",{ON_GATEWAY}}}': "_x58 3 3 3 5x200",
        },
        {"promql_expr_test": [sample(BAD_EVENTS, "5m", 3), sample(BAD_EVENTS, "5m30s", 2)]},
    )


def test_a_new_target_does_not_bring_its_past(tmp_path: Path) -> None:
    prometheus_agrees(
        tmp_path,
        [an_exported_slo()],
        {
            **UP,
            f"requests_total{{{ON_GATEWAY}}}": "100+7x200",
            'up{job="gateway",instance="new"}': "_x58 1x200",
            'errors_total{code="5",job="gateway",instance="new"}': "_x58 9000x200",
        },
        {"promql_expr_test": [sample(BAD_EVENTS, "5m", 0)]},
    )


def test_a_restart_is_no_negative_count(tmp_path: Path) -> None:
    prometheus_agrees(
        tmp_path,
        [an_exported_slo()],
        {**UP, f"requests_total{{{ON_GATEWAY}}}": "1000+6x57 0+6x200"},  # restarts at 4m50s
        {"promql_expr_test": [sample(f"clamp({EVENTS}, 20, 45) == {EVENTS}", "5m", 30)]},
    )


def test_an_outage_pages_fast_and_the_page_ends_soon_after_it(tmp_path: Path) -> None:
    fires = 'count(ALERTS{alertname="SearchErrors",tier="page_fast"}) or vector(0)'
    before, outage = 65 * MINUTE_OF_STEPS, 10 * MINUTE_OF_STEPS  # a tenth fails for ten minutes: 16.7x over an hour
    prometheus_agrees(
        tmp_path,
        [an_exported_slo()],
        {
            **UP,
            f"requests_total{{{ON_GATEWAY}}}": "0+100x1100",
            f'errors_total{{code="5",{ON_GATEWAY}}}': f"0x{before - 1} 0+10x{outage} {outage * 10}x200",
        },
        {"promql_expr_test": [sample(fires, "1h13m", 0), sample(fires, "1h15m", 1), sample(fires, "1h21m", 0)]},
    )


def test_a_young_prometheus_pages_only_when_it_is_sure(tmp_path: Path) -> None:
    fires = 'count(ALERTS{alertname="SearchErrors",tier="page_fast"}) or vector(0)'
    prometheus_agrees(
        tmp_path,
        [an_exported_slo()],
        {
            **UP,
            f"requests_total{{{ON_GATEWAY}}}": "0+10x200",
            f'errors_total{{code="5",{ON_GATEWAY}}}': "0+0x20 3x40 3+5x140",  # 3 of 210 at first, half of all later
        },
        {"promql_expr_test": [sample(fires, "2m30s", 0), sample(fires, "7m", 1)]},
    )


def test_a_missing_bucket_records_nothing_instead_of_slowness(tmp_path: Path) -> None:
    prometheus_agrees(
        tmp_path,
        [a_latency_slo()],
        {**UP, f"seconds_count{{{ON_GATEWAY}}}": "0+10x200", f'seconds_bucket{{le="0.25",{ON_GATEWAY}}}': "0+9x200"},
        {"promql_expr_test": [{"expr": BAD_EVENTS, "eval_time": "5m", "exp_samples": []}, sample(EVENTS, "5m", 60)]},
    )


def test_a_minute_below_its_share_is_a_bad_slice(tmp_path: Path) -> None:
    slo = an_availability_slo(objective=Objective(Decimal("0.999"), timedelta(days=30)))
    judged = "sum(backstay:slo_bad_slices:judged)"
    prometheus_agrees(
        tmp_path,
        [slo],
        {
            **UP,
            f"requests_total{{{ON_GATEWAY}}}": "0+10x400",
            f"errors_total{{{ON_GATEWAY}}}": f"0x{5 * MINUTE_OF_STEPS - 1} 0+1x200",
        },
        {"promql_expr_test": [sample(judged, "5m", 0), sample(judged, "6m", 1)]},
    )
