"""The mean over tasks of their mean scores: bounds valid at all times, whatever the tasks' numbers of docs.

Bets are placed in *rounds*. A round takes b docs of a task, as many as the task's rate asks for and at least
one; each of them bets 1 / b of the share that the capital risks (see
:mod:`~testbench_dagster.statistics.betting`). The capital counts after whole rounds only, where it is valid:
with K tasks of means m_k, B docs in the round and share s, its factor against the overall mean m has the mean

    product over tasks of (1 + s (m_k / m - 1) / b_k)^b_k <= (1 + s / B sum over tasks of (m_k / m - 1))^B = 1

by the inequality of arithmetic and geometric means, and because m is the mean of the m_k. So the capital is a
supermartingale over rounds, whatever the tasks' own means, and Ville's inequality holds. How many docs a
round takes must not depend on their scores: rates fixed beforehand say so, and further docs only add rounds.

Betting each doc, not the mean of one doc per task, lets the capital risk more where tasks agree: measured on
differences of right and wrong answers, intervals are 1.5 to 1.7 times as wide as z standard errors with 2 to
50 tasks of 20 to 1,300 docs; those of bets on means are up to three times as wide as these.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from testbench_dagster.core.wording import counted
from testbench_dagster.statistics import betting


@dataclass(frozen=True, slots=True)
class Rounds:
    """Scores from 0 to 1 in the order of betting, the part of the share each bets, and where rounds end.

    ``ends`` are positions of last scores. Docs that complete no round are not in it.
    """

    scores: tuple[float, ...]
    stakes: tuple[float, ...]
    ends: tuple[int, ...]

    def bounds(self, alpha: float = 0.05) -> tuple[float, float]:
        """Bounds of the mean over tasks after the last round; (0, 1) of no rounds.

        Raises ValueError for a score or an alpha that is not between 0 and 1.
        """
        import numpy as np

        scores = betting.checked_scores(self.scores)
        low, high = betting.round_bounds(
            scores, np.asarray(self.stakes), np.asarray(self.ends, dtype=int), betting.checked_alpha(alpha)
        )
        return float(low), float(high)


def bounds_of_many(many: Sequence[Rounds], alpha: float = 0.05) -> list[tuple[float, float]]:
    """The :meth:`Rounds.bounds` of many: the same numbers, those with the same rounds bet on together."""
    import numpy as np

    betting.checked_alpha(alpha)
    alike: dict[tuple[tuple[float, ...], tuple[int, ...]], list[tuple[float, ...]]] = {}
    for rounds in many:
        alike.setdefault((rounds.stakes, rounds.ends), []).append(rounds.scores)
    found: dict[Rounds, tuple[float, float]] = {}
    for (stakes, ends), samples in alike.items():
        for some in betting.batches(list(dict.fromkeys(samples)), len(stakes)):
            scores = betting.checked_scores(np.array(some, dtype=float))
            bounds = betting.round_bounds(scores, np.asarray(stakes), np.asarray(ends, dtype=int), alpha)
            for one, low, high in zip(some, *bounds, strict=True):
                found[Rounds(one, stakes, ends)] = float(low), float(high)
    return [found[rounds] for rounds in many]


def rounds_of(tasks: Sequence[Sequence[float]], rates: Sequence[float]) -> Rounds:
    """Deal the scores of tasks, each in the order they came, into rounds until a task has too few left.

    ``rates`` say how many docs of the tasks to expect, relative to each other: the task with the lowest gives
    one doc per round. They must not follow from the scores. Raises ValueError unless each task has a rate
    above 0.
    """
    if len(tasks) != len(rates) or not all(math.isfinite(rate) and rate > 0 for rate in rates):
        raise ValueError(f"want a rate above 0 of each of {counted(len(tasks), 'task')}, got {list(rates)}")
    scores: list[float] = []
    stakes: list[float] = []
    ends: list[int] = []
    if tasks:
        lowest = min(rates)
        left = [iter(task) for task in tasks]
        while True:
            done = len(ends)
            wanted = [int((done + 1) * rate / lowest) - int(done * rate / lowest) for rate in rates]
            taken = [list(islice(docs, n)) for docs, n in zip(left, wanted, strict=True)]
            if any(len(docs) < n for docs, n in zip(taken, wanted, strict=True)):
                break
            for docs in taken:
                scores += docs
                stakes += [1 / len(docs)] * len(docs)
            ends.append(len(scores) - 1)
    return Rounds(tuple(scores), tuple(stakes), tuple(ends))
