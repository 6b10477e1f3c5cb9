"""Which docs of two suppliers are compared, in which order, and who is the odd one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.identity import Divergence, GradedAnswer, find_divergence
from testbench_dagster.identity.splits import common_docs, odd_ones, own_differences
from testbench_dagster_tests.identity.population import START

HOUR = timedelta(hours=1)


def answer(supplier: str, doc: int, value: float | None, hours: float, task: str = "t") -> GradedAnswer:
    return GradedAnswer(supplier, task, f"d{doc}", START + hours * HOUR, "text", value)


def test_docs_are_compared_when_both_are_there_with_the_nearest_answer() -> None:
    own = [answer("a", 1, 1.0, 5), answer("a", 2, 0.0, 6), answer("a", 3, 1.0, 7), answer("a", 4, None, 8)]
    other = [answer("b", 1, 0.0, 1), answer("b", 1, 1.0, 4), answer("b", 2, 0.5, 9), answer("b", 4, 1.0, 8)]
    found = common_docs(own, other)
    assert [(d.doc, d.difference, d.at) for d in found] == [
        ("d1", 0.0, START + 5 * HOUR),
        ("d2", -0.5, START + 9 * HOUR),
    ]
    assert [d.doc for d in common_docs(own, other, START + 5 * HOUR)] == ["d2"], "only what came after"


def test_a_doc_that_differed_once_is_not_counted_again() -> None:
    own = [answer("a", 1, 0.0, h) for h in (1, 2, 3)] + [answer("a", 2, 1.0, h) for h in (4, 5)]
    other = [answer("b", 1, 1.0, 0), answer("b", 2, 1.0, 0)]
    assert [(d.doc, d.difference) for d in common_docs(own, other)] == [
        ("d1", -1.0),
        ("d2", 0.0),
        ("d2", 0.0),
    ]


def test_own_repeats_say_how_far_verdicts_may_differ() -> None:
    few = [answer("a", n, 1.0, h) for n in range(10) for h in (0, 1)]
    assert own_differences(few) == 0.0, "ten repeats say nothing yet"
    many = [answer("a", n, float(n % 4 > 0 or h == 0), h) for n in range(40) for h in (0, 1)]
    assert own_differences(many) == pytest.approx(10 / 40)


def test_silence_makes_no_supplier_look_noisy() -> None:
    one = [answer("a", n, 1.0, h) for n in range(40) for h in (0, 1)]
    silent = [replace(answer("a", n, 0.0, 2), failed=True) for n in range(40)]
    assert own_differences([*one, *silent]) == 0.0


def test_who_withholds_what_its_proxy_answers_diverges_as_one_that_is_wrong() -> None:
    own = [replace(answer("a", n, 0.0, n), failed=True) for n in range(40)]
    other = [answer("b", n, float(n % 5 > 0), n) for n in range(40)]
    found = find_divergence(own, other, [f"t{k}" for k in range(13)] + ["t"])
    assert found is not None and found.docs <= 8
    both = [replace(one, supplier="b") for one in own]
    assert find_divergence(own, both, ["t"]) is None, "what neither answers tells nothing"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), max_size=40))
def test_equal_verdicts_never_diverge(verdicts: list[bool]) -> None:
    own = [answer("a", n, float(v), n) for n, v in enumerate(verdicts)]
    other = [answer("b", n, float(v), n + 0.5) for n, v in enumerate(verdicts)]
    assert find_divergence(own, other, ["t"]) is None


def test_who_is_always_wrong_diverges_at_once_and_the_finding_says_so() -> None:
    own = [answer("a", n, 0.0, n) for n in range(40)]
    other = [answer("b", n, float(n % 5 > 0), n) for n in range(40)]
    found = find_divergence(own, other, [f"t{k}" for k in range(13)] + ["t"])
    assert found is not None and found.docs <= 8
    assert found.mean == pytest.approx(-found.differ / found.docs)
    assert found.at == START + (found.docs - 1) * HOUR and found.log_e > 4.6
    assert find_divergence(own, other, ["another task"]) is None


def test_the_odd_one_is_who_differs_from_most() -> None:
    one = Divergence(START, 5, 5.0, -1.0, 5.0)
    group = ["p", "a", "b", "c"]
    assert odd_ones({"a": one}, group, "p") == {"a": ["b", "c", "p"]}
    assert odd_ones({"a": one, "b": one}, group, "p") == {"p": ["a", "b"]}
    assert odd_ones({"a": one}, ["p", "a"], "p") == {"a": ["p"]}, "of two nobody can say"
