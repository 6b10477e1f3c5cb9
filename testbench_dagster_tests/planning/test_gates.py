"""Gates: when each kind opens, and what a closed one says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.rules import Gate, PlanningRule
from testbench_dagster.planning.gates import Ability, GateFacts, TaskState, check_gates

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def gates(*written: dict[str, Any]) -> tuple[Gate, ...]:
    """Gates as they are written in testbench.yaml."""
    return PlanningRule.model_validate({"gates": list(written)}).gates


def facts(
    tasks: dict[str, TaskState] | None = None,
    abilities: dict[tuple[str, str | None], Ability] | None = None,
    groups: dict[str, list[str]] | None = None,
) -> GateFacts:
    return GateFacts(tasks or {}, abilities or {}, NOW, 32 * DAY, groups or {})


def test_without_gates_all_is_open() -> None:
    verdict = check_gates((), facts())
    assert (verdict.open, verdict.reason, verdict.undecided_tasks) == (True, "", frozenset())


@pytest.mark.parametrize(
    ("gate", "state", "reason"),
    [
        ({"is": "present"}, TaskState(present=True), ""),
        ({"is": "present"}, TaskState(), "liveness has no sample yet"),
        ({"is": "ok"}, TaskState(True, 0.01), ""),
        ({"is": "ok"}, TaskState(True, None, "abc"), ""),
        ({"is": "ok"}, TaskState(True, 0.0), "liveness scores 0.00, more than 0 wanted"),
        ({"is": "ok"}, TaskState(True, None, ""), "liveness has no score yet, more than 0 wanted"),
        ({"is": "ok"}, TaskState(True, 0.0, lower=True), ""),
        ({"is": "ok"}, TaskState(True, 1.0, lower=True), "liveness scores 1.00, less than 1 wanted"),
        ({"is": "equal", "value": 1.0}, TaskState(True, 1.0), ""),
        ({"is": "equal", "value": 0.3}, TaskState(True, 0.1 + 0.2), ""),
        ({"is": "equal", "value": 1.0}, TaskState(True, 0.999), "liveness scores 0.99, exactly 1 wanted"),
        ({"is": "equal", "value": 1.0}, TaskState(), "liveness has no score yet, exactly 1 wanted"),
        ({"is": "equal", "value": "x"}, TaskState(True, None, "x"), ""),
        ({"is": "equal", "value": "x"}, TaskState(True, None, "y"), "liveness signs 'y', 'x' wanted"),
        ({"is": "equal", "value": "x"}, TaskState(), "liveness has no signature yet, 'x' wanted"),
    ],
)
def test_gates_on_a_task(gate: dict[str, Any], state: TaskState, reason: str) -> None:
    verdict = check_gates(gates({"task": "liveness", **gate}), facts({"liveness": state}))
    assert (verdict.open, verdict.reason) == (not reason, reason)


def test_a_task_nothing_is_known_of_opens_nothing() -> None:
    assert not check_gates(gates({"task": "liveness", "is": "present"}), facts()).open


def test_a_gate_on_a_group_opens_when_it_does_for_every_leaf() -> None:
    gate = gates({"task": "signs", "is": "ok"})
    groups = {"signs": ["tokenizer", "config"]}
    half = facts({"tokenizer": TaskState(True, None, "a"), "config": TaskState()}, groups=groups)
    assert check_gates(gate, half).reason == "config has no score yet, more than 0 wanted"
    both = facts(dict.fromkeys(("tokenizer", "config"), TaskState(True, None, "a")), groups=groups)
    assert check_gates(gate, both).open


SEQUENTIAL = {"task": "liveness", "pass": 0.9, "fail": 0.7}


@pytest.mark.parametrize(
    ("values", "opens", "reason", "undecided"),
    [
        ((1.0,) * 19, True, "", False),
        ((1.0,) * 18, False, "liveness is undecided after 18 docs, about 1 more needed", True),
        ((1.0,) * 10, False, "liveness is undecided after 10 docs, about 9 more needed", True),
        (
            (0.0,) * 5 + (1.0,) * 40,
            False,
            "liveness failed its test after 5 docs: mean 0.00, 0.9 wanted",
            False,
        ),
        (
            (0.5,) * 11 + (1.0,) * 40,
            False,
            "liveness failed its test after 11 docs: mean 0.50, 0.9 wanted",
            False,
        ),
        ((), False, "liveness is undecided: no scored docs yet", True),
    ],
)
def test_sequential_gates(values: tuple[float, ...], opens: bool, reason: str, undecided: bool) -> None:
    verdict = check_gates(gates(SEQUENTIAL), facts({"liveness": TaskState(True, 0.5, None, values)}))
    assert (verdict.open, verdict.reason) == (opens, reason)
    assert verdict.undecided_tasks == (frozenset({"liveness"}) if undecided else frozenset())


@pytest.mark.parametrize(
    ("gate", "ability", "reason"),
    [
        ({}, None, "live has no summary yet"),
        ({}, Ability(0.0, None, 0, NOW), ""),
        ({"min_score": 0.8}, Ability(0.8, 1.0, 10, NOW - 32 * DAY), ""),
        ({"min_score": 0.8}, Ability(0.799, 1.0, 10, NOW), "live scores 0.79, 0.8 wanted"),
        ({"min_score": 0.8}, Ability(0.61, 1.0, 10, NOW), "live scores 0.61, 0.8 wanted"),
        ({}, Ability(None, None, 0, NOW), "live has no score yet, 0 wanted"),
        ({"min_success": 0.8}, Ability(1.0, 0.5, 10, NOW), "live answers 0.50 of its docs, 0.8 wanted"),
        ({"min_success": 0.8}, Ability(1.0, None, 0, NOW), "live answers 0.00 of its docs, 0.8 wanted"),
        (
            {"min_samples": 10},
            Ability(1.0, 1.0, 9, NOW),
            "live has 9 docs in its least sampled task, 10 wanted",
        ),
        (
            {},
            Ability(1.0, 1.0, 99, NOW - 33 * DAY),
            "the summary of live is 33.0 days old, at most 32.0 days wanted",
        ),
    ],
)
def test_gates_on_a_taxonomy(gate: dict[str, Any], ability: Ability | None, reason: str) -> None:
    known = {} if ability is None else {("live", None): ability}
    verdict = check_gates(gates({"taxonomy": "live", **gate}), facts(abilities=known))
    assert (verdict.open, verdict.reason) == (not reason, reason)


def test_a_gate_on_a_node_looks_at_that_node() -> None:
    known = {("live", None): Ability(0.1, 1.0, 9, NOW), ("live", "math"): Ability(0.9, 1.0, 9, NOW)}
    assert check_gates(
        gates({"taxonomy": "live", "node": "math", "min_score": 0.8}), facts(abilities=known)
    ).open
    other = check_gates(gates({"taxonomy": "live", "node": "art"}), facts(abilities=known))
    assert other.reason == "live/art has no summary yet"


def test_the_reason_names_everything_that_is_lacking() -> None:
    written = gates({"task": "a", "is": "present"}, {"taxonomy": "live"}, SEQUENTIAL)
    verdict = check_gates(written, facts())
    assert verdict.reason.split("; ") == [
        "a has no sample yet",
        "live has no summary yet",
        "liveness is undecided: no scored docs yet",
    ]
    assert verdict.undecided_tasks == {"liveness"}


unit = st.floats(0, 1)


@given(unit, st.none() | unit, unit, st.none() | unit, st.integers(0, 20), st.integers(0, 20))
def test_better_abilities_never_close_a_gate(
    min_score: float, score: float | None, min_success: float, success: float | None, wanted: int, found: int
) -> None:
    gate = gates(
        {"taxonomy": "live", "min_score": min_score, "min_success": min_success, "min_samples": wanted}
    )

    def opens(ability: Ability) -> bool:
        return check_gates(gate, facts(abilities={("live", None): ability})).open

    if opens(Ability(score, success, found, NOW)):
        assert score is not None
        assert score >= min_score
        assert opens(Ability(1.0, 1.0, found + 1, NOW))
    elif score == success == 1.0:
        assert found < wanted


def test_a_summary_dated_ahead_opens_no_gate() -> None:
    written = gates({"taxonomy": "t", "min_score": 0.1})
    for at, opens in ((NOW, True), (NOW + DAY / 1440, True), (NOW + 3 * DAY, False)):
        found = {("t", None): Ability(0.9, 1.0, 50, at)}
        verdict = check_gates(written, facts(abilities=found))
        assert verdict.open == opens, verdict
    assert "is dated ahead of now" in verdict.reason
