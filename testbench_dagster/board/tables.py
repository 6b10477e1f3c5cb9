"""Tables whose columns are declared with the records they show (:mod:`~testbench_dagster.core.columns`).

A table has heads, and makes the cells of a record: what kind each is, and its text. ``tables.html.jinja``
draws both, of the board and of the published page alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from testbench_dagster.board.charts import IntervalMark, Scale, interval, scale
from testbench_dagster.core.columns import Cell, Shape, Unit, columns_of
from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.ranking.cells import cell_writer, sort_writer
from testbench_dagster.ranking.entry import Entry, Standing
from testbench_dagster.ranking.places import Place

#: How wide scores are drawn on their intervals, and what is left free at both ends.
WIDTH, _MARGIN = 160, 14.0
#: Where drawings of that width begin and end.
DRAWN = (_MARGIN, WIDTH - _MARGIN)
#: Members that a place shows; the filter by group shows all.
MEMBERS = 8


class Head(NamedTuple):
    """The head of a column. ``sort``: how it is sorted where it can be, as numbers (n) or texts (t)."""

    title: str
    explanation: str
    kind: str
    sort: str


class Value(NamedTuple):
    """A cell: how it is drawn, its text, and the number to sort by where the text does not say it."""

    kind: str
    text: str
    sort: str | None


class Table:
    """A table of records of one class; ``now`` is the instant that ages count from.

    ``sortable``: cells say what they are sorted by, for the page that can sort.
    """

    def __init__(self, record: type, cells: Sequence[Cell], now: datetime, *, sortable: bool = False) -> None:
        self.heads = [_head(record, cell) for cell in cells]
        self._write = [_writer(record, cell, now, sortable=sortable) for cell in cells]

    def values(self, one: object) -> list[Value]:
        """The cells of a record."""
        return [write(one) for write in self._write]


def _head(record: type, cell: Cell) -> Head:
    kind = _kind(record, cell)
    sort = {"drawing": "", "name": "t", "text": "t", "model": "t"}.get(kind, "n")
    return Head(cell.title, cell.explanation, kind, sort)


def _kind(record: type, cell: Cell) -> str:
    """How the cells of a column are drawn."""
    field = columns_of(record).get(cell.paths[0])
    match cell.shape:
        case Shape.NAME:
            return "name"
        case Shape.DRAWING:
            return "drawing"
        case Shape.PLACE:
            return "place"
        case Shape.RANGE:
            return "rank" if cell.unit(record) is Unit.RANK else "interval"
        case Shape.PLAIN if cell.paths == ("model",):
            return "model"
        case Shape.PLAIN if cell.paths == ("score",):
            return "score"
        case Shape.PLAIN if field is not None and field.kind in (str, dict):
            return "text"
        case _:
            return "number"


def _writer(record: type, cell: Cell, now: datetime, *, sortable: bool) -> Callable[[Any], Value]:
    kind = _kind(record, cell)
    if kind in ("drawing", "place", "model"):  # drawn from what the row knows besides
        empty = Value(kind, "", None)
        return lambda one: empty
    shown = cell_writer(record, cell, now)
    sort = sort_writer(record, cell, now) if sortable else None
    if sort is None:
        return lambda one: Value(kind, shown(one), None)
    return lambda one: Value(kind, shown(one), sort(one))


def score_scale(records: Iterable[Any]) -> Scale:
    """The scale that the scores of records are drawn on, with their intervals."""
    ends = [value for one in records for value in (one.score, one.ci_low, one.ci_high)]
    return drawing_scale(ends)


def drawing_scale(values: Iterable[float | None]) -> Scale:
    """The scale of a column of drawings that shows these values."""
    return scale(values, *DRAWN)


def scored(records: Iterable[Any], on: Scale) -> list[tuple[Any, IntervalMark | None]]:
    """Records with where their scores are drawn."""
    return [(one, interval(on, one.score, one.ci_low, one.ci_high)) for one in records]


def drawn_abilities(
    nodes: Mapping[str, Ability],
) -> tuple[Scale, list[tuple[str, Ability, IntervalMark | None]]]:
    """The nodes of a taxonomy that have a score, and where they are drawn on which scale."""
    known = {name: node for name, node in nodes.items() if node.score is not None}
    on = score_scale(known.values())
    return on, [
        (name, node, mark) for name, (node, mark) in zip(known, scored(known.values(), on), strict=True)
    ]


# ------------------------------------------------------------------------------------------------ ranking


class Addresses(Protocol):
    """Where the names in a ranking lead; None for nowhere."""

    def supplier(self, key: str) -> str:
        """What there is of a supplier."""

    def model(self, model: str) -> str | None:
        """The suppliers of a model."""

    def members(self, unit: str) -> str | None:
        """All members of a place."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a ranking.

    ``member``: it stands inside of another's place; so many ``more`` are left out behind it.
    """

    values: Sequence[Value]
    address: str
    mark: IntervalMark | None
    member: bool
    short: bool
    share: float | None
    model: str | None
    of_model: str | None
    members: int
    all_members: str | None
    more: int


class RankingTable:
    """The table of a ranking: a place for each unit, its members inside.

    ``shares``: by supplier the share of "best" of its place. ``roster`` knows the models of those whose entry
    does not say it.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        rows: Sequence[Entry],
        shares: Mapping[str, float | None],
        to: Addresses,
        roster: Mapping[str, Supplier],
        now: datetime,
        *,
        sortable: bool = False,
    ) -> None:
        self.scale = score_scale(rows)
        self._table = Table(Entry, with_values(Entry, cells, rows), now, sortable=sortable)
        self._shares, self._to, self._roster = shares, to, roster

    @property
    def heads(self) -> list[Head]:
        """The heads of the columns; sparse ones only where there is a value."""
        return self._table.heads

    def place(self, place: Place, most: int | None = MEMBERS, *, inside: bool = False) -> list[Row]:
        """The rows of a place with at most so many members behind the first; all of them by default.

        ``inside``: the first one is a member too, of a place that began on a page before.
        """
        shown = place.rows if most is None else place.rows[: 1 + most]
        left_out = len(place.rows) - len(shown)
        return [
            self._row(
                entry,
                member=inside or number > 0,
                members=len(place.rows),
                more=left_out if number == len(shown) - 1 else 0,
            )
            for number, entry in enumerate(shown)
        ]

    def _row(self, entry: Entry, *, member: bool, members: int, more: int) -> Row:
        supplier = self._roster.get(entry.supplier)
        model = entry.model
        if model is None and supplier is not None:
            model = supplier.model
        unit = entry.group or entry.unit
        return Row(
            values=self._table.values(entry),
            address=self._to.supplier(entry.supplier),
            mark=interval(self.scale, entry.score, entry.ci_low, entry.ci_high),
            member=member,
            short=entry.standing == Standing.SHORT,
            share=self._shares.get(entry.supplier),
            model=model,
            of_model=None if model is None else self._to.model(model),
            members=members,
            all_members=self._to.members(unit) if unit is not None and members > 1 else None,
            more=more,
        )


def with_values(record: type, cells: Sequence[Cell], rows: Sequence[object]) -> list[Cell]:
    """Those columns that are always shown, and of the sparse ones those that a row has a value of."""
    columns = columns_of(record)
    return [
        cell
        for cell in cells
        if not (field := columns.get(cell.paths[0]))
        or not field.column.sparse
        or any(getattr(row, field.name) is not None for row in rows)
    ]
