from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.errors import InvalidDefinition
from control_plane.local.layout import Layout
from control_plane.local.parts import Part, Programs, all_parts, replica_command, without
from control_plane.local.progress import Progress, Stage
from control_plane.local.specification import load_specification
from control_plane.local.stack import SPECIFICATION

LAYOUT = Layout(21000, Path("/state"))
SPEC = load_specification(SPECIFICATION)
PROGRAMS = Programs(Path("/bin/envoy"), Path("/bin/prometheus"), Path("/bin/alertmanager"))


def parts() -> tuple[Part, ...]:
    return all_parts(LAYOUT, SPEC, PROGRAMS, Path("/alertmanager.yml"), "local")


def test_a_part_can_be_left_out_by_name_and_a_wrong_name_is_told() -> None:
    assert "load" not in {part.name for part in without(parts(), ["load"])}
    with pytest.raises(InvalidDefinition, match=r"'lod': choose from .*load"):
        without(parts(), ["lod"])


def test_our_own_programs_know_their_stack_and_hang_on_our_end_of_a_pipe() -> None:
    for part in parts():
        if "-m" in part.argv:
            assert part.tethered
            assert part.environment["BACKSTAY_PORT_BASE"] == "21000"
            assert part.environment["BACKSTAY_STATE_DIR"] == "/state"


def test_envoy_does_not_end_with_the_process_that_started_it() -> None:
    [envoy] = [part for part in parts() if part.name == "envoy"]
    assert "--disable-hot-restart" in envoy.argv


def test_a_replica_is_told_its_slots_and_where_its_peers_are() -> None:
    spec = SPEC.deployments["ai-gateway-service"]
    command = replica_command(LAYOUT, ("launch",), Path("/"), "ai-gateway-service", spec, "ai-1", 21200)
    assert command.argv == ("launch", "--service", "ai-gateway-service", "--port", "21200", "--replica", "ai-1")
    assert command.environment["SUITE_SLOTS"] == "8"
    assert command.environment["SUITE_MESH_URL"] == "http://127.0.0.1:21001"
    assert command.environment["SUITE_DATA_DIR"] == "/state/data"


def test_progress_reads_back_as_it_was_written() -> None:
    step = Progress("envoy", Stage.READY, 'http://"quoted"', 1.25)
    assert Progress.from_line(step.as_line()) == step
    assert Progress("stack", Stage.READY).ends_start
    assert not step.ends_start


def test_two_stacks_share_no_port() -> None:
    def ports(layout: Layout) -> set[int]:
        fixed = {layout.gateway_port, layout.mesh_port, layout.cluster_port}
        return (
            fixed
            | {part.port for part in all_parts(layout, SPEC, PROGRAMS, Path("a"), "local")}
            | set(layout.replica_ports)
        )

    assert not ports(Layout(7000, Path("/a"))) & ports(Layout(8000, Path("/b")))
    assert len(ports(Layout(7000, Path("/a")))) == 9 + 800
