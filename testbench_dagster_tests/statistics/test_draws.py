"""The permutation test of several draws: exact under the null, and it sees another distribution."""

from __future__ import annotations

import numpy as np
import pytest

from testbench_dagster.statistics.draws import Draws, permutation_p, surely_alike

SEED = 20261130


def drawn(rng: np.random.Generator, prompts: int, draws: int, tilt: float) -> list[Draws]:
    """Both draw from ten answers with the same weights at each prompt, the second's tilted to the first."""
    found = []
    for _ in range(prompts):
        weights = rng.dirichlet(np.full(10, 0.7))
        other = (1 - tilt) * weights + tilt * np.eye(10)[rng.integers(10)]
        found.append((list(rng.choice(10, draws, p=weights)), list(rng.choice(10, draws, p=other))))
    return found


@pytest.mark.parametrize("alpha", [0.05, pytest.param(0.2, marks=pytest.mark.slow)])
def test_honest_pairs_are_accused_no_more_often_than_alpha(alpha: float) -> None:
    rng = np.random.default_rng(SEED)
    n = 400
    below = sum(permutation_p(drawn(rng, 16, 3, 0.0), permutations=199, seed=i) <= alpha for i in range(n))
    assert below <= alpha * n + 3 * (alpha * (1 - alpha) * n) ** 0.5
    assert below > 0, "it is exact, not timid"


def test_another_distribution_is_seen() -> None:
    rng = np.random.default_rng(SEED)
    seen = [permutation_p(drawn(rng, 32, 4, 0.6), permutations=999, seed=i) <= 0.005 for i in range(40)]
    assert np.mean(seen) >= 0.9


def test_the_same_draws_give_the_same_p_whoever_comes_first() -> None:
    prompts = drawn(np.random.default_rng(SEED), 20, 3, 0.3)
    assert permutation_p(prompts, seed=1) == permutation_p(prompts, seed=1)
    assert abs(permutation_p(prompts, seed=1) - permutation_p([(b, a) for a, b in prompts], seed=1)) < 0.05


def test_prompts_that_say_nothing_are_left_out() -> None:
    assert permutation_p([]) == 1.0
    assert permutation_p([(["a"], ["b", "b"]), ([], [])]) == 1.0
    assert permutation_p([(["a", "a"], ["a", "a"])] * 9) == 1.0


def test_a_plain_difference_ends_early_and_never_below_what_was_drawn() -> None:
    apart: list[Draws] = [(["a"] * 4, ["b"] * 4)] * 16
    assert permutation_p(apart, permutations=1999) == 1 / 2000
    assert permutation_p([(["a", "b"], ["a", "b"])] * 16, permutations=10**9) > 0.01, "ended by itself"


def test_alike_is_told_of_who_draws_alike_alone() -> None:
    rng = np.random.default_rng(SEED)
    assert surely_alike(drawn(rng, 600, 6, 0.0), 0.8, 0.01)
    assert not surely_alike(drawn(rng, 600, 6, 0.4), 0.8, 0.01)
    assert not surely_alike(drawn(rng, 20, 6, 0.0), 0.8, 0.01), "of too little nothing is told"


def test_answers_that_never_repeat_are_never_alike() -> None:
    assert not surely_alike([], 0.8, 0.01)
    assert not surely_alike([(["a"], ["a"])] * 500, 0.8, 0.01)
    assert not surely_alike([([n, -n], [2000 + n, 3000 + n]) for n in range(1, 900)], 0.8, 0.01)


@pytest.mark.parametrize("first", [True, False])
def test_who_is_more_certain_than_the_other_is_not_alike(first: bool) -> None:
    """One always gives the likeliest answer of two: the other gives it half of the time."""
    rng = np.random.default_rng(SEED)
    pairs: list[Draws] = [([0] * 4, rng.integers(2, size=4).tolist()) for _ in range(400)]
    assert not surely_alike(pairs if first else [(b, a) for a, b in pairs], 0.8, 0.01)
