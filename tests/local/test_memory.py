"""What the cluster remembers, and what it does with a memory that is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidDefinition, SourceUnavailable
from control_plane.local.memory import Desired, initial, recall, remember
from control_plane.local.specification import DEPLOYMENTS, DeploymentSpec, StackSpec
from control_plane.topology import SERVICES, Weights

SPEC = StackSpec(deployments={name: DeploymentSpec(replicas=1, max=6) for name in DEPLOYMENTS})


def test_a_first_start_is_as_specified_with_every_service_on_its_own_deployment(tmp_path: Path) -> None:
    desired = recall(tmp_path / "cluster.json", SPEC)
    assert desired == initial(SPEC)
    assert set(desired.weights.values()) == {Weights(100, 0)}
    assert desired.fence == 0


@given(
    st.lists(st.integers(0, 6), min_size=8, max_size=8),
    st.lists(st.integers(0, 100), min_size=7, max_size=7),
    st.integers(0, 2**53),
)
def test_what_is_remembered_is_recalled(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], percents: list[int], fence: int
) -> None:
    path = tmp_path_factory.mktemp("memory") / "cluster.json"
    desired = Desired(
        dict(zip(DEPLOYMENTS, counts, strict=True)),
        {service: Weights(p, 100 - p) for service, p in zip(SERVICES, percents, strict=True)},
        fence,
    )
    remember(path, desired)
    assert recall(path, SPEC) == desired
    assert path.stat().st_mode & 0o777 == 0o600


def test_more_replicas_than_the_file_allows_by_now_are_cut_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "cluster.json"
    remember(path, Desired({"file-service": 9}, {}, 3))
    assert recall(path, SPEC).replicas["file-service"] == 6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"replicas": {}, "weights": {}, "fence": "x"}',
        '{"replicas": {}, "weights": {"file-service": {"service": 60, "monolith": 60}}, "fence": 1}',
    ],
)
def test_a_damaged_memory_is_never_taken_for_a_first_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.json"
    path.write_text(text)
    with pytest.raises(InvalidDefinition, match="is damaged"):
        recall(path, SPEC)


def test_what_cannot_be_remembered_is_not_done(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="nothing was changed"):
        remember(tmp_path / "no such folder" / "cluster.json", initial(SPEC))
