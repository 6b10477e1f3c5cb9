"""Counts of all pairs of suppliers on common prompts, and the e-values of those that could be one model."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from testbench_dagster.identity import pairs
from testbench_dagster.identity.evidence import Evidence
from testbench_dagster.identity.pairs import PairFinding, SelfAgreement
from testbench_dagster.identity.settings import IdentityError
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.statistics.multiplicity import e_bh_threshold, family_wise_threshold

if TYPE_CHECKING:
    import numpy as np

#: Lean (nats) from which suppliers count as one when collisions among distinct groups are counted: 100 to 1.
_ONE = 4.6
#: Suppliers from which the e-values of all pairs are not held in memory for a word on each.
_MANY = 1000


class PairTables:
    """What is known of all pairs of the suppliers of some evidence.

    ``before``: members of the last groups, by name. ``apart``: pairs that are kept apart for another reason.
    """

    def __init__(
        self, evidence: Evidence, before: list[list[str]], apart: Collection[tuple[str, str]]
    ) -> None:
        import numpy as np
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        self.evidence = evidence
        self.settings = settings = evidence.settings
        self.before = [sorted(evidence.index[name] for name in members) for members in before]
        self.selves = SelfAgreement.of(evidence)
        self.common, self.agree = pairs.agreements(evidence.local, evidence.local)
        self.tested = int(np.count_nonzero(np.triu(self.common, 1)))
        self.threshold = family_wise_threshold(self.tested, settings.merge_alpha)

        self.first, self.second = self._candidates()
        strong = self.lean(self.first, self.second) >= _ONE
        size = len(evidence.suppliers)
        links = (np.ones(strong.sum(), dtype=bool), (self.first[strong], self.second[strong]))
        distinct, self.component = connected_components(coo_array(links, shape=(size, size)), directed=False)
        self.collisions = pairs.Collisions(
            pairs.majorities(evidence.cells, self.component, distinct), settings
        )
        self.merge = np.empty(len(self.first))
        for start in range(0, len(self.first), 8192):
            block = slice(start, start + 8192)
            self.merge[block] = self._merge(self.first[block], self.second[block])

        # splits among pairs that might be, or were, one: there a false split would tear a group apart
        together = [(i, j) for members in self.before for i in members for j in members if i < j]
        contested = np.zeros((size, size), dtype=bool)
        contested[self.first, self.second] = True
        for i, j in together:
            contested[i, j] = True
        rows, columns = np.nonzero(contested)
        e = self._split(rows, columns)
        self.split = np.zeros((size, size), dtype=bool)
        gone = e >= e_bh_threshold(e, settings.split_alpha)
        self.split[rows[gone], columns[gone]] = self.split[columns[gone], rows[gone]] = True
        for one, two in apart:
            if one in evidence.index and two in evidence.index:
                i, j = evidence.index[one], evidence.index[two]
                contested[i, j] = contested[j, i] = self.split[i, j] = self.split[j, i] = True
        self._contested = contested
        self._all_splits: float | None = None

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
        return pairs.lean(self.common[i, j], self.agree[i, j], self.settings)

    def against(self, i: np.ndarray, j: np.ndarray) -> bool:
        """Whether something speaks against any pair of rows ``i`` x ``j``."""
        import numpy as np

        if self.selves.noisy[i].any() or self.selves.noisy[j].any():
            return True
        cross = np.ix_(i, j)
        if self.split[cross].any():
            return True
        return bool(self.opposed(self.common[cross], self.agree[cross]).any())

    def opposed(self, common: np.ndarray, agree: np.ndarray) -> np.ndarray:
        """Where enough common prompts lean to two models."""
        leaning = pairs.lean(common, agree, self.settings)
        apart: np.ndarray = (common >= self.settings.least_common) & (leaning < -self.settings.lean_slack)
        return apart

    def _candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs that lean to one model."""
        import numpy as np

        found = []
        for start in range(0, len(self.common), 256):
            block = slice(start, start + 256)
            common = self.common[block]
            near = (pairs.lean(common, self.agree[block], self.settings) > 0) & (
                common >= self.settings.least_common
            )
            i, j = np.nonzero(near)
            upper = i + start < j
            found.append((i[upper] + start, j[upper]))
        if not found:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])

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

    def _split(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        import numpy as np

        tested = self.selves.tested
        rate = np.minimum(np.sqrt(tested[i] * tested[j]), self.settings.split_agreement)
        return pairs.log_split(self.common[i, j], self.agree[i, j], rate, self.settings)

    @property
    def _split_threshold(self) -> float:
        """What tells apart pairs that nobody would merge, at the false discovery rate among all pairs."""
        if self._all_splits is None:
            import numpy as np

            parts = []
            for i in range(len(self.common)):
                j = i + 1 + np.flatnonzero(self.common[i, i + 1 :])
                parts.append(self._split(np.full(len(j), i), j))
            self._all_splits = e_bh_threshold(np.concatenate(parts), self.settings.split_alpha)
        return self._all_splits

    def told_apart(self, i: int, others: np.ndarray, *, quickly: bool = False) -> np.ndarray:
        """Whether row ``i`` is told apart from each of some others, after control for all pairs.

        ``quickly``: among very many suppliers by Bonferroni's threshold, which is higher and needs no look
        at all pairs.
        """
        import numpy as np

        contested = self._contested[np.minimum(i, others), np.maximum(i, others)]
        if quickly and len(self.common) > _MANY:
            threshold = family_wise_threshold(self.tested, self.settings.split_alpha)
        else:
            threshold = self._split_threshold
        clear = self._split(np.full(len(others), i), others) >= threshold
        known = (others != i) & (self.common[i, others] > 0)
        apart: np.ndarray = np.where(contested, self.split[i, others], known & clear)
        return apart

    def finding(self, i: int, j: int, together: bool) -> PairFinding:
        """What is said of two rows; ``together``: whether they are in one group."""
        import numpy as np

        evidence, settings, selves = self.evidence, self.settings, self.selves
        common, agree = int(self.common[i, j]), int(self.agree[i, j])
        one, two = np.array([i]), np.array([j])
        merge, split = float(self._merge(one, two)[0]), float(self._split(one, two)[0])
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
