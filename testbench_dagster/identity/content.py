"""Whole answers of suppliers to common docs: what a group takes besides answers that begin alike.

Beginnings are easily copied: a supplier may send the first words of another's answer and then nonsense, or
cut it short. So those who are to be grouped must also have given equal answers: what the task's filter
extracted, or the whole answer where nothing is extracted, on enough common docs. Probes count among these,
since they are short; docs of tasks, where there are some, have to be equal by themselves too.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


_AT_ONCE = 1_000_000  # answers that are put into their order together


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
        self._by, self._to, self._said, self._has_value, self._at = self._columns()
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

    def settle(self) -> None:
        """Keep the newest answers alone, in a quarter of the memory, before other large tables are made."""
        _ = self._newest

    @cached_property
    def _newest(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrix, and which docs have scores."""
        import numpy as np

        suppliers, docs, _ = self._names
        cells: np.ndarray = np.full((len(suppliers), len(docs)), NONE, dtype=np.int32)
        given_at: np.ndarray = np.full(cells.shape, np.iinfo(np.int64).min)
        scored = np.zeros(cells.shape, dtype=bool)
        # in parts: the order of all at once would take as much memory again
        for start in range(0, len(self._by), _AT_ONCE):
            by, to, said, has_value, at = (
                np.asarray(column[start : start + _AT_ONCE])
                for column in (self._by, self._to, self._said, self._has_value, self._at)
            )
            # of those of one instant the first that was taken
            order = np.lexsort((-np.arange(len(by)), at, to, by))
            by, to, said, has_value, at = (column[order] for column in (by, to, said, has_value, at))
            last = np.append((by[1:] != by[:-1]) | (to[1:] != to[:-1]), True)
            last &= at > given_at[by, to]
            by, to = by[last], to[last]
            cells[by, to], given_at[by, to] = said[last], at[last]
            scored[by, to] = has_value[last] > 0
        # nobody asks for them any more
        self._by, self._to, self._said, self._has_value, self._at = self._columns()
        with_scores: np.ndarray = np.any(scored, axis=0)
        return cells, with_scores

    @staticmethod
    def _columns() -> tuple[array[int], array[int], array[int], array[int], array[int]]:
        """Supplier, doc, answer, whether it has a score, and when it came."""
        return array("i"), array("i"), array("i"), array("b"), array("q")

    @property
    def _cells(self) -> np.ndarray:
        return self._newest[0]

    @property
    def _scored(self) -> np.ndarray:
        return self._newest[1]

    @property
    def _rows(self) -> Mapping[str, int]:
        return self._names[0]

    def together(self, suppliers: Iterable[str]) -> Together:
        """What a cluster of suppliers answered; those of whom nothing is known take no part."""
        import numpy as np

        rows = [self._rows[s] for s in suppliers if s in self._rows]
        return Together(self._cells, np.array(rows, dtype=np.int64), self._settings.form_share)

    def alike(self, ours: Together | Sequence[str], theirs: Together | Sequence[str]) -> bool:
        """Whether two clusters of suppliers gave equal answers often enough, on enough common docs.

        Most of each cluster to most of the other, and no pair across them that has enough docs and is not.
        """
        one = ours if isinstance(ours, Together) else self.together(ours)
        two = theirs if isinstance(theirs, Together) else self.together(theirs)
        if not len(one.rows) or not len(two.rows):
            return False
        common, agree = _counts(one.profile, two.profile)
        tasks_common, tasks_agree = _counts(one.profile[self._scored], two.profile[self._scored])
        settings = self._settings
        if common < settings.form_docs or agree < settings.form_share * common:
            return False
        if tasks_common >= settings.least_common and tasks_agree < settings.form_share * tasks_common:
            return False
        large, small = (one, two) if len(one.rows) >= len(two.rows) else (two, one)
        pairs = large.doubtful(small.rows, settings.form_docs)
        return not any(self._unlike(self._cells[row], self._cells[others]) for row, others in pairs)

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


class Together:
    """What suppliers of a cluster answered: ``rows`` of the matrix, and the answers of most to each doc.

    ``profile[t]`` is the answer that more than half of the rows that answered doc t gave, -1 where none is.

    How many gave which answer is kept, and how far each row is from a yardstick: one more row costs a look at
    its own answers, however many there are. The yardstick is the profile as it was when the rows were half
    as many. Two rows differ on no more docs than both together differ from it on, whatever it is: so nearly
    all pairs are known to be alike that are, without being looked at.
    """

    def __init__(self, cells: np.ndarray, rows: np.ndarray, share: float) -> None:
        import numpy as np

        self._cells, self._share = cells, share
        self.rows = rows
        #: By doc and answer how many gave it; counted when it is needed.
        self._votes: dict[int, int] | None = None
        if len(rows) == 1:
            self.profile = cells[rows[0]].copy()
        else:
            self.profile = majorities(cells[rows], np.zeros(len(rows), dtype=np.int64), 1)[0]
        self._voters = (cells[rows] != NONE).sum(axis=0)
        self._set_yardstick()

    def join(self, other: Together) -> Together:
        """Both together. Neither of the two is used again."""
        import numpy as np

        into, taken = (self, other) if len(self.rows) >= len(other.rows) else (other, self)
        votes, width = into._counted(), len(into.profile)
        into._voters = into._voters + taken._voters
        voters, profile = into._voters, into.profile
        docs = set()
        for place, n in taken._counted().items():
            votes[place] = count = votes.get(place, 0) + n
            answer, doc = divmod(place, width)
            docs.add(doc)
            if 2 * count > voters[doc]:
                profile[doc] = answer
        for doc in docs:
            answer = int(profile[doc])
            if answer != NONE and 2 * votes.get(answer * width + doc, 0) <= voters[doc]:
                profile[doc] = NONE
        into.rows = np.concatenate([into.rows, taken.rows])
        if len(into.rows) >= 2 * into._measured:
            into._set_yardstick()
        else:
            away, excess = into._away_of(taken.rows)
            into._away, into._excess = np.append(into._away, away), np.append(into._excess, excess)
        return into

    def doubtful(self, rows: np.ndarray, least: int) -> Iterator[tuple[int, np.ndarray]]:
        """Rows of another cluster, each with those of this one that may differ from it on too many docs.

        Of pairs with fewer than ``least`` common docs nothing is asked.
        """
        import numpy as np

        slack = 1e-6  # of shares of docs, whose products are rounded
        few = (1 - self._share) * least - slack
        # two have no fewer common docs than they answered more than there are
        many = -(1 - self._share) * len(self.profile) - slack
        away, excess = self._away_of(rows)
        beyond = (away + self._away.max() > few) & (excess + self._excess.max() > many)
        for place in np.flatnonzero(beyond).tolist():
            doubted = (away[place] + self._away > few) & (excess[place] + self._excess > many)
            if doubted.any():
                yield int(rows[place]), self.rows[doubted]

    def _set_yardstick(self) -> None:
        self._yardstick, self._measured = self.profile.copy(), len(self.rows)
        self._away, self._excess = self._away_of(self.rows)

    def _away_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """On how many docs rows differ from the yardstick, and how many more than they may by themselves."""
        import numpy as np

        cells = self._cells[rows]
        answered = cells != NONE
        away = (answered & (cells != self._yardstick)).sum(axis=1).astype(np.float64)
        return away, away - (1 - self._share) * answered.sum(axis=1)

    def _counted(self) -> dict[int, int]:
        if self._votes is None:
            import numpy as np

            cells = self._cells[self.rows]
            row, doc = np.nonzero(cells != NONE)
            places, n = np.unique(cells[row, doc].astype(np.int64) * cells.shape[1] + doc, return_counts=True)
            self._votes = dict(zip(places.tolist(), n.tolist(), strict=True))
        return self._votes


def _counts(one: np.ndarray, two: np.ndarray) -> tuple[int, int]:
    both = (one != NONE) & (two != NONE)
    return int(both.sum()), int((both & (one == two)).sum())


def graded_by_supplier(answers: Iterable[GradedAnswer]) -> Mapping[str, list[GradedAnswer]]:
    """Answers by supplier, each in the order they came."""
    found: dict[str, list[GradedAnswer]] = {}
    for one in sorted(answers, key=lambda a: (a.at, a.task, a.doc)):
        found.setdefault(one.supplier, []).append(one)
    return found
