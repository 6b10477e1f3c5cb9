"""Evidence against answering alike: by its definition, what it finds how soon, and what it leaves alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.statistics.divergence import (
    ALTERNATIVES,
    ANEW,
    DIFFER,
    SHARES,
    log_divergence,
    most_log_divergence,
)

CERTAIN = math.log(100)
TASKS = 14


def verdicts(
    rng: np.random.Generator, plays: int, docs: int, loss: float, noise: float = 0.06
) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of a proxy of .80 and of a member: equal but for noise and what the member loses.

    ``noise`` is the share of the member's verdicts that are drawn anew; ``loss`` comes off its share right.
    """
    proxy = rng.random((plays, docs)) < 0.8
    member = np.where(rng.random((plays, docs)) < noise, rng.random((plays, docs)) < 0.8, proxy)
    if loss:
        member &= ~(rng.random((plays, docs)) < loss / 0.8)
    return proxy.astype(float), member.astype(float)


def first_certain(differences: np.ndarray, tasks: int = TASKS) -> np.ndarray:
    """Docs until a split is certain in each play, docs going round the tasks; infinity where it never is.

    A hundred plays at a time: arrays of all of them do not fit into a processor's cache.
    """
    of = np.arange(differences.shape[-1]) % tasks
    plays = np.array_split(differences, -(-len(differences) // 100))
    certain = np.concatenate([log_divergence(some, of, tasks) >= CERTAIN for some in plays])
    return np.where(certain.any(axis=1), certain.argmax(axis=1) + 1, np.inf)


def by_definition(d: list[float], tasks: list[int], n_tasks: int) -> float:
    """The e-value after the last doc, product by product."""

    def one(values: list[float]) -> float:
        bets = [math.prod(1 + sign * s * x for x in values) for sign in (1, -1) for s in SHARES]
        ratios = [
            math.prod((a / DIFFER) ** abs(x) * ((1 - a) / (1 - DIFFER)) ** (1 - abs(x)) for x in values)
            for a in ALTERNATIVES
        ]
        return (sum(bets) / len(bets) + sum(ratios) / len(ratios)) / 2

    anew = sum(one(d[k:]) / (k * (k + 1)) for k in range(1, len(d) + 1))
    together = (1 - ANEW) * one(d) + ANEW * anew
    single = [one([x for x, t in zip(d, tasks, strict=True) if t == task]) for task in range(n_tasks)]
    return (together + sum(single) / n_tasks) / 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), st.integers(0, 3)), min_size=1, max_size=12
    )
)
def test_it_is_the_mean_of_its_bets(docs: list[tuple[float, int]]) -> None:
    d, tasks = [x for x, _ in docs], [t for _, t in docs]
    path = log_divergence(np.array(d), tasks, 4)
    for n in range(1, len(d) + 1):
        assert path[n - 1] == pytest.approx(math.log(by_definition(d[:n], tasks[:n], 4)), abs=1e-9)


@pytest.mark.parametrize(
    ("loss", "table"), [(0.1, 158), (0.2, 46), (0.4, 12), (0.8, 5)], ids=["-10", "-20", "-40", "-80"]
)
def test_a_loss_is_found_about_as_soon_as_simulated(loss: float, table: int) -> None:
    """Medians of section D of issue 11's rules, 4.6 to 1: at most 1.3 times as many docs."""
    rng = np.random.default_rng(5)
    docs = {0.1: 500, 0.2: 250, 0.4: 80, 0.8: 40}[loss]
    proxy, member = verdicts(rng, 150, docs, loss)
    assert np.median(first_certain(member - proxy)) <= 1.3 * table


def test_who_loses_all_in_one_of_many_tasks_is_found_by_its_docs() -> None:
    rng = np.random.default_rng(6)
    proxy, member = verdicts(rng, 80, 300, 0.0)
    member[:, 3::TASKS] = 0.0
    assert np.median(first_certain(member - proxy)) <= 1.3 * 74


@pytest.mark.parametrize("before", [0, 15, 50])
def test_who_turns_after_agreeing_is_found_within_ten_docs(before: int) -> None:
    rng = np.random.default_rng(7)
    proxy, member = verdicts(rng, 200, before + 60, 0.0)
    member[:, before:] = 0.0
    found = first_certain(member - proxy)
    turned = found[found > before] - before
    assert len(turned) >= 199 and np.median(turned) <= 10


@pytest.mark.parametrize("agree", [0.95, 0.97, 0.99])
def test_twins_stay_together(agree: float) -> None:
    rng = np.random.default_rng(8)
    differs = rng.random((60, 2000)) >= agree
    sign = np.where(rng.random(differs.shape) < 0.5, 1.0, -1.0)
    assert not np.isfinite(first_certain(np.where(differs, sign, 0.0))).any()


def test_a_noisy_supplier_is_measured_by_its_own_noise() -> None:
    """Verdicts of repeats that differ on .12 of docs: as many differences to the proxy tell nothing."""
    rng = np.random.default_rng(9)
    differs = rng.random((40, 1500)) < 0.12
    d = np.where(differs, np.where(rng.random(differs.shape) < 0.5, 1.0, -1.0), 0.0)
    of = np.arange(1500) % TASKS
    assert (log_divergence(d, of, TASKS).max(axis=1) >= CERTAIN).mean() > 0.9
    assert (log_divergence(d, of, TASKS, 0.12).max(axis=1) >= CERTAIN).mean() <= 0.05


def test_nothing_seen_is_no_evidence_and_nonsense_is_refused() -> None:
    assert log_divergence(np.zeros(0), [], 3).shape == (0,)
    with pytest.raises(ValueError, match="between -1 and 1"):
        log_divergence(np.array([1.5]), [0], 1)
    with pytest.raises(ValueError, match="from 0 to below 2"):
        log_divergence(np.array([0.5]), [2], 2)


@pytest.mark.slow(minutes=0.5)
def test_the_whole_table() -> None:
    """Section D: medians within 1.3 of the table's, false splits in 2,000 docs at most .5 %.

    For a median no more docs are drawn than the bound: who is not found by then counts as never found.
    """
    rng = np.random.default_rng(5)

    def bound(median: float) -> int:
        return math.ceil(1.3 * median)

    table = {0.05: 386, 0.1: 158, 0.2: 46, 0.4: 12, 0.8: 5}
    for noise in (0.0, 0.02, 0.06, 0.12):
        false = []
        for _ in range(5):
            proxy, member = verdicts(rng, 300, 2000, 0.0, noise)
            false.append(np.isfinite(first_certain(member - proxy)))
        assert np.mean(false) <= 0.005, noise
        for loss, median in table.items():
            proxy, member = verdicts(rng, 400, bound(median), loss, noise)
            assert np.median(first_certain(member - proxy)) <= 1.3 * median, (noise, loss)
    for loss, median in ((0.3, 354), (0.6, 102), (0.8, 74)):
        proxy, member = verdicts(rng, 400, bound(median), 0.0)
        member[:, 3::TASKS] *= rng.random(member[:, 3::TASKS].shape) >= loss / 0.8
        assert np.median(first_certain(member - proxy)) <= 1.3 * median, loss
    for agree in (0.95, 0.97, 0.99):
        differs = rng.random((600, 2000)) >= agree
        d = np.where(differs, np.where(rng.random(differs.shape) < 0.5, 1.0, -1.0), 0.0)
        assert np.isfinite(first_certain(d)).mean() <= 0.01, agree


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.0, 1.0, -1.0, 0.3, -0.6]), st.integers(0, 3)), max_size=40),
    st.sampled_from([DIFFER, 0.2, 0.5]),
    st.sampled_from([1, 4, 9]),
)
def test_no_more_evidence_than_differences_allow(
    docs: list[tuple[float, int]], differ: float, n: int
) -> None:
    d = np.array([difference for difference, _ in docs])
    path = log_divergence(d, [task % n for _, task in docs], n, differ)
    most = [most_log_divergence(total, differ) for total in np.cumsum(np.abs(d)).tolist()]
    assert (path <= np.array(most) + 1e-9).all()
