"""What can be decided, and why. One vocabulary for the audit log, the metric label, the console and the tests."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """What a decision does."""

    HOLD = "hold"
    ROLL_BACK = "roll_back"  # one service's traffic to the monolith
    SCALE = "scale"  # replicas of one deployment
    FULL_ROLLBACK = "full_rollback"  # every service's traffic to the monolith


class Move(StrEnum):
    """What has a cooldown, a budget of actions and an autonomy of its own."""

    ROLL_BACK = "roll_back"
    FULL_ROLLBACK = "full_rollback"
    SCALE_OUT = "scale_out"
    SCALE_IN = "scale_in"

    @property
    def action(self) -> Action:
        return Action.SCALE if self in (Move.SCALE_OUT, Move.SCALE_IN) else Action(self.value)


class Autonomy(StrEnum):
    """How far Backstay goes by itself, least first."""

    OBSERVE = "observe"  # write down what it would do
    SUGGEST = "suggest"  # and tell people
    APPROVE = "approve"  # and do it once a person agrees
    AUTO = "auto"  # do it


class Reason(StrEnum):
    """Why a decision is what it is. `sentence` explains the reason; a decision's own sentence adds the numbers."""

    # Nothing has to be done.
    WITHIN_BUDGET = "within_budget"
    NO_TRAFFIC = "no_traffic"
    HELD_ON_MONOLITH = "held_on_monolith"
    MORE_EVIDENCE_NEEDED = "more_evidence_needed"
    SAGA_ACTIVE = "saga_active"
    SCALING = "scaling"
    AT_LIMIT = "at_limit"
    CULPRIT_ELSEWHERE = "culprit_elsewhere"
    COVERED_BY_FULL_ROLLBACK = "covered_by_full_rollback"

    # Nothing may be done.
    KILL_SWITCH = "kill_switch"
    EVIDENCE_STALE = "evidence_stale"
    UNKNOWN = "unknown"
    RUNTIME_UNKNOWN = "runtime_unknown"
    COOLDOWN = "cooldown"
    ACTION_BUDGET_SPENT = "action_budget_spent"
    LIMIT_MISSING = "limit_missing"
    IRREVERSIBLE = "irreversible"
    DESTINATION_UNHEALTHY = "destination_unhealthy"
    DESTINATION_WITHOUT_CAPACITY = "destination_without_capacity"
    ALREADY_ON_MONOLITH = "already_on_monolith"
    SHARED_WITH_MONOLITH = "shared_with_monolith"
    CULPRIT_UNSURE = "culprit_unsure"
    BURNING_SLOWLY = "burning_slowly"

    # Something is done.
    CRASH_LOOP = "crash_loop"
    ERRORS_WITHOUT_SATURATION = "errors_without_saturation"
    LATENCY_WITHOUT_SATURATION = "latency_without_saturation"
    SLOWER_NOT_BUSIER = "slower_not_busier"
    REGRESSION_AFTER_CHANGE = "regression_after_change"
    CULPRIT_OF_OTHERS = "culprit_of_others"
    SCALED_TO_LIMIT = "scaled_to_limit"
    INDEPENDENT_CULPRITS = "independent_culprits"
    SATURATED = "saturated"
    RECOVERED = "recovered"

    @property
    def sentence(self) -> str:
        """The reason in one sentence, without numbers."""
        return _SENTENCES[self]


_SENTENCES: dict[Reason, str] = {
    Reason.WITHIN_BUDGET: "Every objective is kept, so nothing needs to change.",
    Reason.NO_TRAFFIC: "Nobody asks this service anything, which is neither good nor bad.",
    Reason.HELD_ON_MONOLITH: "The monolith answers for this service; only a person moves it forward again.",
    Reason.MORE_EVIDENCE_NEEDED: "It looks worse than it should, but chance alone can still explain that.",
    Reason.SAGA_ACTIVE: "A plan for this service is being carried out, and two would get in each other's way.",
    Reason.SCALING: "Enough replicas are ordered already and are still starting.",
    Reason.AT_LIMIT: "It is busy and has as many replicas as it may have, but its users are served well.",
    Reason.CULPRIT_ELSEWHERE: "Its users suffer, but the cause is another service, which is acted on instead.",
    Reason.COVERED_BY_FULL_ROLLBACK: "The rollback of every service includes this one.",
    Reason.KILL_SWITCH: "Automatic action is frozen by a person.",
    Reason.EVIDENCE_STALE: "The evidence is too old, or from a clock that disagrees with ours, to act on.",
    Reason.UNKNOWN: "Data is missing or contradicts itself: that is neither good nor bad, so nothing is done.",
    Reason.RUNTIME_UNKNOWN: "The runtime does not say what runs where, so nothing can be moved safely.",
    Reason.COOLDOWN: "The same was done a short time ago; doing it again so soon would hide the real cause.",
    Reason.ACTION_BUDGET_SPENT: "As many automatic actions were taken as may be taken in this time.",
    Reason.LIMIT_MISSING: "Cooldown, budget or the memory of recent actions is missing, and what is missing denies.",
    Reason.IRREVERSIBLE: "This service is marked irreversible: the monolith can no longer read its data.",
    Reason.DESTINATION_UNHEALTHY: "The monolith is not healthy, so moving users to it would not help them.",
    Reason.DESTINATION_WITHOUT_CAPACITY: "The monolith cannot be made large enough to take the traffic.",
    Reason.ALREADY_ON_MONOLITH: "Users suffer although the monolith already answers all requests.",
    Reason.SHARED_WITH_MONOLITH: "What fails is used by the monolith as well, so a rollback would not help.",
    Reason.CULPRIT_UNSURE: "Users suffer, but it is not clear which service is the cause.",
    Reason.BURNING_SLOWLY: "The error budget is spent too fast, but not so fast that a machine should decide.",
    Reason.CRASH_LOOP: "Its replicas keep exiting, and its users get errors.",
    Reason.ERRORS_WITHOUT_SATURATION: "Its requests fail although it has room for them.",
    Reason.LATENCY_WITHOUT_SATURATION: "Its requests are slow although it has room for them.",
    Reason.SLOWER_NOT_BUSIER: "Its slots are full although it gets no more requests than usual: it became slow.",
    Reason.REGRESSION_AFTER_CHANGE: "It began to harm its users right after it was changed.",
    Reason.CULPRIT_OF_OTHERS: "It makes the services that call it fail or wait.",
    Reason.SCALED_TO_LIMIT: "It has as many replicas as it may have and still harms its users.",
    Reason.INDEPENDENT_CULPRITS: "Several services fail, each by itself: the cause is what only they share.",
    Reason.SATURATED: "More is asked of it than its replicas can hold, and nothing of it was changed.",
    Reason.RECOVERED: "It has been stable with far less demand than its replicas can hold.",
}
