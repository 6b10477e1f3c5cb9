"""Quantiles of a sample by nearest rank, with intervals from order statistics.

The number of values at or below the true q-quantile of a continuous distribution is binomial (n, q), whatever
the distribution. So the interval from the l-th to the u-th of the sorted values holds the quantile with the
probability of ``l <= B <= u - 1``: H. A. David and H. N. Nagaraja, "Order Statistics", 3rd edition (2003),
section 7.1. Of distributions with ties it holds it at least as often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

#: How sure the intervals are where nothing else is said.
CONFIDENCE = 0.95
#: Two sums of the same probabilities in another order.
_SAME = 1e-9


class Quantile(NamedTuple):
    """A quantile of a sample with the ends of its two-sided interval, in the unit of the sample."""

    value: float
    low: float
    high: float


def nearest_rank(n: int, q: float) -> int:
    """The rank, from 1, of the q-quantile of ``n`` sorted values: the least that q of them do not exceed.

    Raises ValueError without values, or unless 0 < q < 1.
    """
    _check(n, q)
    return max(1, math.ceil(q * n - _SAME))


def quantile(ordered: Sequence[float], q: float, confidence: float = CONFIDENCE) -> Quantile | None:
    """The q-quantile of ascending values with its interval; None of fewer than :func:`least_n` values.

    Raises ValueError unless ``q`` and ``confidence`` lie between 0 and 1.
    """
    _check(1, q)
    ranks = rank_interval(len(ordered), q, confidence) if ordered else None
    if ranks is None:
        return None
    low, high = ranks
    return Quantile(ordered[nearest_rank(len(ordered), q) - 1], ordered[low - 1], ordered[high - 1])


@lru_cache(maxsize=256)
def least_n(q: float, confidence: float = CONFIDENCE) -> int:
    """The fewest values that bound the q-quantile on both sides: 6 for the median, 59 for q = 0.95.

    All values together hold it with probability ``1 - q^n - (1 - q)^n``. Raises ValueError unless both lie
    between 0 and 1.
    """
    _check(1, q)
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence}")
    n = 1
    while _beyond(n, q) > 1.0 - confidence:
        n += 1
    return n


def _beyond(n: int, q: float) -> float:
    """Probability that all of ``n`` values lie on one side of the q-quantile."""
    return q**n + (1.0 - q) ** n


@lru_cache(maxsize=4096)
def rank_interval(n: int, q: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """The ranks, from 1, of the values that hold the q-quantile between them; None if ``n`` are too few.

    Of all pairs of ranks that hold it with at least ``confidence`` those nearest to each other, which are the
    least too sure; of several the surest, then those around the nearest rank. Raises ValueError as
    :func:`least_n`, and without values.
    """
    _check(n, q)
    if n < least_n(q, confidence):
        return None
    # cumulative[k]: probability that fewer than k values lie at or below the quantile
    cumulative = [0.0, *accumulate(_binomial(n, q))]
    middle = nearest_rank(n, q)
    best: tuple[int, float, int, int, int] | None = None
    high = 2
    for low in range(1, n):
        high = max(high, low + 1)
        while high <= n and cumulative[high] - cumulative[low] < confidence - _SAME:
            high += 1
        if high > n:
            break
        sure = cumulative[high] - cumulative[low]
        found = (high - low, -round(sure, 9), abs(low + high - 2 * middle), low, high)
        best = found if best is None else min(best, found)
    return None if best is None else (best[3], best[4])


def _binomial(n: int, q: float) -> list[float]:
    """Probabilities of 0 to n values at or below the q-quantile."""
    log_q, log_rest, whole = math.log(q), math.log1p(-q), math.lgamma(n + 1)
    return [
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_q + (n - k) * log_rest)
        for k in range(n + 1)
    ]


def _check(n: int, q: float) -> None:
    if n < 1:
        raise ValueError(f"a quantile needs at least one value, got {n}")
    if not 0.0 < q < 1.0:
        raise ValueError(f"a quantile lies between 0 and 1, such as 0.5; got {q}")
