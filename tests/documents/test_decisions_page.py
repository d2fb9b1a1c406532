"""docs/decisions.md explains every reason in the code's own words, every level of autonomy and every guard."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from control_plane.decisions import guards, policy
from control_plane.decisions.reasons import Autonomy, Reason

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "decisions.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def test_every_reason_stands_once_in_the_order_of_the_code_with_its_sentence_and_what_to_do() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.*?) \| (.*?) \|$", section("The reasons"), re.MULTILINE)
    assert [(name, sentence) for name, sentence, _ in rows] == [(reason.value, reason.sentence) for reason in Reason]
    assert all(what.endswith(".") for _, _, what in rows)


def test_every_reason_that_a_service_can_get_is_in_the_rules_or_the_guards() -> None:
    told = set(re.findall(r"`([a-z_]+)`", section("The rules") + section("The guards")))
    assert {reason.value for reason in Reason} <= told


def test_every_level_of_autonomy_is_explained() -> None:
    levels = re.findall(r"^\| `([a-z]+)` \|", section("How far it goes by itself"), re.MULTILINE)
    assert levels == [level.value for level in Autonomy]


def test_every_guard_is_listed_under_its_name() -> None:
    code = inspect.getsource(guards) + inspect.getsource(policy)
    names = set(re.findall(r'(?:\bGuard\(\s*|\bname = )"([a-z ]+)"', code))
    assert names == set(re.findall(r"^\| `([a-z ]+)` \|", section("The guards"), re.MULTILINE))
