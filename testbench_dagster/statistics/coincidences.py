"""Whether what happens to two happens together: e-values for pairs of histories, against "each by itself".

All three keep what each history looks like on the large scale, and ask about the small one: within a stretch
of time the null hypothesis moves one history against the other, and finds that things fall together more
often than that allows. It is the idea of the jitter method for the spikes of nerve cells (A. Amarasingham,
M. Harrison, N. Hatsopoulos and S. Geman, "Conditional modeling and the jitter method of spike resampling",
Journal of Neurophysiology 107 (2012), 517-531): whatever makes both rise over hours is no evidence.

* events: each of one history's lies anywhere in its stretch, evenly over time, so it meets one of the other's
  with a known chance;
* steps between neighbouring stretches, up or down: one history's direction says nothing of the other's;
* draws: the two answers of one to the same question may be swapped.

Numbers are nats. numpy is imported on use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from testbench_dagster.statistics.evalues import gain_of_agreement, log_e_at_most, log_mean_exp

if TYPE_CHECKING:
    import numpy as np

#: Alternatives, as shares of the way from the chance of a coincidence to 1.
SHARES = (0.2, 0.4, 0.6, 0.8, 0.95)


def chances_of_onsets(
    at: np.ndarray, second: np.ndarray, block: float, profile: np.ndarray | None = None
) -> np.ndarray:
    """The chance of each place that the first history begins there where the second does, in its block.

    ``at`` are the times at which both were looked at, ascending; ``second`` says whether the second began
    between the look before and this one. Several ways in which the first may begin by itself are allowed for,
    and the largest chance is taken, which holds for any mixture of them: evenly over time, so that a place
    weighs as much as the time since the look before (``block`` at most; two that begin anywhere in a night
    are both seen in the morning), and evenly over looks, as single requests fail; and both by the hour of the
    day, as often as ``profile`` (24 numbers) says. The first look of all has none before it and weighs
    nothing. Returned per place: the weight, within its block, of those where the second begins. Blocks are
    cut from 0 of the clock that ``at`` is on, in seconds.
    """
    import numpy as np

    number = np.floor(at / block).astype(np.int64)
    _, place = np.unique(number, return_inverse=True)
    evenly = np.ones(len(at))
    evenly[:1] = 0.0
    weights = [np.minimum(np.diff(at, prepend=at[:1]), block), evenly]
    if profile is not None:
        by_hour = profile[np.floor(at % 86400 / 3600).astype(np.int64)]
        weights += [weight * by_hour for weight in weights]
    found: np.ndarray = np.zeros(len(at))
    for weight in weights:
        total = np.bincount(place, weights=weight)
        met = np.bincount(place, weights=weight * second)
        found = np.maximum(found, (met / np.maximum(total, 1e-300))[place])
    return found


def log_e_of_events(hits: np.ndarray, chances: np.ndarray, shares: Sequence[float] = SHARES) -> float:
    """Log e-value against "each event is a hit with at most its own chance", whatever came before it.

    Events that could hardly be missed (a chance above one half) say too little to be counted.
    """
    import numpy as np

    telling = (chances > 0) & (chances <= 0.5)
    hit = hits[telling].astype(bool)
    gained = chances[telling][hit]
    missed = int(len(hit) - hit.sum()) + int(((chances <= 0) & ~hits.astype(bool)).sum())
    return float(
        log_mean_exp([float(np.sum(gain_of_agreement(gained, k))) + missed * math.log1p(-k) for k in shares])
    )


def steps(values: np.ndarray, at: np.ndarray, most: float) -> np.ndarray:
    """Differences between neighbouring columns, each of which is used once at most; nan where unknown.

    ``values`` are rows by times ``at`` (ascending), nan where nothing is known. Two columns are neighbours if
    they are no further apart than ``most``.
    """
    import numpy as np

    pairs, i = [], 0
    while i + 1 < len(at):
        if at[i + 1] - at[i] <= most:
            pairs.append(i)
            i += 2
        else:
            i += 1
    chosen = np.array(pairs, dtype=np.int64)
    found: np.ndarray = values[:, chosen + 1] - values[:, chosen]
    return found


def without_common(moves: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Steps of each row less what follows ``common`` in it: the residuals of a line through 0, by row.

    Only one of two rows that are compared is freed of what is common: subtracted from both, the noise of the
    common part itself would make them alike.
    """
    import numpy as np

    found: np.ndarray = np.full(moves.shape, np.nan)
    for row, own in enumerate(moves):
        known = ~np.isnan(own) & ~np.isnan(common)
        if not known.any():
            continue
        y, x = own[known], common[known]
        # bounded, so that one wild step decides no slope
        m, c = (np.clip(v, -bound, bound) for v in (y, x) for bound in [4 * np.median(np.abs(v)) + 1e-9])
        found[row, known] = y - float(m @ c) / max(float(c @ c), 1e-300) * x
    return found


def log_e_of_directions(
    first: np.ndarray, second: np.ndarray, null: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log e-values of all pairs of rows against "steps go the same way on at most ``null`` of them".

    Returned are, rows of ``first`` by rows of ``second``: the e-value, how many steps were the same way, and
    of how many. A step is a fair coin where one's two values may be swapped whatever the other does.
    """
    import numpy as np

    one, two = (np.sign(np.nan_to_num(x)).astype(np.float32) for x in (first, second))
    known = np.abs(one) @ np.abs(two).T
    alike = np.rint((known + one @ two.T) / 2).astype(np.int64)
    tosses = np.rint(known).astype(np.int64)
    return log_e_at_most(alike, tosses - alike, null, SHARES), alike, tosses


def log_e_of_coins(heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """Log e-value against "heads come in half of the tosses at most"."""
    return log_e_at_most(heads, tails, 0.5, SHARES)


def same_draws(
    first: np.ndarray, second: np.ndarray, straight: np.ndarray, crossed: np.ndarray, rows: np.ndarray
) -> None:
    """Count for all pairs of rows whether their draws agree as they were made, or only if swapped.

    ``first`` and ``second`` number the two answers of each of ``rows`` to one question, which differ. A pair
    counts once: ``straight`` where more of their answers are equal each at its time, ``crossed`` where more
    are once one's are swapped, neither where as many are. Both matrices are counted up in place.
    """
    import numpy as np

    as_made = (first[:, None] == first).astype(np.int8) + (second[:, None] == second)
    swapped = (first[:, None] == second).astype(np.int8) + (second[:, None] == first)
    cross = np.ix_(rows, rows)
    straight[cross] += as_made > swapped
    crossed[cross] += swapped > as_made
