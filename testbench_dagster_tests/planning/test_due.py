"""What is due: examples of each rule, then properties over arbitrary histories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import DocOutcome, DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.sampling import SampleRule, asks_again, common_docs, kept_docs
from testbench_dagster.planning.due import (
    CallOutcome,
    ClosedElsewhere,
    DueCall,
    OpenElsewhere,
    PromptRef,
    TaskPlan,
    begun_docs,
    plan_task,
)
from testbench_dagster_tests.planning.lives import drawn_lives, life, ours

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAX_AGE = timedelta(days=32)
OLD = NOW - timedelta(days=33)
YOUNG = NOW - timedelta(days=1)
HOUR = timedelta(hours=1)
OLD_GRACE = timedelta(days=3)
ALL_OF = {"rule": None, "now": NOW, "max_age": MAX_AGE}


def prompts(count: int, requests: int = 1, repeats: int = 1) -> list[PromptRef]:
    """A sequence in which position and doc id differ."""
    return [PromptRef(f"p{i}", i, (i * 7) % 101, requests, repeats) for i in range(count)]


def outcome(
    position: int,
    fault: Fault = Fault.OK,
    at: datetime = YOUNG,
    *,
    idx: int = 0,
    repeat: int = 0,
    attempt: int = 1,
    round_: int = 1,
) -> CallOutcome:
    return CallOutcome(f"p{position}", idx, repeat, attempt, fault, at, round_)


def positions(plan: TaskPlan) -> list[int]:
    return [due.prompt.position for due in plan.due]


# ------------------------------------------------------------------------------------------- examples


def test_a_new_supplier_is_asked_the_whole_sequence_in_order() -> None:
    plan = plan_task(prompts(4), [], **ALL_OF)
    assert (plan.round, positions(plan), plan.n_calls) == (1, [0, 1, 2, 3], 4)
    assert all(due.calls == (DueCall(0, 0, 1),) for due in plan.due)


def test_answered_prompts_are_not_asked_again() -> None:
    plan = plan_task(prompts(4), [outcome(0), outcome(2, Fault.TRUNCATED)], **ALL_OF)
    assert positions(plan) == [1, 3]
    assert plan.reason == "2 of 4 docs are fresh"


def test_nothing_is_due_when_all_is_fresh() -> None:
    plan = plan_task(prompts(2), [outcome(0), outcome(1, Fault.TRUNCATED)], **ALL_OF)
    assert (plan.due, plan.reason) == ([], "all 2 wanted docs are fresh")


def test_without_prompts_nothing_is_due_and_the_reason_says_so() -> None:
    plan = plan_task([], [], **ALL_OF)
    assert (plan.due, plan.target, plan.reason) == ([], 0, "the sequence has no prompts")


@pytest.mark.parametrize("fault", [f for f in Fault if not f.answered])
def test_an_open_doc_is_asked_at_its_next_occasion_and_not_before(fault: Fault) -> None:
    history = [outcome(0, fault, attempt=3)]
    waiting = {("p0", 1): life(DocState.OPEN, YOUNG, NOW + HOUR, fault=fault)}
    plan = plan_task(prompts(1), history, lives=waiting, **ALL_OF)
    assert (plan.due, plan.open, plan.due_at) == ([], 1, NOW + HOUR)
    assert plan.reason == "0 of 1 doc is fresh; 1 open, asked again 2026-03-01 13:00"
    then = plan_task(prompts(1), history, lives=waiting, **{**ALL_OF, "now": NOW + HOUR})
    assert [(due.calls, due.occasion, due.open) for due in then.due] == [((DueCall(0, 0, 4),), 2, True)]
    assert then.reason == "0 of 1 doc is fresh; 1 open one is asked again"


def test_open_docs_that_were_asked_anew_are_told_from_those_that_never_closed() -> None:
    """By force, or with age: their earlier outcome counts until they close, so long as its slot is theirs."""
    first = [outcome(0), outcome(1, at=OLD), outcome(2, at=OLD - OLD_GRACE)]
    again = [outcome(n, Fault.UNAVAILABLE, at=NOW, round_=2) for n in range(3)]
    never = [outcome(3, Fault.UNAVAILABLE, at=NOW)]
    lives = {(f"p{n}", 2 if n < 3 else 1): life(DocState.OPEN, NOW, NOW + HOUR) for n in range(4)}
    options = {**ALL_OF, "lives": lives, "grace": OLD_GRACE}
    plan = plan_task(prompts(4), [*first, *again, *never], **options)
    assert (plan.open, plan.kept) == (4, 2)
    forced = plan_task(prompts(4), [*first, *again, *never], **options, force_since=NOW)
    assert (forced.open, forced.kept) == (4, 2)
    cut = plan_task(prompts(4), [*first, *again, *never], **options, cut_at=YOUNG)
    assert (cut.open, cut.kept) == (4, 0)


def test_docs_that_are_to_be_asked_anew_are_marked() -> None:
    plan = plan_task(prompts(3), [outcome(0)], **ALL_OF, force_since=NOW)
    assert {due.prompt.id: due.anew for due in plan.due} == {"p0": True, "p1": False, "p2": False}


def test_what_our_own_faults_hold_up_is_due_at_once_as_if_never_asked() -> None:
    history = [outcome(0, Fault.INTERNAL, attempt=1)]
    for lives in ({("p0", 1): ours(YOUNG)}, {}):
        plan = plan_task(prompts(1), history, lives=lives, **ALL_OF)
        assert [(due.calls, due.occasion) for due in plan.due] == [((DueCall(0, 0, 2),), 1)]


@pytest.mark.parametrize("state", [DocState.FAILED, DocState.VOID])
def test_a_closed_doc_is_never_asked_again_in_its_round(state: DocState) -> None:
    history = [outcome(0, Fault.SUPPLIER_HTTP, attempt=2), outcome(1)]
    closed = {("p0", 1): life(state, YOUNG)}
    for retry_now in (False, True):
        plan = plan_task(prompts(2), history, lives=closed, **ALL_OF, retry_now=retry_now)
        assert (plan.due, plan.fresh) == ([], 2)
    stale = plan_task(prompts(2), history, lives=closed, **{**ALL_OF, "now": YOUNG + MAX_AGE})
    assert (stale.round, positions(stale)) == (2, [0, 1])


def test_the_next_occasion_of_open_docs_can_be_had_now() -> None:
    waiting = {("p0", 1): life(DocState.OPEN, YOUNG, NOW + HOUR, occasions=4)}
    history = [outcome(0, Fault.TRANSPORT, attempt=9)]
    plan = plan_task(prompts(2), history, lives=waiting, **ALL_OF, retry_now=True)
    assert [(due.prompt.position, due.occasion) for due in plan.due] == [(0, 5), (1, 1)]


def test_open_docs_come_before_new_ones_and_none_is_asked_in_their_stead() -> None:
    rule = SampleRule(min=3, max=3, half_width=None)
    history = [outcome(1, Fault.TRANSPORT), outcome(2, Fault.TRANSPORT)]
    lives = {
        ("p1", 1): life(DocState.OPEN, YOUNG, NOW + HOUR),
        ("p2", 1): life(DocState.OPEN, YOUNG, NOW - HOUR),
    }
    plan = plan_task(prompts(9), history, lives=lives, **{**ALL_OF, "rule": rule})
    assert (positions(plan), plan.open, plan.fresh, plan.target) == ([2, 0], 2, 0, 3)
    only = begun_docs(plan)
    assert (positions(only), only.aged_at, only.open_at) == ([2], None, NOW)
    capped = plan_task(prompts(9), history, lives=lives, **{**ALL_OF, "rule": rule}, at_most=0)
    assert positions(capped) == [2], "it was counted when it was begun"


def test_an_open_doc_keeps_its_round() -> None:
    """Also when others are asked in the next one, and whatever is fresh of it from before."""
    history = [
        outcome(0, at=OLD),
        outcome(1, Fault.TRANSPORT),
        outcome(2),
        outcome(2, Fault.TRANSPORT, round_=2),
        outcome(3, at=OLD),
    ]
    lives = {
        ("p1", 1): life(DocState.OPEN, YOUNG, NOW),
        ("p2", 2): life(DocState.OPEN, YOUNG, NOW),
    }
    plan = plan_task(prompts(4), history, lives=lives, **ALL_OF)
    assert [(d.prompt.position, d.round, d.occasion) for d in plan.due] == [
        (1, 1, 2), (2, 2, 2), (0, 2, 1), (3, 2, 1)
    ]  # fmt: skip
    assert plan.fresh == 1, "the second's old answer counts until the new one closes"


def test_an_open_doc_that_grew_too_old_is_begun_anew() -> None:
    history = [outcome(0, Fault.TRANSPORT, at=OLD, attempt=5)]
    plan = plan_task(prompts(1), history, lives={("p0", 1): life(DocState.OPEN, OLD, NOW)}, **ALL_OF)
    assert (plan.round, plan.open) == (2, 0)
    assert [(due.calls, due.occasion) for due in plan.due] == [((DueCall(0, 0, 1),), 1)]


def test_an_open_doc_of_an_earlier_epoch_is_asked_there() -> None:
    old = PromptRef("old", 7, prompts(2)[1].doc_id, 1, 1)
    calls = (CallOutcome("old", 0, 0, 3, Fault.TRANSPORT, YOUNG, 2),)
    open_doc = OpenElsewhere(old, 4, 2, calls, life(DocState.OPEN, YOUNG, NOW - HOUR, occasions=2))
    plan = plan_task(prompts(2), [], open_elsewhere=[open_doc], **ALL_OF)
    assert [(d.prompt.id, d.epoch, d.round, d.occasion) for d in plan.due] == [
        ("old", 4, 2, 3), ("p0", None, 1, 1)
    ]  # fmt: skip
    begun = plan_task(prompts(2), [outcome(1)], open_elsewhere=[open_doc], **ALL_OF)
    assert [d.prompt.id for d in begun.due] == ["p0"], "once asked in the new one, that decides"


def test_the_last_attempt_decides_whatever_the_order_of_the_outcomes() -> None:
    history = [outcome(0, Fault.OK, attempt=3), outcome(0, Fault.TRANSPORT, attempt=2)]
    for seen in (history, history[::-1]):
        assert plan_task(prompts(1), seen, **ALL_OF).due == []


def test_only_the_missing_calls_of_a_prompt_are_made() -> None:
    history = [
        outcome(0, idx=0, repeat=0),
        outcome(0, idx=0, repeat=1),
        outcome(0, Fault.RATE_LIMITED, idx=1, repeat=0, attempt=3),
    ]
    plan = plan_task(prompts(1, requests=2, repeats=2), history, **ALL_OF)
    assert [due.calls for due in plan.due] == [(DueCall(1, 0, 4), DueCall(1, 1, 1))]


def test_one_call_without_an_answer_keeps_the_whole_prompt_open() -> None:
    history = [outcome(0, idx=0), outcome(0, Fault.SUPPLIER_TIMEOUT, idx=1)]
    sequence = prompts(1, requests=3)
    lives = {("p0", 1): life(DocState.OPEN, YOUNG, NOW)}
    retried = plan_task(sequence, history, lives=lives, **ALL_OF)
    assert retried.due[0].calls == (DueCall(1, 0, 2), DueCall(2, 0, 1))
    closed = {("p0", 1): life(DocState.FAILED, YOUNG)}
    assert plan_task(sequence, history, lives=closed, **ALL_OF).due == []


def test_unasked_prompts_come_before_another_round() -> None:
    rule = SampleRule(min=2, max=2)
    history = [outcome(0, at=OLD), outcome(1, at=OLD)]
    plan = plan_task(prompts(4), history, **{**ALL_OF, "rule": rule})
    assert (plan.round, positions(plan)) == (1, [2, 3])


def test_the_next_round_starts_when_the_sequence_is_used_up_and_stale() -> None:
    history = [outcome(i, at=OLD, attempt=3) for i in range(3)]
    plan = plan_task(prompts(3), history, **ALL_OF)
    assert (plan.round, positions(plan)) == (2, [0, 1, 2])
    assert all(due.calls == (DueCall(0, 0, 1),) for due in plan.due), "attempts count anew in a round"
    assert plan.reason == "0 of 3 docs are fresh"


def test_the_next_round_asks_only_what_is_stale() -> None:
    """Found by review: it used to start from the first prompt, fresh or not."""
    history = [outcome(0), outcome(1, at=OLD), outcome(2), outcome(3, at=OLD)]
    plan = plan_task(prompts(4), history, **ALL_OF)
    assert (plan.round, positions(plan)) == (2, [1, 3])


def test_what_is_fresh_from_the_round_before_is_not_asked_in_the_next() -> None:
    """Found by review: one stale doc used to make all the others due once round 2 had begun."""
    history = [outcome(0, at=OLD), outcome(1), outcome(2), outcome(0, round_=2)]
    assert plan_task(prompts(3), history, **ALL_OF).due == []
    later = plan_task(prompts(3), history, **{**ALL_OF, "now": YOUNG + MAX_AGE})
    assert positions(later) == [1, 2, 0], "first what was asked less often"
    history[1] = outcome(1, at=YOUNG - timedelta(hours=1))
    rolling = plan_task(prompts(3), history, **{**ALL_OF, "now": YOUNG + MAX_AGE - timedelta(minutes=30)})
    assert (rolling.round, positions(rolling)) == (2, [1])


def test_an_age_of_exactly_the_limit_is_stale() -> None:
    at_limit = plan_task(prompts(1), [outcome(0, at=NOW - MAX_AGE)], **ALL_OF)
    younger = plan_task(prompts(1), [outcome(0, at=NOW - MAX_AGE + timedelta(milliseconds=1))], **ALL_OF)
    assert (at_limit.round, at_limit.n_calls, younger.n_calls) == (2, 1, 0)


def test_outcomes_of_other_prompts_are_ignored() -> None:
    """A supplier that changed from chat to completions has outcomes on the chat prompts."""
    foreign = [CallOutcome("chat-0", 0, 0, 9, Fault.OK, YOUNG, 5)]
    assert plan_task(prompts(2), foreign, **ALL_OF) == plan_task(prompts(2), [], **ALL_OF)


# -------------------------------------------------------------------------------------------- targets


@st.composite
def rules(draw: st.DrawFn) -> SampleRule | None:
    if draw(st.booleans()):
        return None
    low = draw(st.integers(1, 40))
    high = draw(st.integers(low, 150))
    return SampleRule(min=low, max=high, half_width=draw(st.none() | st.floats(0.02, 0.45)))


variances = st.none() | st.floats(0, 0.25)


@given(rules(), st.integers(0, 9), variances)
def test_the_target_is_the_number_for_everybody(
    rule: SampleRule | None, available: int, variance: float | None
) -> None:
    """Whatever was answered: nothing of the supplier's has a say in it."""
    plan = plan_task(prompts(available), [], **{**ALL_OF, "rule": rule}, variance=variance)
    assert plan.target == common_docs(rule, available, variance)
    if available:
        failed = plan_task(
            prompts(available),
            [outcome(0, Fault.SUPPLIER_HTTP)],
            lives={("p0", 1): life(DocState.FAILED, YOUNG)},
            **{**ALL_OF, "rule": rule},
            variance=variance,
        )
        assert failed.target == plan.target and len(failed.due) == len(plan.due) - 1


# ------------------------------------------------------------------------------------------------ slots


def drawn(seed: str, n: int) -> list[int]:
    """The positions of docs that ask again when their slots fall due."""
    return [p.position for p in prompts(n) if asks_again(seed, p.doc_id)]


def test_of_the_slots_that_fall_due_half_ask_their_docs_again_and_the_others_the_next_ones() -> None:
    rule = SampleRule(min=20, max=60, half_width=0.4, start=40)
    history = [outcome(i, at=OLD) for i in range(40)]
    options = {**ALL_OF, "rule": rule, "grace": OLD_GRACE}
    plan = plan_task(prompts(60), history, seed="s", **options)
    repeated = drawn("s", 40)
    assert 12 < len(repeated) < 28
    assert [d.prompt.position for d in plan.due if d.round == 2] == repeated
    assert [d.prompt.position for d in plan.due if d.round == 1] == list(range(40, 80 - len(repeated)))
    assert len(plan.due) == plan.target == 40
    # stopped in the middle it goes on with the same docs
    asked = plan.due[:7] + plan.due[-6:]
    known = [*history, *(CallOutcome(d.prompt.id, 0, 0, 1, Fault.OK, NOW, d.round) for d in asked)]
    rest = plan_task(prompts(60), known, seed="s", **options)
    assert {(d.prompt.id, d.round) for d in [*asked, *rest.due]} == {(d.prompt.id, d.round) for d in plan.due}


def test_everybody_is_asked_the_same_docs_whatever_the_answers() -> None:
    rule = SampleRule(min=20, max=60, half_width=0.4, start=40)
    history = [outcome(i, at=OLD) for i in range(40)]
    failing = [outcome(i, Fault.SUPPLIER_HTTP, at=OLD) for i in range(40)]
    lives = {(f"p{i}", 1): life(DocState.FAILED, OLD) for i in range(40)}
    options = {**ALL_OF, "rule": rule, "grace": OLD_GRACE, "seed": "s"}
    honest = plan_task(prompts(60), history, **options)
    assert plan_task(prompts(60), failing, lives=lives, **options).due == honest.due


def test_slots_beyond_their_grace_take_the_next_docs() -> None:
    options = {**ALL_OF, "rule": SampleRule(min=4, max=20, half_width=None, start=4), "grace": HOUR}
    history = [outcome(i, at=OLD) for i in range(4)]
    plan = plan_task(prompts(9), history, seed="s", **{**options, "rule": SampleRule(min=4, max=4)})
    assert positions(plan) == [4, 5, 6, 7]


def test_a_slot_of_an_earlier_epoch_asks_its_doc_there() -> None:
    rule = SampleRule(min=10, max=10, half_width=None)
    ids = range(5000, 5010)
    again = [doc for doc in ids if asks_again("s", doc)]
    elsewhere = [ClosedElsewhere(PromptRef(f"old{d}", d - 5000, d, 1, 1), 3, 2) for d in again]
    plan = plan_task(
        prompts(20),
        [],
        **{**ALL_OF, "rule": rule},
        final_elsewhere=dict.fromkeys(ids, OLD),
        closed_elsewhere=elsewhere,
        grace=OLD_GRACE,
        seed="s",
    )
    old = [(d.prompt.id, d.epoch, d.round) for d in plan.due if d.epoch is not None]
    assert old == [(f"old{d}", 3, 3) for d in again]
    assert [d.prompt.position for d in plan.due if d.epoch is None] == list(range(10 - len(again)))


def test_open_docs_wait_for_others_only_as_long_as_told() -> None:
    history = [outcome(0, Fault.SUPPLIER_HTTP), outcome(1, Fault.SUPPLIER_HTTP)]
    waiting = {(f"p{i}", 1): life(DocState.OPEN, YOUNG, NOW + (1 + 12 * i) * HOUR) for i in range(2)}
    options = {**ALL_OF, "lives": waiting}
    assert plan_task(prompts(2), history, **options).open_at == NOW + HOUR
    assert plan_task(prompts(2), history, together=12 * HOUR, **options).open_at == NOW + 13 * HOUR


def renumbered(
    n: int,
    wanted: int,
    *,
    at: datetime = YOUNG,
    known: Sequence[CallOutcome] = (),
    elsewhere: Sequence[ClosedElsewhere] = (),
) -> TaskPlan:
    """What is asked once ``n`` docs of an earlier epoch have set the number of docs."""
    older = range(5000, 5000 + n)
    return plan_task(
        prompts(60),
        known,
        rule=SampleRule(min=wanted, max=wanted, half_width=None),
        now=NOW,
        max_age=MAX_AGE,
        grace=OLD_GRACE,
        final_elsewhere=dict.fromkeys(older, at),
        closed_elsewhere=elsewhere,
        older=older,
        draw="draw",
        seed="s",
    )


@pytest.mark.parametrize(
    ("n", "wanted", "asked"),
    [(50, 40, 20), (50, 50, 25), (50, 60, 30), (50, 25, 13), (10, 40, 30), (3, 1, 1)],
)
def test_at_most_half_of_the_slots_stay_with_docs_from_before_the_number_was_set(
    n: int, wanted: int, asked: int
) -> None:
    plan = renumbered(n, wanted)
    assert positions(plan) == list(range(asked))
    assert (plan.target, plan.fresh) == (wanted, wanted - asked), "what leaves its slot is not counted"
    assert plan.due_at == NOW
    after = renumbered(n, wanted, known=[outcome(position) for position in range(asked)])
    assert (after.due, after.fresh, after.target) == ([], wanted, wanted)
    assert after.due_at == YOUNG + MAX_AGE


def test_all_of_them_stay_where_there_are_no_others() -> None:
    """In a small split: what would be asked there is what has left."""
    ids = [prompt.doc_id for prompt in prompts(50)]
    options = {**ALL_OF, "rule": SampleRule(min=50, max=50, half_width=None), "draw": "draw"}
    known = dict.fromkeys(ids[:45], YOUNG)
    plan = plan_task(prompts(50), [], final_elsewhere=known, older=ids[:45], **options)
    assert (plan.target, plan.fresh) == (50, 45)
    assert positions(plan) == [45, 46, 47, 48, 49]


def test_half_of_the_docs_that_kept_their_slots_are_asked_again_when_these_fall_due() -> None:
    kept = kept_docs("draw", range(5000, 5050), 20)
    again = {doc for doc in kept if asks_again("s", doc)}
    assert 4 < len(again) < 16
    elsewhere = [ClosedElsewhere(PromptRef(f"old{d}", d - 5000, d, 1, 1), 1, 1) for d in range(5000, 5050)]
    young = [outcome(position) for position in range(20)]
    plan = renumbered(50, 40, at=OLD, known=young, elsewhere=elsewhere)
    assert {d.prompt.doc_id for d in plan.due if d.epoch is not None} == again
    assert [d.prompt.position for d in plan.due if d.epoch is None] == list(range(20, 40 - len(again)))


def test_a_doc_that_the_new_epoch_asked_is_none_from_before() -> None:
    first = prompts(60)[0].doc_id
    known = {first: YOUNG, 5001: YOUNG, 5002: YOUNG}
    options = {**ALL_OF, "rule": SampleRule(min=2, max=2, half_width=None), "draw": "draw", "older": [*known]}
    assert len(plan_task(prompts(60), [], final_elsewhere=known, **options).due) == 1
    plan = plan_task(prompts(60), [outcome(0)], final_elsewhere=known, **options)
    assert (plan.due, plan.fresh) == ([], 2)


def test_open_docs_from_before_take_no_more_than_half_either() -> None:
    older = range(5000, 5004)
    opened = [
        OpenElsewhere(
            PromptRef(f"o{d}", d - 5000, d, 1, 1),
            epoch=1,
            round=1,
            outcomes=(CallOutcome(f"o{d}", 0, 0, 1, Fault.TRANSPORT, YOUNG),),
            life=ours(YOUNG),
        )
        for d in older
    ]
    options = {**ALL_OF, "rule": SampleRule(min=4, max=4, half_width=None)}
    plan = plan_task(prompts(60), [], open_elsewhere=opened, older=older, draw="draw", **options)
    assert [due.open for due in plan.due] == [True] * 4 + [False] * 2, "what was begun is finished"
    assert positions(plan)[4:] == [0, 1]


def test_all_docs_of_a_task_are_asked_again_where_all_are_wanted() -> None:
    history = [outcome(i, at=OLD if i % 2 else YOUNG) for i in range(10)]
    plan = plan_task(prompts(10), history, seed="s", grace=OLD_GRACE, **ALL_OF)
    assert sorted((d.prompt.position, d.round) for d in plan.due) == [(i, 2) for i in range(1, 10, 2)]


def test_what_a_gate_wants_beyond_the_others_is_asked_apart() -> None:
    rule = SampleRule(min=2, max=8, half_width=0.2, start=3)
    options = {**ALL_OF, "rule": rule}
    plan = plan_task(prompts(20), [], **options, undecided=True)
    assert [(d.prompt.position, d.round) for d in plan.due] == [
        (0, 1), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)
    ]  # fmt: skip
    answered = [outcome(d.prompt.position, round_=d.round) for d in plan.due]
    done = plan_task(prompts(20), answered, **options, undecided=True)
    assert (done.due, done.fresh, done.target) == ([], 8, 8)
    decided = plan_task(prompts(20), answered, **options)
    assert (decided.due, decided.fresh, decided.target) == ([], 3, 3), "they fill no slot"
    later = plan_task(prompts(20), answered, **options, variance=0.2)
    assert later.target == 8
    assert [(d.prompt.position, d.round) for d in later.due] == [(n, 1) for n in range(3, 8)]


def test_an_open_doc_that_a_gate_wanted_is_asked_at_its_next_occasion() -> None:
    rule = SampleRule(min=1, max=3, half_width=0.4, start=1)
    history = [outcome(0), outcome(1, Fault.TRANSPORT, round_=0)]
    lives = {("p1", 0): life(DocState.OPEN, YOUNG, NOW)}
    plan = plan_task(prompts(5), history, lives=lives, **{**ALL_OF, "rule": rule}, undecided=True)
    assert [(d.prompt.position, d.round, d.open) for d in plan.due] == [(1, 0, True), (2, 0, False)]


# ----------------------------------------------------------------------------------------- properties


@dataclass(frozen=True)
class Past:
    """A sequence and whatever may have happened on it."""

    sequence: list[PromptRef]
    outcomes: list[CallOutcome]
    lives: dict[tuple[str, int], DocOutcome]

    def answered(self, plan: TaskPlan, at: datetime = NOW) -> Past:
        """What is known once everything due was answered."""
        new = [
            CallOutcome(due.prompt.id, c.idx, c.repeat, c.attempt, Fault.OK, at, due.round)
            for due in plan.due
            for c in due.calls
        ]
        scored = {(due.prompt.id, due.round) for due in plan.due}
        lives = {key: life for key, life in self.lives.items() if key not in scored}
        return Past(self.sequence, [*self.outcomes, *new], lives)


@st.composite
def histories(draw: st.DrawFn) -> Past:
    """A sequence and its past, in up to three rounds."""
    requests, repeats = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    sequence = prompts(draw(st.integers(0, 8)), requests, repeats)
    found = []
    for prompt in sequence:
        for round_ in range(1, draw(st.integers(0, 3)) + 1):
            for idx in range(requests):
                for repeat in range(repeats):
                    if draw(st.booleans()):
                        found.append(
                            outcome(
                                prompt.position,
                                draw(st.sampled_from(Fault)),
                                NOW - timedelta(days=draw(st.integers(0, 64))),
                                idx=idx,
                                repeat=repeat,
                                attempt=draw(st.integers(1, 5)),
                                round_=round_,
                            )
                        )
    return Past(sequence, draw(st.permutations(found)), draw(drawn_lives(sequence, found, NOW)))


def planned(
    past: Past, rule: SampleRule | None, variance: float | None, retry: bool, now: datetime = NOW
) -> TaskPlan:
    return plan_task(
        past.sequence,
        past.outcomes,
        lives=past.lives,
        rule=rule,
        variance=variance,
        now=now,
        max_age=MAX_AGE,
        retry_now=retry,
    )


def is_closed(past: Past, prompt: PromptRef, round_: int, calls: Sequence[CallOutcome]) -> bool:
    if (known := past.lives.get((prompt.id, round_))) is not None:
        return known.closed
    return sum(c.fault.answered for c in calls) == prompt.requests * prompt.repeats


@settings(max_examples=200)
@given(histories(), rules(), variances, st.booleans())
def test_plans_keep_the_rules(
    past: Past, rule: SampleRule | None, variance: float | None, retry: bool
) -> None:
    sequence, outcomes = past.sequence, past.outcomes
    plan = planned(past, rule, variance, retry)
    assert plan == planned(replace(past, outcomes=outcomes[::-1]), rule, variance, retry), "deterministic"
    assert plan.target == common_docs(rule, len(sequence), variance) or not sequence
    new = [due for due in plan.due if not due.open]
    assert [due.open for due in plan.due] == sorted((due.open for due in plan.due), reverse=True), (
        "open first"
    )
    assert len(new) <= max(0, plan.target - plan.open)
    places = [(due.round, due.prompt.position) for due in new]
    assert places == sorted(set(places)), "in the order of the sequence, what was asked less often first"
    assert len({due.prompt.id for due in plan.due}) == len(plan.due)

    now_round = max((o.round for o in outcomes), default=1)
    assert plan.round in (now_round, now_round + 1)
    last = {(o.prompt_id, o.round, o.idx, o.repeat): o for o in outcomes}

    def calls_of(prompt: PromptRef, round_: int) -> list[CallOutcome]:
        return [o for key, o in last.items() if key[:2] == (prompt.id, round_)]

    fresh = {
        p.id
        for p in sequence
        for round_ in range(1, now_round + 1)
        if (calls := calls_of(p, round_))
        and is_closed(past, p, round_, calls)
        and max(c.finished_at for c in calls) > NOW - MAX_AGE
    }
    for due in plan.due:
        assert due.calls
        assert len({(c.idx, c.repeat) for c in due.calls}) == len(due.calls)
        before = {(o.idx, o.repeat): o for o in calls_of(due.prompt, due.round)}
        known = past.lives.get((due.prompt.id, due.round))
        assert bool(before) == due.open
        assert known is None or not known.closed, "a closed doc is not asked again in its round"
        assert known is None or retry or (known.next_at or NOW) <= NOW, "nor an open one before its occasion"
        assert due.open or due.prompt.id not in fresh, "what is fresh is not asked"
        for call in due.calls:
            said = before.get((call.idx, call.repeat))
            assert said is None or not said.fault.answered, "an answered call is never made again"
            assert call.attempt == (1 if said is None else said.attempt + 1)
        answered = {k for k, o in before.items() if o.fault.answered}
        assert len(answered) + len(due.calls) == due.prompt.requests * due.prompt.repeats

    asked_now = {due.prompt.id for due in plan.due}
    open_ids = {due.prompt.id for due in plan.due if due.open}
    for prompt in sequence:
        rounds = [r for r in range(1, now_round + 1) if calls_of(prompt, r)]
        if not rounds or is_closed(past, prompt, rounds[-1], calls := calls_of(prompt, rounds[-1])):
            continue
        if all(c.finished_at > NOW - MAX_AGE for c in calls) and prompt.id not in asked_now:
            open_ids.add(prompt.id)
            at = past.lives[prompt.id, rounds[-1]].next_at
            assert at is not None and at > NOW and not retry, "an open doc is never lost"
            assert plan.due_at is not None and plan.due_at <= at, "and the plan says when it follows"
    if plan.round == now_round + 1:
        assert new, "a round starts only to ask something"
        assert len(fresh) < plan.target, "and what counts is too little"


@settings(max_examples=150)
@given(histories(), rules(), variances, st.booleans())
def test_carrying_out_a_plan_leaves_nothing_due(
    past: Past, rule: SampleRule | None, variance: float | None, retry: bool
) -> None:
    """Answering everything that is due closes the task: at most one more plan, for the next round."""
    for _ in range(2):
        past = past.answered(planned(past, rule, variance, retry))
    assert planned(past, rule, variance, retry).due == []


def test_what_is_dated_ahead_is_asked_again_whatever_it_was() -> None:
    ahead = NOW + 3 * 24 * HOUR
    sequence = prompts(4)
    asked = [outcome(0, at=ahead), outcome(1), outcome(2, Fault.SUPPLIER_REFUSED, ahead)]
    plan = plan_task(sequence, asked, **ALL_OF, grace=OLD_GRACE, final_elsewhere={sequence[3].doc_id: ahead})
    assert sorted(positions(plan)) == [0, 2, 3] and plan.fresh == 1
    at_its_time = plan_task(sequence, asked, rule=None, now=ahead, max_age=MAX_AGE)
    assert 0 not in positions(at_its_time)


def test_an_open_doc_that_failed_in_the_future_too_does_not_wait_for_it() -> None:
    """The clock was set back between its two attempts."""
    ahead = NOW + 30 * 24 * HOUR
    sequence, asked = prompts(1), [outcome(0, Fault.TRANSPORT, YOUNG)]
    for at, due in ((ahead, [0]), (YOUNG, [])):
        lives = {("p0", 1): life(DocState.OPEN, at, ahead + HOUR, occasions=2)}
        assert positions(plan_task(sequence, asked, lives=lives, **ALL_OF)) == due
