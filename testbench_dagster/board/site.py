"""What all pages share: the installation behind them, what was asked for, and what they give back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.records.every import RECORDS
from testbench_dagster.core.records.rankings import StoredRanking
from testbench_dagster.core.records.windows import WindowsToken
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.compare import Comparison, compare
from testbench_dagster.stages.discover.roster import one_supplier
from testbench_dagster.stages.read.rankings import Newest, Ranking, Rankings, Roster
from testbench_dagster.stages.read.said import Said, said
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Longest value of a parameter that a page looks at.
_LONGEST = 300
#: Comparisons that are remembered: an interval that holds however often one looks takes 2 ms to find.
_COMPARED = 32
#: Docs of which is remembered what was said to them, and for how long: of thousands it takes time to count.
_SAID, _SAID_FRESH_S = 64, 300


class NotFound(Exception):
    """There is no such page; the message says what was not found."""


class NotUnderstood(Exception):
    """A parameter says nothing that the page knows; the message says which, and what may stand there."""


class AnswersHidden(Exception):
    """The page would show prompts or answers, and this board shows none."""


@dataclass(frozen=True)
class Asked:
    """A request as pages see it: the raw path, its parameters, and the instant it is answered as of."""

    path: str
    query: Mapping[str, str]
    now: datetime

    def text(self, name: str) -> str | None:
        """A parameter, stripped and cut; None where it is empty."""
        return self.query.get(name, "").strip()[:_LONGEST] or None

    def number(self, name: str) -> int | None:
        """A parameter that is a whole number not below 0; None where it is empty.

        Raises:
            NotUnderstood: it is something else.
        """
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 16):
            raise self._not_understood(name, "a whole number of at most 15 digits")
        return int(value)

    def instant(self, name: str) -> datetime | None:
        """A parameter that is an instant; None where it is empty.

        Raises:
            NotUnderstood: it is something else, or says no time zone.
        """
        value = self.text(name)
        if value is None:
            return None
        try:
            found = datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            found = None
        if found is None or datetime.fromisoformat(value).tzinfo is None:
            raise self._not_understood(name, "a time as 2026-03-01T12:00:00+00:00")
        return found

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """A parameter that is one of some words; None where it is empty.

        Raises:
            NotUnderstood: it is another.
        """
        value, known = self.text(name), list(choices)
        if value is not None and value not in known:
            raise self._not_understood(name, f"one of {', '.join(known)}")
        return value

    def behind(self, name: str, keys: Sequence[str]) -> int:
        """The place behind the key that a parameter names; 0, the first, where it is empty.

        Raises:
            NotUnderstood: it is none of the keys.
        """
        value = self.query.get(name)  # whole: a key may be long, or begin with a space
        if not value:
            return 0
        if value not in keys:
            raise self._not_understood(name, "what a page before this one ended with, and that left the list")
        return keys.index(value) + 1

    def _not_understood(self, name: str, wanted: str) -> NotUnderstood:
        return NotUnderstood(f"{name} is {(self.text(name) or '')[:60]!r}; it should be {wanted}")


@dataclass(frozen=True)
class Page:
    """A template and what it shows."""

    template: str
    view: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True)
class Data:
    """Something that is no page: JSON, or a body as it was received."""

    content: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Site:
    """An installation whose pages are shown; ``with_answers`` False hides all prompts and answers.

    Nothing is written through it. Stores create a collection's table when they first look at it: that is done
    here once, so that no request does it.
    """

    def __init__(self, workspace: Workspace, *, with_answers: bool = True) -> None:
        self.workspace = workspace
        self.with_answers = with_answers
        self.rankings = Rankings(workspace)
        self.roster = Roster(workspace)
        self._said: Newest[Said] = Newest(_SAID)
        self._compared: Newest[list[Comparison]] = Newest(_COMPARED)

    def prepare(self) -> None:
        """Open the stores and read the configured tasks."""
        for record in RECORDS:
            typed.count(self.workspace.documents, record, {"_id": ""})
        self.workspace.datasets.current("")
        _ = self.workspace.specs

    @property
    def simulation(self) -> bool:
        """Whether the suppliers are simulated."""
        return self.workspace.config.settings.simulation

    def supplier(self, key: str) -> Supplier:
        """A known supplier.

        Raises:
            NotFound: nobody has this key.
        """
        found = one_supplier(self.workspace, key)
        if found is None:
            raise NotFound(f"supplier {key!r} is not on the roster")
        return found

    def ranking(self, taxonomy: str | None = None) -> Ranking | None:
        """The stored ranking by a taxonomy, by default the first; None where none was made yet.

        Raises:
            NotFound: there is no ranking by it.
        """
        stored = self._stored(taxonomy)
        return None if stored is None else self.rankings.read(stored)

    def nodes(self, taxonomy: str) -> Sequence[str]:
        """The nodes that one can rank by besides the root; none of a ranking over all tasks.

        Raises:
            NotFound: there is no ranking by this taxonomy.
        """
        stored = self._stored(taxonomy)
        return () if stored is None else self.rankings.nodes(stored)

    def ranking_by_node(self, taxonomy: str, node: str) -> Ranking:
        """The suppliers of a ranking by one of :meth:`nodes`.

        Raises:
            NotFound: there is no ranking by this taxonomy.
        """
        stored = self._stored(taxonomy)
        if stored is None:
            raise NotFound(f"there is no ranking by {taxonomy!r}")
        apis = {key: one.api for key, one in self.roster.suppliers().items()}
        return self.rankings.by_node(stored, node, apis)

    def groups(self) -> Sequence[str]:
        """The groups of tasks that one can rank by."""
        return [stored.group for stored in self.rankings.groups()]

    def ranking_by_group(self, taxonomy: str, group: str) -> Ranking | None:
        """The suppliers by a group of tasks; None where none was ranked by it yet."""
        apis = {key: one.api for key, one in self.roster.suppliers().items()}
        for stored in self.rankings.groups():
            if stored.group == group:
                return self.rankings.by_group(stored, taxonomy, apis)
        return None

    def _stored(self, taxonomy: str | None) -> StoredRanking | None:
        current = self.rankings.current()
        for stored in current:
            if taxonomy in (None, stored.taxonomy):
                return stored
        if taxonomy is None:
            return None
        raise NotFound(f"there is no ranking by {taxonomy!r}")

    def compared(
        self, a: str, b: str, tasks: Sequence[str], now: datetime, *, overall_only: bool = False
    ) -> list[Comparison]:
        """The comparison of two suppliers: made again when what is cached of either changed, or hourly."""
        tokens = typed.by_id(self.workspace.documents, WindowsToken, [a, b])
        mark = (*(token.token for _, token in sorted(tokens.items())), now.date(), now.hour)
        return self._compared.get(
            (a, b, overall_only, *tasks),
            mark,
            lambda: compare(self.workspace, a, b, tasks=tasks, now=now, overall_only=overall_only),
        )

    def said(self, task: str, doc_id: int, now: datetime) -> Said:
        """What everybody said to a doc; counted again after some minutes."""
        mark = int(now.timestamp() // _SAID_FRESH_S)
        suppliers = self.roster.read().active
        return self._said.get(
            (task, doc_id), mark, lambda: said(self.workspace, task, doc_id, suppliers, now=now)
        )

    def require_answers(self) -> None:
        """Raises AnswersHidden where none are shown."""
        if not self.with_answers:
            raise AnswersHidden
