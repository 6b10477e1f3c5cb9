"""Where things are drawn: scales with round ticks, intervals of scores, lines over days, columns over hours.

Numbers only; templates make SVG of them. Everything is rounded to tenths of a pixel, to keep pages small.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from itertools import groupby

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Scale:
    """A linear scale from ``low`` to ``high`` onto pixels ``first`` to ``last``; ticks are round values."""

    low: float
    high: float
    first: float
    last: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The pixel of a value, at the ends for what lies outside."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def text(self, tick: float) -> str:
        """A tick in as few digits as all of them take."""
        return f"{tick:.{self._digits}f}"

    @cached_property
    def _digits(self) -> int:
        step = self.ticks[1] - self.ticks[0]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        exact = all(abs(round(tick, digits) - tick) < step / 100 for tick in self.ticks)
        return digits if exact else digits + 1


def scale(
    values: Iterable[float | None], first: float, last: float, *, ticks: int = 4, least: float = 0.02
) -> Scale:
    """A scale that holds all values, its ends at ticks; as wide as ``least`` where they lie together."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    step = _round_step((high - low) / ticks)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if end == start:
        end += 1
    marks = tuple(round(i * step, 10) for i in range(start, end + 1))
    return Scale(marks[0], marks[-1], first, last, marks)


@dataclass(frozen=True)
class LogScale(Scale):
    """A logarithmic one: equal ratios are equally far apart. All values are above 0."""

    def at(self, value: float) -> float:
        """The pixel of a value, at the ends for what lies outside."""
        kept = min(max(value, self.low), self.high)
        share = math.log(kept / self.low) / math.log(self.high / self.low)
        return round(self.first + share * (self.last - self.first), 1)

    def text(self, tick: float) -> str:
        """A tick, in thousands where it has some."""
        return f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}"


def log_scale(values: Iterable[float | None], first: float, last: float, *, ticks: int = 4) -> LogScale:
    """A logarithmic scale that holds all values above 0, its ends at 1, 2 or 5 times a power of ten.

    It has at most so many ticks; where values span many powers of ten, only some of these.
    """
    known = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    low, high = (min(known), max(known)) if known else (1.0, 10.0)
    start, end = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    marks = [digit * 10.0**power for power in range(start, end + 1) for digit in (1, 2, 5)]
    bottom = max(mark for mark in marks if mark <= low * (1 + 1e-9))
    top = min(mark for mark in marks if mark >= high * (1 - 1e-9) and mark > bottom)
    inside = [mark for mark in marks if bottom <= mark <= top]
    step = math.ceil(len(inside) / ticks)
    return LogScale(bottom, top, first, last, tuple(inside[::step]))


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * s for s in _STEPS if power * s >= step * (1 - 1e-9))


@dataclass(frozen=True)
class IntervalMark:
    """A dot on a line; no line without an interval."""

    dot: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Strip:
    """States side by side; ``cells`` are runs of equal ones: kind, place and width of each."""

    width: int
    cells: Sequence[tuple[str, float, float]]


def strip(kinds: Sequence[str | None], *, width: int = 720) -> Strip:
    """Where states are drawn, equally wide; None is left free."""
    each = width / max(1, len(kinds))
    cells, place = [], 0
    for kind, run in groupby(kinds):
        n = len(list(run))
        if kind is not None:
            cells.append((kind, round(place * each, 1), round(max(1.0, n * each - 0.5), 1)))
        place += n
    return Strip(width, cells)


def interval(on: Scale, score: float | None, low: float | None, high: float | None) -> IntervalMark | None:
    """Where a score and its interval are drawn; None without a score."""
    if score is None:
        return None
    if low is None or high is None:
        return IntervalMark(on.at(score), None, None)
    return IntervalMark(on.at(score), on.at(low), on.at(high))


# ------------------------------------------------------------------------------------------------ history


@dataclass(frozen=True)
class DayValue:
    """What a chart needs of a day."""

    day: date
    score: float | None
    low: float | None
    high: float | None
    filled: bool = False


@dataclass(frozen=True)
class HistoryChart:
    """A line over days with a band for the interval; ``areas`` and ``lines`` are points of SVG.

    Days without a value interrupt both. ``dots`` stand for days without a neighbour, ``filled`` for daily
    means, which are another kind of number. ``marks`` are changes: a place each, and what to say there.
    """

    width: int
    height: int
    y: Scale
    areas: Sequence[str]
    lines: Sequence[str]
    dots: Sequence[tuple[float, float]]
    filled: Sequence[tuple[float, float]]
    marks: Sequence[tuple[float, str]]
    first: date
    last: date


def history_chart(
    days: Sequence[DayValue],
    marks: Sequence[tuple[date, str]] = (),
    *,
    width: int = 440,
    height: int = 130,
    most: int = 120,
) -> HistoryChart | None:
    """A chart of a score over days, of at most ``most`` points; None where no day has a score."""
    known = [d for d in days if d.score is not None]
    if not known:
        return None
    first, last = known[0].day, known[-1].day
    y = scale([v for d in known for v in (d.score, d.low, d.high)], height - 22.0, 8.0, ticks=3)
    span = max(1, (last - first).days)
    left, right = 40.0, width - 8.0

    def x(day: date) -> float:
        share = (day - first).days / span if last > first else 0.5
        return round(left + min(max(share, 0.0), 1.0) * (right - left), 1)

    solid = _thinned([d for d in known if not d.filled], most)
    step = max(1, math.ceil(span / most))
    runs = _runs(solid, timedelta(days=step + 1))
    areas, lines, dots = [], [], []
    for run in runs:
        points = [(x(d.day), y.at(d.score or 0.0)) for d in run]
        banded = [d for d in run if d.low is not None and d.high is not None]
        if len(banded) > 1:
            upper = [(x(d.day), y.at(d.high or 0.0)) for d in banded]
            lower = [(x(d.day), y.at(d.low or 0.0)) for d in reversed(banded)]
            areas.append(_points([*upper, *lower]))
        elif banded:
            [one] = banded
            centre = x(one.day)
            low, high = y.at(one.low or 0.0), y.at(one.high or 0.0)
            areas.append(
                _points([(centre - 2, high), (centre + 2, high), (centre + 2, low), (centre - 2, low)])
            )
        if len(points) > 1:
            lines.append(_points(points))
        else:
            dots += points
    filled = [(x(d.day), y.at(d.score or 0.0)) for d in _thinned([d for d in known if d.filled], most)]
    placed = [(x(day), text) for day, text in marks if first <= day <= last]
    return HistoryChart(width, height, y, areas, lines, dots, filled, placed, first, last)


def _thinned(days: Sequence[DayValue], most: int) -> list[DayValue]:
    """Every so many days, always with the last."""
    step = max(1, math.ceil(len(days) / most))
    return list(reversed(list(reversed(days))[::step]))


def _runs(days: Sequence[DayValue], apart: timedelta) -> list[list[DayValue]]:
    runs: list[list[DayValue]] = []
    for day in days:
        if runs and day.day - runs[-1][-1].day <= apart:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


# ------------------------------------------------------------------------------------------------ columns


@dataclass(frozen=True)
class Bar:
    """A part of a column: a rectangle of some kind."""

    kind: str
    x: float
    y: float
    width: float
    height: float


def columns(
    parts: Sequence[Sequence[tuple[str, int]]], *, width: int = 720, height: int = 110
) -> tuple[list[Bar], int]:
    """Stacked columns side by side, and the largest sum; a part that is there is at least a pixel high."""
    most = max((sum(n for _, n in column) for column in parts), default=0)
    bars = []
    each = width / max(1, len(parts))
    for place, column in enumerate(parts):
        base = float(height)
        for kind, n in column:
            if n:
                size = max(1.0, n / most * (height - 4))
                base -= size
                bars.append(
                    Bar(kind, round(place * each + 1, 1), round(base, 1), round(each - 2, 1), round(size, 1))
                )
    return bars, most
