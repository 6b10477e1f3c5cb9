"""Intervals of fixed linear combinations of independent means: abilities, and differences between them.

A weighted mean of shares gets Wilson's interval for as many docs as a single share would need to be known
as well: with q each share moved to ``(k + 1/2) / (n + 1)``, as by Jeffreys' prior, and Q their weighted
mean, that is ``Q (1 - Q) / sum(w^2 q (1 - q) / n)``. One share alone keeps its own interval, and shares of
0 or 1 keep a width, where the normal interval has none. Effective sample sizes in Wilson's interval: E. L.
Korn and B. I. Graubard, "Confidence intervals for proportions with small expected number of positive counts
estimated from survey data", Survey Methodology 24 (1998), 193-201.

Measured coverage of the nominal 95 % (2 to 30 tasks of 10 to 100 docs, weights equal and up to 900:1): mean
95 % and at least 90 % for true shares drawn evenly from .05 to .95; over corners with all shares at .01,
.05, .5, .8, .95, .99 or 1 and with opposites mean 95 %, at least 89 %, but 86 % for two tasks of which one
has every answer right. That is what Wilson's interval does for one task (89 to 99 %). The recipe of Zou and
Donner (:func:`mover`) falls to 85 % there for 30 tasks, as distances of many one-sided intervals do not add
up so, and the normal interval to 0.

Differences and other combinations use MOVER (method of variance estimates recovery): the distance of a
combination's bound is the root of the sum of squares of the parts' weighted distances. R. G. Newcombe,
"Interval estimation for the difference between independent proportions", Statistics in Medicine 17 (1998),
873-890; G. Y. Zou and A. Donner, "Construction of confidence limits about effect measures: a general
approach", Statistics in Medicine 27 (2008), 1693-1702.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from testbench_dagster.statistics.intervals import two_sided_z, wilson

_MOST = 1e12  # docs: an interval without width


def docs_behind(share: float, low: float, high: float, confidence: float = 0.95) -> float:
    """For how many docs Wilson's interval of ``share`` is as wide as from ``low`` to ``high``.

    Of a Wilson interval its own n; of a wider one, such as for docs in clusters, fewer. From
    ``W = 2 z sqrt(p (1 - p) x + z^2 x^2 / 4) / (1 + z^2 x)`` solved for ``x = 1 / n``. Raises ValueError
    unless 0 <= low <= share <= high <= 1 with a width below 1.
    """
    if not 0.0 <= low <= share <= high <= 1.0 or high - low >= 1.0:
        raise ValueError(
            f"want 0 <= low <= share <= high <= 1, narrower than that, got {low}, {share}, {high}"
        )
    z = two_sided_z(confidence)
    squared = (high - low) ** 2
    a = z * z * (squared - 1.0) / 4.0
    b = squared / 2.0 - share * (1.0 - share)
    c = squared / (4.0 * z * z)
    root = math.sqrt(b * b - 4.0 * a * c)
    # the positive root, by the form in which nothing cancels
    x = 2.0 * c / (root - b) if b < 0.0 else (b + root) / (-2.0 * a)
    return 1.0 / x if x > 1.0 / _MOST else _MOST


def smoothed(share: float, docs: float) -> tuple[float, float]:
    """A share moved off the ends, ``(k + 1/2) / (n + 1)``, and the variance of a mean of ``docs`` there."""
    moved = (share * docs + 0.5) / (docs + 1.0)
    return moved, moved * (1.0 - moved) / docs


def combined_docs(moved: float, variance: float) -> float:
    """Docs a single share at ``moved`` would need for a mean of this ``variance``."""
    return moved * (1.0 - moved) / variance


def wilson_of_mean(
    weights: Sequence[float], shares: Sequence[float], docs: Sequence[float], confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a weighted mean of independent shares, each of a number of (effective) docs.

    Weights are above zero and add up to 1. Raises ValueError for no shares, lengths that differ, or shares
    outside 0..1.
    """
    parts = list(zip(weights, shares, docs, strict=True))
    if not parts or not all(w > 0 and 0.0 <= s <= 1.0 and n > 0 for w, s, n in parts):
        raise ValueError("want at least one share from 0 to 1, with a weight and docs above zero")
    if len(parts) == 1:
        return wilson(shares[0] * docs[0], docs[0], confidence)
    mean = min(max(shares), max(min(shares), math.fsum(w * s for w, s, _ in parts)))
    near = [smoothed(s, n) for _, s, n in parts]
    n = combined_docs(
        math.fsum(w * q for w, (q, _) in zip(weights, near, strict=True)),
        math.fsum(w * w * v for w, (_, v) in zip(weights, near, strict=True)),
    )
    return wilson(mean * n, n, confidence)


def mover(
    weights: Sequence[float], estimates: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> tuple[float, float]:
    """Bounds of ``sum(weight * mean)`` from the bounds of independent means, at their confidence.

    Weights may be negative; a mean that occurs twice must be one part with its weights added up. Raises
    ValueError for no parts, lengths that differ, or an estimate outside its bounds.
    """
    if not weights:
        raise ValueError("a combination needs at least one part")
    below = above = 0.0
    terms = []
    for weight, estimate, low, high in zip(weights, estimates, lows, highs, strict=True):
        if not low <= estimate <= high:
            raise ValueError(f"the estimate {estimate} must lie between its bounds {low} and {high}")
        down, up = weight * (estimate - low), weight * (high - estimate)
        if weight < 0:
            down, up = -up, -down
        below += down * down
        above += up * up
        terms.append(weight * estimate)
    total = math.fsum(terms)
    return total - math.sqrt(below), total + math.sqrt(above)


def combined_error(weights: Sequence[float], errors: Sequence[float]) -> float:
    """Standard error of ``sum(weight * mean)`` of independent means with these standard errors."""
    return math.sqrt(math.fsum((w * e) ** 2 for w, e in zip(weights, errors, strict=True)))
