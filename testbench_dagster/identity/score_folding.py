"""Folds the oldest docs of a stream of scores: what is judged afterwards is as if they were still there."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from testbench_dagster.identity.folded_scores import FoldedScores, blocks_of_each, joined
from testbench_dagster.identity.score_changes import before_stream, score_change
from testbench_dagster.identity.score_differences import Differences, ScoreStream, differences, learn
from testbench_dagster.statistics.mean_change import levels_by_share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def fold_scores(
    supplier: str, stream: ScoreStream, n: int, period: timedelta, folded: FoldedScores | None = None
) -> FoldedScores:
    """What the first ``n`` docs of a stream, and those that were folded before, came to.

    The detectors see in the rest what they would see in all, at the same doc and as sure. The interval of a
    change holds the one that would be told: where it begins or ends among folded docs, the block is in it.

    Args:
        supplier: its key.
        stream: its docs in the order in which they were asked, not those that were folded before.
        n: how many to fold, from 1.
        period: see :func:`~testbench_dagster.identity.score_changes.score_change`.
        folded: those that came before the stream.

    Raises:
        IdentityError: as there.
    """
    import numpy as np

    change = score_change(supplier, stream, period, folded)
    before = before_stream(stream, period, folded)
    found = differences(stream, before.learnt)
    blocks = np.concatenate([before.blocks, blocks_of_each(stream, found, n)])
    bet = np.flatnonzero(~np.isnan(found.low[:n]))
    seen = change is not None and change.observations <= before.n + n
    return FoldedScores(
        began=before.began,
        period=before.period,
        n_first=before.n_first + int((before.days(stream.at[:n]) <= before.period).sum()),
        learnt=learn(stream, n, found.repeat, before.learnt),
        levels=_levels(found, bet, before.levels),
        blocks=joined(blocks, int(stream.at[-1]), len(stream.at) - n),
        last_bet=_last_bet(before, stream.tasks[:n], bet),
        change=change if seen else None,
    )


def _levels(found: Differences, bet: NDArray[np.int64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    if not len(bet):
        return before
    both = zip((found.fall, found.rise), before, strict=True)
    return np.array([levels_by_share(bets[bet], level)[-1] for bets, level in both])


def _last_bet(before: FoldedScores, tasks: NDArray[np.int64], bet: NDArray[np.int64]) -> NDArray[np.int64]:
    import numpy as np

    n = max(int(tasks.max(initial=-1)) + 1, len(before.last_bet))
    found = np.pad(before.last_bet, (0, n - len(before.last_bet)), constant_values=-1)
    np.maximum.at(found, tasks[bet], before.n + bet)
    return found
