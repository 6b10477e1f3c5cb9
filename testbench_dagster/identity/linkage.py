"""Agglomeration of suppliers by complete linkage of evidence: the rules of :mod:`.groups`, applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from testbench_dagster.identity import pairs
from testbench_dagster.identity.content import Content, Together
from testbench_dagster.identity.counts import Counts
from testbench_dagster.identity.evidence import NONE
from testbench_dagster.identity.tables import PairTables

if TYPE_CHECKING:
    import numpy as np


class Cluster:
    """Suppliers that were joined, and their pooled answers.

    ``profile[t]`` is the answer prefix that more than half of the members' answers to prompt t have, -1 where
    none does; ``habits[t]`` how common it is among the own answers of the members that gave it, at most. How
    many gave which answer is kept: one more member costs a look at its own answers, however many there are.
    """

    def __init__(self, row: int, profile: np.ndarray, habits: np.ndarray, component: int) -> None:
        import numpy as np

        self.rows = np.array([row])
        self.profile, self.habits = profile, habits
        self._voters = (profile != NONE).astype(np.int64)
        self._components = Counter([component])
        #: By prefix how many gave it, and how common it is. Of a single member the arrays above say that.
        self._votes: dict[int, tuple[int, float]] = {}
        #: What they answered as a whole, once it was asked for.
        self.whole: Together | None = None

    @property
    def component(self) -> int:
        """The component that most members are of."""
        return self._components.most_common(1)[0][0]

    def join(self, other: Cluster, prompt_of: np.ndarray) -> Cluster:
        """Both together. ``prompt_of``: by prefix the prompt it answers. Neither of the two is used again."""
        import numpy as np

        into, taken = (self, other) if len(self.rows) >= len(other.rows) else (other, self)
        into.rows = np.concatenate([self.rows, other.rows])
        if into.whole is not None:
            into.whole = None if taken.whole is None else into.whole.join(taken.whole)
        into._components += taken._components
        into._voters += taken._voters
        votes, added = into._counted(), taken._counted()
        prompts = prompt_of[list(added)].tolist()
        voters, profile, habits = into._voters, into.profile, into.habits
        for prompt, (cell, (n, habit)) in zip(prompts, added.items(), strict=True):
            before, most = votes.get(cell, (0, 0.0))
            votes[cell] = before + n, max(most, habit)
            if 2 * (before + n) > voters[prompt]:
                profile[prompt] = cell
        for prompt in set(prompts):
            n, habit = votes.get(int(profile[prompt]), (0, 0.0))
            if 2 * n > voters[prompt]:
                habits[prompt] = habit
            else:
                profile[prompt], habits[prompt] = NONE, 0.0
        return into

    def _counted(self) -> dict[int, tuple[int, float]]:
        if not self._votes:
            there = self.profile != NONE
            cells, habits = self.profile[there].tolist(), self.habits[there].tolist()
            self._votes = {cell: (1, habit) for cell, habit in zip(cells, habits, strict=True)}
        return self._votes


class Linkage:
    """Clusters by number, joined as long as evidence has any join."""

    def __init__(self, tables: PairTables, content: Content | None) -> None:
        import numpy as np

        self._tables, self._content = tables, content
        evidence = tables.evidence
        self._prompt_of = np.zeros(int(evidence.cells.max(initial=0)) + 1, dtype=np.int64)
        for t in range(evidence.cells.shape[1]):
            cells = evidence.cells[:, t]
            self._prompt_of[cells[cells != NONE]] = t
        self._of = list(range(len(evidence.suppliers)))
        #: Those of several members.
        self._clusters: dict[int, Cluster] = {}
        self._refused: set[tuple[int, int, int, int]] = set()
        for group in tables.before:
            self._keep(group)

    def clusters(self) -> list[list[int]]:
        """Join what may be joined; members in ascending order, clusters by their first."""
        import numpy as np

        tables = self._tables
        order = np.lexsort((tables.second, tables.first, -tables.merge))
        order = order[tables.merge[order] > 0]
        self._join_all(list(zip(tables.first[order].tolist(), tables.second[order].tolist(), strict=True)))
        while tables.left_out and self._join_all(self._leaning()):
            pass
        found: dict[int, list[int]] = {}
        for row, cluster in enumerate(self._of):
            found.setdefault(cluster, []).append(row)
        return sorted(found.values())

    def _join_all(self, ordered: Iterable[tuple[int, int]]) -> bool:
        """Join what pairs of suppliers, the strongest first, have joined; whether any was."""
        some, joined = False, True
        while joined:
            # evidence of grown clusters may reach what their parts did not
            joined = False
            for i, j in ordered:
                a, b = self._of[i], self._of[j]
                if a != b and self._may_join(a, b):
                    self._join(a, b)
                    some = joined = True
        return some

    def _leaning(self) -> list[tuple[int, int]]:
        """Pairs of clusters whose pooled answers lean to one model, by a member of each, the strongest first.

        Where there are too many pairs of suppliers to keep, those between two large clusters may all be among
        those left out.
        """
        import numpy as np

        tables = self._tables
        numbers = sorted(set(self._of))
        profiles = np.array([self._cluster(number).profile for number in numbers])
        found: list[tuple[float, int, int]] = []
        for rows, columns, common, agree in Counts(profiles).blocks():
            i, j = np.nonzero(tables.near(common, agree) & (rows[:, None] < columns[None, :]))
            leans = pairs.lean(common[i, j], agree[i, j], tables.settings)
            found += zip((-leans).tolist(), rows[i].tolist(), columns[j].tolist(), strict=True)
        return [(numbers[i], numbers[j]) for _, i, j in sorted(found)]

    def _keep(self, group: list[int]) -> None:
        """Start with a group of the last time, less the members that something speaks against."""
        import numpy as np

        tables, rows = self._tables, np.array(group)
        rows = rows[~tables.selves.noisy[rows]]
        apart = tables.apart_within(rows)
        against = np.bincount(apart.ravel(), minlength=len(rows)) if len(apart) else np.zeros(len(rows), int)
        if against.any():
            rows = rows[self._remaining(rows, apart, against)]
        for row in rows[1:].tolist():
            self._join(int(rows[0]), row)

    def _remaining(self, rows: np.ndarray, apart: np.ndarray, against: np.ndarray) -> np.ndarray:
        """Which suppliers stay together, by place, when those at odds with others leave one by one."""
        import numpy as np

        tables, places = self._tables, np.arange(len(rows))
        leaning = np.array([tables.lean(np.full(len(rows), row), rows).sum() for row in rows])
        ends = np.concatenate([apart, apart[:, ::-1]])
        ends = ends[np.argsort(ends[:, 0], kind="stable")]
        bounds = np.searchsorted(ends[:, 0], np.arange(len(rows) + 1))
        here = np.ones(len(rows), dtype=bool)
        while against[here].any():
            # the one at odds with most; among equals the one that leans least to the rest, then the last
            worst = max(places[here].tolist(), key=lambda k: (against[k], -leaning[k], k))
            here[worst] = False
            against[ends[bounds[worst] : bounds[worst + 1], 1]] -= 1
            leaning -= tables.lean(np.full(len(rows), rows[worst]), rows)
        return places[here]

    def _cluster(self, number: int) -> Cluster:
        known = self._clusters.get(number)
        if known is not None:
            return known
        evidence, component = self._tables.evidence, int(self._tables.component[number])
        return Cluster(number, evidence.cells[number].copy(), evidence.common[number].copy(), component)

    def _join(self, a: int, b: int) -> None:
        into, gone = min(a, b), max(a, b)
        one, two = self._cluster(into), self._cluster(gone)
        for row in two.rows.tolist():
            self._of[row] = into
        self._clusters[into] = one.join(two, self._prompt_of)
        self._clusters.pop(gone, None)

    def _may_join(self, a: int, b: int) -> bool:
        one, two = self._cluster(a), self._cluster(b)
        ours, theirs = one.rows, two.rows
        attempt = (a, len(ours), b, len(theirs)) if a < b else (b, len(theirs), a, len(ours))
        if attempt in self._refused:
            return False
        may = (
            not self._tables.against(ours, theirs)
            and self._evidence(one, two) >= self._tables.threshold
            and (self._content is None or self._content.alike(*self._whole(self._content, one, two)))
        )
        if not may:
            self._refused.add(attempt)
        return may

    def _whole(self, content: Content, *clusters: Cluster) -> list[Together]:
        """What clusters answered as a whole."""
        names = self._tables.evidence.suppliers
        for cluster in clusters:
            if cluster.whole is None:
                cluster.whole = content.together(names[row] for row in cluster.rows.tolist())
        return [cluster.whole for cluster in clusters if cluster.whole is not None]

    def _evidence(self, one: Cluster, two: Cluster) -> float:
        """Merge e-value (nats) between the majorities of two clusters."""
        import numpy as np

        tables, first, second = self._tables, one.component, two.component

        def shares(p: np.ndarray, t: np.ndarray, cells: np.ndarray) -> np.ndarray:
            return tables.collisions.shares(cells, t, np.full(len(t), first), np.full(len(t), second))

        habits = np.maximum(one.habits, two.habits)[None, :]
        profiles = one.profile[None, :], two.profile[None, :]
        return float(pairs.log_merge(*profiles, habits, shares, tables.settings)[0])
