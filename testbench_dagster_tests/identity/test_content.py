"""Whole answers: how many have to be equal, of whom, and which docs count."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from testbench_dagster.identity import Content, GradedAnswer, IdentitySettings
from testbench_dagster.identity import content as content_module
from testbench_dagster.identity.pairs import majorities
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


def drawn(rng: random.Random, suppliers: int, docs: int) -> list[GradedAnswer]:
    """Suppliers of three models that slip now and then; some answer few docs, some twice, some at random."""
    made = []
    for number in range(suppliers):
        slips, asked = rng.choice([0.0, 0.03, 0.1, 0.2]), rng.choice([0.2, 0.6, 1.0])
        for doc in range(docs):
            for again in range(1 + (rng.random() < 0.1)):
                if rng.random() < asked:
                    own = f"m{number % 3}" if rng.random() >= slips else f"slip {rng.randrange(4)}"
                    at = START + timedelta(minutes=rng.randrange(5), hours=again)
                    value = None if doc % 7 == 0 else 1.0
                    made.append(GradedAnswer(f"s{number}", "t", f"d{doc}", at, own, value))
    return made


def plainly_alike(
    answers: Sequence[GradedAnswer], ours: Sequence[str], theirs: Sequence[str], settings: IdentitySettings
) -> bool:
    """The rule of :meth:`Content.alike` as it reads, pair by pair."""
    newest: dict[tuple[str, str], GradedAnswer] = {}
    for one in answers:
        known = newest.get((one.supplier, one.doc))
        if known is None or one.at > known.at:
            newest[one.supplier, one.doc] = one
    docs = sorted({one.doc for one in answers})
    scored = {doc for (_, doc), one in newest.items() if one.value is not None}
    code: dict[str, int] = {}
    rows = {}
    for name in (*ours, *theirs):
        given = [newest.get((name, doc)) for doc in docs]
        rows[name] = np.array([-1 if g is None else code.setdefault(g.text, len(code)) for g in given])

    def counts(a: np.ndarray, b: np.ndarray) -> tuple[int, int]:
        both = (a >= 0) & (b >= 0)
        return int(both.sum()), int((both & (a == b)).sum())

    one, two = (
        majorities(np.array([rows[name] for name in side]), np.zeros(len(side), dtype=np.int64), 1)[0]
        for side in (ours, theirs)
    )
    common, agree = counts(one, two)
    of_tasks = np.array([doc in scored for doc in docs])
    tasks_common, tasks_agree = counts(one[of_tasks], two[of_tasks])
    if common < settings.form_docs or agree < settings.form_share * common:
        return False
    if tasks_common >= settings.least_common and tasks_agree < settings.form_share * tasks_common:
        return False
    pairs = [counts(rows[a], rows[b]) for a in ours for b in theirs]
    return all(n < settings.form_docs or k >= settings.form_share * n for n, k in pairs)


@pytest.mark.parametrize("seed", range(12))
def test_clusters_that_grow_are_as_alike_as_pair_by_pair(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined at random, whether alike or not; answers are put into their order in parts."""
    rng = random.Random(seed)
    monkeypatch.setattr(content_module, "_AT_ONCE", 37)
    settings = IdentitySettings(form_docs=rng.choice([5, 15, 30]))
    names = [f"s{n}" for n in range(14)]
    given = drawn(rng, len(names), rng.choice([20, 45]))
    names = [name for name in names if any(one.supplier == name for one in given)]
    content = Content(given, settings)
    clusters = [([name], content.together([name])) for name in names]
    verdicts = []
    while len(clusters) > 1:
        (ours, one), (theirs, two) = (clusters.pop(rng.randrange(len(clusters))) for _ in range(2))
        alike = content.alike(one, two)
        assert alike is plainly_alike(given, ours, theirs, settings), (ours, theirs)
        assert content.alike(ours, theirs) is alike
        verdicts.append(alike)
        if alike or rng.random() < 0.5:
            clusters.append((ours + theirs, one.join(two)))
        else:
            clusters += [(ours, one)] if rng.random() < 0.5 else [(theirs, two)]
    assert True in verdicts or False in verdicts


def test_of_many_that_are_alike_few_pairs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 200 slips on a few docs of 100; one whose answers are its own alone is refused."""
    rng = random.Random(5)
    names = [f"s{n}" for n in range(200)]
    given = [
        GradedAnswer(s, "t", f"d{d}", START, "own" if rng.random() < 0.03 else f"said {d}", 1.0)
        for s in names
        for d in range(100)
    ]
    content = Content([*given, *(replace(one, supplier="odd", text="no") for one in given[:100])])
    looked: list[int] = []
    plain = Content._unlike

    def spy(self: Content, row: np.ndarray, others: np.ndarray) -> bool:
        looked.append(len(others))
        return plain(self, row, others)

    monkeypatch.setattr(Content, "_unlike", spy)
    cluster = content.together(names[:1])
    for name in names[1:]:
        single = content.together([name])
        assert content.alike(cluster, single)
        cluster = cluster.join(single)
    assert sum(looked) < 1_000, "of 19,900 pairs"
    assert not content.alike(cluster, content.together(["odd"]))
