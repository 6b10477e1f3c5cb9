"""What is known of all pairs of suppliers: which could be one model, which are told apart.

Memory grows with the number of suppliers, not with its square: of most pairs nothing is kept, and what is
asked of them is counted anew (:mod:`.counts`).
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from testbench_dagster.identity import pairs
from testbench_dagster.identity.counts import Counts
from testbench_dagster.identity.evidence import NONE, Evidence
from testbench_dagster.identity.pairs import PairFinding, SelfAgreement
from testbench_dagster.identity.settings import IdentityError
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.statistics.multiplicity import (
    e_bh_least,
    e_bh_threshold,
    family_wise_threshold,
)

if TYPE_CHECKING:
    import numpy as np

#: Lean (nats) from which suppliers count as one when collisions among distinct groups are counted: 100 to 1.
_ONE = 4.6
#: Suppliers from which pairs that nobody would merge are told apart by Bonferroni's threshold: the other one,
#: which is lower, needs the e-values of all pairs.
MANY = 1_000
#: Pairs that lean to one model which are kept, and where there are more, the nearest of each supplier.
_CANDIDATES = 4_000_000
_NEAREST = 24
#: Pairs that are looked at at a time.
_AT_ONCE = 1_000_000


class PairTables:
    """What is known of all pairs of the suppliers of some evidence.

    ``before``: members of the last groups, by name. ``apart``: pairs that are kept apart for another reason.
    ``first``, ``second`` and ``merge``: pairs that lean to one model, and their e-values (nats);
    ``left_out``: whether there are more than are kept.
    """

    def __init__(
        self, evidence: Evidence, before: list[list[str]], apart: Collection[tuple[str, str]]
    ) -> None:
        import numpy as np

        self.evidence = evidence
        self.settings = settings = evidence.settings
        self.before = [sorted(evidence.index[name] for name in members) for members in before]
        self.selves = SelfAgreement.of(evidence)
        self.counts = Counts(evidence.local)
        self._group_before = np.full(len(evidence.suppliers), NONE, dtype=np.int32)
        for number, members in enumerate(self.before):
            self._group_before[members] = number
        known = [(one, two) for one, two in apart if one in evidence.index and two in evidence.index]
        ends = np.array([[evidence.index[one], evidence.index[two]] for one, two in known], dtype=np.int64)
        self._apart = np.unique(self._key(*ends.reshape(-1, 2).T))
        prompts, least = evidence.local.shape[1], settings.least_common
        #: By common prompts: from how many agreements a pair leans to one model, below how many to two.
        self._near_from = pairs.agreements_from(prompts, 0.0, settings, above=True)
        self._near_from[:least] = prompts + 1
        self._opposed_below = pairs.agreements_from(prompts, -settings.lean_slack, settings)
        self._opposed_below[:least] = 0

        strong = _Components(len(evidence.suppliers))
        candidates = _Candidates(len(evidence.suppliers))
        self.tested = contested = 0
        # splits among pairs that might be, or were, one: there a false split would tear a group apart
        splits = []
        for block in self.counts.blocks():
            after = block.rows[:, None] < block.columns[None, :]
            self.tested += int(np.count_nonzero(after & (block.common > 0)))
            near = self.near(block.common, block.agree) & after
            i, j = np.nonzero(near | (self._together(block.rows, block.columns) & after))
            contested += len(i)
            common, agree, near = block.common[i, j], block.agree[i, j], near[i, j]
            i, j = block.rows[i], block.columns[j]
            e = self._split(i, j, common, agree)
            splits.append(e[e >= e_bh_least(settings.split_alpha)])
            leaning = pairs.lean(common[near], agree[near], settings)
            candidates.add(i[near], j[near], leaning)
            strong.link(i[near][leaning >= _ONE], j[near][leaning >= _ONE])
        self._split_at = e_bh_threshold(
            np.concatenate(splits) if splits else np.zeros(0), settings.split_alpha, tests=contested
        )
        self.threshold = family_wise_threshold(self.tested, settings.merge_alpha)
        self.first, self.second, self.left_out = *candidates.pairs(), candidates.left_out
        distinct, self.component = strong.numbered()
        self.collisions = pairs.Collisions(
            pairs.majorities(evidence.cells, self.component, distinct), settings
        )
        self.merge = np.empty(len(self.first))
        for start in range(0, len(self.first), 8192):
            part = slice(start, start + 8192)
            self.merge[part] = self._merge(self.first[part], self.second[part])

    def number(self, supplier: str) -> int:
        """Row of a supplier. Raises IdentityError for one that the evidence does not know."""
        try:
            return self.evidence.index[supplier]
        except KeyError:
            raise IdentityError(
                f"supplier {supplier!r} is not in the evidence; give it answers or name it in suppliers"
            ) from None

    def lean(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Lean of pairs, see :func:`pairs.lean`."""
        return pairs.lean(*self.counts.of_pairs(i, j), self.settings)

    def near(self, common: np.ndarray, agree: np.ndarray) -> np.ndarray:
        """Which counts lean to one model."""
        leaning: np.ndarray = agree >= self._near_from[common]
        return leaning

    def against(self, i: np.ndarray, j: np.ndarray) -> bool:
        """Whether something speaks against any pair of rows ``i`` x ``j``."""
        if self.selves.noisy[i].any() or self.selves.noisy[j].any():
            return True
        if len(i) > len(j):
            i, j = j, i
        height = max(1, _AT_ONCE // len(j))
        for start in range(0, len(i), height):
            rows = i[start : start + height]
            if self._against(rows, j, *self.counts.cross(rows, j)).any():
                return True
        return False

    def apart_within(self, rows: np.ndarray) -> np.ndarray:
        """The pairs of some rows that something speaks against, each once: places of both (pairs x 2)."""
        import numpy as np

        found, start = [np.zeros((0, 2), dtype=np.int64)], 0
        for block in self.counts.blocks(rows):
            i, j = np.nonzero(np.triu(self._against(*block), 1))
            found.append(np.column_stack([i, j]) + start)
            start += len(block.rows)
        return np.concatenate(found)

    def _against(
        self, rows: np.ndarray, columns: np.ndarray, common: np.ndarray, agree: np.ndarray
    ) -> np.ndarray:
        """Where enough common prompts lean to two models, or the two are told apart: rows x columns."""
        import numpy as np

        against: np.ndarray = agree < self._opposed_below[common]
        i, j = np.nonzero(self.near(common, agree) | self._together(rows, columns))
        against[i, j] |= self._split(rows[i], columns[j], common[i, j], agree[i, j]) >= self._split_at
        if len(self._apart):
            against |= np.isin(self._key(rows[:, None], columns[None, :]), self._apart)
        return against

    def _together(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Where both were in one group the last time: rows x columns."""
        ours, theirs = self._group_before[rows], self._group_before[columns]
        were: np.ndarray = (ours[:, None] == theirs[None, :]) & (ours != NONE)[:, None]
        return were

    def _key(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """A number for each pair, whichever comes first."""
        import numpy as np

        key: np.ndarray = np.minimum(i, j).astype(np.int64) * len(self.evidence.suppliers) + np.maximum(i, j)
        return key

    def _merge(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        import numpy as np

        cells, component = self.evidence.cells, self.component
        return pairs.log_merge(
            cells[i],
            cells[j],
            np.maximum(self.evidence.common[i], self.evidence.common[j]),
            lambda p, t, cells: self.collisions.shares(cells, t, component[i[p]], component[j[p]]),
            self.settings,
        )

    def _split(self, i: np.ndarray, j: np.ndarray, common: np.ndarray, agree: np.ndarray) -> np.ndarray:
        import numpy as np

        tested = self.selves.tested
        rate = np.minimum(np.sqrt(tested[i] * tested[j]), self.settings.split_agreement)
        return pairs.log_split(common, agree, rate, self.settings)

    @cached_property
    def _uncontested_split_at(self) -> float:
        """What tells apart pairs that nobody would merge, at the false discovery rate among all pairs."""
        import numpy as np

        alpha = self.settings.split_alpha
        if self.counts.size > MANY:
            return family_wise_threshold(self.tested, alpha)
        parts = [np.zeros(0)]
        for block in self.counts.blocks():
            i, j = np.nonzero((block.rows[:, None] < block.columns[None, :]) & (block.common > 0))
            parts.append(self._split(block.rows[i], block.columns[j], block.common[i, j], block.agree[i, j]))
        return e_bh_threshold(np.concatenate(parts), alpha)

    def told_apart(self, i: int, others: np.ndarray) -> np.ndarray:
        """Whether row ``i`` is told apart from each of some others, after control for all pairs."""
        import numpy as np

        rows = np.full(len(others), i)
        common, agree = self.counts.of_pairs(rows, others)
        e = self._split(rows, others, common, agree)
        apart = np.isin(self._key(rows, others), self._apart)
        contested = self.near(common, agree) | self._together(rows[:1], others)[0]
        known = (others != i) & (common > 0) & ~contested
        if known.any():
            apart |= known & (e >= self._uncontested_split_at)
        told: np.ndarray = apart | (contested & (others != i) & (e >= self._split_at))
        return told

    def finding(self, i: int, j: int, together: bool) -> PairFinding:
        """What is said of two rows; ``together``: whether they are in one group."""
        import numpy as np

        evidence, settings, selves = self.evidence, self.settings, self.selves
        one, two = np.array([i]), np.array([j])
        counts = self.counts.of_pairs(one, two)
        common, agree = int(counts[0][0]), int(counts[1][0])
        merge, split = float(self._merge(one, two)[0]), float(self._split(one, two, *counts)[0])
        apart = bool(self.told_apart(i, two)[0])
        rate = agree / common if common else None
        low, high = wilson(agree, common) if common else (0.0, 1.0)
        distances: tuple[float | None, float | None, float | None] = (None, None, None)
        if common:
            assumed = settings.split_agreement
            rates = tuple(float(r) if r == r else assumed for r in (selves.rate[i], selves.rate[j]))
            distances = pairs.distance(
                agree,
                common,
                (rates[0], rates[1]),
                (float(min(selves.low[i], rates[0])), float(min(selves.low[j], rates[1]))),
                (float(max(selves.high[i], rates[0])), float(max(selves.high[j], rates[1]))),
            )
        relation: pairs.Relation = "too little evidence"
        if together or (not apart and merge >= self.threshold):
            relation = "same stack"
        elif apart and rate is not None and common >= settings.least_common:
            relation = "same lineage" if rate >= settings.lineage_agreement else "different"
        return PairFinding(
            a=evidence.suppliers[i],
            b=evidence.suppliers[j],
            common=common,
            agree=agree,
            agreement=rate,
            low=low,
            high=high,
            distance=distances[0],
            distance_low=distances[1],
            distance_high=distances[2],
            log_merge=merge,
            log_split=split,
            split=apart,
            relation=relation,
            wording=pairs.worded(
                relation, common, agree, together=together, apart=apart, least=settings.least_common
            ),
        )


class _Components:
    """Suppliers that are linked, by any number of links: what is kept of those is a tree."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self._labels = np.arange(size)

    def link(self, i: np.ndarray, j: np.ndarray) -> None:
        """Link pairs of suppliers."""
        import numpy as np
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        one, two = self._labels[i], self._labels[j]
        differ = one != two
        if not differ.any():
            return
        size = len(self._labels)
        links = (np.ones(int(differ.sum()), dtype=bool), (one[differ], two[differ]))
        _, found = connected_components(coo_array(links, shape=(size, size)), directed=False)
        self._labels = found[self._labels]

    def numbered(self) -> tuple[int, np.ndarray]:
        """How many components there are, and that of each supplier, numbered by their first."""
        import numpy as np

        found, first, number = np.unique(self._labels, return_index=True, return_inverse=True)
        order = np.empty(len(found), dtype=np.int32)
        order[np.argsort(first)] = np.arange(len(found), dtype=np.int32)
        return len(found), order[number.reshape(-1)]


class _Candidates:
    """Pairs that lean to one model: all of them, or where these are too many the nearest of each supplier."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self.left_out = False
        self._least = np.full(size, -np.inf)
        self._found = [(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32), np.zeros(0))]
        self._n = 0

    def add(self, i: np.ndarray, j: np.ndarray, leaning: np.ndarray) -> None:
        """Take pairs ``i[p]`` < ``j[p]``, whose lean is ``leaning[p]`` nats."""
        import numpy as np

        if self.left_out:
            nearest = (leaning > self._least[i]) | (leaning > self._least[j])
            i, j, leaning = i[nearest], j[nearest], leaning[nearest]
        self._found.append((i.astype(np.int32), j.astype(np.int32), leaning))
        self._n += len(i)
        if self._n > _CANDIDATES:
            self._thin_out()

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Both suppliers of each pair, in the order of their numbers."""
        if self.left_out:
            self._thin_out()
        first, second, _ = self._together()
        return first, second

    def _together(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        import numpy as np

        first, second, leaning = (np.concatenate(part) for part in zip(*self._found, strict=True))
        self._found = [(first, second, leaning)]
        return first, second, leaning

    def _thin_out(self) -> None:
        """Keep the pairs that are among the nearest of either supplier; among equal ones the first."""
        import numpy as np

        first, second, leaning = self._together()
        wanted = np.zeros(len(first), dtype=bool)
        ends, leanings = np.concatenate([first, second]), np.tile(leaning, 2)
        order = np.lexsort((-leanings, ends))  # stable: among equal ones the first
        place = np.arange(len(order)) - np.searchsorted(ends[order], ends[order])
        wanted[order[place < _NEAREST] % len(first)] = True
        last = order[place == _NEAREST - 1]
        self._least[ends[last]] = leanings[last]
        self._found = [(first[wanted], second[wanted], leaning[wanted])]
        self._n, self.left_out = int(wanted.sum()), True
