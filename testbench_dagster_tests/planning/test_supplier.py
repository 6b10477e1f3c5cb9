"""A supplier's plan: an example of every state, then properties over arbitrary facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.rules import PlanningRule, PlanningSettings, TaskGate
from testbench_dagster.core.sampling import Measured, SampleRule
from testbench_dagster.planning.canaries import CANARIES
from testbench_dagster.planning.due import CallOutcome, PromptRef
from testbench_dagster.planning.gates import Ability, TaskState
from testbench_dagster.planning.supplier import (
    Decision,
    SupplierFacts,
    SupplierPlan,
    TaskFacts,
    plan_supplier,
)
from testbench_dagster_tests.planning.lives import drawn_lives, life

NOW = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MAX_AGE = 32 * DAY
#: Audits of five docs a day, so that counts of docs say what is asked.
SETTINGS = PlanningSettings(audit_docs=5)
GATE = {"gates": [{"task": "liveness", "is": "present"}]}


def sequence(task: str, count: int, requests: int = 1) -> list[PromptRef]:
    return [PromptRef(f"{task}-{i}", i, (i * 7) % 101, requests, 1) for i in range(count)]


def task(
    name: str,
    docs: int = 4,
    answered: int = 0,
    at: datetime = NOW - DAY,
    *,
    requests: int = 1,
    rule: Mapping[str, Any] | None = None,
    samples: SampleRule | None = None,
    **others: Any,
) -> TaskFacts:
    """A task of which the first ``answered`` docs were answered at ``at``."""
    prompts = sequence(name, docs, requests)
    outcomes = [
        CallOutcome(prompt.id, idx, 0, 1, Fault.OK, at)
        for prompt in prompts[:answered]
        for idx in range(requests)
    ]
    return TaskFacts(
        task=name,
        rule=PlanningRule.model_validate(rule or {}),
        samples=samples,
        prompts=prompts,
        outcomes=outcomes,
        last_at=at if answered else None,
        max_age=MAX_AGE,
        **others,
    )


def supplier(*tasks: TaskFacts, **others: Any) -> SupplierFacts:
    return SupplierFacts("s@external", {t.task: t for t in tasks}, **others)


def plan(facts: SupplierFacts, **options: Any) -> SupplierPlan:
    return plan_supplier(facts, **{"settings": SETTINGS, "now": NOW, **options})


def only_decision(facts: SupplierFacts, **options: Any) -> Decision:
    (decision,) = plan(facts, **options).tasks.values()
    return decision


def summary(decision: Decision) -> tuple[str, int, datetime | None]:
    return decision.state, len(decision.plan.due), decision.due_at


def answer(facts: SupplierFacts, made: SupplierPlan, at: datetime) -> SupplierFacts:
    """The facts once everything due was answered."""
    tasks = dict(facts.tasks)
    for name, decision in made.tasks.items():
        given = [
            CallOutcome(due.prompt.id, call.idx, call.repeat, call.attempt, Fault.OK, at, due.round)
            for due in decision.plan.due
            for call in due.calls
        ]
        scored = {(due.prompt.id, due.round) for due in decision.plan.due}
        if given:
            lives = {key: life for key, life in tasks[name].lives.items() if key not in scored}
            outcomes = [*tasks[name].outcomes, *given]
            tasks[name] = replace(tasks[name], outcomes=outcomes, lives=lives, last_at=at)
    return replace(facts, tasks=tasks)


# ------------------------------------------------------------------------------------------------ states


def test_docs_are_due_until_they_are_fresh() -> None:
    made = plan(supplier(task("a", answered=1), task("b", answered=4)))
    assert summary(made.tasks["a"]) == ("due", 3, NOW)
    assert summary(made.tasks["b"]) == ("fresh", 0, NOW - DAY + MAX_AGE)
    assert (made.n_calls, made.due_at, made.due_height) == (3, NOW, None)
    assert made.reason == "3 docs of 1 task are due, 3 calls (1 fresh)"
    assert plan(supplier(task("b", answered=4))).reason == "nothing is due (1 fresh)"


def test_docs_of_earlier_epochs_count_while_they_are_fresh() -> None:
    earlier = {1001: NOW - DAY, 1002: NOW - 2 * DAY, 1003: NOW - MAX_AGE}
    rule = SampleRule(min=3, max=3, half_width=None)
    decision = only_decision(supplier(task("a", samples=rule, final_elsewhere=earlier)))
    assert (decision.plan.fresh, len(decision.plan.due)) == (2, 1)


def test_a_supplier_that_left_is_asked_nothing() -> None:
    made = plan(supplier(task("a"), departed=True), force_since=NOW)
    assert summary(made.tasks["a"]) == ("departed", 0, None)
    assert (made.n_calls, made.due_at, made.reason) == (0, None, "the supplier left")
    assert made.tasks["a"].plan.round == 1, "rounds are counted from 1"


@pytest.mark.parametrize(
    ("others", "state"),
    [
        ({"supported": False}, "unsupported"),
        ({"registered": False}, "no_prompts"),
        ({"docs": 0}, "no_prompts"),
    ],
)
def test_what_cannot_be_asked_is_not_forced_either(others: dict[str, Any], state: str) -> None:
    for options in ({}, {"force_since": NOW}):
        decision = only_decision(supplier(task("a", **others)), **options)
        assert summary(decision) == (state, 0, None)
        if state == "no_prompts":
            assert decision.reason.endswith("; `testbench run` or the daemon prepares it")


def test_a_closed_gate_holds_even_by_force() -> None:
    facts = supplier(task("math", rule=GATE), task("liveness"))
    for options in ({}, {"force_since": NOW}):
        made = plan(facts, **options)
        assert summary(made.tasks["math"]) == ("gated", 0, None)
        assert made.tasks["math"].reason == "liveness has no sample yet"
        assert made.tasks["liveness"].state == "due"
    opened = supplier(task("math", rule=GATE), task("liveness", state=TaskState(present=True)))
    assert plan(opened).tasks["math"].state == "due"


def test_gates_see_tasks_that_are_not_planned() -> None:
    facts = supplier(task("math", rule=GATE), task("liveness", state=TaskState(present=True)))
    made = plan(facts, only=["math"])
    assert list(made.tasks) == ["math"]
    assert made.tasks["math"].state == "due"


def test_a_summary_opens_no_gate_when_it_is_too_old() -> None:
    gate = {"gates": [{"taxonomy": "live", "min_score": 0.8}]}
    old = {("live", None): Ability(1.0, 1.0, 9, NOW - 2 * DAY)}
    assert only_decision(supplier(task("a", rule=gate), abilities=old)).state == "due"
    strict = supplier(task("a", rule=gate), abilities=old, summary_max_age=DAY)
    assert only_decision(strict).state == "gated"


def test_an_undecided_gate_makes_its_task_go_on_sampling() -> None:
    rule = SampleRule(min=2, start=2, max=12, half_width=0.4)
    gate = {"gates": [{"task": "liveness", "pass": 0.9, "fail": 0.7}]}

    def made(values: tuple[float, ...], **math: Any) -> SupplierPlan:
        state = TaskState(present=True, values=values)
        liveness = task("liveness", 20, 2, samples=rule, state=state)
        return plan(supplier(task("math", rule=gate, **math), liveness))

    undecided = made((1.0, 1.0))
    assert (undecided.tasks["math"].state, len(undecided.tasks["liveness"].plan.due)) == ("gated", 10)
    passed = made((1.0,) * 19)
    assert (passed.tasks["math"].state, passed.tasks["liveness"].state) == ("due", "fresh")
    failed = made((0.0,) * 5)
    assert (failed.tasks["math"].state, failed.tasks["liveness"].state) == ("gated", "fresh")
    assert made((1.0, 1.0), supported=False).tasks["liveness"].state == "fresh", "nobody waits for it"


DAILY = {"schedule": {"every": 24, "unit": "hours"}}


def test_a_task_rests_after_its_last_sample() -> None:
    resting = supplier(task("a", answered=1, at=NOW - HOUR, rule=DAILY))
    decision = only_decision(resting)
    assert summary(decision) == ("scheduled", 0, NOW + 23 * HOUR)
    assert (decision.plan.fresh, decision.plan.target) == (1, 4)
    assert only_decision(resting, now=NOW + 23 * HOUR).state == "due"
    assert only_decision(resting, force_since=NOW - 2 * HOUR).state == "due", "force overrides the schedule"
    assert only_decision(supplier(task("a", rule=DAILY))).state == "due"


def test_an_open_doc_has_its_occasions_whatever_the_schedule() -> None:
    """A schedule says when the next sample is taken; an open doc is one that was."""
    begun = task("a", 6, 2, NOW - HOUR, rule=DAILY)
    failed = CallOutcome("a-3", 0, 0, 1, Fault.TRANSPORT, NOW - HOUR)

    def decided(next_at: datetime) -> Decision:
        lives = {("a-3", 1): life(DocState.OPEN, NOW - HOUR, next_at)}
        return only_decision(supplier(replace(begun, outcomes=[*begun.outcomes, failed], lives=lives)))

    due = decided(NOW)
    assert (due.state, [doc.prompt.position for doc in due.plan.due]) == ("due", [3])
    assert summary(decided(NOW + 2 * HOUR)) == ("scheduled", 0, NOW + 2 * HOUR)
    assert summary(decided(NOW + 40 * HOUR)) == ("scheduled", 0, NOW + 23 * HOUR)


def test_a_resting_task_with_fresh_docs_is_due_when_they_age() -> None:
    decision = only_decision(supplier(task("a", answered=4, at=NOW - HOUR, rule=DAILY)))
    assert summary(decision) == ("scheduled", 0, NOW - HOUR + MAX_AGE)


def test_a_trigger_minimum_renews_at_the_rate_of_the_schedule() -> None:
    rule = {**DAILY, "trigger_minimum": 2}
    facts = supplier(task("a", 3, 3, NOW - DAY, rule=rule))
    asked = []
    at = NOW
    for _ in range(3):
        made = plan(facts, now=at)
        asked.append(sorted(due.prompt.position for due in made.tasks["a"].plan.due))
        facts = answer(facts, made, at)
        resting = plan(facts, now=at)
        assert summary(resting.tasks["a"]) == ("scheduled", 0, at + DAY)
        assert resting.due_at is not None
        at = resting.due_at
    assert asked[0] == [0, 1]
    assert 2 in asked[1]


def test_schedules_in_blocks_are_due_by_height() -> None:
    rule = {"schedule": {"every": 1, "unit": "session"}}
    facts = supplier(task("a", answered=1, rule=rule, last_height=100))
    made = plan(facts, height=105)
    assert (made.tasks["a"].state, made.due_at, made.due_height) == ("scheduled", None, 110)
    assert plan(facts).tasks["a"].reason.startswith("the block height is not known")
    assert plan(facts, height=110).tasks["a"].state == "due"
    fresh = plan(supplier(task("a", answered=4, rule=rule, last_height=100)), height=105)
    assert (fresh.due_at, fresh.due_height) == (NOW - DAY + MAX_AGE, None), "nothing to ask at block 110"


def test_docs_per_run_are_bounded() -> None:
    decision = only_decision(supplier(task("a", 9, rule={"max_docs_per_run": 2})))
    assert (len(decision.plan.due), decision.plan.target) == (2, 9)


def test_force_asks_again_and_then_is_done() -> None:
    facts = supplier(task("a", answered=4, at=NOW - HOUR, rule={**DAILY, "trigger_minimum": 2}))
    forced = plan(facts, force_since=NOW)
    assert summary(forced.tasks["a"])[:2] == ("due", 4)
    assert plan(answer(facts, forced, NOW), force_since=NOW).tasks["a"].state == "fresh"


# ------------------------------------------------------------------------------------- identity and retry


def test_a_member_of_a_group_is_only_audited() -> None:
    member = {"proxy": "p@external"}
    resting = only_decision(supplier(task("a", 50, 10, NOW - HOUR), **member))
    assert summary(resting) == ("represented", 0, NOW + 23 * HOUR)
    assert resting.reason == "p@external stands for it; next audit 2026-03-02 11:00"
    audited = only_decision(supplier(task("a", 50, 10, NOW - DAY), **member))
    assert summary(audited) == ("due", 5, NOW)
    assert all(due.prompt.position >= 10 for due in audited.plan.due), "docs it has not answered come first"
    fresh = only_decision(supplier(task("a", 8, 8, NOW - DAY), **member))
    assert summary(fresh) == ("due", 5, NOW), "whatever is fresh"
    assert summary(only_decision(supplier(task("a", 50), **member)))[:2] == ("due", 5)


def test_docs_that_a_member_began_are_finished() -> None:
    """What is open, or was answered in part, is no audit and no renewal: it is asked at its next occasion."""
    begun = task("a", 50, 10, NOW - HOUR)
    failed = [
        CallOutcome(begun.prompts[position].id, 0, 0, 3, Fault.RATE_LIMITED, NOW - HOUR)
        for position in (20, 30, 40, 45)
    ]
    lives = {
        ("a-20", 1): life(DocState.OPEN, NOW - HOUR, NOW),
        ("a-30", 1): life(DocState.OPEN, NOW - HOUR, NOW - HOUR),
        ("a-40", 1): life(DocState.FAILED, NOW - HOUR),
        ("a-45", 1): life(DocState.OPEN, NOW - HOUR, NOW + HOUR),
    }
    past = replace(begun, outcomes=[*begun.outcomes, *failed], lives=lives)
    facts = supplier(past, proxy="p@external")
    decision = only_decision(facts)
    assert summary(decision) == ("due", 2, NOW)
    assert [due.prompt.position for due in decision.plan.due] == [20, 30]
    assert decision.reason == "2 docs that were begun are finished; p@external stands for the rest"
    resting = only_decision(answer(facts, plan(facts), NOW))
    assert summary(resting) == ("represented", 0, NOW + HOUR), "the last open one has its occasion then"

    parts = task("b", 6, 0, requests=2)
    half = CallOutcome(parts.prompts[1].id, 0, 0, 1, Fault.OK, NOW - HOUR)
    partly = supplier(replace(parts, outcomes=[half], last_at=NOW - HOUR), proxy="p@external")
    (due,) = only_decision(partly).plan.due
    assert (due.prompt.position, [call.idx for call in due.calls]) == (1, [1])


def test_audits_keep_the_other_rules() -> None:
    member = {"proxy": "p@external"}
    assert only_decision(supplier(task("a", rule=GATE), **member)).state == "gated"
    weekly = {"schedule": {"every": 168, "unit": "hours"}}
    assert only_decision(supplier(task("a", answered=2, rule=weekly), **member)).state == "scheduled"
    begun = task("a", 6, 0, requests=2, rule=DAILY)
    half = CallOutcome(begun.prompts[1].id, 0, 0, 1, Fault.OK, NOW - HOUR)
    resting = supplier(replace(begun, outcomes=[half], last_at=NOW - HOUR), **member)
    assert summary(only_decision(resting)) == ("due", 1, NOW), "what is begun was sampled already"
    just = only_decision(supplier(task("a", answered=2, at=NOW - HOUR, rule=weekly), **member))
    assert summary(just) == ("represented", 0, NOW + 167 * HOUR)
    two = only_decision(supplier(task("a", 9, rule={"max_docs_per_run": 2}), **member))
    assert len(two.plan.due) == 2
    off = only_decision(supplier(task("a"), **member), settings=PlanningSettings(audit_docs=0))
    assert summary(off) == ("represented", 0, None)


def test_nobody_stands_for_what_a_supplier_says_of_itself() -> None:
    facts = supplier(task("a", 8, 3, NOW - HOUR, needs_own_answers=True), proxy="p@external")
    decision = only_decision(facts)
    assert summary(decision) == ("due", 5, NOW) and not decision.reason.startswith("audit")
    assert (
        only_decision(supplier(task("a", 8, 8, NOW - HOUR, needs_own_answers=True), proxy="p@external")).state
        == "fresh"
    )


def test_what_a_supplier_does_not_serve_rests() -> None:
    absent = supplier(task("a", absent_until=NOW + HOUR))
    decision = only_decision(absent)
    assert summary(decision) == ("unsupported", 0, NOW + HOUR)
    assert decision.reason == "the supplier does not serve it; asked again 2026-03-01 13:00"
    assert only_decision(absent, now=NOW + HOUR).state == "due"
    assert only_decision(absent, force_since=NOW).state == "due", "who forces asks again"


def test_force_audits_a_member_once() -> None:
    facts = supplier(task("a", 50, 10, NOW - HOUR), proxy="p@external")
    forced = plan(facts, force_since=NOW)
    assert summary(forced.tasks["a"])[:2] == ("due", 5)
    assert plan(answer(facts, forced, NOW), force_since=NOW).tasks["a"].state == "represented"


def test_a_pending_retry_delays_the_next_plan_but_not_this_one() -> None:
    made = plan(supplier(task("a"), retry_at=NOW + HOUR))
    assert (made.n_calls, made.due_at) == (4, NOW + HOUR)
    assert made.reason.endswith("it did not answer lately, next try 2026-03-01 13:00")
    past = plan(supplier(task("a"), retry_at=NOW - HOUR))
    assert (past.due_at, past.reason) == (NOW, "4 docs of 1 task are due, 4 calls")
    assert plan(supplier(task("a", docs=0), retry_at=NOW + HOUR)).due_at is None


def test_nothing_from_before_a_change_counts() -> None:
    assert only_decision(supplier(task("a", answered=4), cut_at=NOW - DAY)).state == "due"


# ---------------------------------------------------------------------------------------------- canaries


def test_canaries_go_with_what_is_asked_again_and_only_then() -> None:
    lives = {("a-3", 1): life(DocState.OPEN, NOW - HOUR, NOW)}
    failed = CallOutcome("a-3", 0, 0, 1, Fault.TRANSPORT, NOW - HOUR)
    first = task("a", 6, 2, NOW - HOUR)
    again = replace(first, outcomes=[*first.outcomes, failed], lives=lives)
    other, page = task("b", 4, 4, NOW - HOUR, requests=3), task("c", 4, 4, asks_model=False)
    assert plan(supplier(first, other)).canaries == ()

    made = plan(supplier(again, other, page), chance=Random(5))
    assert len(made.canaries) == 3
    assert made.n_calls == 1 + 3 + 3, "one open doc, three new ones, three canaries"
    answered = {"a": {"a-0", "a-1"}, "b": {"b-0", "b-1", "b-2", "b-3"}}
    for canary in made.canaries:
        assert canary.prompt.id in answered[canary.task]
        assert (canary.round, canary.attempt) == (1, 2), "numbered on"
    assert len({canary.prompt.id for canary in made.canaries}) == 3
    assert made == plan(supplier(again, other, page), chance=Random(5))
    facts = supplier(again, other)
    drawn = {c.prompt.id for seed in range(40) for c in plan(facts, chance=Random(seed)).canaries}
    assert drawn == {"a-0", "a-1", "b-0", "b-1", "b-2", "b-3"}, "any of them: none can be foreseen"


def test_who_has_answered_nothing_yet_has_no_canaries() -> None:
    failed = CallOutcome("a-0", 0, 0, 1, Fault.TRANSPORT, NOW - HOUR)
    lives = {("a-0", 1): life(DocState.OPEN, NOW - HOUR, NOW)}
    assert plan(supplier(replace(task("a"), outcomes=[failed], lives=lives))).canaries == ()


# -------------------------------------------------------------------------------------------- properties


@st.composite
def rules(draw: st.DrawFn, gated: bool) -> PlanningRule:
    hours = draw(st.none() | st.sampled_from([1, 24, 24 * 40]))
    most = draw(st.none() | st.integers(1, 4))
    least = draw(st.integers(0, min(3, most or 3))) if hours else 0
    written: dict[str, Any] = {"max_docs_per_run": most, "trigger_minimum": least}
    if hours:
        written["schedule"] = {"every": hours, "unit": "hours"}
    if gated:
        written["gates"] = draw(
            st.sampled_from(
                [
                    [],
                    [{"task": "t0", "is": "present"}],
                    [{"task": "t0", "pass": 0.9, "fail": 0.7}],
                ]
            )
        )
    rule = PlanningRule.model_validate(written)
    assert rule.problem() is None
    return rule


@st.composite
def suppliers(draw: st.DrawFn) -> SupplierFacts:
    """Facts of a supplier with up to four tasks, the first of which others may wait for."""
    tasks = {}
    for place in range(draw(st.integers(1, 4))):
        name = f"t{place}"
        requests = draw(st.integers(1, 3))
        prompts = sequence(name, draw(st.integers(0, 7)), requests)
        outcomes = [
            CallOutcome(
                prompt.id,
                idx,
                0,
                1,
                draw(st.sampled_from([Fault.OK, Fault.OK, Fault.EMPTY, Fault.TRANSPORT])),
                NOW - draw(st.integers(0, 60 * 24)) * HOUR,
                round_,
            )
            for prompt in prompts
            for round_ in range(1, draw(st.integers(0, 2)) + 1)
            for idx in range(requests)
            if draw(st.booleans())
        ]
        lives = draw(drawn_lives(prompts, outcomes, NOW))
        low = draw(st.integers(1, 5))
        samples = draw(st.none() | st.builds(SampleRule, min=st.just(low), max=st.integers(low, 8)))
        tasks[name] = TaskFacts(
            task=name,
            rule=draw(rules(gated=place > 0)),
            samples=samples,
            prompts=prompts if samples is None else prompts[: samples.max],
            outcomes=outcomes,
            lives=lives,
            measured=draw(st.builds(Measured, st.integers(0, 8), st.none() | st.floats(0, 1))),
            final_elsewhere=draw(
                st.dictionaries(
                    st.integers(0, 60), st.integers(0, 1440).map(lambda h: NOW - h * HOUR), max_size=4
                )
            ),
            supported=draw(st.sampled_from([True, True, True, False])),
            registered=draw(st.sampled_from([True, True, True, False])),
            last_at=max((o.finished_at for o in outcomes if o.fault.answered), default=None),
            max_age=draw(st.sampled_from([DAY, MAX_AGE])),
            state=draw(
                st.sampled_from(
                    [TaskState(), TaskState(present=True, values=(1.0,) * 20), TaskState(values=(1.0, 0.0))]
                )
            ),
        )
    return SupplierFacts(
        "s@external",
        tasks,
        cut_at=draw(st.none() | st.integers(0, 60).map(lambda days: NOW - days * DAY - HOUR)),
        departed=draw(st.sampled_from([False, False, False, True])),
        proxy=draw(st.none() | st.none() | st.just("p@external")),
    )


options = st.fixed_dictionaries(
    {
        "retry_errors": st.booleans(),
        "force_since": st.none() | st.sampled_from([NOW, NOW - 10 * DAY]),
    }
)


@settings(max_examples=60)
@given(suppliers(), options)
def test_every_plan_keeps_the_rules(facts: SupplierFacts, chosen: dict[str, Any]) -> None:
    made = plan(facts, chance=Random(1), **chosen)
    assert list(made.tasks) == list(facts.tasks)
    assert made.n_calls == sum(d.plan.n_calls for d in made.tasks.values()) + len(made.canaries)
    again = any(doc.occasion > 1 for d in made.tasks.values() for doc in d.plan.due)
    assert len(made.canaries) <= (CANARIES if again else 0)
    for name, decision in made.tasks.items():
        known, docs = facts.tasks[name], len(decision.plan.due)
        new = len([doc for doc in decision.plan.due if not doc.open])
        rule = known.rule
        assert bool(docs) == (decision.state == "due")
        assert decision.reason
        assert new <= (rule.max_docs_per_run or len(known.prompts))
        assert new <= max(0, decision.plan.target - decision.plan.fresh) + max(
            rule.trigger_minimum, 5 if facts.proxy else 0
        )
        if known.samples is not None:
            assert decision.plan.target <= known.samples.max
        if not known.askable or facts.departed:
            assert decision.state in ("unsupported", "no_prompts", "departed")
        elif decision.state == "due" and rule.gates:
            first = facts.tasks["t0"].state
            assert first.present if isinstance(rule.gates[0], TaskGate) else len(first.values) == 20
        if new and rule.schedule and known.last_at and chosen["force_since"] is None:
            assert NOW - known.last_at >= rule.schedule.every * HOUR
            if facts.proxy is None:
                assert docs >= min(rule.trigger_minimum, len(known.prompts) - decision.plan.open)
        if facts.proxy and docs and "begun" not in decision.reason:
            assert new <= 5
        if docs:
            assert decision.due_at == NOW


@settings(max_examples=60)
@given(suppliers(), options)
def test_the_plan_says_when_an_open_doc_is_asked_again(facts: SupplierFacts, chosen: dict[str, Any]) -> None:
    """Or it asks it now; only a closed gate keeps a doc that was begun from being asked."""
    made = plan(facts, **chosen)
    for name, decision in made.tasks.items():
        known = facts.tasks[name]
        if not known.askable or facts.departed or known.rule.gates:
            continue
        asked = {doc.prompt.id for doc in decision.plan.due}
        for prompt in known.prompts:
            next_at = next_attempt(facts, known, prompt, chosen["force_since"])
            if next_at is None:
                continue
            if next_at <= NOW or chosen["retry_errors"]:
                assert prompt.id in asked
            else:
                assert prompt.id not in asked
                # docs due within a third of the first gap are waited for
                assert decision.due_at is not None and decision.due_at <= next_at + timedelta(minutes=5)


def next_attempt(
    facts: SupplierFacts, known: TaskFacts, prompt: PromptRef, force_since: datetime | None
) -> datetime | None:
    """When a doc is to be asked again, in the last round that asked it; None where it is not open there."""
    rounds = [outcome.round for outcome in known.outcomes if outcome.prompt_id == prompt.id]
    told = known.lives.get((prompt.id, max(rounds, default=0)))
    if told is None or told.closed:
        return None
    since = max(NOW - known.max_age, facts.cut_at or NOW - 999 * DAY)
    for outcome in known.outcomes:
        of_it = (outcome.prompt_id, outcome.round) == (prompt.id, max(rounds))
        if of_it and (outcome.finished_at <= since or (force_since and outcome.finished_at < force_since)):
            return None  # too old, of another model, or forced: it is begun anew
    return told.next_at


@settings(max_examples=50)
@given(suppliers(), options)
def test_answering_all_leaves_nothing_due_until_due_at(facts: SupplierFacts, chosen: dict[str, Any]) -> None:
    rounds = 0
    while (made := plan(facts, **chosen)).n_calls:
        facts = answer(facts, made, NOW)
        rounds += 1
        assert rounds <= 20, "the same docs again and again"
    # later plans, made without force: what was forced counts for them like anything else
    later = {"retry_errors": chosen["retry_errors"]}
    facts_plan = plan(facts, **later)
    if facts_plan.n_calls or facts_plan.due_at is None:
        assert chosen["force_since"] is not None or facts_plan.due_at is None
        return
    assert facts_plan.due_at > NOW
    assert plan(facts, now=facts_plan.due_at - timedelta(microseconds=1), **later).n_calls == 0
    assert plan(facts, now=facts_plan.due_at, **later).n_calls > 0


@settings(max_examples=40)
@given(suppliers(), st.sets(st.sampled_from(["t0", "t1", "t2", "t3"])))
def test_planning_some_tasks_decides_as_planning_all(facts: SupplierFacts, only: set[str]) -> None:
    whole = plan(facts, chance=Random(7)).tasks
    assert plan(facts, only=only, chance=Random(7)).tasks == {
        name: d for name, d in whole.items() if name in only
    }
