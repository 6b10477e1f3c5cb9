"""Confidence sequences: intervals that hold the truth at all times together, however often one looks.

An interval of 95 % that is looked at after each score excludes the truth sooner or later far more often than
one time in twenty. These do not: with a probability of at least 1 - alpha every one of them, from the first
score to the last, holds the truth. Whoever stops when an interval excludes something is thus right with that
probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from testbench_dagster.statistics import betting

#: Grid of :func:`mean_sequence`: its bounds are rounded outwards to multiples of one over this.
STEPS = 1024


def share_sequence(successes: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Bounds of a share after ``successes`` out of ``n`` scores of 0 and 1, valid at all n together.

    All p are kept whose likelihood, against its average over p uniform in [0, 1], stays above alpha:

        B(k + 1, n - k + 1) / (p^k (1 - p)^(n - k)) < 1 / alpha

    which is Ville's inequality for the ratio of a mixture (H. Robbins, "Statistical methods related to the
    law of the iterated logarithm", Annals of Mathematical Statistics 41 (1970), 1397-1409). Depends on the
    counts only, not on their order. Raises ValueError unless 0 <= successes <= n and 0 < alpha < 1.
    """
    betting.checked_alpha(alpha)
    if not 0 <= successes <= n:
        raise ValueError(f"want 0 <= successes <= n, got {successes} of {n}")
    return _lower(successes, n, alpha), 1 - _lower(n - successes, n, alpha)


def _lower(k: int, n: int, alpha: float) -> float:
    if k == 0:
        return 0.0
    average = math.lgamma(k + 1) + math.lgamma(n - k + 1) - math.lgamma(n + 2) + math.log(alpha)
    low, high = 0.0, k / n  # the likelihood rises up to its top
    while low < (middle := (low + high) / 2) < high:
        likelihood = k * math.log(middle) + ((n - k) * math.log1p(-middle) if n > k else 0.0)
        if likelihood <= average:
            low = middle
        else:
            high = middle
    return low


def mean_sequence(
    values: Sequence[float], alpha: float = 0.05, bank: int | None = None
) -> tuple[list[float], list[float]]:
    """Lower and upper bounds of the mean of scores from 0 to 1 after each score, in the order they came.

    Betting bounds (see :mod:`~testbench_dagster.statistics.betting`): what was refuted once stays refuted, so
    they only ever narrow. Rounded outwards to multiples of 1 / 1024. With ``bank`` the scores are those of
    docs drawn at random without replacement from so many, and the bounds are those of the bank's mean. Raises
    ValueError unless the scores lie between 0 and 1, 0 < alpha < 1 and the bank holds at least the scores.
    """
    scores = betting.checked_scores(values)
    _check_bank(len(scores), bank)
    betting.checked_alpha(alpha)
    lower = betting.running_lower(scores, alpha, STEPS, bank)
    upper = 1 - betting.running_lower(1 - scores, alpha, STEPS, bank)
    return lower.tolist(), upper.tolist()


def mean_bounds(values: Sequence[float], alpha: float = 0.05, bank: int | None = None) -> tuple[float, float]:
    """The last bounds of :func:`mean_sequence`, without its rounding; (0, 1) of no scores.

    Of long samples it costs far less than the whole sequence. Raises ValueError as there.
    """
    scores = betting.checked_scores(values)
    _check_bank(len(scores), bank)
    low, high = betting.anytime_bounds(scores, betting.checked_alpha(alpha), bank)
    return float(low), float(high)


def _check_bank(n: int, bank: int | None) -> None:
    if bank is not None and bank < max(n, 1):
        raise ValueError(f"bank must be at least the number of scores, {n}; got {bank}")
