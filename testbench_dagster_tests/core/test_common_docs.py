"""One number of docs for everybody: properties of the rule, and what it makes of bias and coverage."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from testbench_dagster.core.sampling import (
    LEAST_GROUPS,
    STAYS,
    CompleteRow,
    Measurement,
    SampleRule,
    Spread,
    asks_again,
    common_docs,
    common_spread,
    kept_docs,
    still_holds,
)
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.summary import summarize

RULE = SampleRule(min=25, max=100, half_width=0.1)


def docs_of(rule: SampleRule | None, available: int, told: list[CompleteRow]) -> int:
    """How many docs of a task everybody is asked after an epoch with these rows."""
    return common_docs(rule, available, common_spread(told).variance)


def rows(*shares: float) -> list[CompleteRow]:
    """Suppliers that answer alone."""
    return [CompleteRow(f"s{n}", f"g{n}", share * (1 - share)) for n, share in enumerate(shares)]


def test_the_number_follows_from_the_median_spread() -> None:
    assert docs_of(RULE, 500, rows(0.85, 0.85, 0.85, 0.85, 0.85)) == 49
    assert docs_of(RULE, 500, rows(0.5, 0.5, 0.85, 0.95, 0.95)) == 49, "the median's"
    assert docs_of(RULE, 500, rows(*[0.5] * 5)) == 93
    assert docs_of(RULE, 500, rows(*[1.0] * 5)) == 25
    assert docs_of(RULE, 30, rows(*[0.5] * 5)) == 30
    assert docs_of(None, 500, rows(*[0.5] * 5)) == 500
    assert docs_of(SampleRule(min=5, max=40, half_width=None), 500, rows(*[0.5] * 5)) == 40


@pytest.mark.parametrize(
    ("rule", "available", "expected"),
    [
        (RULE, 500, 50),
        (SampleRule(min=25, max=40), 500, 40),
        (SampleRule(min=60, max=90), 500, 60),
        (SampleRule(min=25, start=70, max=100), 500, 70),
        (RULE, 33, 33),
        (RULE, 9, 9),
    ],
)
def test_below_five_groups_it_is_the_start(rule: SampleRule, available: int, expected: int) -> None:
    assert docs_of(rule, available, rows(1.0, 1.0, 1.0, 1.0)) == expected
    sybils = [CompleteRow(f"s{n}", "one group", 0.0) for n in range(20)]
    assert docs_of(rule, available, [*sybils, *rows(1.0, 1.0, 1.0)]) == expected


def test_a_group_counts_once_by_its_first_supplier() -> None:
    told = [CompleteRow(f"s{n}", f"g{n % 5}", 0.01 * n) for n in range(10)]
    assert common_spread(told[::-1]) == Spread(5, 0.02)
    assert common_spread(told[:4]) == Spread(4, None)


def test_half_of_the_docs_are_asked_again_drawn_by_the_seed() -> None:
    """Others in every epoch: who knows the last ones knows nothing of the next."""
    drawn = [{doc for doc in range(2000) if asks_again(f"seed {n}", doc)} for n in range(20)]
    assert all(900 < len(docs) < 1100 for docs in drawn)
    assert all(420 < len(a & b) < 580 for a, b in pairwise(drawn))
    assert drawn[0] == {doc for doc in range(2000) if asks_again("seed 0", doc)}


variances = st.lists(st.floats(0, 0.3), max_size=12)


@given(
    st.integers(1, 60), st.integers(0, 100), st.floats(0.02, 0.45), st.integers(0, 300), variances,
    st.integers(1, 9), st.randoms(use_true_random=False),
)  # fmt: skip
def test_it_keeps_its_bounds_and_nobody_alone_moves_it(
    low: int, more: int, half_width: float, available: int, spreads: list[float], groups: int,
    chance: random.Random,
) -> None:  # fmt: skip
    rule = SampleRule(min=low, max=low + more, half_width=half_width)
    told = [CompleteRow(f"s{n}", f"g{n % groups}", spread) for n, spread in enumerate(spreads)]
    docs = docs_of(rule, available, told)
    assert min(low, available) <= docs <= min(low + more, available)
    chance.shuffle(told)
    assert docs_of(rule, available, told) == docs
    if len({row.unit for row in told}) < LEAST_GROUPS:
        assert docs == max(min(low, available), min(rule.start, low + more, available))
        return
    counted: dict[str, CompleteRow] = {}
    for row in sorted(told, key=lambda row: row.supplier):
        counted.setdefault(row.unit, row)
    middle = sorted(row.variance for row in counted.values())
    span = {docs_of(rule, available, [CompleteRow(f"x{n}", f"y{n}", v) for n in range(5)]) for v in middle}
    assert min(span) <= docs <= max(span)
    share = 0.5 + (0.25 - min(0.25, sorted(middle)[len(middle) // 2])) ** 0.5
    if len(middle) % 2 and min(low, available) < docs < min(low + more, available):
        bottom, top = wilson(share * docs, docs)
        assert top - bottom <= 2 * half_width + 1e-9, "the width is reached"
        bottom, top = wilson(share * (docs - 1), docs - 1)
        assert top - bottom > 2 * half_width - 1e-9, "and with none less"


# -------------------------------------------------------------------------------- bias and coverage


def simulated(tasks: int, shares: tuple[float, float], plays: int) -> tuple[float, float]:
    """Mean bias of a supplier's task scores, and how often the root's interval holds the true mean.

    In a first epoch six suppliers of one population are asked ``start`` docs of each task; that sets the
    second one's number, which rests half on the same docs and half on others.
    """
    chance = np.random.default_rng(20260301)
    names = [f"t{n}" for n in range(tasks)]
    taxonomy = Taxonomy(name="sim", root="all", edges=(), nodes={"all": tuple(names)})
    bias, held = 0.0, 0
    for _ in range(plays):
        own = chance.uniform(*shares, tasks)
        others = np.clip(own[:, None] + chance.normal(0, 0.08, (tasks, 5)), 0.02, 0.98)
        right = chance.binomial(50, own)
        means = np.column_stack([right, chance.binomial(50, others)]) / 50
        scores = {}
        for place, name in enumerate(names):
            told = [CompleteRow(f"s{k}", f"g{k}", m * (1 - m)) for k, m in enumerate(means[place])]
            n, k = docs_of(RULE, 1000, told), right[place]
            kept = min(50, n // 2)
            k = chance.hypergeometric(k, 50 - k, kept) + chance.binomial(n - kept, own[place])
            scores[name] = TaskScore(float(k / n), n)
        root = summarize(taxonomy, scores).nodes["all"]
        assert root.score is not None and root.ci_low is not None and root.ci_high is not None
        bias += root.score - own.mean()
        held += root.ci_low <= own.mean() <= root.ci_high
    return bias / plays, held / plays


SPANS = [(0.85, 0.85), (0.7, 0.95), (0.05, 0.95)]


@pytest.mark.parametrize("shares", SPANS)
def test_a_short_play_of_it_holds(shares: tuple[float, float]) -> None:
    bias, coverage = simulated(14, shares, plays=120)
    assert abs(bias) <= 0.005 and coverage >= 0.89


def drift(share: float, kept_of: Callable[[NDArray[np.int64]], NDArray[np.int64]], alike: float) -> float:
    """The bias of a score in points, after the epoch whose number the first fifty docs set.

    ``kept_of`` says how many of these stay. ``alike``: how much of what makes an answer right is the doc's
    own, the same for all six suppliers. Known to +-.03 (twice the standard error).
    """
    chance, plays = np.random.default_rng(20261130), 160_000
    around = np.clip(share + chance.normal(0, 0.08, (plays, 5)), 0.02, 0.98)
    shares = np.hstack([np.full((plays, 1), share), around])
    if alike:
        known = np.linspace(0.02, 0.98, 193)
        limits = np.interp(shares, known, [NormalDist().inv_cdf(one) for one in known])
        right = np.zeros((plays, 6), dtype=np.int64)
        for _ in range(50):
            of_doc = chance.standard_normal((plays, 1)) * alike**0.5
            right += of_doc + chance.standard_normal((plays, 6)) * (1 - alike) ** 0.5 < limits
        share = NormalDist().cdf(float(limits[0, 0]))
    else:
        right = chance.binomial(50, shares)
    variances = np.median(right / 50 * (1 - right / 50), axis=1)
    table = np.array([common_docs(RULE, 1000, v / 10_000) for v in range(2501)])
    n = table[np.rint(variances * 10_000).astype(int)]
    kept = np.minimum(kept_of(n), 50)
    counts = chance.hypergeometric(right[:, 0], 50 - right[:, 0], kept) + chance.binomial(n - kept, share)
    return float(100 * (counts / n - share).mean())


@pytest.mark.parametrize("share", [0.6, 0.75, 0.8, 0.85, 0.9])
def test_scores_are_not_drawn_up_by_the_number_that_their_own_docs_set(share: float) -> None:
    assert abs(drift(share, lambda n: n // 2, 0.0)) <= 0.05


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("share", [0.7, 0.8, 0.85])
def test_nor_where_suppliers_are_right_at_the_same_docs(share: float) -> None:
    assert abs(drift(share, lambda n: n // 2, 0.4)) <= 0.05
    assert drift(share, lambda n: n, 0.4) > 0.1, "as it was while all docs kept their slots"


def test_the_kept_docs_are_drawn_and_the_same_for_everybody() -> None:
    older = range(100, 150)
    kept = kept_docs("draw", older, 24)
    assert len(kept) == 24 and kept < set(older)
    assert kept == kept_docs("draw", [*older][::-1], 24) != kept_docs("other", older, 24)
    assert kept_docs("draw", older, 23) < kept < kept_docs("draw", older, 25)
    assert kept_docs("draw", older, 50) == kept_docs("draw", older, 99) == set(older)
    assert kept_docs("draw", older, 0) == set()
    some = {doc for doc in older if doc % 3}
    assert kept & some <= kept_docs("draw", some, 24), "who lacks some docs keeps those that others keep"
    drawn = [sum(doc < 125 for doc in kept_docs(f"{n}", older, 25)) for n in range(200)]
    assert 11.5 < np.mean(drawn) < 13.5, "by chance"


def test_a_number_stays_for_some_ages() -> None:
    at, age = datetime(2026, 3, 1, tzinfo=UTC), timedelta(days=10)
    measured = Measurement(2, at, "draw")
    assert still_holds(measured, at, age)
    assert still_holds(measured, at + STAYS * age - timedelta(seconds=1), age)
    assert not still_holds(measured, at + STAYS * age, age)
    assert not still_holds(None, at, age)
    assert not still_holds(measured, at - timedelta(days=30), age), "nobody knows how old it is"
