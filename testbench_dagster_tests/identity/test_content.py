"""Whole answers: how many have to be equal, of whom, and which docs count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from testbench_dagster.identity import Content, GradedAnswer
from testbench_dagster_tests.identity.population import START


def answers(
    supplier: str, texts: Sequence[str], *, task: str = "t", value: float | None = 1.0, hours: float = 0
) -> list[GradedAnswer]:
    at = START + timedelta(hours=hours)
    return [GradedAnswer(supplier, task, f"d{n}", at, text, value) for n, text in enumerate(texts)]


def same(n: int, of: int) -> tuple[list[str], list[str]]:
    """Answers to ``of`` docs, of which the first ``n`` are equal."""
    return [f"x{k}" for k in range(of)], [f"x{k}" if k < n else f"y{k}" for k in range(of)]


@pytest.mark.parametrize(
    ("equal", "docs", "alike"),
    [(30, 30, True), (24, 30, True), (23, 30, False), (29, 29, False), (40, 50, True)],
)
def test_eighty_percent_of_thirty_docs(equal: int, docs: int, alike: bool) -> None:
    one, two = same(equal, docs)
    assert Content([*answers("a", one), *answers("b", two)]).alike(["a"], ["b"]) is alike


def test_probes_count_and_docs_of_tasks_have_to_be_equal_by_themselves() -> None:
    probes = [f"p{k}" for k in range(60)]
    one, two = same(6, 10)
    given = [a for s in "ab" for a in answers(s, probes, task="identity", value=None)]
    few = Content([*given, *answers("a", one[:6]), *answers("b", two[:6])])
    assert few.alike(["a"], ["b"])
    tasks = Content([*given, *answers("a", one), *answers("b", two)])
    assert not tasks.alike(["a"], ["b"]), "66 of 70 are equal, and 6 of the 10 that are scored"


def test_the_newest_answer_to_a_doc_counts() -> None:
    one, two = same(0, 30)
    given = [*answers("a", one), *answers("b", two), *answers("b", one, hours=1)]
    assert Content(given).alike(["a"], ["b"])


def test_no_pair_across_two_clusters_may_differ() -> None:
    """Most of the one answer like most of the other; one of them does not like one of the others."""
    texts, others = same(0, 40)
    given = [a for s in ("a", "b", "c", "d") for a in answers(s, texts)]
    assert Content(given).alike(["a", "b"], ["c", "d"])
    odd = Content([*given[:120], *answers("d", others)])
    assert not odd.alike(["a", "b"], ["c", "d"])
    assert odd.alike(["a", "b"], ["c"])


def test_who_has_no_scored_answers_is_like_nobody() -> None:
    texts, _ = same(40, 40)
    content = Content([*answers("a", texts), *answers("b", texts)])
    assert not content.alike(["a"], ["unknown"])
    assert content.alike(["a", "unknown"], ["b"]), "a member that was grouped before and answered nothing new"
    assert not Content([]).alike(["a"], ["b"])


def test_silence_is_like_nobodys_and_unlike_nobodys() -> None:
    texts = [f"w{n}" for n in range(40)]
    silent = [replace(one, failed=True) for name in "ab" for one in answers(name, [""] * 40)]
    assert not Content(silent).alike(["a"], ["b"])
    later = [replace(one, at=one.at + timedelta(hours=1)) for one in silent]
    both = [*answers("a", texts), *answers("b", texts), *later]
    assert Content(both).alike(["a"], ["b"]) and Content(both).unlike("a", "b") is None


def test_answers_may_come_in_parts_and_in_any_order() -> None:
    one, two = same(0, 30)
    given = [*answers("a", one), *answers("b", one, hours=1), *answers("b", two)]
    parts = Content(given[::7])
    for start in range(1, 7):
        parts.add(given[start::7])
    assert parts.common("a", "b") == Content(given).common("a", "b") == (30, 30)


def test_of_two_answers_of_one_instant_the_first_counts() -> None:
    one, two = same(0, 30)
    assert Content([*answers("a", one), *answers("b", one), *answers("b", two)]).common("a", "b") == (30, 30)
    assert Content([*answers("a", one), *answers("b", two), *answers("b", one)]).common("a", "b") == (30, 0)
