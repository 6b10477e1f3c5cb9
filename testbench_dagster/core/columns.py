"""The column registry: what a published record's fields are and mean, and where each is shown.

A record (:class:`~.window.Window`, :class:`~testbench_dagster.ranking.entry.Entry`) annotates each field with
a :class:`Column` and says in its :class:`Views` which tables and feeds show it, in their order. JSON, CSV,
parquet, the tables of the commands, of Dagster and of the page, the feeds, the cache of windows and the
documentation follow from these. A new column is its line in the record, its names in the views, and the code
that computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from operator import attrgetter
from typing import Any, get_args, get_origin, get_type_hints

#: The first version that was released: what it came with needs no mark.
FIRST_VERSION = "0.2.0"


class Unit(StrEnum):
    """What a number counts or measures; decides how people are shown it."""

    NONE = ""
    ANSWERS = "answers"
    DOCS = "docs"
    MILLISECONDS = "ms"
    MONEY = "currency of the prices"
    RANK = "rank"
    SCORE = "unit of the metric"
    SHARE = "share of 1"
    SPEED = "tokens per second"
    TASKS = "tasks"
    TOKENS = "tokens"


class Origin(Enum):
    """What a value follows from; a cache of answers repeats nothing that is said elsewhere."""

    ANSWERS = "the supplier's answers to the task"
    SUPPLIER = "the roster"
    PRICE = "the supplier's answers, at the price that the roster has now"
    TASK = "configuration and registration of the task"
    PLACE = "the place of the record among others"


@dataclass(frozen=True, slots=True)
class Column:
    """What is to be known of a field besides its name and type.

    ``parts`` are the keys of a value that is a mapping, where they are always the same. A ``sparse`` column
    is shown by the commands' tables only where a row has a value.
    """

    meaning: str
    unit: Unit = Unit.NONE
    since: str = FIRST_VERSION
    origin: Origin = Origin.ANSWERS
    parts: tuple[str, ...] = ()
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record with its column. ``kind`` is its plain type, a mapping's is ``dict``."""

    name: str
    kind: type
    optional: bool
    column: Column


class Shape(Enum):
    """How the values of a cell become one text."""

    PLAIN = "as its unit is shown"
    RANGE = "low–high"
    OF = "part/whole"
    JOINED = "one,other"
    DOCS = "docs, docs wanted and status: n/planned, or why there are none to ask"
    AGE = "seconds since, at the time of publishing"
    NAME = "a name that leads to its details"
    DRAWING = "score on its interval"
    PLACE = "what members of one place have together: it stands in the first row of each"


@dataclass(frozen=True, slots=True)
class Cell:
    """A title over a column, or over several that people read as one; ``latency_ms.p50`` is a part of one."""

    title: str
    paths: tuple[str, ...]
    shape: Shape = Shape.PLAIN
    explanation: str = ""

    @property
    def readers(self) -> list[Callable[[Any], Any]]:
        """Functions that read the values it shows from a record, in the order of ``paths``."""
        return [reader_of(path) for path in self.paths]

    def values(self, record: object) -> list[Any]:
        """The values of a record that the cell shows."""
        return [read(record) for read in self.readers]

    def unit(self, record: type) -> Unit:
        """The unit of its first column in a class of records; a property has none."""
        field = columns_of(record).get(self.paths[0].partition(".")[0])
        return Unit.NONE if field is None else field.column.unit


@dataclass(frozen=True, slots=True)
class Gauge:
    """A metric of the Prometheus feed: times as seconds since 1970, latencies in seconds by quantile."""

    name: str
    explanation: str
    path: str


@dataclass(frozen=True, slots=True)
class Views:
    """Where a record's columns are shown, in what order; JSON, CSV and parquet have all of them."""

    #: Tables of the commands, under the columns' own names.
    commands: tuple[str, ...]
    #: Tables in the metadata of Dagster's assets.
    dagster: tuple[Cell, ...]
    #: Tables of the pages: of the board and of the published one.
    page: tuple[Cell, ...]
    #: Columns that only the published page has, behind those: no other page is behind it to show them.
    published: tuple[Cell, ...]
    #: Objects of the JSON feed; the titles are its keys.
    feed: tuple[Cell, ...]
    #: Families of the Prometheus feed, the most important first.
    gauges: tuple[Gauge, ...]


_KNOWN: dict[type, Mapping[str, Field]] = {}


def columns_of(record: type) -> Mapping[str, Field]:
    """The fields of a record class by name, in their order.

    Raises:
        TypeError: a field has no :class:`Column`.
    """
    if record not in _KNOWN:  # read from the annotations once
        _KNOWN[record] = _read_columns(record)
    return _KNOWN[record]


def _read_columns(record: type) -> Mapping[str, Field]:
    found = {}
    for name, hint in get_type_hints(record, include_extras=True).items():
        kind, *notes = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        column = next((note for note in notes if isinstance(note, Column)), None)
        if column is None:
            raise TypeError(f"{record.__name__}.{name} has no column: annotate it with Column(...)")
        plain, optional = _plain_type(kind)
        found[name] = Field(name, plain, optional, column)
    return found


def _plain_type(hint: Any) -> tuple[type, bool]:
    """``str | None`` is a text that may be missing, ``Mapping[...]`` a dict."""
    options = get_args(hint)
    if type(None) in options:
        (hint,) = (option for option in options if option is not type(None))
    kind = get_origin(hint) or hint
    return dict if kind is Mapping else kind, type(None) in options


def reader_of(path: str) -> Callable[[Any], Any]:
    """Reads a field of a record by name, or a part of it by ``name.part``; a property counts as a field."""
    name, _, part = path.partition(".")
    whole = attrgetter(name)
    return (lambda record: whole(record).get(part)) if part else whole


def plain_json(record: object) -> dict[str, Any]:
    """A record as plain JSON values in the order of its columns; times as ISO 8601 in UTC."""
    values = vars(record)
    return {
        name: value.isoformat() if isinstance(value := values[name], datetime) else value
        for name in columns_of(type(record))
    }
