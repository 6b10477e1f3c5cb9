"""Confidence intervals for shares.

Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the
American Statistical Association 22 (1927), 209-212. The interval holds every share p that a score test of
the normal approximation does not reject, that is |share - p| <= z * sqrt(p * (1 - p) / n).
"""

from __future__ import annotations

import math
from statistics import NormalDist

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


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share after ``successes`` out of ``n`` independent trials.

    ``successes`` may be fractional: a sum of scores from 0 to 1, for which the interval is conservative, as
    such scores vary at most as much as a coin of the same mean. With ``n`` 0 nothing is known and both ends
    are nan. Raises ValueError when ``successes`` is not between 0 and ``n``, or ``n`` is negative.
    """
    z = two_sided_z(confidence)
    if n < 0 or not 0 <= successes <= n:
        raise ValueError(f"want 0 <= successes <= n, got {successes} of {n}")
    if n == 0:
        return math.nan, math.nan
    share = successes / n
    return _lower_bound(share, n, z), 1.0 - _lower_bound((n - successes) / n, n, z)


def _lower_bound(share: float, n: int, z: float) -> float:
    """The smaller root of ``(1 + z²/n) p² - (2 share + z²/n) p + share² = 0``.

    Taken from the larger one by the product of the roots: their difference would lose the digits of small
    shares. The upper bound of a share is one minus the lower bound of its complement.
    """
    correction = z * z / n
    spread = z * math.sqrt((share * (1.0 - share) + correction / 4.0) / n)
    return share * (share / (share + correction / 2.0 + spread))
