"""Confidence sequences: intervals that hold the truth at all times together, however often one looks.

An interval of 95 % that is looked at after each score excludes the truth sooner or later far more often than
one time in twenty. These do not: with a probability of at least 1 - alpha every one of them, from the first
score to the last, holds the truth. Whoever stops when an interval excludes something is thus right with that
probability.
"""

from __future__ import annotations

from collections.abc import Sequence

from testbench_dagster.statistics import betting


def mean_bounds(values: Sequence[float], alpha: float = 0.05, bank: int | None = None) -> tuple[float, float]:
    """Bounds of the mean of scores from 0 to 1 after the last of them; (0, 1) of no scores.

    Betting bounds (see :mod:`~testbench_dagster.statistics.betting`): what was refuted once stays refuted, so
    with more scores they only ever narrow. With ``bank`` the scores are those of docs drawn at random without
    replacement from so many, and the bounds are those of the bank's mean. Raises ValueError unless the scores
    lie between 0 and 1, 0 < alpha < 1 and the bank holds at least the scores.
    """
    scores = betting.checked_scores(values)
    _check_bank(len(scores), bank)
    low, high = betting.anytime_bounds(scores, betting.checked_alpha(alpha), bank)
    return float(low), float(high)


def _check_bank(n: int, bank: int | None) -> None:
    if bank is not None and bank < max(n, 1):
        raise ValueError(f"bank must be at least the number of scores, {n}; got {bank}")
