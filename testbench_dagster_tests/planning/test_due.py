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
from testbench_dagster.core.sampling import Measured, SampleRule, target_docs
from testbench_dagster.planning.due import (
    CallOutcome,
    DueCall,
    OpenElsewhere,
    PromptRef,
    TaskPlan,
    begun_docs,
    plan_task,
)
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster_tests.planning.lives import drawn_lives, life, ours

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAX_AGE = timedelta(days=32)
OLD = NOW - timedelta(days=33)
YOUNG = NOW - timedelta(days=1)
HOUR = timedelta(hours=1)
ALL_OF = {"rule": None, "measured": Measured(), "now": NOW, "max_age": MAX_AGE}


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
    assert plan.reason == "0 of 1 docs are fresh; 1 open, asked again 2026-03-01 13:00"
    then = plan_task(prompts(1), history, lives=waiting, **{**ALL_OF, "now": NOW + HOUR})
    assert [(due.calls, due.occasion, due.open) for due in then.due] == [((DueCall(0, 0, 4),), 2, True)]
    assert then.reason == "0 of 1 docs are fresh; 1 open ones are asked again"


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
    rule = SampleRule(min=2, max=4, half_width=0.2)
    history = [outcome(0, at=OLD), outcome(1, at=OLD)]
    plan = plan_task(prompts(4), history, **{**ALL_OF, "rule": rule})
    assert (plan.round, positions(plan)) == (1, [2, 3])


def test_the_next_round_starts_when_the_sequence_is_used_up_and_stale() -> None:
    history = [outcome(i, at=OLD, attempt=3) for i in range(3)]
    plan = plan_task(prompts(3), history, **ALL_OF)
    assert (plan.round, positions(plan)) == (2, [0, 1, 2])
    assert all(due.calls == (DueCall(0, 0, 1),) for due in plan.due), "attempts count anew in a round"
    assert plan.reason == "round 1 is used up and 3 docs are stale"


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
    assert (later.round, positions(later)) == (2, [1, 2]), "round 2 first asks what it has not asked yet"
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


@pytest.mark.parametrize(
    ("rule", "available", "measured", "expected"),
    [
        (None, 1319, Measured(), 1319),
        (SampleRule(min=25, max=100, half_width=None), 1319, Measured(), 100),
        (SampleRule(min=25, max=100, half_width=None), 40, Measured(), 40),
        (SampleRule(min=25, max=100), 1319, Measured(), 25),
        (SampleRule(min=25, max=100), 10, Measured(), 10),
        (SampleRule(min=25, max=100), 1319, Measured(24, 0.5), 25),
        # Wilson at 0.5: 93 docs for +-0.1; at 0 and 1 the minimum is enough
        (SampleRule(min=25, max=100), 1319, Measured(25, 0.5), 93),
        (SampleRule(min=25, max=80), 1319, Measured(25, 0.5), 80),
        (SampleRule(min=25, max=100), 60, Measured(25, 0.5), 60),
        (SampleRule(min=25, max=100), 1319, Measured(25, 1.0), 25),
        (SampleRule(min=25, max=100), 1319, Measured(25, 0.0), 25),
        # no interval for the metric: as many as allowed
        (SampleRule(min=25, max=100), 1319, Measured(25, None), 100),
        # failed docs come on top, as they tell nothing of the mean
        (SampleRule(min=25, max=100), 1319, Measured(20, 0.5, failed=5), 98),
        (SampleRule(min=25, max=100), 1319, Measured(20, 0.5, failed=30), 100),
        # a supplier that only fails is not asked more than the minimum
        (SampleRule(min=25, max=100), 1319, Measured(0, None, failed=25), 25),
        # never fewer than there are already
        (SampleRule(min=25, max=100), 1319, Measured(70, 1.0), 70),
    ],
)
def test_target_examples(rule: SampleRule | None, available: int, measured: Measured, expected: int) -> None:
    assert target_docs(rule, available, measured) == expected


@st.composite
def rules(draw: st.DrawFn) -> SampleRule | None:
    if draw(st.booleans()):
        return None
    low = draw(st.integers(1, 40))
    high = draw(st.integers(low, 150))
    return SampleRule(min=low, max=high, half_width=draw(st.none() | st.floats(0.02, 0.45)))


measurements = st.builds(Measured, st.integers(0, 200), st.none() | st.floats(0, 1), st.integers(0, 60))


@given(rules(), st.integers(0, 300), measurements)
def test_target_is_between_its_bounds(rule: SampleRule | None, available: int, measured: Measured) -> None:
    target = target_docs(rule, available, measured)
    if rule is None:
        assert target == available
    else:
        assert min(rule.min, available) <= target <= min(rule.max, available)


@given(
    st.integers(1, 40), st.integers(0, 200), st.floats(0.02, 0.45), st.integers(1, 200), st.floats(0, 1),
    st.integers(0, 30),
)  # fmt: skip
def test_the_wanted_width_is_reached_at_the_target_unless_capped(
    low: int, more: int, half_width: float, n: int, mean: float, failed: int
) -> None:
    rule = SampleRule(min=low, max=low + more, half_width=half_width)
    target = target_docs(rule, 10_000, Measured(n, mean, failed))
    if n + failed < rule.min or target == rule.max:
        return
    scored = target - failed

    def half(count: int) -> float:
        bottom, top = wilson(mean * count, count)
        return (top - bottom) / 2

    assert half(scored) <= half_width + 1e-9
    # and not one doc more than needed: fewer would be too wide, below the minimum, or already there
    assert scored - 1 < n or target - 1 < rule.min or half(scored - 1) > half_width - 1e-9


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
    past: Past, rule: SampleRule | None, measured: Measured, retry: bool, now: datetime = NOW
) -> TaskPlan:
    return plan_task(
        past.sequence,
        past.outcomes,
        lives=past.lives,
        rule=rule,
        measured=measured,
        now=now,
        max_age=MAX_AGE,
        retry_now=retry,
    )


def is_closed(past: Past, prompt: PromptRef, round_: int, calls: Sequence[CallOutcome]) -> bool:
    if (known := past.lives.get((prompt.id, round_))) is not None:
        return known.closed
    return sum(c.fault.answered for c in calls) == prompt.requests * prompt.repeats


@settings(max_examples=200)
@given(histories(), rules(), measurements, st.booleans())
def test_plans_keep_the_rules(past: Past, rule: SampleRule | None, measured: Measured, retry: bool) -> None:
    sequence, outcomes = past.sequence, past.outcomes
    plan = planned(past, rule, measured, retry)
    assert plan == planned(replace(past, outcomes=outcomes[::-1]), rule, measured, retry), "deterministic"
    assert plan.target == target_docs(rule, len(sequence), measured) or not sequence
    new = [due for due in plan.due if not due.open]
    assert [due.open for due in plan.due] == sorted((due.open for due in plan.due), reverse=True), (
        "open first"
    )
    assert len(new) <= max(0, plan.target - plan.open)
    places = [due.prompt.position for due in new]
    assert places == sorted(set(places)), "in the order of the sequence, each once"
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
        touched = {o.prompt_id for o in outcomes if o.round == now_round}
        assert {p.id for p in sequence} <= fresh | touched | open_ids, "used up"
        assert len(fresh) < plan.target, "and stale"


@settings(max_examples=150)
@given(histories(), rules(), measurements, st.booleans())
def test_carrying_out_a_plan_leaves_nothing_due(
    past: Past, rule: SampleRule | None, measured: Measured, retry: bool
) -> None:
    """Answering everything that is due closes the task: at most one more plan, for the next round."""
    for _ in range(2):
        past = past.answered(planned(past, rule, measured, retry))
    assert planned(past, rule, measured, retry).due == []
