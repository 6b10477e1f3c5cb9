"""What the page writes into a cell: the text of a record's values by shape and unit, not escaped yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from testbench_dagster.core.columns import Cell, Shape, Unit, columns_of
from testbench_dagster.core.window import TOLD_STATUSES
from testbench_dagster.core.wording import money

UNKNOWN = "–"


def cell_writer(record: type, cell: Cell, made_at: datetime) -> Callable[[Any], str]:
    """Returns what writes the text of a cell for records of a class; a dash for what is unknown."""
    read, *others = cell.readers
    unit = cell.unit(record)
    match cell.shape:
        case Shape.RANGE:
            show, (high,) = ranks_text if unit is Unit.RANK else interval_text, others
            return lambda one: show(read(one), high(one))
        case Shape.OF:
            (whole,) = others
            return lambda one: f"{read(one)}/{whole(one)}"
        case Shape.DOCS:
            return lambda one: _docs_text(*cell.values(one))
        case Shape.AGE:
            return lambda one: duration_text(age_seconds(made_at, read(one)))
        case _:
            show_value = _value_text(record, cell)
            return lambda one: show_value(read(one))


def sort_writer(record: type, cell: Cell, made_at: datetime) -> Callable[[Any], str] | None:
    """Returns what writes the number to sort by, where the text has a unit that varies ("2 min", "3 s").

    In whole milliseconds or seconds, empty where the value is unknown. None where the text itself sorts.
    """
    (read, *_) = cell.readers
    if cell.shape is Shape.AGE:
        return lambda one: _whole(age_seconds(made_at, read(one)))
    return (lambda one: _whole(read(one))) if cell.unit(record) is Unit.MILLISECONDS else None


def _whole(number: float | None) -> str:
    return "" if number is None else str(round(number))


def _docs_text(n: int, *more: Any) -> str:
    *wanted, status = more
    planned = "".join(f"/{number}" for number in wanted if number is not None)
    return str(status) if status in TOLD_STATUSES else f"{n}{planned}"


def _value_text(record: type, cell: Cell) -> Callable[[Any], str]:
    """What writes one value; chosen once, there may be thousands of rows."""
    field = columns_of(record).get(cell.paths[0])
    if field is not None and field.kind is dict:
        return _counts_text
    match cell.unit(record):
        case Unit.SCORE:
            return number_text
        case Unit.SHARE:
            return lambda value: UNKNOWN if value is None else f"{100 * value:.1f} %"
        case Unit.MILLISECONDS:
            return milliseconds_text
        case Unit.SPEED:
            return speed_text
        case Unit.MONEY:
            return lambda value: money(value, UNKNOWN)
        case _:
            return lambda value: UNKNOWN if value is None else str(value)


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items()) or "none"


def milliseconds_text(value: float | None) -> str:
    """A latency."""
    if value is None:
        return UNKNOWN
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def speed_text(value: float | None) -> str:
    """Tokens per second."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def number_text(value: float | None) -> str:
    """A score."""
    return UNKNOWN if value is None else f"{value:.3f}"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval of scores, or of differences."""
    if low is None or high is None:
        return UNKNOWN
    return f"{low:.3f} to {high:.3f}" if low < 0 else f"{low:.3f}–{high:.3f}"  # no dash beside a minus


def ranks_text(low: int | None, high: int | None) -> str:
    """A range of ranks; one number where both ends are the same."""
    if low is None:
        return UNKNOWN
    return str(low) if low == high else f"{low}–{high}"


def age_seconds(made_at: datetime, at: datetime | None) -> float | None:
    """Seconds from an instant to the time of publishing, never below 0."""
    return None if at is None else max(0.0, (made_at - at).total_seconds())


def duration_text(seconds: float | None) -> str:
    """Seconds in the largest unit of which there are two."""
    if seconds is None:
        return UNKNOWN
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
