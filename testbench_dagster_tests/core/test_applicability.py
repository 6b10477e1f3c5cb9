"""Of which suppliers a task is asked: patterns that take in and leave out, and the three settings."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.applicability import EVERYBODY, NOBODY, Applicability, is_chosen, matches_any
from testbench_dagster.core.rules import PlanningRule
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec

names = st.text("abA-_.", min_size=1, max_size=4)
plain = st.text("abA*?-", min_size=1, max_size=4)
patterns = st.lists(st.builds(lambda out, of: ("!" if out else "") + of, st.booleans(), plain), min_size=1)


def supplier(address: str = "alice", service: str = "text") -> Supplier:
    return Supplier(address, service, "http://127.0.0.1:9/v1", "chat", "m")


def task(applies: Applicability) -> TaskSpec:
    return TaskSpec(
        "gsm8k",
        "gsm8k",
        "gsm8k",
        None,
        None,
        None,
        None,
        None,
        {},
        None,
        planning=PlanningRule(),
        applies=applies,
    )


def matches(pattern: str, name: str) -> bool:
    """A shell pattern without brackets, by the book: each character, or what stands for some."""
    signs = {"*": ".*", "?": "."}
    return bool(re.fullmatch("".join(signs.get(c, re.escape(c)) for c in pattern), name, re.DOTALL))


@given(patterns, st.lists(names, min_size=1, max_size=3))
def test_it_is_chosen_by_one_that_takes_in_and_none_that_leaves_out(given: list[str], of: list[str]) -> None:
    taken = [p for p in given if not p.startswith("!")]
    out = [p[1:] for p in given if p.startswith("!")]
    wanted = (not taken or any(matches(p, n) for p in taken for n in of)) and not any(
        matches(p, n) for p in out for n in of
    )
    assert is_chosen(given, of) == wanted
    assert is_chosen(given[::-1], of) == wanted, "their order means nothing"
    assert is_chosen(None, of)


@given(patterns, names, st.data())
def test_who_is_left_out_is_not_taken_in_by_another_pattern(more: list[str], of: str, data: Any) -> None:
    cut = data.draw(st.integers(0, len(of)))
    left_out = data.draw(st.sampled_from([f"!{of}", f"!{of[:cut]}*", f"!*{of[cut:]}", "!*"]))
    assert matches_any(left_out, (of,))
    at = data.draw(st.integers(0, len(more)))
    assert not is_chosen([*more[:at], left_out, *more[at:]], (of,))


@pytest.mark.parametrize(
    ("given", "name", "chosen"),
    [
        (["text"], "text", True),
        (["text"], "Text", False),
        (["t[ae]xt"], "text", True),
        (["!text"], "text", False),
        (["!text"], "code", True),
        (["*", "!text"], "text", False),
        (["!*"], "anything", False),
        (["a*@*", "!*-test@*"], "alice-test@text", False),
        (["a*@*", "!*-test@*"], "alice@text", True),
        (["a*@*", "!*-test@*"], "bob@text", False),
    ],
)
def test_patterns_by_hand(given: list[str], name: str, chosen: bool) -> None:
    assert is_chosen(given, (name,)) is chosen


def test_every_setting_must_choose_and_the_one_that_does_not_is_named() -> None:
    alice = supplier()
    assert task(EVERYBODY).asked_of(alice) and EVERYBODY.for_everybody
    assert not task(NOBODY).asked_of(alice) and not NOBODY.for_everybody
    for applies, why in [
        (Applicability(services=("code",)), "the task's services leave text out"),
        (
            Applicability(services=("text",), suppliers=("!alice@*",)),
            "the task's suppliers leave alice@text out",
        ),
        (
            Applicability(("text",), ("alice@*",), frozenset({"alice@text"})),
            "the tasks of supplier alice@text leave it out",
        ),
    ]:
        assert applies.why_not(alice) == why
        assert not task(applies).asked_of(alice) and not applies.for_everybody
        assert task(applies).asked_of(supplier("bob", "code")) == (applies.services == ("code",))
    assert task(Applicability(("t*",), ("*@text",), frozenset({"bob@text"}))).asked_of(alice)


@given(
    st.none() | patterns.map(tuple),
    st.none() | patterns.map(tuple),
    st.frozensets(names, max_size=2),
    names,
    names,
)
def test_the_decision_is_that_of_the_three_together(
    services: tuple[str, ...] | None,
    keys: tuple[str, ...] | None,
    declined: frozenset[str],
    address: str,
    service: str,
) -> None:
    one = supplier(address, service)
    declined_by = frozenset(f"{name}@{service}" for name in declined)
    applies = Applicability(services, keys, declined_by)
    wanted = is_chosen(services, [service]) and is_chosen(keys, [one.key]) and address not in declined
    assert task(applies).asked_of(one) == wanted == (applies.why_not(one) is None)
