"""The leaderboard as one HTML file that needs nothing else: style, script and drawings are inside.

Without JavaScript it is a document of plain tables; the script adds tabs, sorting and the filter. The markup
is that of ``page.html.jinja``, and whatever is put into it is escaped: by Jinja, or by :func:`filled` where
there are thousands. Text that comes from suppliers or task data is made :func:`readable` too, and the page's
own policy (a Content Security Policy naming the hashes of its script and style) keeps anything else from
running or loading.

Size: the rankings come first; ability columns and the details of suppliers, best first, are added as long as
they fit into :data:`MAX_BYTES`, and the page says what it left out. 5,000 suppliers stay below it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from testbench_dagster.core.columns import Cell, Shape, Unit, columns_of
from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.core.window import WINDOW_VIEWS, Window
from testbench_dagster.ranking.cells import (
    cell_writer,
    interval_text,
    number_text,
    ranks_text,
    sort_writer,
)
from testbench_dagster.ranking.entry import ENTRY_VIEWS, Board, Entry

MAX_BYTES = 9_500_000
_SPARE = 1000  # bytes kept for what stands around the details
_CELL_CHARS = 400  # of a task's cell: all kinds of errors have room
_ABILITIES = 12  # columns of them at most; a supplier's details show all


def _file(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


_STYLE = _file("page.css")
_SCRIPT = _file("page.js")
_READING = _file("reading.html")


def _hash(code: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() + "'"


#: Nothing may be loaded, and only the page's own script and style apply.
POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; "
    "base-uri 'none'; form-action 'none'"
)


def text(value: object, limit: int = 200) -> Markup:
    """Text made inert for HTML: escaped, cut, invisible and direction-changing characters replaced."""
    return Markup(html.escape(readable(value, limit)))  # noqa: S704  escaped here


def joined(parts: Iterable[Markup]) -> Markup:
    """Parts one after another; ``Markup.join`` would look into each of them again."""
    return Markup("".join(parts))  # noqa: S704  of markup alone


def readable(value: object, limit: int = 200) -> str:
    """Text cut, invisible and direction-changing characters replaced; not escaped yet."""
    shown = str(value)
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def filled(pattern: str, values: Iterable[str]) -> Markup:
    """Markup of ours with one ``%s`` for each value; the values are escaped, and hold no NUL.

    They are escaped in one go: Jinja would take a microsecond for each, half the time of a large page.
    """
    escaped = html.escape("\0".join(values))
    return Markup(pattern % tuple(escaped.split("\0")))  # noqa: S704  escaped above


def render_page(board: Board, max_bytes: int = MAX_BYTES) -> str:
    """The whole page; at most ``max_bytes`` long in UTF-8 as long as its frame and one row fit."""
    anchors = {supplier.key: f"s{i}" for i, supplier in enumerate(board.suppliers)}
    made = board.made_at.strftime("%Y-%m-%d %H:%M UTC")
    # four texts of our own, which are to arrive as they are
    own = [Markup(part) for part in (POLICY, _STYLE, _READING, _SCRIPT)]  # noqa: S704  files of this package
    head, tail = _PARTS.head(board, made, *own[:3]), _PARTS.tail(own[3]) + "\n"
    left = max_bytes - len((head + tail).encode()) - _SPARE
    sections = []
    for i, (name, entries) in enumerate(board.rankings.items()):
        section, used = _section(board, name, i, entries, anchors, left // (len(board.rankings) - i))
        sections.append(section)
        left -= used
    return str(joined((head, *sections, _details(board, anchors, left), tail)))


# ------------------------------------------------------------------------------------------------ rankings

#: What is written into a cell: how the template draws it ("cell" there), and the values to be put into that.
_Written = tuple[str, tuple[str, ...]]


def _section(
    board: Board, name: str, number: int, entries: Sequence[Entry], anchors: Mapping[str, str], space: int
) -> tuple[Markup, int]:
    """One ranking, and the bytes it takes."""
    scale = _scale(entries)
    write = [_cell_writer(cell, board.made_at, scale, anchors) for cell in ENTRY_VIEWS.page]
    written = [[cell(entry) for cell in write] for entry in entries]

    def rows_with(abilities: Sequence[str]) -> list[Markup]:
        return [
            _row(cells, board.nodes.get((entry.supplier, name), {}), abilities)
            for entry, cells in zip(entries, written, strict=True)
        ]

    abilities = _ability_names(board, name)
    rows = rows_with(abilities)
    heads = joined(_PARTS.column(cell.title, cell.explanation, _order(cell)) for cell in ENTRY_VIEWS.page)
    more_heads = joined(_PARTS.ability_column(ability) for ability in abilities)
    notes = []
    space -= _SPARE + len(heads.encode())
    if _bytes(rows) + len(more_heads.encode()) <= space:
        heads += more_heads
    elif abilities:
        rows = rows_with(())
        notes.append("The abilities are left out here to keep the page small.")
    shown = _fitting(rows, space)
    if shown < len(rows):
        notes.append(f"Only the first {shown} of {len(rows)} suppliers are shown, to keep the page small.")
    section = _PARTS.section(number, name, notes, not entries, heads, joined(rows[:shown]))
    return section, len(section.encode())


def _bytes(parts: Sequence[str]) -> int:
    return sum(len(part.encode()) for part in parts)


def _fitting(parts: Sequence[str], space: int) -> int:
    """How many of the parts, from the first on, fit."""
    for i, part in enumerate(parts):
        space -= len(part.encode())
        if space < 0:
            return i
    return len(parts)


def _order(cell: Cell) -> str:
    """How a column is sorted: by number (n), by text (t), or not at all."""
    if cell.shape is Shape.DRAWING:
        return ""
    return "t" if _is_name(cell) else "n"


def _is_name(cell: Cell) -> bool:
    """Whether a cell shows a name, which may come from anybody."""
    return columns_of(Entry)[cell.paths[0].partition(".")[0]].kind is str


def _cell_writer(
    cell: Cell, made_at: datetime, scale: tuple[float, float], anchors: Mapping[str, str]
) -> Callable[[Entry], _Written]:
    """Returns what writes a cell of the ranking."""
    if cell.shape is Shape.DRAWING:
        score, low, high = cell.readers
        return lambda entry: _drawing(score(entry), low(entry), high(entry), scale)
    shown = _readable_writer(Entry, cell, made_at)
    if cell.shape is Shape.NAME:
        return lambda entry: ("link", (anchors[entry.supplier], shown(entry)))
    if cell.shape is Shape.RANGE and cell.unit(Entry) is Unit.RANK:
        first, last = cell.readers
        return lambda entry: ("tied" if first(entry) != last(entry) else "plain", (shown(entry),))
    number = sort_writer(Entry, cell, made_at)
    if number is not None:
        return lambda entry: ("sorted", (number(entry), shown(entry)))
    if _is_name(cell):
        (read,) = cell.readers
        return lambda entry: ("plain" if read(entry) is None else "name", (shown(entry),))
    return lambda entry: ("plain", (shown(entry),))


def _readable_writer(record: type, cell: Cell, made_at: datetime, limit: int = 200) -> Callable[[Any], str]:
    """Returns what writes the text of a cell as it may go into a pattern: :func:`readable`."""
    shown = cell_writer(record, cell, made_at)
    if all(_is_number(record, path) for path in cell.paths):  # written by us: nothing to look for
        return shown
    return lambda one: readable(shown(one), limit)


def _is_number(record: type, path: str) -> bool:
    """Whether a column holds numbers or times, or is a part of one, as latencies are, that has a unit."""
    name, _, part = path.partition(".")
    field = columns_of(record).get(name)
    if field is None:
        return False
    return field.column.unit is not Unit.NONE if part else field.kind in (bool, int, float, datetime)


def _drawing(
    score: float | None, low: float | None, high: float | None, scale: tuple[float, float]
) -> _Written:
    """A dot for the score, on a line for its interval."""
    if score is None:
        return "empty", ()
    if low is None or high is None:
        return "dot", (_place(score, scale),)
    return "dot on line", (_place(low, scale), _place(high, scale), _place(score, scale))


def _place(value: float, scale: tuple[float, float]) -> str:
    """Where a score is drawn."""
    return f"{3 + 114 * (value - scale[0]) / (scale[1] - scale[0]):.1f}"


def _row(cells: Iterable[_Written], nodes: Mapping[str, Ability], abilities: Sequence[str]) -> Markup:
    """A row of cells, with the supplier's scores by ability behind them."""
    kinds, values = zip(*cells, strict=True)
    scores = [number_text(nodes[ability].score if ability in nodes else None) for ability in abilities]
    return filled(_row_pattern(kinds, len(abilities)), [*itertools.chain(*values), *scores])


@functools.cache
def _row_pattern(kinds: tuple[str, ...], abilities: int) -> str:
    return str(_PARTS.row((*kinds, *["plain"] * abilities)))


def _ability_names(board: Board, taxonomy: str) -> list[str]:
    for (_, name), nodes in board.nodes.items():
        if name == taxonomy:
            return [node for node in nodes if node != board.roots.get(taxonomy)][:_ABILITIES]
    return []


def _scale(entries: Sequence[Entry]) -> tuple[float, float]:
    """Ends of the drawings' axis: 0 to 1, wider where scores are no shares."""
    ends = [v for e in entries for v in (e.score, e.ci_low, e.ci_high) if v is not None]
    return min([0.0, *ends]), max([1.0, *ends])


# ------------------------------------------------------------------------------------------------ details


def _details(board: Board, anchors: Mapping[str, str], space: int) -> Markup:
    order = list(dict.fromkeys(entry.supplier for entry in board.entries))
    places: dict[str, list[Entry]] = {}
    for entry in board.entries:
        places.setdefault(entry.supplier, []).append(entry)
    parts: list[Markup] = []
    write = [_readable_writer(Window, cell, board.made_at, _CELL_CHARS) for cell in WINDOW_VIEWS.page]
    for key in order:  # not made if it has no place: there may be thousands
        part = _supplier(board, key, anchors[key], places[key], write)
        space -= len(part.encode())
        if space < 0:
            break
        parts.append(part)
    section: Markup = _PARTS.details(len(order) - len(parts), joined(parts))
    return section


def _supplier(
    board: Board,
    key: str,
    anchor: str,
    entries: Sequence[Entry],
    write: Sequence[Callable[[Window], str]],
) -> Markup:
    rows = board.windows.get(key, ())
    cuts = [row.cut_at for row in rows if row.cut_at is not None]
    cut = f"{max(cuts):%Y-%m-%d %H:%M}" if cuts else ""
    abilities = []
    for entry in entries:
        nodes = board.nodes.get((key, entry.taxonomy), {})
        known = [(node, ability) for node, ability in nodes.items() if ability.score is not None]
        if known:
            abilities.append((entry.taxonomy, known))
    values = [cell(row) for row in rows for cell in write]
    tasks = filled(_task_pattern() * len(rows), values) if rows else ""
    details: Markup = _PARTS.supplier(key, anchor, entries[0], cut, abilities, _task_heads(), tasks)
    return details


@functools.cache
def _task_heads() -> Markup:
    heads: Markup = _PARTS.task_heads([cell.title for cell in WINDOW_VIEWS.page])
    return heads


@functools.cache
def _task_pattern() -> str:
    return str(_PARTS.task(len(WINDOW_VIEWS.page)))


# ------------------------------------------------------------------------------------------------ template


def _parts() -> Any:
    """The macros of the template: functions that return markup and escape all else they are given."""
    environment = Environment(autoescape=True)
    environment.filters |= {
        "inert": text,
        "interval": interval_text,
        "number": number_text,
        "ranks": ranks_text,
    }
    source = "".join(line.strip() for line in _file("page.html.jinja").splitlines())
    return environment.from_string(source).module


_PARTS = _parts()
