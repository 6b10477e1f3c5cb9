"""Whole answers of suppliers to common docs: what a group takes besides answers that begin alike.

Beginnings are easily copied: a supplier may send the first words of another's answer and then nonsense, or
cut it short. So those who are to be grouped must also have given equal answers: what the task's filter
extracted, or the whole answer where nothing is extracted, on enough common docs. Probes count among these,
since they are short; docs of tasks, where there are some, have to be equal by themselves too.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from testbench_dagster.identity.answers import microseconds
from testbench_dagster.identity.evidence import NONE
from testbench_dagster.identity.pairs import majorities
from testbench_dagster.identity.settings import IdentitySettings

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """One scored answer of a supplier to a doc of a task, or that it left the doc unanswered for good.

    ``text`` is what was extracted of it, or the whole of it; ``value`` its score where that lies between 0
    and 1, None where it has none (probes). ``at`` is when it came, with a time zone. ``failed``: there is no
    answer, and the doc counts as the worst value; silence is like nobody's and unlike nobody's.
    """

    supplier: str
    task: str
    doc: str
    at: datetime
    text: str
    value: float | None
    failed: bool = False


class Content:
    """The newest answers of some suppliers as a matrix: suppliers x docs, equal numbers for equal answers."""

    def __init__(
        self, answers: Iterable[GradedAnswer] = (), settings: IdentitySettings | None = None
    ) -> None:
        self._settings = settings or IdentitySettings()
        self._names: tuple[dict[str, int], dict[tuple[str, str], int], dict[str, int]] = ({}, {}, {})
        # a column each: as many objects would take ten times the memory
        self._by, self._to, self._said, self._has_value = (array("i") for _ in range(4))
        self._at = array("q")
        self.add(answers)

    def add(self, answers: Iterable[GradedAnswer]) -> None:
        """Take more answers, before anything is asked of all of them."""
        suppliers, docs, texts = self._names
        for one in answers:
            if not one.failed:
                self._by.append(suppliers.setdefault(one.supplier, len(suppliers)))
                self._to.append(docs.setdefault((one.task, one.doc), len(docs)))
                self._said.append(texts.setdefault(one.text, len(texts)))
                self._has_value.append(one.value is not None)
                self._at.append(microseconds(one.at))

    @cached_property
    def _newest(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrix, and which docs have scores."""
        import numpy as np

        suppliers, docs, _ = self._names
        by, to, said, has_value = (
            np.asarray(column) for column in (self._by, self._to, self._said, self._has_value)
        )
        # of those of one instant the first that was taken
        order = np.lexsort((-np.arange(len(by)), np.asarray(self._at), to, by))
        by, to, said, has_value = (column[order] for column in (by, to, said, has_value))
        last = np.append((by[1:] != by[:-1]) | (to[1:] != to[:-1]), True)[: len(by)]
        cells: np.ndarray = np.full((len(suppliers), len(docs)), NONE, dtype=np.int32)
        cells[by[last], to[last]] = said[last]
        scored = np.zeros(len(docs), dtype=bool)
        scored[to[last & (has_value > 0)]] = True
        return cells, scored

    @property
    def _cells(self) -> np.ndarray:
        return self._newest[0]

    @property
    def _scored(self) -> np.ndarray:
        return self._newest[1]

    @property
    def _rows(self) -> Mapping[str, int]:
        return self._names[0]

    def alike(self, ours: Sequence[str], theirs: Sequence[str]) -> bool:
        """Whether two clusters of suppliers gave equal answers often enough, on enough common docs.

        Most of each cluster to most of the other, and no pair across them that has enough docs and is not.
        """
        import numpy as np

        i, j = (np.array([self._rows[s] for s in side if s in self._rows]) for side in (ours, theirs))
        if not len(i) or not len(j):
            return False
        one, two = (majorities(self._cells[k], np.zeros(len(k), dtype=np.int64), 1)[0] for k in (i, j))
        common, agree = _counts(one, two)
        tasks_common, tasks_agree = _counts(one[self._scored], two[self._scored])
        settings = self._settings
        if common < settings.form_docs or agree < settings.form_share * common:
            return False
        if tasks_common >= settings.least_common and tasks_agree < settings.form_share * tasks_common:
            return False
        return not any(self._unlike(self._cells[k], self._cells[j]) for k in i)

    def common(self, one: str, other: str) -> tuple[int, int]:
        """Common docs of two suppliers, and to how many of them they gave equal answers."""
        if one not in self._rows or other not in self._rows:
            return 0, 0
        return _counts(self._cells[self._rows[one]], self._cells[self._rows[other]])

    def unlike(self, one: str, other: str) -> tuple[int, int] | None:
        """Common docs of two suppliers and how many answers are equal, where that are too few for a group."""
        common, agree = self.common(one, other)
        enough = common >= self._settings.form_docs
        return (common, agree) if enough and agree < self._settings.form_share * common else None

    def _unlike(self, row: np.ndarray, others: np.ndarray) -> bool:
        both = (others != NONE) & (row != NONE)
        common = both.sum(axis=1)
        agree = (both & (others == row)).sum(axis=1)
        enough = common >= self._settings.form_docs
        return bool((enough & (agree < self._settings.form_share * common)).any())


def _counts(one: np.ndarray, two: np.ndarray) -> tuple[int, int]:
    both = (one != NONE) & (two != NONE)
    return int(both.sum()), int((both & (one == two)).sum())


def graded_by_supplier(answers: Iterable[GradedAnswer]) -> Mapping[str, list[GradedAnswer]]:
    """Answers by supplier, each in the order they came."""
    found: dict[str, list[GradedAnswer]] = {}
    for one in sorted(answers, key=lambda a: (a.at, a.task, a.doc)):
        found.setdefault(one.supplier, []).append(one)
    return found
