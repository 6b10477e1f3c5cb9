"""How much one thing grows with another: the median of the slopes between pairs, with its interval.

H. Theil (1950) and P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", Journal of
the American Statistical Association 63 (1968), 1379-1389. Within groups that differ by more than the slope,
as seasons do: R. M. Hirsch, J. R. Slack and R. A. Smith, Water Resources Research 18 (1982), 107-121: slopes
between members of one group alone, and the variance is the sum of the groups'. Up to 29 % of the points may
be anything at all.

numpy is imported on use, as the code location reaches this module.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from testbench_dagster.statistics.intervals import two_sided_z


class Slope(NamedTuple):
    """The slope with the ends of its two-sided interval; ``n`` points of groups that say something of it."""

    value: float
    low: float
    high: float
    n: int


def theil_sen(groups: Iterable[Sequence[tuple[float, float]]], confidence: float = 0.95) -> Slope | None:
    """The median slope of y over x between points (x, y) of the same group; None where it has no interval.

    Points of equal x say nothing of it: there have to be pairs of others, and so many (six points of
    different x) that chance alone does not order them all. Memory: eight bytes for each pair, and a few
    times that. Raises ValueError for a confidence out of range.
    """
    import numpy as np

    z = two_sided_z(confidence)
    parts = []
    variance, n = 0.0, 0
    for points in groups:
        if len(points) < 2:
            continue
        x, y = (np.array(column, dtype=float) for column in zip(*points, strict=True))
        first, second = np.triu_indices(len(points), 1)
        run = x[second] - x[first]
        apart = run != 0
        if not apart.any():
            continue
        parts.append((y[second] - y[first])[apart] / run[apart])
        variance += _kendall_variance(x.tolist(), y.tolist())
        n += len(points)
    if not parts:
        return None
    slopes = np.sort(np.concatenate(parts))
    reach = z * math.sqrt(variance)
    low, high = math.floor((len(slopes) - reach) / 2), math.ceil((len(slopes) + reach) / 2) + 1
    if low < 1 or high > len(slopes):
        return None
    return Slope(float(np.median(slopes)), float(slopes[low - 1]), float(slopes[high - 1]), n)


def _kendall_variance(x: Sequence[float], y: Sequence[float]) -> float:
    """Variance of Kendall's S of at least two points without a trend, with ties in either or both.

    M. G. Kendall, "Rank Correlation Methods" (1955), section 4.9.
    """
    n = len(x)
    first, second = (list(Counter(column).values()) for column in (x, y))

    def products(times: Sequence[int], factors: int) -> int:
        """Sum of t (t - 1), or of t (t - 1) (t - 2)."""
        return sum(math.perm(t, factors) for t in times)

    def doubled(times: Sequence[int]) -> int:
        return sum(t * (t - 1) * (2 * t + 5) for t in times)

    variance = (doubled([n]) - doubled(first) - doubled(second)) / 18
    variance += products(first, 2) * products(second, 2) / (2 * math.perm(n, 2))
    if n > 2:
        variance += products(first, 3) * products(second, 3) / (9 * math.perm(n, 3))
    return max(0.0, variance)
