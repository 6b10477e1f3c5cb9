"""Tables for people: as wide as they need, or what of them can be read on the terminal that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbench_dagster.core.columns import Unit, columns_of
from testbench_dagster.core.window import Window
from testbench_dagster.core.wording import money

_NOTHING = "–"
#: Columns of money, of which four digits behind the point say too little.
_MONEY = frozenset(name for name, field in columns_of(Window).items() if field.column.unit is Unit.MONEY)
#: A piece of text without a place to break it is folded to this many characters, if need be.
_FOLDED = 16
#: Sentences need lines of so many characters: a word on each cannot be read.
_SENTENCE = 24
#: Wider than any table.
_BOUNDLESS = 10_000
#: The least width of what goes into a file or pipe.
_UNSEEN_WIDTH = 200
#: Names, keys and sentences are broken behind these characters before they are broken anywhere else.
_PIECE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d\s*|[^\s_@,;:/.=-]*(?:[_@,;:/.=-]+\s*|\s+|$)")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?\+00:00")


def print_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str, console: Console
) -> list[str]:
    """Print rows under ``columns``; instants to the minute, in UTC.

    A terminal that is too narrow gets a closer table: what all rows have in common stands above it, texts and
    headings take several lines, numbers never. What does not fit even so is left out, columns without any
    value first, then the last ones; the names of those left out are returned.
    """
    cells = {
        name: [money(row.get(name)) if name in _MONEY else _cell(row.get(name)) for row in rows]
        for name in columns
    }
    numbers = {name for name in columns if any(isinstance(row.get(name), (int, float)) for row in rows)}
    table = Table(title=Text(title), title_justify="left", title_style="italic", header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    _fill(table, [cells[name] for name in columns])
    width = console.measure(table, options=console.options.update(width=_BOUNDLESS)).maximum
    if not console.is_terminal:
        # into a file or pipe: no wrapping at an imagined 80 columns, nor at any other number
        console.width = max(_UNSEEN_WIDTH, width)
    if width <= console.width:
        console.print(table)
        return []
    common = {
        name: texts[0]
        for name, texts in cells.items()
        if len(rows) > 1 and name not in numbers and len(set(texts)) == 1 and texts[0] != _NOTHING
    }
    own = {name: texts for name, texts in cells.items() if name not in common}
    widths = _widths(own, numbers, console.width)
    told = ", ".join(f"{name} {text}" for name, text in common.items())
    shown = {name: own[name] for name in own if name in widths}
    console.print(Text(f"{title}: {told}" if told else title, style="italic"))
    console.print(_close_table(shown, numbers, widths))
    return [name for name in own if name not in widths]


def _widths(cells: Mapping[str, Sequence[str]], numbers: set[str], width: int) -> dict[str, int]:
    """The widths of the columns there is room for; at least of one.

    Of as many as fit at their narrowest, which for numbers is their only one; texts share what is left.
    """
    empty = [name for name, texts in cells.items() if texts and set(texts) == {_NOTHING}]
    order = [name for name in cells if name not in empty] + empty
    heads = {name: max(map(cell_len, _heading(name).split("\n"))) for name in cells}
    natural = {name: max(heads[name], *map(cell_len, texts), 0) for name, texts in cells.items()}
    chosen: dict[str, int] = {}
    left = width + 1  # between two columns there is one space
    for name in order:
        least = natural[name]
        if name not in numbers:
            piece = min(_FOLDED, max(map(_longest_piece, cells[name]), default=0))
            sentences = natural[name] > _SENTENCE and any(text.count(" ") > 2 for text in cells[name])
            least = max(heads[name], _SENTENCE if sentences else piece)
        if chosen and least + 1 > left:
            break
        chosen[name] = min(least, natural[name])
        left -= chosen[name] + 1
    while left > 0 and (growing := [name for name in chosen if chosen[name] < natural[name]]):
        # the one that is nearest to standing on one line, so that most columns do
        name = min(growing, key=lambda one: natural[one] - chosen[one])
        more = min(left, natural[name] - chosen[name])
        chosen[name] += more
        left -= more
    return chosen


def _longest_piece(text: str) -> int:
    return max((cell_len(piece.rstrip()) for piece in _PIECE.findall(text)), default=0)


def _folded(text: str, width: int) -> str:
    """A text on lines of so many characters, broken where names and sentences can be."""
    lines = [""]
    for piece in _PIECE.findall(text):
        if cell_len(lines[-1] + piece.rstrip()) <= width:
            lines[-1] += piece
            continue
        lines += chop_cells(piece.strip(), width)
        lines[-1] += piece[len(piece.rstrip()) :]
    return "\n".join(line.rstrip() for line in lines if line) or text


def _close_table(cells: Mapping[str, Sequence[str]], numbers: set[str], widths: Mapping[str, int]) -> Table:
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    columns = []
    for name, texts in cells.items():
        number = name in numbers
        table.add_column(
            _heading(name),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=number,
            width=widths[name],
        )
        columns.append(texts if number else [_folded(text, widths[name]) for text in texts])
    _fill(table, columns)
    return table


def _fill(table: Table, columns: Sequence[Sequence[str]]) -> None:
    for row in zip(*columns, strict=True):
        table.add_row(*(Text(text) for text in row))


def _heading(name: str) -> str:
    """A column's name on as many lines as it has words, so that its values decide the width."""
    return name.replace("_", "_\n")


def _cell(value: Any) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or _NOTHING
    if isinstance(value, str) and (instant := _INSTANT.fullmatch(value)):
        return f"{instant[1]} {instant[2]}"
    return "".join(c if c.isprintable() else "�" for c in str(value))
