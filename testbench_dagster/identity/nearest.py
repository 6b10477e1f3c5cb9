"""Which groups each supplier's answers are nearest to, without a table of all suppliers by all groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbench_dagster.identity.counts import Cells
from testbench_dagster.identity.evidence import NONE, Evidence
from testbench_dagster.identity.pairs import majorities

if TYPE_CHECKING:
    import numpy as np

#: Groups, by answers in common, of which a supplier could be a mixture.
_MIXED = 12
#: Suppliers times groups that are looked at at a time.
_AT_ONCE = 1_000_000


@dataclass(frozen=True, eq=False)
class Nearest:
    """By supplier the other group whose majority it agrees with most; -1 where none has enough in common.

    ``common`` and ``agree`` count the prompts of both and the agreements; ``own_common`` the prompts in
    common with its own group. ``alike`` are, of suppliers that stand alone, the groups with most equal
    answers, the most first: up to twelve.
    """

    group: np.ndarray
    common: np.ndarray
    agree: np.ndarray
    own_common: np.ndarray
    alike: dict[int, np.ndarray]

    @classmethod
    def of(cls, evidence: Evidence, labels: np.ndarray, groups: int) -> Nearest:
        """Of the evidence; ``labels[s]`` is the group of supplier s, of so many."""
        import numpy as np

        size, least = len(labels), evidence.settings.least_common
        rows, profiles = Cells(evidence.local), Cells(majorities(evidence.local, labels, groups))
        members = np.bincount(labels, minlength=groups)
        every = np.arange(groups)
        group = np.full(size, NONE, dtype=np.int64)
        commons, agrees, own_common = (np.zeros(size, dtype=np.int64) for _ in range(3))
        alike = {}
        height = max(1, _AT_ONCE // max(1, groups))
        for start in range(0, size, height):
            chosen = np.arange(start, min(start + height, size))
            common, agree = rows.counts(chosen, profiles, every)
            here, own = np.arange(len(chosen)), labels[chosen]
            own_common[chosen] = common[here, own]
            # by the lower bound's cheap cousin: half an agreement in two more prompts is added to each
            score = np.where(common >= least, (agree + 0.5) / (common + 2.0), -1.0)
            score[here, own] = -1.0
            best = score.argmax(axis=1)
            commons[chosen], agrees[chosen] = common[here, best], agree[here, best]
            group[chosen] = np.where(score[here, best] >= 0, best, NONE)
            agree[here, own] = 0
            for place in np.flatnonzero(members[own] == 1).tolist():
                # of equally many the first group
                rank = (agree[place].astype(np.int64) + 1) * groups - every
                few = np.argpartition(-rank, _MIXED)[:_MIXED] if groups > _MIXED else every
                alike[int(chosen[place])] = few[np.argsort(-rank[few])]
        return cls(group, commons, agrees, own_common, alike)
