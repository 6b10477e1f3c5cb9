"""What the values of a stream are expected to be, from its first ones: by a covariate, and by group.

A line through the values over the covariate, and on top of it an effect of each group that is shrunk towards
none as far as groups differ by chance only (best linear unbiased prediction; G. K. Robinson, "That BLUP is a
good thing", Statistical Science 6 (1991), 15-32), the variance between groups by the method of moments of
R. DerSimonian and N. Laird ("Meta-analysis in clinical trials", Controlled Clinical Trials 7 (1986),
177-188).

The standard error is that of the expectation, not of a single value: of the line, and of the effects as they
add up over values that are spread over the groups as the fitted ones were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Fewer values, of all groups or of one, say too little of what to expect of others.
LEAST = 10


@dataclass(frozen=True, slots=True)
class Prediction:
    """A fitted expectation of ``n`` values; see :meth:`at`.

    ``variance`` is that of single values around it, ``effects_variance`` that of the mean of all effects.
    ``effects`` are by group, of shape (g,), and ``known`` says of which groups there were values enough.
    """

    n: int
    mean: float
    slope: float
    center: float
    spread: float
    variance: float
    effects_variance: float
    effects: NDArray[np.float64]
    known: NDArray[np.bool_]

    def at(
        self, covariate: NDArray[np.float64], groups: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Expected values and the standard errors of the expectations, each of shape (m,).

        Args:
            covariate: of shape (m,).
            groups: places in the groups, of shape (m,); where nothing is known of one, both are NaN.
        """
        import numpy as np

        away = covariate - self.center
        expected = self.mean + self.slope * away + self.effects[groups]
        squared = self.variance * (1 / self.n + (away**2 / self.spread if self.spread else 0.0))
        squared = squared + self.effects_variance
        known = self.known[groups]
        return np.where(known, expected, np.nan), np.where(known, np.sqrt(squared), np.nan)


def predict(
    values: NDArray[np.float64], covariate: NDArray[np.float64], groups: NDArray[np.int64], n_groups: int
) -> Prediction | None:
    """Fit the expectation of values, None of fewer than :data:`LEAST`.

    Args:
        values: of shape (n,).
        covariate: of shape (n,); one that is the same throughout says nothing.
        groups: the group of each value, from 0, of shape (n,).
        n_groups: how many groups there are, those without values among them.
    """
    import numpy as np

    n = len(values)
    if n < LEAST:
        return None
    mean, center = float(values.mean()), float(covariate.mean())
    away = covariate - center
    spread = float(away @ away)
    slope = float(away @ values) / spread if spread > 1e-9 else 0.0
    rest = values - mean - slope * away
    counts = np.bincount(groups, minlength=n_groups).astype(np.float64)
    known = counts > 0
    means = np.divide(
        np.bincount(groups, rest, minlength=n_groups), counts, where=known, out=np.zeros(n_groups)
    )
    k = int(known.sum())
    within = rest - means[groups]
    # one value more than there are, at the middle of the scale: equal values are not sure to stay so
    variance = (float(within @ within) + 0.25) / max(n - k, 1)
    between = 0.0
    if k > 1:
        weight = n - float(counts @ counts) / n
        between = max(0.0, (float(counts @ means**2) - (k - 1) * variance) / weight)
    own = np.divide(variance, counts, where=known, out=np.full(n_groups, np.inf))
    shrunk = np.where(known, between / (between + np.where(known, own, 1.0)), 0.0)
    return Prediction(
        n=n,
        mean=mean,
        slope=slope,
        center=center,
        spread=spread if spread > 1e-9 else 0.0,
        variance=variance,
        effects_variance=float((counts / n) ** 2 @ (between * (1 - shrunk))),
        effects=shrunk * means,
        known=counts >= LEAST,
    )
