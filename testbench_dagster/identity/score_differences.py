"""How a supplier's scores differ from what they were expected to be: one stream over all its tasks.

A doc that was answered before in the era differs from the mean of its earlier values: nothing has to be
learnt. A new doc differs, by half, from what is expected of it: by a line through the era's first docs over
how well the supplier's peers did on the same doc, with what the supplier is better or worse at by task, or,
of docs that fewer than two peers answered, by its own mean. So that a line that was fitted by luck raises no
alarm, 2.33 standard errors of the expectation are taken off on the side that is bet on: 99 % of lines lie
there.

What that takes of earlier docs (:class:`Learnt`) grows with the docs and tasks that there are, not with how
often they were asked: the docs themselves may be gone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbench_dagster.statistics.predictions import predict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Standard errors that are taken off: the one-sided 99 % quantile of a normal.
MARGIN = 2.33
#: New docs to fit on: 14 tasks of 50. Later ones only learn what is expected of a task that was added.
FITTED = 700
#: First docs of any task that are fitted on, whenever it was added.
FITTED_OF_TASK = 50
#: Fewest docs to fit on, and how much more there are at the next fit.
FIRST_FIT, GROWTH = 25, 1.4
#: Fewer peers on a doc say too little of how hard it is.
LEAST_PEERS = 2


@dataclass(frozen=True, slots=True)
class ScoreStream:
    """The values of a supplier's docs in an era, in order, each of shape (n,).

    ``at`` is when a doc was asked, in milliseconds since 1970 (UTC), ascending. Equal numbers in ``docs`` and
    ``tasks`` stand for one doc, one task, also in what follows the stream; those of tasks count from 0.
    ``values`` lie between 0 and 1, more is better.
    ``peers`` is how much better (from -1 to 1) other groups' suppliers were on the doc than they are on the
    whole, on average, and ``n_peers`` how many answered it: it stays the same whoever joins or leaves them.
    For what people are told: ``names`` of the tasks by their numbers, and those that it is ``asked`` today.
    """

    at: NDArray[np.int64]
    docs: NDArray[np.int64]
    tasks: NDArray[np.int64]
    values: NDArray[np.float64]
    peers: NDArray[np.float64]
    n_peers: NDArray[np.int64]
    names: Sequence[str] = ()
    asked: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Differences:
    """What is bet on, each of shape (n,).

    ``fall`` and ``rise``: from -1 to 1, of mean 0 at least while nothing falls, or rises; 0 where nothing is
    expected yet. ``low`` and ``high``: the values that were allowed for, NaN where nothing is expected.
    ``repeat`` says which docs were answered before.
    """

    fall: NDArray[np.float64]
    rise: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    repeat: NDArray[np.bool_]


#: What is known of a doc: how often it was asked, and the sum of its values.
KNOWN = [("doc", "<i8"), ("n", "<i8"), ("total", "<f8")]
#: What a line is fitted on: which of the new docs it is, from 0, and what the stream holds of it.
FITTED_ON = [("place", "<i8"), ("task", "<i8"), ("value", "<f8"), ("peers", "<f8"), ("n_peers", "<i8")]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What earlier docs of an era teach of those that follow.

    ``known`` holds the docs that were asked, by their number (fields: :data:`KNOWN`); ``new`` how many there
    are of each task, by its number; ``fitted`` those that lines are fitted on, in order (fields:
    :data:`FITTED_ON`).
    """

    known: NDArray[np.void]
    new: NDArray[np.int64]
    fitted: NDArray[np.void]


def nothing_learnt() -> Learnt:
    """What there is before the first doc."""
    import numpy as np

    return Learnt(np.zeros(0, KNOWN), np.zeros(0, np.int64), np.zeros(0, FITTED_ON))


def learn(stream: ScoreStream, n: int, repeat: NDArray[np.bool_], learnt: Learnt) -> Learnt:
    """What is learnt once the first ``n`` docs of a stream are earlier ones, too.

    Args:
        stream: the docs that followed those of ``learnt``.
        n: how many.
        repeat: which docs were answered before, those of ``learnt`` among them.
        learnt: from what came before.
    """
    import numpy as np

    new = np.flatnonzero(~repeat[:n])
    docs, place = np.unique(np.concatenate([learnt.known["doc"], stream.docs[:n]]), return_inverse=True)
    known = np.zeros(len(docs), KNOWN)
    known["doc"] = docs
    known["n"] = np.bincount(place, np.concatenate([learnt.known["n"], np.ones(n)]))
    known["total"] = np.bincount(place, np.concatenate([learnt.known["total"], stream.values[:n]]))
    before = _new_before(stream.tasks[new], learnt)
    return Learnt(
        known,
        before + np.bincount(stream.tasks[new], minlength=len(before)),
        np.concatenate([learnt.fitted, _fitted_on(stream, new, learnt)]),
    )


def differences(stream: ScoreStream, learnt: Learnt | None = None) -> Differences:
    """How the values of a stream differ from what earlier ones, and peers, let expect.

    ``learnt``: of what came before the stream; None where nothing did.
    """
    import numpy as np

    learnt = learnt or nothing_learnt()
    earlier, repeat = _earlier(stream.docs, stream.values, learnt.known)
    low, high = earlier.copy(), earlier.copy()
    new = np.flatnonzero(~repeat)
    low[new], high[new] = _expected(stream, new, learnt)
    scale = np.where(repeat, 1.0, 0.5)
    fall = np.nan_to_num((stream.values - low) * scale)
    rise = np.nan_to_num((high - stream.values) * scale)
    return Differences(fall, rise, low, high, repeat)


def away(stream: ScoreStream, found: Differences) -> NDArray[np.float64]:
    """How far each value lies from the middle of what was allowed for; NaN where nothing is expected."""
    import numpy as np

    return stream.values - np.clip((found.low + found.high) / 2, 0.0, 1.0)


def _earlier(
    docs: NDArray[np.int64], values: NDArray[np.float64], known: NDArray[np.void]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The mean of the earlier values of each doc, NaN of a new one; and which were answered before."""
    import numpy as np

    order = np.argsort(docs, kind="stable")
    of_doc, sorted_values = docs[order], values[order]
    first = np.concatenate([[True], of_doc[1:] != of_doc[:-1]]) if len(docs) else np.zeros(0, bool)
    begins = np.maximum.accumulate(np.where(first, np.arange(len(docs)), 0))
    n = np.arange(len(docs)) - begins
    sums = np.concatenate([[0.0], np.cumsum(sorted_values)])
    total = sums[:-1] - sums[begins]
    if len(known):
        place = np.minimum(np.searchsorted(known["doc"], of_doc), len(known) - 1)
        before = np.where(known["doc"][place] == of_doc, known[place], np.zeros((), known.dtype))
        n, total = n + before["n"], total + before["total"]
    mean = np.empty(len(docs))
    repeat = np.empty(len(docs), bool)
    # sums of many values leave a rest of some 1e-13
    mean[order] = np.where(n > 0, np.clip(total / np.maximum(n, 1), 0.0, 1.0), np.nan)
    repeat[order] = n > 0
    return mean, repeat


def _expected(
    stream: ScoreStream, new: NDArray[np.int64], learnt: Learnt
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and the highest value to expect of each new doc, from those before it; NaN of the first."""
    import numpy as np

    n_before = int(learnt.new.sum())
    tasks, peers = stream.tasks[new], stream.peers[new]
    n, n_tasks = n_before + len(new), len(_new_before(tasks, learnt))
    compared = stream.n_peers[new] >= LEAST_PEERS
    on = np.concatenate([learnt.fitted, _fitted_on(stream, new, learnt)])
    on_compared = on["n_peers"] >= LEAST_PEERS
    low, high = np.full(len(new), np.nan), np.full(len(new), np.nan)
    start = FIRST_FIT
    while start < n:
        end = min(int(start * GROWTH), n)
        # where peers say too little the own mean remains, learnt from all docs
        for of_peers in (False, True) if end > n_before else ():
            fitted = (on["place"] < start) & on_compared if of_peers else on["place"] < start
            covariate = np.where(compared, peers, 0.0) if of_peers else np.zeros(len(new))
            fitted_on = on[fitted]
            fitted_at = fitted_on["peers"] if of_peers else np.zeros(len(fitted_on))
            line = predict(fitted_on["value"], fitted_at, fitted_on["task"], n_tasks)
            if line is None:
                continue
            rows = np.arange(max(start, n_before), end) - n_before
            rows = rows[compared[rows]] if of_peers else rows
            expected, error = line.at(covariate[rows], tasks[rows])
            expected = np.clip(expected, 0.0, 1.0)
            slack = np.minimum(MARGIN * error, 1.0)
            low[rows] = np.where(np.isnan(expected), low[rows], expected - slack)
            high[rows] = np.where(np.isnan(expected), high[rows], expected + slack)
        start = end
    return low, high


def _fitted_on(stream: ScoreStream, new: NDArray[np.int64], learnt: Learnt) -> NDArray[np.void]:
    """Those of new docs that lines are fitted on."""
    import numpy as np

    place = int(learnt.new.sum()) + np.arange(len(new))
    tasks = stream.tasks[new]
    of_task = _place(tasks) + _new_before(tasks, learnt)[tasks]
    use = (place < FITTED) | (of_task < FITTED_OF_TASK)
    found = np.zeros(int(use.sum()), FITTED_ON)
    chosen = new[use]
    found["place"], found["task"], found["value"] = place[use], tasks[use], stream.values[chosen]
    found["peers"], found["n_peers"] = stream.peers[chosen], stream.n_peers[chosen]
    return found


def _new_before(tasks: NDArray[np.int64], learnt: Learnt) -> NDArray[np.int64]:
    """How many new docs of each task came before, by its number: of these tasks, too."""
    import numpy as np

    n = max(int(tasks.max(initial=-1)) + 1, len(learnt.new))
    return np.pad(learnt.new, (0, n - len(learnt.new)))


def _place(tasks: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many docs of its task came before each."""
    import numpy as np

    order = np.argsort(tasks, kind="stable")
    of_task = tasks[order]
    first = np.concatenate([[True], of_task[1:] != of_task[:-1]]) if len(tasks) else np.zeros(0, bool)
    begins = np.maximum.accumulate(np.where(first, np.arange(len(tasks)), 0))
    place = np.empty(len(tasks), np.int64)
    place[order] = np.arange(len(tasks)) - begins
    return place
