"""Common prompts of pairs of suppliers, and on how many of them they answered alike.

All pairs of a few suppliers are counted once and kept. Of many they would take memory that grows with the
square of their number: then pairs are counted when somebody asks, in blocks. What is found is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from testbench_dagster.identity.evidence import NONE

if TYPE_CHECKING:
    import numpy as np

#: Suppliers up to which the counts of all pairs are kept: 32 MB.
_CACHED = 2_000
#: Cells of a comparison below which many calls cost more than a large intermediate array.
_SMALL = 4_096
#: Rows and columns that are compared at a time: what is added up stays in the cache of a processor.
_ROWS, _COLUMNS = 32, 8_192
#: Pairs in a block.
_PAIRS = 1_000_000
#: What a sum of eight bits can hold.
_MOST = 255


class Block(NamedTuple):
    """Counts of suppliers ``rows`` with suppliers ``columns``: two arrays (rows x columns) of 16 bits."""

    rows: np.ndarray
    columns: np.ndarray
    common: np.ndarray
    agree: np.ndarray


class Cells:
    """A matrix of answers, rows x prompts of small numbers, laid out so that rows are compared quickly."""

    def __init__(self, cells: np.ndarray) -> None:
        import numpy as np

        self.size, self.prompts = cells.shape
        self._by_prompt = np.ascontiguousarray(cells.T)
        self._there = (cells != NONE).astype(np.float32)
        self._complete = bool((cells != NONE).all())

    def counts(self, rows: np.ndarray, other: Cells, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Common prompts of some rows with some of another matrix, and agreements, as a block has them."""
        import numpy as np

        if self._complete and other._complete:
            common = np.full((len(rows), len(columns)), self.prompts, dtype=np.uint16)
        else:
            common = (self._there[rows] @ other._there[columns].T).astype(np.uint16)
        ours = self._some(rows)
        ours = np.where(ours == NONE, NONE - 1, ours)  # two that lack an answer do not look alike
        return common, _agreements(ours, other._some(columns))

    def _some(self, rows: np.ndarray) -> np.ndarray:
        """Prompts x rows, each prompt's numbers side by side: otherwise comparing takes ten times as long."""
        if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (rows[1:] > rows[:-1]).all():
            return self._by_prompt[:, rows[0] : rows[-1] + 1]  # they follow each other: no copy
        return self._by_prompt.take(rows, axis=1)


def _agreements(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """How many numbers of each column of one matrix are those of each column of another."""
    import numpy as np

    rows, columns = ours.shape[1], theirs.shape[1]
    if rows * columns <= _SMALL:
        same: np.ndarray = (ours[:, :, None] == theirs[:, None, :]).sum(axis=0, dtype=np.uint16)
        return same
    agree = np.zeros((rows, columns), dtype=np.uint16)
    for i in range(0, rows, _ROWS):
        for j in range(0, columns, _COLUMNS):
            part = agree[i : i + _ROWS, j : j + _COLUMNS]
            few = np.empty(part.shape, dtype=np.uint8)
            alike = np.empty(part.shape, dtype=bool)
            for start in range(0, len(ours), _MOST):
                few[:] = 0
                for t in range(start, min(start + _MOST, len(ours))):
                    np.equal(ours[t, i : i + _ROWS, None], theirs[t, None, j : j + _COLUMNS], out=alike)
                    np.add(few, alike.view(np.uint8), out=few)
                part += few
    return agree


def agreements(rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Common prompts and agreements of all pairs of rows of two matrices of answer prefixes (-1: none).

    Two arrays (rows x columns), of 16 bits: up to 65,535 prompts.
    """
    import numpy as np

    return Cells(rows).counts(np.arange(len(rows)), Cells(columns), np.arange(len(columns)))


class Counts:
    """Counts of any pairs of the suppliers of a matrix (suppliers x prompts of numbers, -1 for no answer)."""

    def __init__(self, cells: np.ndarray) -> None:
        import numpy as np

        self.size, self.prompts = cells.shape
        self._plain = cells
        self._cells = Cells(cells)
        self._cached: tuple[np.ndarray, np.ndarray] | None = None
        if self.size <= _CACHED:
            every = np.arange(self.size)
            self._cached = self._cells.counts(every, self._cells, every)

    def cross(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Common prompts and agreements of each of some suppliers with each of others: rows x columns."""
        import numpy as np

        if self._cached is not None:
            at = np.ix_(rows, columns)
            return self._cached[0][at], self._cached[1][at]
        return self._cells.counts(rows, self._cells, columns)

    def of_pairs(self, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Common prompts and agreements of pairs ``first[p]`` and ``second[p]``."""
        import numpy as np

        if self._cached is not None:
            return self._cached[0][first, second], self._cached[1][first, second]
        common = np.empty(len(first), dtype=np.uint16)
        agree = np.empty_like(common)
        for start in range(0, len(first), 8_192):
            part = slice(start, start + 8_192)
            ours, theirs = self._plain[first[part]], self._plain[second[part]]
            there = ours != NONE
            common[part] = np.count_nonzero(there & (theirs != NONE), axis=1)
            agree[part] = np.count_nonzero(there & (ours == theirs), axis=1)
        return common, agree

    def blocks(self, members: np.ndarray | None = None) -> Iterator[Block]:
        """All pairs of some suppliers, of all by default: each once at least, in blocks along the diagonal.

        A block's columns begin where its rows do, so pairs whose row is not before their column are to be
        left out.
        """
        import numpy as np

        chosen = np.arange(self.size) if members is None else members
        height = max(1, _PAIRS // max(1, len(chosen)))
        for start in range(0, len(chosen), height):
            rows, columns = chosen[start : start + height], chosen[start:]
            common, agree = self.cross(rows, columns)
            yield Block(rows, columns, common, agree)
