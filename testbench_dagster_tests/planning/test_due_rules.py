"""What is due after a model change, in a new epoch, by force, at a fixed rate; and when the next doc is."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.sampling import Measured, SampleRule, common_docs, predicted_half_width
from testbench_dagster.planning.due import CallOutcome, DueCall, TaskPlan, plan_task
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster_tests.planning.lives import life
from testbench_dagster_tests.planning.test_due import (
    ALL_OF,
    HOUR,
    MAX_AGE,
    NOW,
    OLD,
    YOUNG,
    Past,
    histories,
    outcome,
    positions,
    prompts,
    rules,
    variances,
)

TEN = SampleRule(min=10, max=10, half_width=None)


def answered(plan: TaskPlan, at: datetime = NOW) -> list[CallOutcome]:
    """What is known once everything due was answered."""
    return [
        CallOutcome(due.prompt.id, call.idx, call.repeat, call.attempt, Fault.OK, at, due.round)
        for due in plan.due
        for call in due.calls
    ]


def doc(position: int) -> int:
    return prompts(position + 1)[position].doc_id


# -------------------------------------------------------------------------------- a change of the model


def test_nothing_from_before_a_change_counts() -> None:
    history = [outcome(0, at=YOUNG), outcome(1, at=YOUNG + HOUR)]
    plan = plan_task(prompts(2), history, **ALL_OF, cut_at=YOUNG)
    assert (plan.round, positions(plan), plan.fresh) == (2, [0], 1)


def test_after_a_change_docs_never_asked_come_first() -> None:
    history = [outcome(i, at=YOUNG) for i in range(2)]
    plan = plan_task(prompts(4), history, **ALL_OF, cut_at=YOUNG)
    assert [(due.prompt.position, due.round) for due in plan.due] == [(2, 1), (3, 1), (0, 2), (1, 2)]


def test_a_doc_half_answered_before_a_change_is_asked_whole() -> None:
    """Else it would mix the answers of two models."""
    sequence = prompts(1, requests=2)
    history = [outcome(0, idx=0, at=YOUNG)]
    assert plan_task(sequence, history, **ALL_OF).due[0].calls == (DueCall(1, 0, 1),)
    cut = plan_task(sequence, history, **ALL_OF, cut_at=YOUNG)
    assert (cut.round, cut.due[0].calls) == (2, (DueCall(0, 0, 1), DueCall(1, 0, 1)))
    mixed = [*history, outcome(0, idx=1, at=YOUNG + HOUR)]
    assert plan_task(sequence, mixed, **ALL_OF, cut_at=YOUNG) == cut, "completed after it, it does not count"


@pytest.mark.parametrize("retry_now", [False, True])
def test_an_open_doc_from_before_a_change_is_asked_whole(retry_now: bool) -> None:
    history = [outcome(0, Fault.TRANSPORT, at=YOUNG, attempt=2)]
    lives = {("p0", 1): life(DocState.OPEN, YOUNG, NOW)}
    plan = plan_task(prompts(1), history, lives=lives, **ALL_OF, cut_at=YOUNG, retry_now=retry_now)
    assert (plan.round, plan.open, plan.due[0].calls) == (2, 0, (DueCall(0, 0, 1),))


# ------------------------------------------------------------------------------------------- epoch rolls


def test_a_new_epoch_asks_only_what_is_missing() -> None:
    options = {**ALL_OF, "rule": TEN}
    elsewhere = {1000 + i: YOUNG for i in range(7)}
    plan = plan_task(prompts(10), [], **options, final_elsewhere=elsewhere)
    assert (plan.fresh, positions(plan)) == (7, [0, 1, 2])
    assert plan_task(prompts(10), answered(plan), **options, final_elsewhere=elsewhere).due == []


def test_a_doc_of_both_epochs_counts_once_and_is_not_asked_while_fresh() -> None:
    options = {**ALL_OF, "rule": SampleRule(min=2, max=2, half_width=None)}
    elsewhere = {doc(0): YOUNG, doc(1): OLD, doc(2): YOUNG - HOUR}
    plan = plan_task(prompts(4), [outcome(0)], **options, final_elsewhere=elsewhere)
    assert (plan.fresh, plan.due) == (2, [])
    assert plan_task(prompts(4), [], **ALL_OF, final_elsewhere={doc(1): YOUNG}).fresh == 1
    unasked = plan_task(prompts(4), [], **ALL_OF, final_elsewhere={doc(1): YOUNG, doc(3): OLD})
    assert positions(unasked) == [0, 2, 3]


def test_a_change_of_the_model_voids_earlier_epochs_too() -> None:
    plan = plan_task(prompts(1), [], **ALL_OF, final_elsewhere={doc(0): YOUNG}, cut_at=YOUNG)
    assert (plan.fresh, positions(plan)) == (0, [0])


@pytest.mark.parametrize("draw", [str(number) for number in range(8)])
def test_by_force_no_slot_is_kept_by_a_doc_that_can_neither_count_nor_be_renewed(draw: str) -> None:
    """Of two docs from before the number was set the sequence has one; a slot is for either of them."""
    gone = 1
    elsewhere = {doc(2): NOW, gone: YOUNG}
    options = {**ALL_OF, "final_elsewhere": elsewhere, "older": set(elsewhere), "draw": draw}
    history = [outcome(0, at=NOW), outcome(1, at=NOW)]
    plan = plan_task(prompts(3), history, **options, force_since=NOW)
    assert (plan.fresh, plan.target, plan.due) == (3, 3, [])


# ------------------------------------------------------------------------------------- minimum and maximum


def test_a_full_window_is_renewed_at_a_fixed_rate() -> None:
    """Every trigger asks two docs, each doc once before any is asked again."""
    options = {**ALL_OF, "at_least": 2}
    history = [outcome(i, at=YOUNG + i * timedelta(minutes=1)) for i in range(5)]
    asked: list[int] = []
    for step in range(5):
        plan = plan_task(prompts(5), history, **options)
        assert (len(plan.due), plan.fresh) == (2, 5)
        asked += positions(plan)
        for place, answer in enumerate(answered(plan)):
            history.append(replace(answer, finished_at=NOW + timedelta(seconds=10 * step + place)))
    assert asked == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_a_minimum_first_takes_positions_never_asked() -> None:
    options = {**ALL_OF, "rule": SampleRule(min=2, max=2, half_width=None), "at_least": 2}
    plan = plan_task(prompts(5), [outcome(0), outcome(1)], **options)
    assert (plan.round, positions(plan)) == (1, [2, 3])
    assert plan.reason == "all 2 wanted docs are fresh; 2 are renewed"
    more = plan_task(prompts(5), [outcome(0), outcome(2), outcome(3)], **options)
    assert (more.round, positions(more)) == (1, [1, 4])


def test_a_minimum_does_not_add_to_what_is_wanted_anyway() -> None:
    assert positions(plan_task(prompts(5), [outcome(4)], **ALL_OF, at_least=3)) == [0, 1, 2, 3]


def test_a_minimum_beyond_the_sequence_asks_the_sequence() -> None:
    assert plan_task(prompts(3), [], **ALL_OF, at_least=9).round == 1
    again = plan_task(prompts(3), [outcome(i) for i in range(3)], **ALL_OF, at_least=9)
    assert (again.round, sorted(positions(again))) == (2, [0, 1, 2])


def test_a_maximum_cuts_what_is_wanted() -> None:
    plan = plan_task(prompts(9), [outcome(0)], **ALL_OF, at_most=3)
    assert (positions(plan), plan.target, plan.fresh) == ([1, 2, 3], 9, 1)
    assert plan_task(prompts(9), [], **ALL_OF, at_most=0).due == []


def test_an_undecided_gate_wants_as_many_as_allowed() -> None:
    options = {**ALL_OF, "rule": SampleRule(min=2, max=8, half_width=0.4, start=2)}
    history = [outcome(0), outcome(1)]
    assert plan_task(prompts(20), history, **options).target == 2
    assert plan_task(prompts(20), history, **options, undecided=True).target == 8
    assert plan_task(prompts(5), history, **options, undecided=True).target == 5


# ------------------------------------------------------------------------------------------------- force


def test_force_asks_again_what_is_fresh_and_goes_on_where_it_was_stopped() -> None:
    history = [outcome(i) for i in range(6)]
    options = {**ALL_OF, "rule": SampleRule(min=3, max=9, start=3), "force_since": NOW}
    first = plan_task(prompts(9), history, **options)
    assert (first.round, positions(first), first.target) == (2, [0, 1, 2, 3, 4, 5], 6)
    stopped = [*history, *answered(first)[:4]]
    rest = plan_task(prompts(9), stopped, **options)
    assert (rest.round, positions(rest), rest.fresh) == (2, [4, 5], 4)
    done = plan_task(prompts(9), [*stopped, *answered(rest)], **options)
    assert (done.due, done.fresh, done.target) == ([], 6, 6)
    later = plan_task(prompts(9), [*stopped, *answered(rest)], **{**options, "force_since": NOW + HOUR})
    assert (later.round, positions(later)) == (3, [0, 1, 2, 3, 4, 5]), "a new instant begins anew"


def test_force_asks_at_least_what_the_rule_wants() -> None:
    options = {**ALL_OF, "rule": TEN, "force_since": NOW}
    plan = plan_task(prompts(20), [outcome(i) for i in range(5)], **options)
    assert (plan.round, positions(plan)) == (2, list(range(10)))
    assert plan_task(prompts(20), [outcome(0), *answered(plan)], **options).due == []


def test_what_force_leaves_open_goes_on_in_its_round_while_the_old_outcome_counts() -> None:
    history = [outcome(0), outcome(1), outcome(0, Fault.TRANSPORT, at=NOW, round_=2)]
    lives = {("p0", 2): life(DocState.OPEN, NOW, NOW + HOUR)}
    plan = plan_task(prompts(2), history, lives=lives, **ALL_OF)
    assert (plan.due, plan.fresh, plan.open, plan.due_at) == ([], 2, 1, NOW + HOUR)
    then = plan_task(prompts(2), history, lives=lives, **{**ALL_OF, "now": NOW + HOUR})
    assert [(due.prompt.position, due.round, due.occasion) for due in then.due] == [(0, 2, 2)]
    forced = plan_task(prompts(2), history, lives=lives, **ALL_OF, force_since=NOW)
    assert [(due.prompt.position, due.round) for due in forced.due] == [(1, 2)], (
        "it was asked by force already"
    )


def test_force_does_not_complete_a_doc_begun_before_it() -> None:
    sequence = prompts(2, requests=2)
    history = [outcome(0), outcome(0, idx=1), outcome(1)]
    plan = plan_task(sequence, history, **ALL_OF, force_since=NOW)
    assert (plan.round, plan.n_calls) == (2, 4)


# ------------------------------------------------------------------------------------------------ due_at


def test_the_next_doc_is_due_when_one_too_many_has_aged() -> None:
    history = [outcome(i, at=YOUNG + i * HOUR) for i in range(4)]
    assert plan_task(prompts(4), history, **ALL_OF).due_at == YOUNG + MAX_AGE
    spare = {**ALL_OF, "rule": SampleRule(min=2, max=2, half_width=None)}
    plan = plan_task(prompts(4), history, **spare)
    assert (plan.fresh, plan.target, plan.due_at) == (4, 2, YOUNG + 2 * HOUR + MAX_AGE)
    assert plan_task(prompts(4), [], **ALL_OF).due_at == NOW
    assert plan_task([], [], **ALL_OF).due_at is None


@pytest.mark.parametrize(
    ("measured", "more", "expected"),
    [
        (Measured(), 0, None),
        (Measured(), 40, (0.5, 40)),
        (Measured(10, 0.9), 15, (0.9, 25)),
        (Measured(10, None), 0, (0.5, 10)),
    ],
)
def test_the_predicted_half_width_is_wilsons(
    measured: Measured, more: int, expected: tuple[float, int] | None
) -> None:
    found = predicted_half_width(measured, more)
    if expected is None:
        assert found is None
    else:
        low, high = wilson(expected[0] * expected[1], expected[1])
        assert found == pytest.approx((high - low) / 2)


# --------------------------------------------------------------------------------------------- properties

instants = st.integers(0, 64).map(lambda days: NOW - timedelta(days=days))
elsewheres = st.dictionaries(st.integers(0, 120), instants, max_size=8)


@settings(max_examples=200)
@given(
    histories(),
    rules(),
    variances,
    elsewheres,
    st.none() | instants,
    st.none() | instants,
    st.integers(0, 6),
    st.none() | st.integers(1, 6),
    st.booleans(),
    st.booleans(),
)
def test_plans_keep_their_bounds_and_mix_no_two_models(
    past: Past,
    rule: SampleRule | None,
    variance: float | None,
    elsewhere: dict[int, datetime],
    cut_at: datetime | None,
    force_since: datetime | None,
    at_least: int,
    at_most: int | None,
    undecided: bool,
    retry: bool,
) -> None:
    sequence, outcomes = past.sequence, past.outcomes
    plan = plan_task(
        sequence,
        outcomes,
        lives=past.lives,
        rule=rule,
        variance=variance,
        now=NOW,
        max_age=MAX_AGE,
        cut_at=cut_at,
        final_elsewhere=elsewhere,
        at_least=at_least,
        at_most=at_most,
        undecided=undecided,
        force_since=force_since,
        retry_now=retry,
    )
    new = len([due for due in plan.due if not due.open])
    room = max(0, plan.target - plan.fresh)
    assert new <= min(len(sequence), max(room, at_least), math.inf if at_most is None else at_most)
    if at_most is None or at_most >= at_least:
        assert len(plan.due) >= min(at_least, len(sequence) - plan.open)
    if rule is not None and force_since is None:
        assert plan.target <= min(rule.max, len(sequence))
    assert len({due.prompt.id for due in plan.due}) == len(plan.due)
    assert (plan.due_at == NOW) == bool(plan.due)
    limits = [at for at in (cut_at and cut_at + timedelta(microseconds=1), force_since) if at]
    for due in plan.due:
        before = [o for o in outcomes if o.prompt_id == due.prompt.id and o.round == due.round]
        assert all(o.finished_at >= limit for o in before for limit in limits), "two models in one doc"
        answers = {(o.idx, o.repeat) for o in before if o.fault.answered}
        assert answers.isdisjoint({(call.idx, call.repeat) for call in due.calls})
        assert len(answers) + len(due.calls) == due.prompt.requests * due.prompt.repeats


@settings(max_examples=150)
@given(
    histories(),
    rules(),
    variances,
    elsewheres,
    st.none() | instants,
    st.none() | st.just(NOW) | instants,
    st.none() | st.integers(1, 5),
    st.booleans(),
)
def test_answering_all_that_is_due_comes_to_an_end(
    past: Past,
    rule: SampleRule | None,
    variance: float | None,
    elsewhere: dict[int, datetime],
    cut_at: datetime | None,
    force_since: datetime | None,
    at_most: int | None,
    retry: bool,
) -> None:
    """And from then on nothing is due until due_at, which is when something really is."""
    assume(cut_at is None or cut_at < NOW)
    older = {doc for doc in elsewhere if doc % 3}

    def planned(at: datetime) -> TaskPlan:
        return plan_task(
            past.sequence,
            past.outcomes,
            lives=past.lives,
            rule=rule,
            variance=variance,
            now=at,
            max_age=MAX_AGE,
            cut_at=cut_at,
            final_elsewhere=elsewhere,
            older=older,
            draw="draw",
            at_most=at_most,
            force_since=force_since,
            retry_now=retry,
        )

    asked = 0
    while (plan := planned(NOW)).due:
        asked += len(plan.due)
        assert asked <= 3 * len(past.sequence), "the same docs again and again"
        past = past.answered(plan)
    if not past.sequence:
        assert plan.due_at is None
        return
    assert plan.fresh + plan.open >= plan.target >= common_docs(rule, len(past.sequence), variance)
    if plan.due_at is None:
        assert plan.open >= plan.target, "only where others keep all places"
        return
    assert plan.due_at > NOW
    assert planned(plan.due_at - timedelta(microseconds=1)).due == []
    if force_since is None:  # by force the target follows what counts, and ages with it
        while not (later := planned(plan.due_at)).due:
            # one from before that had left takes the place of one that kept its own and is gone
            assert older and later.fresh >= later.target
            assert later.due_at is not None and later.due_at > plan.due_at
            plan = later
