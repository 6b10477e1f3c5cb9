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


def bounds_of_many(samples: Sequence[Sequence[float]], alphas: Sequence[float]) -> list[tuple[float, float]]:
    """The bounds of :func:`mean_bounds` of many samples, each with its own alpha.

    The same numbers, at a fraction of the cost where many samples are as long as others: they are bet on
    together, and equal ones once. Raises ValueError as :func:`mean_bounds`, and unless each has an alpha.
    """
    import numpy as np

    arrays = [betting.checked_scores(one) for one in samples]
    keys = [
        (array.size, betting.checked_alpha(alpha), array.tobytes())
        for array, alpha in zip(arrays, alphas, strict=True)
    ]
    alike: dict[tuple[int, float], dict[bytes, np.ndarray]] = {}
    for (size, alpha, content), array in zip(keys, arrays, strict=True):
        alike.setdefault((size, alpha), {})[content] = array
    found: dict[tuple[int, float, bytes], tuple[float, float]] = {}
    for (size, alpha), distinct in alike.items():
        for contents in betting.batches(list(distinct), size):
            stacked = np.stack([distinct[content] for content in contents])
            for content, low, high in zip(contents, *betting.anytime_bounds(stacked, alpha), strict=True):
                found[size, alpha, content] = float(low), float(high)
    return [found[key] for key in keys]


def _check_bank(n: int, bank: int | None) -> None:
    if bank is not None and bank < max(n, 1):
        raise ValueError(f"bank must be at least the number of scores, {n}; got {bank}")
