"""Do two who are taken for one still answer alike? Evidence that may be looked at after every common doc.

Of each doc that both answered, the difference d of their scores is looked at, from -1 to 1. The mean of two
e-processes is one as well (V. Vovk and R. Wang, "E-values: Calibration, combination and applications", Annals
of Statistics 49 (2021)):

* against "the mean of d is 0": bets ``prod(1 + l d)`` and ``prod(1 - l d)`` with ``l`` of :data:`SHARES`
  (I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the
  Royal Statistical Society B 86 (2024), 1-27);
* against "verdicts differ on at most ``differ`` of docs": likelihood ratios of :data:`ALTERNATIVES` (A. Wald,
  "Sequential Tests of Statistical Hypotheses", 1945), |d| being the part of a doc that differs; for values
  between 0 and 1 it is at most the interpolation of both ratios, the exponential function being convex.

Half of the weight lies on all tasks together, half is spread over the single tasks: who loses everything in
one of many tasks is found there. Of the weight on all tasks a part begins anew at every doc, the k-th with
1 / (k (k + 1)) of it: who changes after hundreds of docs on which both agreed is found nearly as soon as one
who always differed. By Ville's inequality e-values of twins reach 1 / alpha with a probability of at most
alpha, however often they are looked at.

Arrays are numpy arrays whose last axis is time; leading axes are separate samples. numpy is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

#: Bets on the difference of scores, as parts of the capital per doc.
SHARES = (0.05, 0.1, 0.2, 0.4, 0.7)
#: Share of docs on which verdicts of twins may differ, where their own repeats do not differ more often.
DIFFER = 0.05
#: Alternatives to it.
ALTERNATIVES = (0.1, 0.2, 0.35, 0.6)
#: Part of the weight on all tasks that begins anew at every doc.
ANEW = 0.2


def log_divergence(
    differences: np.ndarray, tasks: Sequence[int] | np.ndarray, n_tasks: int, differ: float = DIFFER
) -> np.ndarray:
    """Log e-value (nats) against answering alike, after each doc.

    ``differences`` of scores by doc, ``tasks`` the number of each doc's task, from 0 to ``n_tasks`` - 1.
    Raises ValueError for differences or numbers out of range.
    """
    import numpy as np

    d = np.asarray(differences, dtype=float)
    of = np.asarray(tasks, dtype=np.int64)
    if d.size and not (np.abs(d) <= 1).all():
        raise ValueError("differences of scores must lie between -1 and 1")
    if of.shape != d.shape[-1:] or (of.size and not (of.min() >= 0 and of.max() < n_tasks)):
        raise ValueError(f"want the number of each doc's task, from 0 to below {n_tasks}")
    gains, weights = _gains(d, differ)

    def log_e(capital: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.logaddexp.reduce(capital + weights, axis=0)
        return found

    together = np.logaddexp(
        math.log1p(-ANEW) + log_e(np.cumsum(gains, axis=-1)), math.log(ANEW) + log_e(_anew(gains))
    )
    asked = np.unique(of)
    # tasks of which nothing was seen yet stand at 1
    unseen = n_tasks - len(asked)
    single = np.full(d.shape, math.log(unseen) if unseen else -math.inf)
    for task in asked:
        here = np.flatnonzero(of == task)
        own = log_e(np.cumsum(gains[..., here], axis=-1))
        seen = np.searchsorted(here, np.arange(d.shape[-1]), side="right")
        path = np.concatenate([np.zeros((*d.shape[:-1], 1)), own], axis=-1)[..., seen]
        single = np.logaddexp(single, path)
    found: np.ndarray = np.logaddexp(together, single - math.log(max(n_tasks, 1))) - math.log(2)
    return found


def most_log_divergence(difference: float, differ: float = DIFFER) -> float:
    """What the log e-value is at most after docs whose differences add up, regardless of sign, to so much.

    A bet gains at most its share of each difference, a ratio its logarithm times it; weights add up to 1.
    """
    return difference * max(*SHARES, *(math.log(a / differ) for a in _alternatives(differ)))


def _alternatives(differ: float) -> list[float]:
    return [a for a in ALTERNATIVES if a > differ] or [(1 + differ) / 2]


def _gains(d: np.ndarray, differ: float) -> tuple[np.ndarray, np.ndarray]:
    """What each doc adds to the logarithm of each bet and each ratio (first axis), and their log weights."""
    import numpy as np

    alternatives = _alternatives(differ)
    part = np.abs(d)
    bets = [np.log1p(sign * share * d) for sign in (1, -1) for share in SHARES]
    ratios = [
        part * math.log(a / differ) + (1 - part) * (math.log1p(-a) - math.log1p(-differ))
        for a in alternatives
    ]
    weights = [-math.log(2 * len(bets))] * len(bets) + [-math.log(2 * len(ratios))] * len(ratios)
    return np.stack([*bets, *ratios]), np.array(weights).reshape(-1, *[1] * d.ndim)


def _anew(gains: np.ndarray) -> np.ndarray:
    """Capital of bets that begin at every doc after the first, the k-th with 1 / (k (k + 1)) of the weight.

    A bet from doc s on has S(t) - S(s) at t, with S the sum of gains: the sum over s needs S(s) once.
    """
    import numpy as np

    sums = np.cumsum(gains, axis=-1)
    starts = np.arange(1, gains.shape[-1] + 1)
    weights = -np.log(starts) - np.log1p(starts)
    begun = np.logaddexp.accumulate(weights - sums, axis=-1)
    found: np.ndarray = sums + begun  # one that begins after this doc has just its weight
    return found
