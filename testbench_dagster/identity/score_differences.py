"""How a supplier's scores differ from what they were expected to be: one stream over all its tasks.

A doc that was answered before in the era differs from the mean of its earlier values: nothing has to be
learnt. A new doc differs, by half, from what is expected of it: by a line through the era's first docs over
how well the supplier's peers did on the same doc, with what the supplier is better or worse at by task, or,
of docs that fewer than two peers answered, by its own mean. So that a line that was fitted by luck raises no
alarm, 2.33 standard errors of the expectation are taken off on the side that is bet on: 99 % of lines lie
there.
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

    ``at`` is when a doc was asked, in milliseconds since 1970 (UTC), ascending. ``docs`` and ``tasks`` are
    numbers from 0: equal ones stand for one doc, one task. ``values`` lie between 0 and 1, more is better.
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


def differences(stream: ScoreStream) -> Differences:
    """How the values of a stream differ from what earlier ones, and peers, let expect."""
    import numpy as np

    earlier, repeat = _earlier(stream.docs, stream.values)
    low, high = earlier.copy(), earlier.copy()
    new = np.flatnonzero(~repeat)
    low[new], high[new] = _expected(stream, new)
    scale = np.where(repeat, 1.0, 0.5)
    fall = np.nan_to_num((stream.values - low) * scale)
    rise = np.nan_to_num((high - stream.values) * scale)
    return Differences(fall, rise, low, high, repeat)


def _earlier(
    docs: NDArray[np.int64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The mean of the earlier values of each doc, NaN of a new one; and which were answered before."""
    import numpy as np

    order = np.argsort(docs, kind="stable")
    of_doc, sorted_values = docs[order], values[order]
    first = np.concatenate([[True], of_doc[1:] != of_doc[:-1]]) if len(docs) else np.zeros(0, bool)
    begins = np.maximum.accumulate(np.where(first, np.arange(len(docs)), 0))
    before = np.arange(len(docs)) - begins
    sums = np.concatenate([[0.0], np.cumsum(sorted_values)])
    total = sums[:-1] - sums[begins]
    mean = np.empty(len(docs))
    repeat = np.empty(len(docs), bool)
    # sums of many values leave a rest of some 1e-13
    mean[order] = np.where(first, np.nan, np.clip(total / np.maximum(before, 1), 0.0, 1.0))
    repeat[order] = ~first
    return mean, repeat


def _expected(stream: ScoreStream, new: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lowest and the highest value to expect of each new doc, from those before it; NaN of the first."""
    import numpy as np

    tasks, values, peers = stream.tasks[new], stream.values[new], stream.peers[new]
    compared = stream.n_peers[new] >= LEAST_PEERS
    n_tasks = int(tasks.max()) + 1 if len(new) else 0
    use = (np.arange(len(new)) < FITTED) | (_place(tasks) < FITTED_OF_TASK)
    low, high = np.full(len(new), np.nan), np.full(len(new), np.nan)
    start = FIRST_FIT
    while start < len(new):
        end = min(int(start * GROWTH), len(new))
        # where peers say too little the own mean remains, learnt from all docs
        for of_peers in (False, True):
            fitted = use[:start] & compared[:start] if of_peers else use[:start]
            covariate = np.where(compared, peers, 0.0) if of_peers else np.zeros(len(new))
            line = predict(values[:start][fitted], covariate[:start][fitted], tasks[:start][fitted], n_tasks)
            if line is None:
                continue
            rows = np.arange(start, end)
            rows = rows[compared[rows]] if of_peers else rows
            expected, error = line.at(covariate[rows], tasks[rows])
            expected = np.clip(expected, 0.0, 1.0)
            slack = np.minimum(MARGIN * error, 1.0)
            low[rows] = np.where(np.isnan(expected), low[rows], expected - slack)
            high[rows] = np.where(np.isnan(expected), high[rows], expected + slack)
        start = end
    return low, high


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
