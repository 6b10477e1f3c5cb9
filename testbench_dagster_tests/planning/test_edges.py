"""The instants, counts and numbers at which decisions of the planner change."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.rules import PlanningSettings
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.planning.due import CallOutcome, DueCall, PromptRef, plan_task
from testbench_dagster.planning.frameworks import MANAGER_MINUTES, import_frameworks
from testbench_dagster.planning.gates import Ability, GateFacts, TaskState, check_gates
from testbench_dagster.planning.shares import fair_shares
from testbench_dagster.planning.supplier import plan_supplier
from testbench_dagster_tests.planning.test_frameworks import framework
from testbench_dagster_tests.planning.test_gates import gates
from testbench_dagster_tests.planning.test_supplier import (
    DAY,
    HOUR,
    MAX_AGE,
    NOW,
    SETTINGS,
    only_decision,
    plan,
    sequence,
    supplier,
    task,
)
from testbench_dagster_tests.records import changeable

TICK = timedelta(microseconds=1)


def test_records_stay_what_they_are() -> None:
    assert changeable("testbench_dagster.planning") == set()


# ------------------------------------------------------------------------------------------------ instants


def outcome(
    position: int, fault: Fault = Fault.OK, at: Any = NOW - DAY, attempt: int = 1, round_: int = 1
) -> CallOutcome:
    return CallOutcome(f"a-{position}", 0, 0, attempt, fault, at, round_)


def asked(outcomes: list[CallOutcome], docs: int = 3, **options: Any) -> list[int]:
    """Positions that are due."""
    options = {"rule": None, "now": NOW, "max_age": MAX_AGE} | options
    return [due.prompt.position for due in plan_task(sequence("a", docs), outcomes, **options).due]


def test_a_doc_is_fresh_until_its_age_is_reached() -> None:
    assert asked([outcome(0, at=NOW - MAX_AGE + TICK)]) == [1, 2]
    first = plan_task(
        sequence("a", 1),
        [outcome(0, at=NOW - MAX_AGE)],
        rule=None,
        now=NOW,
        max_age=MAX_AGE,
    )
    assert (first.round, [d.prompt.position for d in first.due], first.fresh) == (2, [0], 0)
    assert first.due[0].calls == (DueCall(0, 0, 1),)


def test_what_finished_at_a_change_is_void_and_at_a_forced_renewal_is_not() -> None:
    at = NOW - HOUR
    assert asked([outcome(0, at=at)], cut_at=at - TICK) == [1, 2]
    assert asked([outcome(0, at=at)], cut_at=at, docs=1) == [0]
    assert asked([outcome(0, at=at)], force_since=at, docs=1) == []
    assert asked([outcome(0, at=at)], force_since=at + TICK, docs=1) == [0]


def test_a_prompt_is_answered_when_all_its_calls_are() -> None:
    prompts = [PromptRef("p", 0, 0, 2, 3)]
    calls = [(idx, repeat) for idx in range(2) for repeat in range(3)]

    def due(outcomes: list[CallOutcome]) -> list[DueCall]:
        made = plan_task(prompts, outcomes, rule=None, now=NOW, max_age=MAX_AGE)
        return [call for prompt in made.due for call in prompt.calls]

    assert due([]) == [DueCall(idx, repeat, 1) for idx, repeat in calls]
    answers = [CallOutcome("p", idx, repeat, 1, Fault.OK, NOW - HOUR) for idx, repeat in calls]
    assert due(answers) == []
    assert due(answers[:-1]) == [DueCall(1, 2, 1)]
    lost = replace(answers[-1], fault=Fault.TRANSPORT, attempt=4)
    assert due([*answers[:-1], lost]) == [DueCall(1, 2, 5)]
    assert due([*answers, lost]) == [DueCall(1, 2, 5)]  # the last attempt decides
    assert due([*answers, replace(lost, attempt=1)]) == []  # of one number the first that is known


@pytest.mark.parametrize(
    ("at_least", "at_most", "due"),
    [
        (0, None, []),
        (1, None, [4]),
        (2, None, [4, 5]),
        (3, 2, [4, 5]),
        (2, 0, []),
        (9, None, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_docs_beyond_what_is_wanted(at_least: int, at_most: int | None, due: list[int]) -> None:
    """Four docs of six are wanted and fresh. What is more is new docs first, then all in the next round."""
    rule = SampleRule(min=4, max=4)
    fresh = [outcome(n, at=NOW - DAY + n * HOUR) for n in range(4)]
    found = asked(fresh, 6, rule=rule, at_least=at_least, at_most=at_most)
    assert sorted(found) == due


def test_when_the_next_doc_will_be_due() -> None:
    """Of five fresh docs three are wanted: due when the third newest has aged."""
    times = [NOW - n * DAY for n in (5, 4, 3, 2, 1)]
    made = plan_task(
        sequence("a", 5),
        [outcome(n, at=at) for n, at in enumerate(times)],
        rule=SampleRule(min=3, max=3),
        now=NOW,
        max_age=MAX_AGE,
    )
    assert (made.target, made.fresh, made.due, made.due_at) == (3, 5, [], times[2] + MAX_AGE)


def test_audits_come_a_day_after_the_last_sample() -> None:
    """``audit_hours`` 24; ``audit_docs``, where nothing is set, follow from the task."""
    assert (PlanningSettings().audit_hours, PlanningSettings().audit_docs) == (24, None)
    member = {"proxy": "p@external"}
    just = only_decision(supplier(task("a", 50, 1, NOW - 24 * HOUR + TICK), **member))
    assert (just.state, just.due_at) == ("represented", NOW + TICK)
    now = only_decision(supplier(task("a", 50, 1, NOW - 24 * HOUR), **member))
    assert (now.state, len(now.plan.due)) == ("due", 5)
    few = only_decision(supplier(task("a", 50, rule={"max_docs_per_run": 5}), **member))
    assert len(few.plan.due) == 5
    off = plan_supplier(
        supplier(task("a", 50), **member), SETTINGS.model_copy(update={"audit_docs": 0}), now=NOW
    ).tasks["a"]
    assert (off.state, off.reason) == (
        "represented",
        "p@external stands for it; audits are off (audit_docs: 0)",
    )


def test_a_forced_audit_is_of_members_sampled_before() -> None:
    since = NOW - HOUR
    for at, state in ((since - TICK, "due"), (since, "represented"), (since + TICK, "represented")):
        facts = supplier(task("a", 50, 1, at), proxy="p@external")
        assert only_decision(facts, force_since=since).state == state


def test_who_is_asked_again_at_an_instant_is_asked_then() -> None:
    absent = supplier(task("a", absent_until=NOW + TICK))
    assert only_decision(absent).state == "unsupported"
    assert only_decision(supplier(task("a", absent_until=NOW))).state == "due"
    later = plan(supplier(task("a"), retry_at=NOW + TICK))
    assert later.due_at == NOW + TICK and "did not answer lately" in later.reason
    assert "did not answer lately" not in plan(supplier(task("a"), retry_at=NOW)).reason


def test_a_plan_says_how_much_of_what() -> None:
    made = plan(supplier(task("a", 3, requests=2), task("b", 4), task("c", 2, answered=2), proxy=None))
    assert made.reason == "7 docs of 2 tasks are due, 10 calls (1 fresh)"
    assert made.n_calls == 10


# --------------------------------------------------------------------------------------------------- gates


def verdict(
    gate: dict[str, Any], state: TaskState | None = None, ability: Ability | None = None
) -> tuple[bool, str]:
    facts = GateFacts({"t": state or TaskState()}, {("x", None): ability} if ability else {}, NOW, MAX_AGE)
    found = check_gates(gates(gate), facts)
    return found.open, found.reason


def test_a_gate_of_a_score_opens_above_zero_and_at_equality_within_a_billionth() -> None:
    ok = {"task": "t", "is": "ok"}
    assert verdict(ok, TaskState(True, 1e-12))[0] and not verdict(ok, TaskState(True, 0.0))[0]
    equal = {"task": "t", "is": "equal", "value": 0.5}
    assert verdict(equal, TaskState(True, 0.5 + 4e-10))[0] and verdict(equal, TaskState(True, 0.5 - 4e-10))[0]
    assert not verdict(equal, TaskState(True, 0.5 + 3e-9))[0]
    zero = {"task": "t", "is": "equal", "value": 0.0}
    assert verdict(zero, TaskState(True, 9e-10))[0] and not verdict(zero, TaskState(True, 1.1e-9))[0]


def test_a_gate_of_an_ability_opens_at_its_numbers() -> None:
    least = {"taxonomy": "x", "min_score": 0.8, "min_success": 0.7, "min_samples": 10}
    good = Ability(0.8, 0.7, 10, NOW - MAX_AGE)
    assert verdict(least, ability=good) == (True, "")
    for change, said in (
        ({"score": 0.8 - 1e-9}, "x scores 0.79, 0.8 wanted"),
        ({"success": 0.7 - 1e-9}, "x answers 0.69 of its docs, 0.7 wanted"),
        ({"min_samples": 9}, "x has 9 docs in its least sampled task, 10 wanted"),
        (
            {"summarized_at": NOW - MAX_AGE - TICK},
            "the summary of x is 32.0 days old, at most 32.0 days wanted",
        ),
    ):
        assert verdict(least, ability=replace(good, **change)) == (False, said)
    assert verdict({"taxonomy": "x"}, ability=replace(good, success=None, score=0.0, min_samples=0))[0]


@pytest.mark.parametrize(
    ("score", "shown"), [(0.999, "0.99"), (0.29, "0.29"), (0.295, "0.29"), (0.0, "0.00")]
)
def test_numbers_are_rounded_down(score: float, shown: str) -> None:
    assert verdict({"task": "t", "is": "equal", "value": 1.0}, TaskState(True, score))[1].startswith(
        f"t scores {shown},"
    )


# -------------------------------------------------------------------------------------------------- shares


@given(
    st.integers(0, 40),
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 12), min_size=1),
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 8)),
)
def test_shares_are_dealt_one_by_one_to_who_has_least(
    total: int, demands: dict[str, int], had: dict[str, int]
) -> None:
    """Water filling, one at a time: the next goes to the first by key of those with least that want more."""
    dealt = dict.fromkeys(demands, 0)
    for _ in range(total):
        open_ = [key for key in sorted(demands) if dealt[key] < demands[key]]
        if not open_:
            break
        dealt[min(open_, key=lambda key: (dealt[key] + had.get(key, 0), key))] += 1
    assert fair_shares(total, demands, had) == dealt


def test_shares_have_no_negative_numbers() -> None:
    assert fair_shares(0, {"a": 0}, {"a": 0}) == {"a": 0} and fair_shares(5, {}) == {}
    for arguments in ((-1, {"a": 1}), (1, {"a": -1}), (1, {"a": 1}, {"a": -1}), (1, {"a": 1}, {"b": -1})):
        with pytest.raises(ValueError, match="want no negative numbers"):
            fair_shares(*arguments)


# ---------------------------------------------------------------------------------------------- frameworks


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("taxonomy_dependency", "x:1.01:0:0"),
        ("taxonomy_dependency", "x:-0.01:0:0"),
        ("taxonomy_dependency", "x:0:1.01:0"),
        ("taxonomy_dependency", "x:0:-0.01:0"),
        ("taxonomy_dependency", "x:0:0:-1"),
        ("taxonomy_dependency", "x:0:0"),
        ("taxonomy_dependency", "x:0:0:0:0"),
        ("taxonomy_dependency", "x::0:0"),
        ("task_dependency", "lmeh:t:equal:inf"),
        ("task_dependency", "lmeh:t:is:1"),
        ("task_dependency", ":t:ok:1"),
        ("schedule_limits", "-1:hours"),
        ("schedule_limits", "1.5:hours"),
        ("schedule_limits", "1:days"),
        ("trigger_minimum", "-1"),
        ("trigger_minimum", "x"),
        ("task_types", "number"),
    ],
)
def test_malformed_rules_are_named(field: str, text: str) -> None:
    value = [text] if field.endswith("dependency") else text
    with pytest.raises(
        ConfigError, match=f"framework 'lmeh', task 'gsm8k': {field}: .* is malformed; write "
    ):
        import_frameworks({"lmeh": framework(**{field: {"gsm8k": value}})})


def test_rules_at_their_ends_are_taken() -> None:
    for text in ("x:0:0:0", "x:1:1:0", "x:0.5:1:999"):
        rules = framework(taxonomy_dependency={"any": [text]})
        assert "min_score" in import_frameworks({"lmeh": rules}).text
    assert MANAGER_MINUTES == 5
    every = import_frameworks({"lmeh": framework(trigger_minimum={"any": "1"})})
    assert "every: 5" in every.text and any("every 5 minutes by default" in note for note in every.notes)
    none = import_frameworks({"lmeh": framework(schedule_limits={"any": "0:hours"})})
    assert "schedule" not in none.text and any("limits nothing and is dropped" in note for note in none.notes)


@pytest.mark.parametrize(
    ("frameworks", "name", "said"),
    [
        ({}, None, "no object with at least one framework"),
        ([], None, "no object with at least one framework"),
        ({"a": {}, "b": {}}, None, "there are several, choose one with --framework: a, b"),
        ({"a": {}}, "b", "there is no such framework; there are: a"),
        ({"a": []}, None, "is no object; it should hold"),
        ({"a": {"task_types": []}}, None, "a.task_types: .* is no object"),
        ({"a": {"task_types": {"any": True}}}, None, "is malformed"),
        ({"a": {"task_types": {"any": ["numerical", "numerical"]}}}, None, "is malformed"),
        ({"a": {"trigger_minimum": {"any": 1.5}}}, None, "is malformed"),
    ],
)
def test_what_is_no_framework_is_refused(frameworks: Any, name: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        import_frameworks(frameworks, name)
