"""Which attempt at a call is its outcome."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.records.attempts import CallAttempt
from testbench_dagster.stages.attempts import last_by_call

NOW = datetime(2031, 1, 1, tzinfo=UTC)
CALL = ("p", 1, 0, 0)


def attempt(number: int, fault: str = "ok", **changes: Any) -> CallAttempt:
    at = NOW + timedelta(seconds=number)
    made = CallAttempt(
        f"a{number}", "s", "p", 0, 0, 1, 1, 0, 0, number, fault, at, 1.0, None, None, None, 1, False
    )
    return made._replace(**changes)


def test_a_canary_never_replaces_the_outcome_of_its_call() -> None:
    answered, canary = attempt(1), attempt(2, "supplier_http", canary=True)
    for order in ([answered, canary], [canary, answered]):
        [(call, last)] = last_by_call(order).items()
        assert call == CALL
        assert (last.id, last.fault, last.finished_at) == ("a1", "ok", answered.finished_at)
        assert last.attempt == 2, "the next attempt may not take the canary's number"


def test_a_call_of_which_only_canaries_are_known_has_no_outcome() -> None:
    assert last_by_call([attempt(5, canary=True)]) == {}


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_the_last_attempt_that_is_no_canary_counts_with_the_highest_number(
    canaries: list[bool], chance: Any
) -> None:
    attempts = [attempt(n, canary=canary) for n, canary in enumerate(canaries, 1)]
    chance.shuffle(attempts)
    last = last_by_call(attempts)
    own = [n for n, canary in enumerate(canaries, 1) if not canary]
    assert set(last) == ({CALL} if own else set())
    if own:
        assert (last[CALL].id, last[CALL].attempt) == (f"a{max(own)}", len(canaries))
