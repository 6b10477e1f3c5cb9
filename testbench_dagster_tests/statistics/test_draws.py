"""The permutation test of several draws: exact under the null, and it sees another distribution."""

from __future__ import annotations

import numpy as np
import pytest

from testbench_dagster.statistics.draws import Draws, permutation_p

SEED = 20261130


def drawn(rng: np.random.Generator, prompts: int, draws: int, tilt: float) -> list[Draws]:
    """Both draw from ten answers with the same weights at each prompt, the second's tilted to the first."""
    found = []
    for _ in range(prompts):
        weights = rng.dirichlet(np.full(10, 0.7))
        other = (1 - tilt) * weights + tilt * np.eye(10)[rng.integers(10)]
        found.append((list(rng.choice(10, draws, p=weights)), list(rng.choice(10, draws, p=other))))
    return found


@pytest.mark.parametrize("alpha", [0.05, 0.2])
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
