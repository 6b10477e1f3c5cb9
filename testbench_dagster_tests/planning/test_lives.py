"""Docs from their first attempt to their end: planned, asked, and judged again and again, at any pace."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import (
    CallAttempt,
    DocClock,
    DocOutcome,
    DocState,
    Witness,
    doc_outcome,
)
from testbench_dagster.core.faults import Fault
from testbench_dagster.planning.due import CallOutcome, PromptRef, TaskPlan, plan_task

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
MAX_AGE = timedelta(days=32)
DEADLINE = timedelta(seconds=60)
PROMPTS = [PromptRef(f"p{n}", n, n, 1, 1) for n in range(4)]
FULL = (0.0, 15.0, 120.0, 720.0, 1440.0, 2880.0, 4320.0)


@dataclass
class Played:
    """A supplier and task whose answers are decided from outside; what planning and states say is real."""

    clock: DocClock
    now: datetime = BEGIN
    runs: int = 0
    attempts: dict[str, list[CallAttempt]] = field(default_factory=dict)
    answers: list[datetime] = field(default_factory=list)
    closed_at: dict[str, datetime] = field(default_factory=dict)

    def lives(self, at: datetime) -> dict[tuple[str, int], DocOutcome]:
        """What became of the docs, all of whose attempts are in round 1."""
        witness = Witness(self.answers, self.clock.witness_window(None, DEADLINE))
        return {
            (prompt, 1): doc_outcome(made, 1, witness, self.clock, at)
            for prompt, made in self.attempts.items()
            if not made[-1].fault.answered
        }

    def plan(self, at: datetime, **options: bool) -> TaskPlan:
        """What is due at an instant."""
        last = [
            CallOutcome(prompt, 0, 0, len(made), made[-1].fault, made[-1].finished_at)
            for prompt, made in self.attempts.items()
        ]
        return plan_task(
            PROMPTS,
            last,
            rule=None,
            now=at,
            max_age=MAX_AGE,
            lives=self.lives(at),
            together=self.clock.gap / 3,
            **options,
        )

    def run(self, plan: TaskPlan, faults: list[Fault], canary: bool) -> None:
        """Ask what is due; each doc ends in one fault; a canary is answered or not."""
        self.runs += 1
        for due, fault in zip(plan.due, faults, strict=False):
            ended = self.now + timedelta(microseconds=10)
            attempt = CallAttempt(0, 0, fault, self.now, ended, self.runs, due.occasion)
            self.attempts.setdefault(due.prompt.id, []).append(attempt)
            if fault.answered:
                self.answers.append(ended)
            self.now = ended
        if canary and plan.due:
            self.answers.append(self.now)


paces = st.sampled_from([1.0, 1 / 60, 1 / 3600])
outcomes = st.lists(
    st.sampled_from(
        [Fault.OK, Fault.SUPPLIER_HTTP, Fault.TRANSPORT, Fault.SUPPLIER_PROTOCOL, Fault.INTERNAL]
    ),
    min_size=4,
    max_size=4,
)
#: Per run: how its docs end, whether a canary is answered, how late it comes, and whether it retries at once.
stories = st.lists(
    st.tuples(outcomes, st.booleans(), st.floats(0, 400), st.sampled_from([False, False, False, True])),
    max_size=12,
)


@settings(max_examples=120)
@given(paces, stories)
def test_open_docs_have_their_occasions_and_closed_ones_rest(
    pace: float, story: list[tuple[list[Fault], bool, float, bool]]
) -> None:
    played = Played(DocClock.from_minutes([minutes * pace for minutes in FULL]))
    for faults, canary, late_minutes, retry_now in story:
        played.now += timedelta(minutes=late_minutes * pace)
        before = played.lives(played.now)
        plan = played.plan(played.now, retry_now=retry_now)
        asked = {due.prompt.id: due for due in plan.due}
        for prompt, made in played.attempts.items():
            life = before.get((prompt, 1))
            if life is None or life.closed:
                assert prompt not in asked, "a closed doc is never asked again in its round"
                played.closed_at.setdefault(prompt, played.now)
                continue
            assert prompt not in played.closed_at, "nor is it open again"
            assert life.next_at is not None
            if retry_now or life.next_at <= played.now:
                assert asked[prompt].occasion == len(life.occasions) + 1
                assert asked[prompt].calls[0].attempt == len(made) + 1
            else:
                assert prompt not in asked, "not before its occasion"
                together = life.next_at + played.clock.gap / 3
                assert plan.due_at is not None and plan.due_at <= together, "and the plan knows when"
            if not life.ours:
                assert life.next_at >= life.occasions[-1].ended_at + played.clock.gap
        assert asked.keys() | played.attempts.keys() == {prompt.id for prompt in PROMPTS}, "none is lost"
        played.run(plan, faults, canary)


@settings(max_examples=60)
@given(paces, stories, st.booleans())
def test_whoever_goes_on_at_each_due_at_sees_every_doc_close(
    pace: float, story: list[tuple[list[Fault], bool, float, bool]], honest: bool
) -> None:
    """Be it that the supplier answers from now on, or that it answers canaries alone."""
    played = Played(DocClock.from_minutes([minutes * pace for minutes in FULL]))
    for faults, canary, late_minutes, _ in story:
        played.now += timedelta(minutes=late_minutes * pace)
        played.run(played.plan(played.now), faults, canary)
    end = Fault.OK if honest else Fault.TRANSPORT
    for _ in range(60):
        plan = played.plan(played.now)
        if not plan.due:
            if not plan.open:
                break
            assert plan.due_at is not None and plan.due_at > played.now
            played.now = plan.due_at
            continue
        played.run(plan, [end] * 4, canary=True)
    lives = played.lives(played.now)
    assert all(life.closed for life in lives.values())
    if honest and not story:
        assert not lives and played.runs == 1


@pytest.mark.parametrize("pace", [1.0, 1 / 3600])
def test_the_documented_times(pace: float) -> None:
    """A doc that a working supplier never answers, evaluated whenever its plan is due."""
    played = Played(DocClock.from_minutes([minutes * pace for minutes in FULL]))
    asked = []
    for _ in range(3):
        plan = played.plan(played.now)
        asked.append(round((played.now - BEGIN) / timedelta(minutes=pace)))
        played.run(plan, [Fault.SUPPLIER_HTTP] + [Fault.OK] * 3, canary=True)
        played.now = played.plan(played.now).due_at or played.now
    assert asked == [0, 15, 120]
    assert played.lives(played.now)["p0", 1].state is DocState.FAILED


def test_open_docs_with_the_fewest_occasions_come_first() -> None:
    """So that a supplier which answers nothing, and is left after a few docs, is asked all of them."""
    played = Played(DocClock())
    orders = []
    for _ in range(4):
        plan = played.plan(played.now, retry_now=True)
        orders.append([due.prompt.id for due in plan.due if due.open])
        unasked = [due for due in plan.due if not due.open]
        played.run(replace(plan, due=(unasked or plan.due)[:2]), [Fault.CREDENTIALS] * 2, canary=False)
        played.now += timedelta(hours=1)
    assert orders == [[], ["p0", "p1"], ["p0", "p1", "p2", "p3"], ["p2", "p3", "p0", "p1"]]


def test_a_dark_supplier_is_tried_at_all_occasions_and_then_daily() -> None:
    played = Played(DocClock())
    hours = []
    for _ in range(10):
        plan = played.plan(played.now)
        hours.append(round((played.now - BEGIN) / timedelta(hours=1), 2))
        played.run(plan, [Fault.TRANSPORT] * 4, canary=False)
        due_at = played.plan(played.now).due_at
        assert due_at is not None
        played.now = due_at
    assert hours == [0, 0.25, 2, 12, 24, 48, 72, 96, 120, 144]
    assert all(life.unreachable for life in played.lives(played.now).values())


def test_who_comes_late_asks_at_once_and_then_a_while_later() -> None:
    played = Played(DocClock())
    played.run(played.plan(played.now), [Fault.TRANSPORT] * 4, canary=False)
    played.now = BEGIN + timedelta(hours=30)
    plan = played.plan(played.now)
    assert len(plan.due) == 4
    played.run(plan, [Fault.TRANSPORT] * 4, canary=True)
    again = played.plan(played.now)
    assert again.due == [], "one bad minute uses up one occasion"
    assert again.due_at is not None
    assert timedelta(minutes=14) < again.due_at - played.now <= timedelta(minutes=15)


def test_docs_that_failed_in_one_run_are_asked_again_in_one() -> None:
    """Their first attempts were minutes apart: it waits for the last of them, never asking any too early."""
    played = Played(DocClock())
    for place, minutes in enumerate((0, 2, 4, 9)):
        played.now = BEGIN + timedelta(minutes=minutes)
        attempt = CallAttempt(0, 0, Fault.TRANSPORT, played.now, played.now, 1, 1)
        played.attempts[f"p{place}"] = [attempt]
    due_at = played.plan(played.now).due_at
    assert due_at == BEGIN + timedelta(minutes=19)
    assert [due.prompt.id for due in played.plan(due_at).due] == ["p0", "p1", "p2"]
