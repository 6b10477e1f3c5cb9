"""Availability, first-attempt success and latencies: by hand, and what must hold of any history."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.scoring.reliability import (
    NO_CALLS,
    Calls,
    Minutes,
    availability,
    calls_of,
    first_attempt_success,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEADLINE_MS = 30_000.0


class Attempt(NamedTuple):
    """One of a history: at a call of prompt ``prompt_id``, so many seconds after noon."""

    prompt_id: str = "p"
    attempt: int = 1
    fault: str = "ok"
    second: float = 0.0
    latency_ms: float = 10.0
    round: int = 1
    idx: int = 0
    repeat: int = 0
    lease: int | None = 1

    @property
    def finished_at(self) -> datetime:
        return NOON + timedelta(seconds=self.second)


def available(*histories: Sequence[Attempt]) -> float | None:
    return availability(Minutes(history).packed() for history in histories)


# ------------------------------------------------------------------------------------------------ by hand


def test_a_burst_of_failures_is_one_minute() -> None:
    answered = [Attempt(second=60 * minute) for minute in range(1, 10)]
    burst = [Attempt(fault="supplier_http", second=second / 10) for second in range(500)]
    assert available(answered + burst) == available(answered + burst[:1]) == 9 / 10


def test_a_minute_counts_by_the_share_it_answered() -> None:
    mixed = [Attempt(second=1), Attempt(second=2), Attempt(second=59.999, fault="supplier_timeout")]
    assert available(mixed) == pytest.approx(2 / 3)
    assert available([*mixed, Attempt(second=60)]) == pytest.approx((2 / 3 + 1) / 2)
    assert available([*mixed, Attempt(second=-0.001, fault="transport")]) == pytest.approx((2 / 3 + 0) / 2)


def test_nothing_known_is_nothing_said() -> None:
    assert availability([]) is available([]) is available([Attempt(fault="internal")]) is None
    assert first_attempt_success([]) is first_attempt_success([(0, 0)]) is None
    assert calls_of([], DEADLINE_MS) == NO_CALLS == calls_of([Attempt(fault="budget")], DEADLINE_MS)


def test_which_faults_count_is_the_column_of_the_fault_table() -> None:
    for fault in Fault:
        wanted = {True: 1.0, False: 0.0, None: None}[fault.row.available]
        assert available([Attempt(fault=fault.value)]) == wanted, fault


def test_more_attempts_in_a_minute_than_a_record_holds() -> None:
    counts = Minutes([Attempt(second=60), Attempt(second=60, fault="transport")])
    for _ in range(70_000):
        counts.add(Attempt())
    for _ in range(70_000):
        counts.add(Attempt(fault="transport"))
    assert len(counts.packed()) == 8 * 4, "three records for a minute of 140,000, one for that of two"
    assert availability([counts.packed()]) == 0.5


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_a_bundle_may_say_any_date(year: int) -> None:
    attempt = Attempt(second=(datetime(year, 6, 1, tzinfo=UTC) - NOON).total_seconds())
    if year == 9999:
        with pytest.raises(OverflowError):
            Minutes([attempt]).packed()
    else:
        assert available([attempt]) == 1.0


def test_the_latency_is_that_of_the_answering_attempt_whichever_it_was() -> None:
    history = [
        Attempt(attempt=1, fault="transport", latency_ms=1.0),
        Attempt(attempt=2, fault="supplier_timeout", latency_ms=DEADLINE_MS),
        Attempt(attempt=3, latency_ms=70.0),
        Attempt("q", latency_ms=50.0),
        Attempt("q", fault="truncated", latency_ms=60.0, idx=1),
    ]
    assert calls_of(history, DEADLINE_MS) == Calls(asked=3, at_once=2, latencies_ms=(50.0, 60.0, 70.0))


def test_an_unanswered_call_stands_at_the_deadline() -> None:
    history = [Attempt("quick", fault="supplier_http", latency_ms=1.0), Attempt("told", latency_ms=9.0)]
    assert calls_of(history, DEADLINE_MS).latencies_ms == (9.0, DEADLINE_MS)
    assert calls_of(history, 500.0).latencies_ms == (9.0, 500.0)


def test_our_own_fault_before_the_answer_is_no_attempt() -> None:
    history = [Attempt(attempt=1, fault="internal"), Attempt(attempt=2, latency_ms=5.0)]
    assert calls_of(history, DEADLINE_MS) == Calls(1, 1, (5.0,))
    refused = [Attempt(attempt=1, fault="rate_limited"), Attempt(attempt=2, latency_ms=5.0)]
    assert calls_of(refused, DEADLINE_MS) == Calls(1, 0, (5.0,)), "who asked was not answered at once"


CLAIMS = sorted(fault.value for fault in Fault if fault.owner is Owner.CLIENT)


@pytest.mark.parametrize("fault", CLAIMS)
def test_a_claim_about_us_is_an_attempt_where_the_same_run_brings_the_answer(fault: str) -> None:
    """Who says first that our quota is used up, and computes meanwhile, does not answer at once."""
    claim = Attempt(attempt=1, fault=fault, latency_ms=1.0)
    assert calls_of([claim, Attempt(attempt=2, latency_ms=5.0)], DEADLINE_MS) == Calls(1, 0, (5.0,))
    later = Attempt(attempt=2, latency_ms=5.0, lease=2)
    assert calls_of([claim, later], DEADLINE_MS) == Calls(1, 1, (5.0,)), "it held for a whole run"
    early = [claim._replace(lease=None), later._replace(lease=None)]
    assert calls_of(early, DEADLINE_MS) == Calls(1, 1, (5.0,)), "of early versions nobody knows"
    assert calls_of([claim], DEADLINE_MS) == NO_CALLS


def test_who_refuses_what_takes_long_is_not_the_faster_for_it() -> None:
    """In a run that brings answers to others; a form that is refused everywhere has no latency."""
    refused = [Attempt("long", fault="client_request", latency_ms=1.0)]
    answered = Attempt("short", latency_ms=5.0)
    assert calls_of([*refused, answered], DEADLINE_MS) == Calls(1, 1, (5.0, DEADLINE_MS))
    assert calls_of(refused, DEADLINE_MS) == NO_CALLS
    assert calls_of([*refused, answered._replace(lease=2)], DEADLINE_MS) == Calls(1, 1, (5.0,))
    merged = Attempt("merged", fault="unsupported", latency_ms=1.0)
    assert calls_of([merged, answered], DEADLINE_MS) == Calls(1, 1, (5.0,)), "it answered in time"


def test_a_call_whose_beginning_is_too_old_says_nothing_of_its_first_attempt() -> None:
    assert calls_of([Attempt(attempt=2, latency_ms=5.0)], DEADLINE_MS) == Calls(0, 0, (5.0,))
    assert calls_of([Attempt(attempt=0, fault="internal")], DEADLINE_MS) == NO_CALLS


# ------------------------------------------------------------------------------------------- of any history

OURS = sorted(fault.value for fault in Fault if fault.owner.ours or fault.owner is Owner.BUDGET)
SPEAKING = sorted(
    fault.value for fault in Fault if fault.owner in (Owner.NONE, Owner.SUPPLIER, Owner.NETWORK)
)


@st.composite
def histories(draw: st.DrawFn, faults: Sequence[str] = tuple(f.value for f in Fault)) -> list[Attempt]:
    """Attempts at up to six calls, numbered from 1, each call's in the order of time, over ten minutes."""
    found = []
    for call in range(draw(st.integers(0, 6))):
        count = draw(st.integers(1, 4))
        seconds = sorted(draw(st.lists(st.floats(0, 600), min_size=count, max_size=count)))
        for number, second in enumerate(seconds, 1):
            fault = draw(st.sampled_from(faults))
            latency_ms = draw(st.floats(0, DEADLINE_MS))
            found.append(Attempt(f"p{call // 2}", number, fault, second, latency_ms, idx=call % 2))
    return found


@given(histories())
def test_shares_lie_between_0_and_1_and_latencies_ascend(history: list[Attempt]) -> None:
    calls = calls_of(history, DEADLINE_MS)
    for share in (available(history), first_attempt_success([(calls.asked, calls.at_once)])):
        assert share is None or 0 <= share <= 1
    assert list(calls.latencies_ms) == sorted(calls.latencies_ms)
    assert calls.at_once <= calls.asked <= len(calls.latencies_ms)


@given(histories(), st.randoms(use_true_random=False))
def test_the_order_in_which_attempts_are_read_changes_nothing(
    history: list[Attempt], chance: random.Random
) -> None:
    other = list(history)
    chance.shuffle(other)
    assert available(other) == available(history)
    assert calls_of(other, DEADLINE_MS) == calls_of(history, DEADLINE_MS)


@given(histories(SPEAKING), st.data())
def test_our_own_faults_change_nothing(history: list[Attempt], data: st.DataObject) -> None:
    """Before, between and after the attempts of a call, at calls of their own, and fenced out ones.

    What suppliers claim of us belongs to other runs than the answers.
    """
    added: list[Attempt] = []
    shift: dict[tuple[str, int], int] = {}
    for attempt in history:
        call = attempt.prompt_id, attempt.idx
        for _ in range(data.draw(st.integers(0, 2))):
            fault = data.draw(st.sampled_from(OURS))
            number = attempt.attempt + shift.get(call, 0)
            added.append(attempt._replace(attempt=number, fault=fault, lease=2 if fault in CLAIMS else 1))
            shift[call] = shift.get(call, 0) + 1
        added.append(attempt._replace(attempt=attempt.attempt + shift.get(call, 0)))
    added += [Attempt("ours", n, data.draw(st.sampled_from(OURS)), 5.0, lease=2) for n in (1, 2)]
    added += [a._replace(attempt=0, fault="internal") for a in history[:2]]
    assert available(added) == available(history)
    assert calls_of(added, DEADLINE_MS) == calls_of(history, DEADLINE_MS)


@given(histories(SPEAKING), st.integers(1, 50))
def test_failing_more_often_in_a_failing_minute_changes_nothing(history: list[Attempt], more: int) -> None:
    burst = [Attempt("b", 1, "supplier_http", 3_601.0)]
    assert available(history + burst) == available(history + burst * more)


@given(histories(), st.data())
def test_the_parts_of_a_supplier_add_up_whatever_they_are(
    history: list[Attempt], data: st.DataObject
) -> None:
    """Attempts at several tasks in one minute are one minute of the supplier."""
    parts: list[list[Attempt]] = [[], [], []]
    for attempt in history:
        parts[data.draw(st.integers(0, 2))].append(attempt)
    assert available(*parts) == available(history)


@given(histories())
def test_one_more_answer_never_lowers_and_one_more_failure_never_raises(history: list[Attempt]) -> None:
    """In a minute in which the supplier was asked anyway."""
    before = available(history)
    if before is not None:
        second = next(a.second for a in history if Fault(a.fault).row.available is not None)
        higher = available([*history, Attempt("new", second=second)])
        lower = available([*history, Attempt("new", fault="supplier_http", second=second)])
        assert higher is not None and lower is not None
        assert lower - 1e-12 <= before <= higher + 1e-12
