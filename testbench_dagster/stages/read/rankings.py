"""Stored leaderboards and the roster, as pages of people read them: never made, only read."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Generic, TypeVar

from testbench_dagster.core.records.rankings import (
    GroupScoresRecord,
    LeaderboardRecord,
    StoredGroupScores,
    StoredRanking,
    SupplierAbilities,
)
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.ranking.places import Place, places, shares_of_best
from testbench_dagster.ranking.ranking import ranked_again, ranked_by_node
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.rank.stored import read_ranking
from testbench_dagster.stages.read.identity import current_abilities
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

T = TypeVar("T")
#: Rankings by nodes, and by groups of tasks, that are remembered.
_BY_NODE = 8


@dataclass(frozen=True)
class Ranking:
    """The ranking by a taxonomy as it was last made; ``rows`` are its entries, best first.

    ``node``: by which node of the taxonomy, where it is not the root. ``task``: by which group of tasks,
    where it is none by a taxonomy at all.
    """

    taxonomy: str
    made_at: datetime
    rows: Sequence[Entry]
    node: str | None = None
    task: str | None = None

    @cached_property
    def places(self) -> Sequence[Place]:
        """Its places."""
        return places(self.rows)

    @cached_property
    def shares(self) -> Mapping[str, float | None]:
        """By supplier the share of "best" of its place among all places."""
        return shares_of_best(self.places)

    @cached_property
    def order(self) -> Mapping[str, int]:
        """By supplier its row."""
        return {row.supplier: place for place, row in enumerate(self.rows)}


class Cached(Generic[T]):
    """A value that is read again when its ``mark`` changed; for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mark: object = None
        self._value: T | None = None

    def get(self, mark: object, read: Callable[[], T]) -> T:
        """The value of this mark, read once."""
        with self._lock:
            if self._value is None or self._mark != mark:
                self._value, self._mark = read(), mark
            return self._value


class Newest(Generic[T]):
    """The last few values by key, each read again when its ``mark`` changed; for any number of threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._cached: OrderedDict[object, Cached[T]] = OrderedDict()

    def get(self, key: object, mark: object, read: Callable[[], T]) -> T:
        """The value of this key and mark, read once as long as it is among the last ones asked for."""
        with self._lock:
            cached = self._cached.setdefault(key, Cached())
            self._cached.move_to_end(key)
            if len(self._cached) > self._most:
                self._cached.popitem(last=False)
        return cached.get(mark, read)


class Rankings:
    """The current rankings, each decoded once: of 5,000 suppliers that takes longer than a page."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._cached: dict[str, Cached[Ranking]] = {}
        self._nodes: dict[str, Cached[Sequence[str]]] = {}
        self._by_node: Newest[Ranking] = Newest(_BY_NODE)
        self._by_group: Newest[Ranking] = Newest(_BY_NODE)
        self._lock = threading.Lock()

    def current(self) -> list[StoredRanking]:
        """The rankings that were made last, all as of one instant, by name."""
        found = list(typed.find(self._workspace.documents, StoredRanking))
        newest = max((one.made_at for one in found), default=None)
        return sorted((one for one in found if one.made_at == newest), key=lambda one: one.taxonomy)

    def groups(self) -> list[StoredGroupScores]:
        """The groups of tasks that were scored with these rankings, by name."""
        newest = max((one.made_at for one in self.current()), default=None)
        found = typed.find(self._workspace.documents, StoredGroupScores)
        return sorted((one for one in found if one.made_at == newest), key=lambda one: one.group)

    def by_group(self, stored: StoredGroupScores, taxonomy: str, apis: Mapping[str, str]) -> Ranking:
        """The suppliers by a group of tasks, ranked when somebody asks; see :meth:`by_node`.

        ``taxonomy`` is that of the ranking which the page shows otherwise.
        """
        return self._by_group.get(
            (stored.id, taxonomy), stored.made_at, lambda: self._read_by_group(stored, taxonomy, apis)
        )

    def _read_by_group(self, stored: StoredGroupScores, taxonomy: str, apis: Mapping[str, str]) -> Ranking:
        record = read_ranking(self._workspace.documents, GroupScoresRecord, stored.id)
        entries = [] if record is None else [Entry.from_json(row) for row in record.entries]
        return Ranking(taxonomy, stored.made_at, ranked_again(entries, apis), task=stored.group)

    def read(self, stored: StoredRanking) -> Ranking:
        """One of them with its rows."""
        with self._lock:
            cached = self._cached.setdefault(stored.id, Cached())
        return cached.get(stored.made_at, lambda: self._read(stored))

    def _read(self, stored: StoredRanking) -> Ranking:
        record = read_ranking(self._workspace.documents, LeaderboardRecord, stored.id)
        if record is None:  # replaced by nothing meanwhile
            return Ranking(stored.taxonomy, stored.made_at, ())
        return Ranking(record.taxonomy, record.made_at, [Entry.from_json(row) for row in record.entries])

    def nodes(self, stored: StoredRanking) -> Sequence[str]:
        """The nodes of its taxonomy as they were summarized, its root left out, parents before children."""
        with self._lock:
            cached = self._nodes.setdefault(stored.id, Cached())
        return cached.get(stored.made_at, lambda: self._read_nodes(stored))

    def _read_nodes(self, stored: StoredRanking) -> Sequence[str]:
        where = {"taxonomy": stored.taxonomy}
        newest = typed.find(
            self._workspace.documents, SupplierAbilities, where, sort=[("summarized_at", -1)], limit=1
        )
        return [name for one in newest for name in one.nodes if name != one.root]

    def by_node(self, stored: StoredRanking, node: str, apis: Mapping[str, str]) -> Ranking:
        """The suppliers of a ranking by one node of its taxonomy, from the stored summaries.

        They are ranked when somebody asks, and again after the next ranking: of 5,000 suppliers that takes
        seconds. ``apis``: by supplier the form of requests it takes.
        """
        return self._by_node.get(
            (stored.id, node), stored.made_at, lambda: self._read_by_node(stored, node, apis)
        )

    def _read_by_node(self, stored: StoredRanking, node: str, apis: Mapping[str, str]) -> Ranking:
        ranking = self.read(stored)
        found = current_abilities(self._workspace, stored.taxonomy, ranking.made_at)
        nodes = {one.supplier: one.nodes[node] for one in found if node in one.nodes}
        rows = ranked_by_node(ranking.rows, nodes, apis)
        return Ranking(stored.taxonomy, ranking.made_at, rows, node)


@dataclass(frozen=True)
class Suppliers:
    """All known suppliers by key, in the order of :func:`known_suppliers`."""

    every: Mapping[str, Supplier]

    @cached_property
    def active(self) -> Sequence[Supplier]:
        """Those that did not leave."""
        return [one for one in self.every.values() if one.left_at is None]

    @cached_property
    def models(self) -> Sequence[str]:
        """The models that any of them claims to serve, by name."""
        return sorted({one.model for one in self.every.values()})


class Roster:
    """All known suppliers, read again when they are older than ``fresh_s``."""

    def __init__(self, workspace: Workspace, fresh_s: float = 60.0) -> None:
        self._workspace, self._fresh_s = workspace, fresh_s
        self._cached: Cached[Suppliers] = Cached()

    def read(self) -> Suppliers:
        """The suppliers as they were read last."""
        mark = int(time.monotonic() / self._fresh_s)
        return self._cached.get(mark, lambda: Suppliers({s.key: s for s in known_suppliers(self._workspace)}))

    def suppliers(self) -> Mapping[str, Supplier]:
        """By key, in the order of :func:`known_suppliers`."""
        return self.read().every
