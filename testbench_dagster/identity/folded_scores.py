"""What the oldest docs of a stream of scores came to: all that is needed of them to judge those that follow.

A supplier's stream grows for as long as nothing changes. Folded, its docs cost the same whether they are of a
year or of ten: the detectors' levels, what the docs teach of later ones (``score_differences.Learnt``), and
sums over blocks of docs, to date a change. The older a block, the longer: a 32nd of its age at most, in time
and in docs. So there are at most some hundreds of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbench_dagster.identity.changes import Change
from testbench_dagster.identity.score_differences import (
    Differences,
    Learnt,
    ScoreStream,
    away,
    nothing_learnt,
)
from testbench_dagster.statistics.mean_change import Stretches, nothing_bet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Kinds of docs whose values vary differently: new ones, and repeats.
KINDS = 2
#: When the first and the last doc of a block were asked, in milliseconds since 1970, and how many ``docs``
#: there are. Of those that were bet on: what ``Stretches`` hold, by kind, and sums of their values and of the
#: lowest and highest that were allowed for.
BLOCK = [
    ("first", "<i8"),
    ("last", "<i8"),
    ("docs", "<i8"),
    ("n", "<i8", (KINDS,)),
    ("total", "<f8", (KINDS,)),
    ("squares", "<f8", (KINDS,)),
    ("least", "<f8", (KINDS,)),
    ("most", "<f8", (KINDS,)),
    ("value", "<f8"),
    ("low", "<f8"),
    ("high", "<f8"),
]
_STRETCH = ("n", "total", "squares", "least", "most")
_SUMS = ("docs", "value", "low", "high")
#: Parts of its age, in time and in docs, that a block spans at most.
_PARTS = 32
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class FoldedScores:
    """What the oldest docs of a stream came to.

    ``began`` is when the first was asked, in milliseconds since 1970, and ``n_first`` how many were within
    ``period`` days of it. ``levels``: the logarithms of M of falls and of rises, of shape (2, shares).
    ``blocks`` have the fields of :data:`BLOCK`. ``last_bet``: by number of task the last of its docs that was
    bet on, counted from 0 in the era, -1 for none. ``change``: what was seen in them, if anything.
    """

    began: int
    period: float
    n_first: int
    learnt: Learnt
    levels: NDArray[np.float64]
    blocks: NDArray[np.void]
    last_bet: NDArray[np.int64]
    change: Change | None = None

    @classmethod
    def of_none(cls, began: int, period: float) -> FoldedScores:
        """Of no doc yet: the first will have been asked at ``began``."""
        import numpy as np

        levels = np.array([nothing_bet(), nothing_bet()])
        return cls(began, period, 0, nothing_learnt(), levels, np.zeros(0, BLOCK), np.zeros(0, np.int64))

    @property
    def n(self) -> int:
        """How many docs."""
        return int(self.blocks["docs"].sum())

    @property
    def last(self) -> int:
        """When the last of them was asked, in milliseconds since 1970; when the first will be, of none."""
        return int(self.blocks["last"][-1]) if len(self.blocks) else self.began

    def holds(self, task: int) -> bool:
        """Whether there are docs of a task, by its number."""
        return task < len(self.learnt.new) and bool(self.learnt.new[task])

    def days(self, at: NDArray[np.int64]) -> NDArray[np.float64]:
        """Days since the first doc, of times in milliseconds since 1970."""
        return (at - self.began) / _DAY_MS

    @property
    def stretches(self) -> Stretches:
        """How far values were from the middle of what was allowed for, block after block."""
        return Stretches(*(self.blocks[name] for name in _STRETCH))


def blocks_of_each(stream: ScoreStream, found: Differences, n: int) -> NDArray[np.void]:
    """A block of each of the first ``n`` docs."""
    import numpy as np

    blocks = np.zeros(n, BLOCK)
    blocks["first"] = blocks["last"] = stream.at[:n]
    blocks["docs"] = 1
    each = Stretches.of_each(away(stream, found)[:n], found.repeat[:n].astype(np.int64), KINDS)
    for name in _STRETCH:
        blocks[name] = getattr(each, name)
    bet = ~np.isnan(found.low[:n])
    for name, values in (("value", stream.values), ("low", found.low), ("high", found.high)):
        blocks[name] = np.where(bet, values[:n], 0.0)
    return blocks


def joined(blocks: NDArray[np.void], newest: int, n_after: int) -> NDArray[np.void]:
    """Neighbours joined as far as their age allows.

    Args:
        blocks: one after the other, of shape (n,).
        newest: when the newest doc of the stream was asked, in milliseconds since 1970.
        n_after: how many docs came after the last block.
    """
    import numpy as np

    starts = np.array(_starts(blocks, newest, n_after), np.int64)
    if not len(starts):
        return blocks
    found = np.zeros(len(starts), BLOCK)
    found["first"] = blocks["first"][starts]
    found["last"] = blocks["last"][np.append(starts[1:], len(blocks)) - 1]
    for name in _SUMS:
        found[name] = np.add.reduceat(blocks[name], starts)
    stretches = Stretches(*(blocks[name] for name in _STRETCH)).joined(starts)
    for name in _STRETCH:
        found[name] = getattr(stretches, name)
    return found


def _starts(blocks: NDArray[np.void], newest: int, n_after: int) -> list[int]:
    """Places of the blocks that are not joined to the one before."""
    after = (blocks["docs"][::-1].cumsum()[::-1] - blocks["docs"] + n_after).tolist()
    rows = zip(blocks["first"].tolist(), blocks["last"].tolist(), blocks["docs"].tolist(), after, strict=True)
    starts: list[int] = []
    began = docs = 0
    for place, (first, last, n, n_later) in enumerate(rows):
        short = _PARTS * (last - began) <= newest - last and _PARTS * (docs + n) <= n_later
        if starts and short:
            docs += n
        else:
            starts.append(place)
            began, docs = first, n
    return starts
