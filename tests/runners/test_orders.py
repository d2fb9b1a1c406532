"""What people order: the plan first, the audit before the effect, and the same sagas as automatic action."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from control_plane.actions.plans import PlanPolicy
from control_plane.console.host import Commands
from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable
from control_plane.runners.orders import Orders
from control_plane.topology import Weights
from tests.actions.suite_world import World, a_world, demand_of
from tests.console.console_builders import AccountsInMemory
from tests.runners.memory_ports import MemoryChanges, MemoryDecisions, MemorySwitches
from tests.runners.saga_desk import Desk

SEARCH = "search-service"


class OrderDesk:
    """Orders over a world in virtual time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.desk = Desk(world)
        self.sagas = self.desk.runner()
        self.audit = self.desk.audit
        self.changes, self.switches = MemoryChanges(), MemorySwitches()
        no_drills: Any = None
        self.orders = Orders(
            runtime=self.desk.runtime,
            sagas=self.sagas,
            demand=lambda: demand_of(world),
            drills=no_drills,
            decisions=MemoryDecisions(),
            changes=self.changes,
            switches=self.switches,
            audit=self.audit,
            accounts=AccountsInMemory(),
            plan_policy=PlanPolicy(),
            clock=lambda: world.clock,
        )

    async def order(
        self, kind: str, target: str, amount: int | None = None, *, dry_run: bool = False
    ) -> dict[str, Any]:
        return await self.orders.order(kind, target, amount, reason="by hand", by="ada", dry_run=dry_run)


@pytest.fixture
async def desk() -> AsyncIterator[OrderDesk]:
    desk = OrderDesk(a_world())
    await desk.sagas.start()
    yield desk
    await desk.sagas.close()


def test_orders_are_what_the_console_asks_for() -> None:
    commands: Commands = OrderDesk(a_world()).orders
    assert commands


async def test_a_rollback_by_hand_runs_to_its_end_under_the_persons_name(desk: OrderDesk) -> None:
    answer = await desk.order("rollback", SEARCH)
    saga = await desk.sagas.wait(answer["saga_id"])
    assert (saga.by, saga.reason, saga.automatic, saga.drill) == ("ada", "by hand", False, False)
    assert desk.world.weights[SEARCH] == Weights(0, 100)
    progress = await desk.orders.progress(answer["saga_id"])
    assert progress is not None
    assert progress["state"] == "DONE"
    assert {step["state"] for step in progress["steps"]} == {"done"}
    assert all({"name", "state", "started_at", "ended_at", "detail"} <= step.keys() for step in progress["steps"])


async def test_a_dry_run_shows_the_same_plan_and_moves_nothing(desk: OrderDesk) -> None:
    dry = await desk.order("rollback", SEARCH, dry_run=True)
    assert dry["saga_id"] is None
    assert (desk.world.writes, desk.audit.records, desk.desk.journal.sagas) == ([], [], {})
    real = await desk.order("rollback", SEARCH)
    assert real["plan"] == dry["plan"]
    assert dry["plan"]["lines"][0].startswith("Plan ")


@pytest.mark.parametrize(
    ("kind", "target", "amount"), [("rollback", "all", None), ("scale", SEARCH, 4), ("cutover", SEARCH, 50)]
)
async def test_every_kind_of_order_becomes_a_plan(desk: OrderDesk, kind: str, target: str, amount: int | None) -> None:
    answer = await desk.order(kind, target, amount, dry_run=True)
    assert len(answer["plan"]["lines"]) > 1


@pytest.mark.parametrize(
    ("kind", "target", "amount", "why"),
    [
        ("rollback", "billing", None, "There is no service 'billing'"),
        ("cutover", "all", 50, "There is no service 'all'"),
        ("cutover", SEARCH, None, "needs a number"),
        ("cutover", SEARCH, 101, "not a percentage"),
        ("scale", SEARCH, None, "needs a number"),
        ("scale", "billing", 2, "There is no deployment 'billing'"),
        ("explode", SEARCH, 2, "There is no order 'explode'"),
    ],
)
async def test_an_order_without_sense_says_what_there_is(
    desk: OrderDesk, kind: str, target: str, amount: int | None, why: str
) -> None:
    with pytest.raises(InvalidDefinition, match=why):
        await desk.order(kind, target, amount)
    assert desk.world.writes == []


async def test_more_replicas_than_the_limit_are_refused(desk: OrderDesk) -> None:
    with pytest.raises(ActuationRefused, match="at most 6"):
        await desk.order("scale", SEARCH, 7)


async def test_without_the_runtime_nothing_can_be_planned(desk: OrderDesk) -> None:
    desk.world.runtime_down = True
    with pytest.raises(SourceUnavailable):
        await desk.order("rollback", SEARCH)


async def test_two_plans_for_the_same_service_are_one_too_many(desk: OrderDesk) -> None:
    await desk.order("rollback", SEARCH)
    with pytest.raises(ActuationRefused, match="Another plan is being carried out"):
        await desk.order("cutover", SEARCH, 50)


async def test_a_strange_plan_has_no_progress(desk: OrderDesk) -> None:
    assert await desk.orders.progress("nothing") is None
    assert await desk.orders.replay("nothing") is None


async def test_a_freeze_is_audited_and_stops_what_runs_on_a_healthy_copy(desk: OrderDesk) -> None:
    answer = await desk.order("rollback", SEARCH)
    assert await desk.orders.freeze(reason="maintenance", by="ada") == {"frozen": "maintenance"}
    assert desk.switches.on is not None
    assert (desk.switches.on.by, desk.switches.on.reason) == ("ada", "maintenance")
    saga = await desk.sagas.wait(answer["saga_id"])
    assert saga.progress.state.value == "HELD"
    assert "frozen by ada: maintenance" in saga.progress.outcome
    assert desk.world.weights[SEARCH] in (Weights(100, 0), Weights(0, 100))
    assert "freeze all" in desk.audit.records


async def test_a_freeze_works_without_an_audit_log(desk: OrderDesk) -> None:
    desk.audit.down = True
    await desk.orders.freeze(reason="maintenance", by="ada")
    assert desk.switches.on is not None


async def test_a_freeze_that_cannot_be_written_stops_what_runs_and_says_that_it_will_not_last(desk: OrderDesk) -> None:
    answer = await desk.order("rollback", SEARCH)
    desk.switches.down = True
    with pytest.raises(ActuationRefused, match="Nothing was written"):
        await desk.orders.freeze(reason="maintenance", by="ada")
    saga = await desk.sagas.wait(answer["saga_id"])
    assert "frozen by ada" in saga.progress.outcome


async def test_a_thaw_is_audited_before_it_takes_effect(desk: OrderDesk) -> None:
    await desk.orders.freeze(reason="maintenance", by="ada")
    desk.audit.down = True
    with pytest.raises(ActuationRefused):
        await desk.orders.thaw(reason="done", by="ada")
    assert desk.switches.on is not None
    desk.audit.down = False
    assert await desk.orders.thaw(reason="done", by="ada") == {"frozen": None}
    assert desk.switches.on is None


async def test_word_of_a_deploy_is_kept_with_who_told_it(desk: OrderDesk) -> None:
    answer = await desk.orders.record_change(SEARCH, "v1.4.2", reason="release", by="ci", dry_run=False)
    (change,) = desk.changes.changes
    assert (change.service, change.kind, change.version, change.by) == (SEARCH, "deploy", "v1.4.2", "ci")
    assert change.detail == {"reason": "release"}
    assert answer["at"] == change.at.isoformat()
    assert desk.audit.records == [f"record deploy {SEARCH}"]


async def test_a_deploy_of_something_unknown_is_refused(desk: OrderDesk) -> None:
    with pytest.raises(InvalidDefinition, match="There are: identity-service"):
        await desk.orders.record_change("billing", "v1", reason="r", by="ci", dry_run=False)
    assert desk.changes.changes == []


async def test_a_dry_run_of_a_deploy_records_nothing(desk: OrderDesk) -> None:
    answer = await desk.orders.record_change(SEARCH, "v2", reason="r", by="ci", dry_run=True)
    assert answer["version"] == "v2"
    assert (desk.changes.changes, desk.audit.records) == ([], [])


async def test_a_new_password_is_audited_before_it_is_set(desk: OrderDesk) -> None:
    assert await desk.orders.new_password("ada", reason="lost", by="root") == {
        "username": "ada",
        "password": "new-password",
    }
    assert desk.audit.records == ["new password ada"]
    desk.audit.down = True
    with pytest.raises(ActuationRefused):
        await desk.orders.new_password("ada", reason="lost", by="root")
