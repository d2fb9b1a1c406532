from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.errors import InvalidDefinition
from control_plane.local.specification import DEPLOYMENTS, load_specification
from control_plane.local.stack import SPECIFICATION


def test_our_own_file_runs_two_of_the_busy_and_keeps_a_monolith_warm() -> None:
    spec = load_specification(SPECIFICATION)
    replicas = {name: deployment.replicas for name, deployment in spec.deployments.items()}
    assert {name for name, count in replicas.items() if count == 2} == {"identity-service", "ai-gateway-service"}
    assert spec.deployments["librechat-monolith"].replicas == 1
    assert spec.deployments["ai-gateway-service"].slots == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("file-service: {replicas: -1}", "deployments.file-service.replicas"),
        ("file-service: {replicas: 9, max: 6}", "may not exceed max 6"),
        ("file-service: {replicas: 1, slot: 4}", "deployments.file-service.slot"),
        ("fil-service: {replicas: 1}", "unknown deployments"),
        ("file-service: {replicas: [1}", "line"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong_in_it(tmp_path: Path, change: str, said: str) -> None:
    names = [name for name in DEPLOYMENTS if not change.startswith(name)]
    text = "deployments:\n" + "".join(f"  {name}: {{replicas: 1}}\n" for name in names) + f"  {change}\n"
    path = tmp_path / "stack.yaml"
    path.write_text(text)
    with pytest.raises(InvalidDefinition) as error:
        load_specification(path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match="does not exist"):
        load_specification(tmp_path / "stack.yaml")
