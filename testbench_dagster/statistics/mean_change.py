"""Has the mean of differences fallen below 0, and between which of them? Nothing has to be learnt for it.

Source of the detector: J. Shin, A. Ramdas and A. Rinaldo, "E-detectors: a nonparametric framework for
sequential change detection", New England Journal of Statistics in Data Science 2 (2024), 229-260 (arXiv
2203.03532). For differences x from -1 to 1 whose mean, given the past, is at least 0 before the change, and a
share l of the stake that is bet,

    M = (M + 1) (1 - l x),    alarm when M reaches A

has a mean time to a false alarm of at least A observations. The mean of such M over several shares is one as
well, which spares guessing how deep the fall is.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Shares of the stake that are bet: the large ones see deep falls soon, the small ones shallow falls at all.
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)

#: Variance of a kind of differences that were seen too seldom: that of a coin.
_COIN = 0.25
#: Fewer of a kind say nothing of how they vary.
_FEW = 10
#: Even where all of them were the same so far.
_LEAST_VARIANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Stretches:
    """What stretches of differences came to, one after the other; each field of shape (stretches, kinds).

    ``n``, ``total`` and ``squares`` are how many differences of a kind there are, their sum and that of their
    squares. The sum of those from any one of the stretch to its end lies between ``least`` and ``most``.
    """

    n: NDArray[np.int64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]

    @classmethod
    def of_each(cls, differences: NDArray[np.float64], kinds: NDArray[np.int64], n_kinds: int) -> Stretches:
        """A stretch of each difference; of none where one is no number."""
        import numpy as np

        here = (kinds[:, None] == np.arange(n_kinds)) & ~np.isnan(differences)[:, None]
        total = np.where(here, differences[:, None], 0.0)
        return cls(here.astype(np.int64), total, total**2, total, total)

    def __neg__(self) -> Stretches:
        """The same of the differences with the other sign."""
        return Stretches(self.n, -self.total, self.squares, -self.most, -self.least)

    def then(self, other: Stretches) -> Stretches:
        """These, and then others of as many kinds."""
        import numpy as np

        names = [part.name for part in fields(self)]
        return Stretches(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))

    def joined(self, starts: NDArray[np.int64]) -> Stretches:
        """One stretch of those from each of these places to the next; the first place is 0."""
        import numpy as np

        if not len(starts):
            return self
        so_far = np.cumsum(self.total, axis=0)
        lengths = np.diff([*starts, len(so_far)])
        later = np.repeat(so_far[starts + lengths - 1], lengths, axis=0) - so_far
        return Stretches(
            np.add.reduceat(self.n, starts),
            np.add.reduceat(self.total, starts),
            np.add.reduceat(self.squares, starts),
            np.minimum.reduceat(self.least + later, starts),
            np.maximum.reduceat(self.most + later, starts),
        )


def nothing_bet() -> NDArray[np.float64]:
    """The logarithms of M before the first difference, of shape (shares,)."""
    import numpy as np

    return np.full(len(SHARES), -np.inf)


def levels_by_share(
    differences: NDArray[np.float64], before: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The logarithm of M of each share after each difference.

    Args:
        differences: from -1 to 1, in order, of shape (n,).
        before: the same after those that came before these, of shape (shares,); None where none did.

    Returns:
        Of shape (n, shares).

    Raises:
        ValueError: a difference is not between -1 and 1.
    """
    import numpy as np

    _check(differences)
    won = np.cumsum(np.log1p(-np.multiply.outer(differences, SHARES)), axis=0)
    earlier = np.zeros_like(won)
    earlier[1:] = won[:-1]
    staked = np.logaddexp.accumulate(-earlier, axis=0)
    return won + np.logaddexp(nothing_bet() if before is None else before, staked)


def log_levels(
    differences: NDArray[np.float64], before: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """The detector's level after each difference, in nats: the logarithm of the mean of M over the shares.

    Arguments and errors are those of :func:`levels_by_share`; of shape (n,).
    """
    import numpy as np

    level = levels_by_share(differences, before)
    return np.asarray(np.logaddexp.reduce(level, axis=1) - np.log(len(SHARES)), dtype=np.float64)


def change_interval(
    differences: NDArray[np.float64],
    kinds: NDArray[np.int64],
    coverage: float = 0.95,
    before: Stretches | None = None,
) -> tuple[int, int]:
    """Between which differences the mean fell below 0, as the last one lets see it.

    The likelihood of a fall at each place, for differences that are normal around 0 before and around their
    own mean since, all places being alike beforehand. Kinds of differences vary differently; how much is
    taken from all of them, or from those since the likeliest place where that is more.

    Of stretches it is known how likely a fall at their ends is, and how likely one inside is at least and at
    most. Both ends of the interval are where they are furthest out for that.

    Args:
        differences: up to the alarm, from -1 to 1, of shape (n,).
        kinds: numbers from 0 of what varies alike, of shape (n,).
        coverage: probability of the interval; the rest is half before and half after it.
        before: stretches of differences that came before these, of all kinds that these have.

    Returns:
        First and last place of the interval, counted from the first stretch on: the first difference after
        the fall stands at one of them, or in it.

    Raises:
        ValueError: there is no difference, or one that is not between -1 and 1.
    """
    import numpy as np

    _check(differences)
    if not len(differences):
        raise ValueError("without a difference there is no change to date")
    n_kinds = int(np.max(kinds)) + 1 if before is None else before.n.shape[1]
    steps = Stretches.of_each(differences, kinds, n_kinds)
    steps = steps if before is None else before.then(steps)
    variances = _variances(steps, 0)
    likeliest = int(np.argmax(_at_starts(steps, 1 / variances)))
    # a kind that was not seen since is not there to be weighed
    since = np.where(steps.n[likeliest:].any(axis=0), _variances(steps, likeliest), 0.0)
    least, most = _inside(steps, 1 / np.maximum(variances, since))
    n = steps.n.sum(axis=1)
    few, many = (n * np.exp(found - most.max()) for found in (least, most))
    low = int(np.searchsorted(_shares(many, few), (1 - coverage) / 2))
    high = int(np.searchsorted(_shares(few, many), (1 + coverage) / 2))
    return low, min(high, len(n) - 1)


def _shares(until: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Which share lies at each place or before, by what there may be until it and what there may be after."""
    import numpy as np

    so_far = np.cumsum(until)
    rest = np.append(np.cumsum(after[:0:-1])[::-1], 0.0)
    return np.asarray(so_far / np.maximum(so_far + rest, np.finfo(np.float64).tiny), dtype=np.float64)


def _since(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum from each place on."""
    import numpy as np

    return np.cumsum(values[::-1])[::-1]


def _at_starts(steps: Stretches, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log likelihood ratio of a fall just before each stretch against none, at the mean fall since."""
    total, weight = _since(steps.total @ weights), _since(steps.n @ weights)
    return _ratio(total, weight)


def _inside(
    steps: Stretches, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the greatest that ratio may be at any difference of each stretch."""
    import numpy as np

    total, weight = _since(steps.total @ weights), _since(steps.n @ weights)
    after, lighter = (np.append(values[1:], 0.0) for values in (total, weight))
    lighter = np.where(steps.n.sum(axis=1) > 1, lighter, weight)
    least = _ratio(after + steps.most @ weights, weight)
    return least, _ratio(after + steps.least @ weights, lighter)


def _ratio(total: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    return np.where(total < 0, total**2 / (2 * weight), 0.0)


def _variances(steps: Stretches, since: int) -> NDArray[np.float64]:
    """The variance of each kind's differences from a place on."""
    import numpy as np

    n = steps.n[since:].sum(axis=0)
    mean, square = (values[since:].sum(axis=0) / np.maximum(n, 1) for values in (steps.total, steps.squares))
    return np.where(n < _FEW, _COIN, np.maximum(square - mean**2, _LEAST_VARIANCE))


def _check(differences: NDArray[np.float64]) -> None:
    import numpy as np

    if not np.all(np.abs(differences) <= 1):  # also where one is no number
        raise ValueError("a difference of the stream must lie between -1 and 1")
