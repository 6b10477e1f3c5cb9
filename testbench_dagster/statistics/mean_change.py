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


def log_levels(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """The detector's level after each difference, in nats: the logarithm of the mean of M over the shares.

    Args:
        differences: from -1 to 1, in order, of shape (n,).

    Returns:
        Of shape (n,).

    Raises:
        ValueError: a difference is not between -1 and 1.
    """
    import numpy as np

    _check(differences)
    won = np.cumsum(np.log1p(-np.multiply.outer(differences, SHARES)), axis=0)
    before = np.zeros_like(won)
    before[1:] = won[:-1]
    level = won + np.logaddexp.accumulate(-before, axis=0)
    return np.asarray(np.logaddexp.reduce(level, axis=1) - np.log(len(SHARES)), dtype=np.float64)


def change_interval(
    differences: NDArray[np.float64], kinds: NDArray[np.int64], coverage: float = 0.95
) -> tuple[int, int]:
    """Between which differences the mean fell below 0, as the last one lets see it.

    The likelihood of a fall at each place, for differences that are normal around 0 before and around their
    own mean since, all places being alike beforehand. Kinds of differences vary differently; how much is
    taken from all of them, or from those since the likeliest place where that is more.

    Args:
        differences: up to the alarm, from -1 to 1, of shape (n,).
        kinds: numbers from 0 of what varies alike, of shape (n,).
        coverage: probability of the interval; the rest is half before and half after it.

    Returns:
        First and last place of the interval: the first difference after the fall stands at one of them.

    Raises:
        ValueError: there is no difference, or one that is not between -1 and 1.
    """
    import numpy as np

    _check(differences)
    if not len(differences):
        raise ValueError("without a difference there is no change to date")
    variances = _variances(differences, kinds)
    likeliest = int(np.argmax(_likelihoods(differences, 1 / variances)))
    since = _variances(differences[likeliest:], kinds[likeliest:])
    # a kind that was not seen since is not there to be weighed
    of_kind = dict(zip(kinds[likeliest:].tolist(), since.tolist(), strict=True))
    more = np.array([of_kind.get(kind, 0.0) for kind in kinds.tolist()])
    found = _likelihoods(differences, 1 / np.maximum(variances, more))
    places = np.cumsum(np.exp(found - found.max()))
    low, high = np.searchsorted(places / places[-1], [(1 - coverage) / 2, (1 + coverage) / 2])
    return int(low), int(min(high, len(places) - 1))


def _likelihoods(differences: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log likelihood ratio of a fall just before each place against none, at the mean fall since."""
    import numpy as np

    total = np.cumsum((weights * differences)[::-1])[::-1]
    weight = np.cumsum(weights[::-1])[::-1]
    return np.where(total < 0, total**2 / (2 * weight), 0.0)


def _variances(differences: NDArray[np.float64], kinds: NDArray[np.int64]) -> NDArray[np.float64]:
    """The variance of each difference's kind."""
    import numpy as np

    found = np.full(len(differences), _COIN)
    for kind in np.unique(kinds):
        alike = kinds == kind
        if alike.sum() >= _FEW:
            found[alike] = max(float(differences[alike].var()), _LEAST_VARIANCE)
    return found


def _check(differences: NDArray[np.float64]) -> None:
    import numpy as np

    if not np.all(np.abs(differences) <= 1):  # also where one is no number
        raise ValueError("a difference of the stream must lie between -1 and 1")
