"""Confidence intervals and standard errors of mean scores, for a number of docs fixed beforehand.

Shares: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the
American Statistical Association 22 (1927), 209-212. The interval holds every share p that a score test of
the normal approximation does not reject, that is |share - p| <= z * sqrt(p * (1 - p) / n).

Clusters, docs that share a passage or a template: E. Miller, "Adding Error Bars to Evals", arXiv 2411.00640
(2024), section 2.2, and L. Kish, "Survey Sampling" (1965), section 5.4, for the design effect.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

from testbench_dagster.statistics import betting

_STANDARD = NormalDist()


def normal_quantile(probability: float) -> float:
    """The value below which a standard normal variable stays with ``probability`` (between 0 and 1).

    Raises ValueError for 0, 1 and anything outside.
    """
    if not 0.0 < probability < 1.0:
        raise ValueError(f"a quantile needs a probability between 0 and 1, got {probability}")
    return _STANDARD.inv_cdf(probability)


def two_sided_z(confidence: float) -> float:
    """How many standard errors a two-sided normal interval of ``confidence`` (between 0 and 1) reaches out.

    Raises ValueError for 0, 1 and anything outside.
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, such as 0.95; got {confidence}")
    return normal_quantile((1.0 + confidence) / 2.0)


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share after ``successes`` out of ``n`` independent trials.

    ``successes`` may be fractional, and so may ``n``: for scores from 0 to 1 it is :func:`bounded_n`, for
    docs in clusters :func:`effective_n`, with the same share of it as successes. With
    ``n`` 0 nothing is known and both ends are nan. Raises ValueError when ``successes`` is not between 0 and
    ``n``, or ``n`` is negative.
    """
    z = two_sided_z(confidence)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"want 0 <= successes <= n, got {successes} of {n}")
    if n == 0:
        return math.nan, math.nan
    share = successes / n
    return _lower_bound(share, n, z), 1.0 - _lower_bound((n - successes) / n, n, z)


def _lower_bound(share: float, n: float, z: float) -> float:
    """The smaller root of ``(1 + z²/n) p² - (2 share + z²/n) p + share² = 0``.

    Taken from the larger one by the product of the roots: their difference would lose the digits of small
    shares. The upper bound of a share is one minus the lower bound of its complement.
    """
    correction = z * z / n
    spread = z * math.sqrt((share * (1.0 - share) + correction / 4.0) / n)
    return share * (share / (share + correction / 2.0 + spread))


def bounded_n(values: Sequence[float]) -> float:
    """Number of docs, right or wrong, that would tell as much as these values from 0 to 1.

    For Wilson's interval. It is their number where all are 0 or 1. Others vary less than a coin of their
    mean: with ``q = (sum + 1/2) / (n + 1)`` and ``s2 = (n * variance + q * (1 - q)) / (n + 1)``, the
    variance of the values and one more coin of that mean, they stand for ``n * q * (1 - q) / s2`` docs. The
    coin keeps equal values from telling more than they can. Raises ValueError without values, or for one out
    of range.
    """
    n = len(values)
    if not n or not all(0 <= value <= 1 for value in values):
        raise ValueError("want at least one value, all from 0 to 1")
    if all(value in (0, 1) for value in values):
        return float(n)
    q = (math.fsum(values) + 0.5) / (n + 1)
    coin = q * (1 - q)
    variance = math.fsum(deviation**2 for deviation in _deviations(values)) / n
    return n * coin * (n + 1) / (n * variance + coin)


def betting_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of scores from 0 to 1, valid for any such scores and any number of them.

    Waudby-Smith and Ramdas 2024 (see :mod:`~testbench_dagster.statistics.betting`), with bets made for this
    many scores; narrower than Wilson's where scores vary less than a coin. It depends on the order of the
    scores, which must not be chosen by their values: the order they came in, or that of the docs. The number
    of scores must be fixed beforehand: whoever looks repeatedly takes
    :func:`~testbench_dagster.statistics.sequences.mean_bounds`. (0, 1) of no scores. Raises ValueError for a
    score or a confidence out of range.
    """
    two_sided_z(confidence)  # refuses what is no confidence
    scores = betting.checked_scores(values)
    low, high = betting.fixed_bounds(scores, 1 - confidence)
    return float(low), float(high)


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values: the square root of their variance over their number.

    The variance is that of the values themselves (divided by n, not n - 1), as lm-eval's users know it from
    sqrt(p (1 - p) / n). Raises ValueError without values.
    """
    return math.sqrt(math.fsum(deviation**2 for deviation in _deviations(values))) / len(values)


def clustered_standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Standard error of the mean of values that may depend on each other within their cluster.

    The square root of (1 / n^2) times the sum over clusters of the squared sum of deviations from the mean
    (Miller 2024): :func:`standard_error` where each value has a cluster of its own. Raises ValueError without
    values, or unless there is one cluster per value.
    """
    if len(values) != len(clusters):
        raise ValueError(f"want one cluster per value, got {len(clusters)} for {len(values)} values")
    sums: dict[Hashable, list[float]] = {}
    for deviation, cluster in zip(_deviations(values), clusters, strict=True):
        sums.setdefault(cluster, []).append(deviation)
    return math.sqrt(math.fsum(math.fsum(part) ** 2 for part in sums.values())) / len(values)


def design_effect(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """How many times larger the variance of the mean is for the clusters, at least 1 (Kish 1965).

    Equal values do not tell how far they depend on each other: then the effect is that of clusters whose
    members all say the same. Below 1 it is not taken at its word, as few clusters show that by chance. Raises
    ValueError as :func:`clustered_standard_error`.
    """
    clustered, independent = clustered_standard_error(values, clusters), standard_error(values)
    if independent > 1e-12:
        return max(1.0, (clustered / independent) ** 2)
    sizes: dict[Hashable, int] = {}
    for cluster in clusters:
        sizes[cluster] = sizes.get(cluster, 0) + 1
    return sum(size**2 for size in sizes.values()) / len(values)


def effective_n(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Number of independent docs that would tell as much as these: n over :func:`design_effect`.

    For Wilson's interval: ``wilson(mean * n, n)`` with this n. Raises ValueError as there.
    """
    return len(values) / design_effect(values, clusters)


def _deviations(values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError("a standard error needs at least one value, got none")
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]
