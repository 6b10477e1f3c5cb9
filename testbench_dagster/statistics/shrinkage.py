"""Partial pooling of shares: a supplier with few docs is drawn towards what the others reach on a task.

Suppliers' true shares on one task are taken as draws from a beta distribution, whose two numbers are
estimated from all of them by moments (J. C. Kleinman, "Proportions with extraneous variance: single and
independent samples", Journal of the American Statistical Association 68 (1973), 46-54). A share of k in n
then becomes ``(k + a) / (n + a + b)``, the mean of its beta posterior (Robbins' empirical Bayes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MIN_GROUPS = 5
"""Fewer suppliers say too little about how suppliers differ."""
STRONGEST, WEAKEST = 100.0, 1.0
"""Bounds of ``a + b``, in docs: where suppliers look alike by chance, none is overruled by the others."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Beta distribution of the suppliers' true shares on a task; ``a + b`` is its weight in docs."""

    a: float
    b: float

    def pooled(self, successes: float, n: int, confidence: float = 0.95) -> Pooled:
        """Posterior of a share after ``successes`` of ``n``; raises ValueError if not 0 <= successes <= n."""
        if not 0 <= successes <= n:
            raise ValueError(f"want 0 <= successes <= n, got {successes} of {n}")
        from scipy.special import betaincinv

        a, b = self.a + successes, self.b + n - successes
        mean = a / (a + b)
        tail = (1.0 - confidence) / 2.0
        # a skewed posterior may have its mean outside the central interval only for a or b near 0
        low, high = (float(betaincinv(a, b, q)) for q in (tail, 1.0 - tail))
        return Pooled(mean, math.sqrt(mean * (1.0 - mean) / (a + b + 1.0)), min(low, mean), max(high, mean))


@dataclass(frozen=True, slots=True)
class Pooled:
    """A share after partial pooling: posterior mean, standard deviation and central interval."""

    score: float
    se: float
    ci_low: float
    ci_high: float


def fit_prior(successes: Sequence[float], n: Sequence[int]) -> Prior | None:
    """The beta distribution the shares of several suppliers come from; None for fewer than ``MIN_GROUPS``.

    Suppliers weigh by ``n / (1 + (n - 1) r)`` with r the correlation of two docs of one supplier, found in a
    few rounds from equal weights for docs (r = 0). ``a + b = 1 / r - 1`` is kept within its bounds, and the
    mean is kept half a doc away from 0 and 1, where a beta distribution has no mass inside. Raises ValueError
    for lengths that differ, n below 1, or successes out of range.
    """
    pairs = list(zip(successes, n, strict=True))
    for k, size in pairs:
        if size < 1 or not 0 <= k <= size:
            raise ValueError(f"want n >= 1 and 0 <= successes <= n, got {k} of {size}")
    if len(pairs) < MIN_GROUPS:
        return None
    strength = STRONGEST
    mean = 0.5
    correlation = 0.0
    for _ in range(20):
        weights = [size / (1.0 + (size - 1.0) * correlation) for _, size in pairs]
        total = sum(weights)
        shares = [w / total for w in weights]
        mean = sum(w * k / size for w, (k, size) in zip(shares, pairs, strict=True))
        spread = sum(w * (k / size - mean) ** 2 for w, (k, size) in zip(shares, pairs, strict=True))
        # E[spread] = mean (1 - mean) * sum of w (1 - w) ((1 - r) / n + r), solved for r
        sampled = sum(w * (1.0 - w) / size for w, (_, size) in zip(shares, pairs, strict=True))
        between = sum(w * (1.0 - w) for w in shares)
        unit = mean * (1.0 - mean)
        if unit <= 0.0 or between <= sampled:
            correlation = 0.0  # all alike at an end, or one doc each: nothing tells suppliers apart
            break
        found = min(0.5, max(0.0, (spread / unit - sampled) / (between - sampled)))
        if abs(found - correlation) < 1e-9:
            break
        correlation = found
    if correlation > 0.0:
        strength = min(STRONGEST, max(WEAKEST, 1.0 / correlation - 1.0))
    edge = 0.5 / sum(size for _, size in pairs)
    mean = min(1.0 - edge, max(edge, mean))
    return Prior(mean * strength, (1.0 - mean) * strength)
