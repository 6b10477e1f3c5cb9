"""Partial pooling: finds the spread of suppliers, and is closer to the truth than raw shares."""

import numpy as np
import pytest
from scipy import stats

from testbench_dagster.statistics.shrinkage import MIN_GROUPS, STRONGEST, Prior, fit_prior


def drawn(generator, a, b, sizes):
    truths = generator.beta(a, b, len(sizes))
    return truths, generator.binomial(sizes, truths)


def test_the_distribution_of_suppliers_is_found_again():
    generator = np.random.default_rng(3)
    _, successes = drawn(generator, 12, 4, sizes := generator.integers(5, 100, 3000))
    prior = fit_prior(successes.tolist(), sizes.tolist())
    assert prior.a + prior.b == pytest.approx(16, rel=0.15)
    assert prior.a / (prior.a + prior.b) == pytest.approx(0.75, abs=0.01)


def test_pooled_shares_of_few_docs_are_closer_to_the_truth_and_covered():
    generator = np.random.default_rng(4)
    truths, successes = drawn(generator, 12, 4, sizes := generator.integers(3, 20, 400))
    prior = fit_prior(successes.tolist(), sizes.tolist())
    pooled = [prior.pooled(int(k), int(n)) for k, n in zip(successes, sizes, strict=True)]
    raw_error = np.mean((successes / sizes - truths) ** 2)
    error = np.mean((np.array([p.score for p in pooled]) - truths) ** 2)
    assert error < 0.6 * raw_error
    held = np.mean([p.ci_low <= t <= p.ci_high for p, t in zip(pooled, truths, strict=True)])
    assert 0.92 <= held <= 0.98


def test_a_posterior_is_scipys():
    found = Prior(3.0, 2.0).pooled(7, 9)
    beta = stats.beta(10, 4)
    assert (found.score, found.se) == (pytest.approx(beta.mean()), pytest.approx(beta.std()))
    assert (found.ci_low, found.ci_high) == pytest.approx(beta.interval(0.95))
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        Prior(1, 1).pooled(5, 4)


def test_suppliers_that_look_alike_do_not_overrule_one():
    prior = fit_prior([8] * 30, [10] * 30)
    assert prior.a + prior.b == STRONGEST
    perfect = fit_prior([10] * 30, [10] * 30)
    assert 0.99 < perfect.a / (perfect.a + perfect.b) < 1


def test_too_few_or_impossible_suppliers():
    assert fit_prior([5] * (MIN_GROUPS - 1), [10] * (MIN_GROUPS - 1)) is None
    assert fit_prior([1, 0, 1, 1, 0], [1] * 5) is not None, "one doc each: no spread can be seen"
    with pytest.raises(ValueError, match="got 11 of 10"):
        fit_prior([11] * 9, [10] * 9)
