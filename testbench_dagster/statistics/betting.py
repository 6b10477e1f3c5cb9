"""Bets against values of the mean of scores from 0 to 1: what betting intervals and sequences are made of.

Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of
the Royal Statistical Society B 86 (2024), 1-27. Against a mean of m are bet

    K+ = product of 1 + l (x - m), l at most 1 / m    and    K- = the same of 1 - x against 1 - m.

Where each bet l depends on earlier scores only, both are martingales of mean 1 if the mean is m. By Ville's
inequality K+ or K- then ever reaches 2 / alpha with a probability of at most alpha: a mean is refuted by it.
K+ falls in m factor by factor and K- rises, so what is not refuted is an interval, its ends found by
bisection.

* For one number of scores, fixed beforehand: the predictable plug-in bets of their section 4.4 (hedged
  capital), of the spread of the earlier scores and at most ``MOST_AT_STAKE`` / m.
* For all times: the capital is spread over constant bets, shares of 1 / m (their "diversified Kelly"
  betting), and the mean of the parts is the capital. It grows nearly as fast as the best of them and never
  has to shrink its bets as time goes on: measured on differences of right and wrong answers, intervals are
  1.4 to 1.6 times as wide as z standard errors at 50 to 1,300 docs, those of shrinking plug-in bets 1.5 to
  1.9 times.

Scores drawn without replacement from a bank of N have a conditional mean that moves: (N m - sum so far) over
the number left takes the place of m (I. Waudby-Smith and A. Ramdas, "Confidence sequences for sampling
without replacement", NeurIPS 2020; section 5 of the paper above).

Arrays are numpy arrays whose last axis is time; leading axes are separate samples. numpy is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np

_Sample = TypeVar("_Sample")

#: Largest share of the capital that one score may cost a plug-in bet.
MOST_AT_STAKE = 0.5
#: Constant bets, as shares of the largest possible one; the small ones are for very many scores.
SHARES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_BISECTIONS = 40  # to 2^-40
_AT_ONCE = 200_000  # capitals that are worked out together


def checked_scores(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The scores as an array of floats. Raises ValueError for one that is not between 0 and 1, or nan."""
    import numpy as np

    scores: np.ndarray = np.asarray(values, dtype=float)
    wrong = scores[~((scores >= 0) & (scores <= 1))]
    if wrong.size:
        raise ValueError(f"a score must lie between 0 and 1, got {wrong[0]}")
    return scores


def checked_alpha(alpha: float) -> float:
    """The error probability. Raises ValueError unless it lies between 0 and 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, such as 0.05; got {alpha}")
    return alpha


def refuting(alpha: float) -> float:
    """The logarithm of the capital that refutes a mean from one side, half of ``alpha`` being its share."""
    return math.log(2 / alpha)


def batches(samples: Sequence[_Sample], size: int) -> Iterator[Sequence[_Sample]]:
    """Samples of ``size`` scores each, so many at a time that the capitals of all shares fit a cache."""
    rows = max(1, _AT_ONCE // (len(SHARES) * max(1, size)))
    return (samples[start : start + rows] for start in range(0, len(samples), rows))


# ------------------------------------------------------------------------------------ one number of scores


def fixed_bounds(scores: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of what is not refuted by the scores, one pair per sample."""
    import numpy as np

    if not scores.shape[-1]:
        return np.zeros(scores.shape[:-1]), np.ones(scores.shape[:-1])
    bets = _plug_in_bets(scores, alpha)

    def lower(x: np.ndarray) -> np.ndarray:
        def capital(mean: np.ndarray) -> np.ndarray:
            return _plug_in_capital(x, bets, mean[..., None])

        return _smallest_not_refuted(capital, scores.shape[:-1], alpha)

    return lower(scores), 1 - lower(1 - scores)


def _plug_in_bets(scores: np.ndarray, alpha: float) -> np.ndarray:
    """The bet on each score, from the spread of those before it; mirrored scores get the same."""
    import numpy as np

    n = scores.shape[-1]
    t = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(scores, axis=-1)) / (t + 1)
    spreads = (0.25 + np.cumsum((scores - means) ** 2, axis=-1)) / (t + 1)
    before = np.concatenate([np.full((*scores.shape[:-1], 1), 0.25), spreads[..., :-1]], axis=-1)
    bets: np.ndarray = np.sqrt(2 * refuting(alpha) / (before * n))
    return bets


def _plug_in_capital(scores: np.ndarray, bets: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Logarithm of K+ after each score."""
    import numpy as np

    limit = np.divide(MOST_AT_STAKE, mean, out=np.full(mean.shape, np.inf), where=mean > 0)
    return np.cumsum(np.log1p(np.minimum(bets, limit) * (scores - mean)), axis=-1)


# ------------------------------------------------------------------------------------------- for all times


def anytime_bounds(
    scores: np.ndarray, alpha: float, bank: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of what was never refuted, from the first score to the last; one pair per sample."""
    import numpy as np

    def lower(x: np.ndarray) -> np.ndarray:
        def capital(mean: np.ndarray) -> np.ndarray:
            return spread_capital(x, mean[..., None], bank, least=refuting(alpha))

        return _smallest_not_refuted(capital, x.shape[:-1], alpha)

    low, high = _both_ends(lower, scores)
    if bank is None:
        return low, high
    # of a bank what was seen is certain, and goes before what was refuted, which errs once in a while
    least = scores.sum(axis=-1) / bank
    most = least + (bank - scores.shape[-1]) / bank
    low, high = np.clip(low, least, most), np.clip(high, least, most)
    return np.minimum(low, high), np.maximum(low, high)


def round_bounds(
    scores: np.ndarray, stakes: np.ndarray, ends: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of what was never refuted after a whole round; one pair per sample.

    Each score bets its ``stakes``, a part of 0 to 1, of the share; ``ends`` are the positions at which the
    capital counts. See :mod:`~testbench_dagster.statistics.strata`.
    """

    def lower(x: np.ndarray) -> np.ndarray:
        def capital(mean: np.ndarray) -> np.ndarray:
            every = spread_capital(x, mean[..., None], stakes=stakes, least=refuting(alpha))
            found: np.ndarray = every[..., ends]
            return found

        return _smallest_not_refuted(capital, x.shape[:-1], alpha)

    return _both_ends(lower, scores)


def _both_ends(
    lower: Callable[[np.ndarray], np.ndarray], scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of what is not refuted: that of the scores, and of the mirrored ones from above."""
    import numpy as np

    if scores.ndim > 1:  # so many samples take no more calls than one, and twice of them more memory
        return lower(scores), 1 - lower(1 - scores)
    both = lower(np.stack([scores, 1 - scores]))
    return both[0], 1 - both[1]


def spread_capital(
    scores: np.ndarray,
    mean: np.ndarray,
    bank: int | None = None,
    stakes: np.ndarray | float = 1.0,
    least: float | None = None,
) -> np.ndarray:
    """Logarithm of K+ against ``mean`` after each score, the capital spread over ``SHARES``.

    ``stakes`` are the parts of a share that the scores bet. A mean that a ``bank`` of so many docs cannot
    have after what was seen is refuted by an infinite capital. ``least``: capitals that are surely smaller
    may be given as none at all, which saves most of the work.
    """
    import numpy as np

    if bank is not None:
        seen = np.cumsum(scores, axis=-1) - scores
        mean = (bank * mean - seen) / (bank - np.arange(scores.shape[-1]))
    gone = np.logical_or.accumulate(np.broadcast_to(mean < -1e-9, scores.shape), axis=-1)
    # a mean of 0 is refuted by any score above it
    ratio = np.divide(scores, mean, out=np.where(scores > 0, np.inf, 1.0), where=mean > 1e-12)
    bets = np.array(SHARES).reshape(-1, *(1 for _ in ratio.shape)) * stakes
    parts = bets * (ratio - 1)
    np.cumsum(np.log1p(parts, out=parts), axis=-1, out=parts)
    if least is None:
        capital = np.logaddexp.reduce(parts, axis=0) - math.log(len(SHARES))
    else:
        # no mean of capitals is above the largest of them
        near = parts.max(axis=0) >= least - 1e-6
        capital = np.full(near.shape, -np.inf)
        capital[near] = np.logaddexp.reduce(parts[:, near], axis=0) - math.log(len(SHARES))
    return np.where(gone, np.inf, capital)


def _smallest_not_refuted(
    capital: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], alpha: float
) -> np.ndarray:
    """The largest mean found refuted at any time, 0 where none is: a bound to within 2^-40, outwards."""
    import numpy as np

    low, high = np.zeros(shape), np.ones(shape)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        out = capital(middle).max(axis=-1, initial=-np.inf) >= refuting(alpha)
        low, high = np.where(out, middle, low), np.where(out, high, middle)
    return low
