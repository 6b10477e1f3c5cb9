"""What materializations show: tables, counts and plots.

All markdown is made by the templates here, and whatever they are given is escaped on its way in, but
:class:`Markdown`.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dagster as dg
from jinja2 import Environment

from testbench_dagster.core.columns import Cell, Shape, Unit
from testbench_dagster.core.window import TOLD_STATUSES, WINDOW_VIEWS, Window

NOT_PUBLISHED = "not published"
"""Name of the metadata that says why a leaderboard did not get to the place that it is published to."""
_REASONS = 50  # in the metadata of a run: they live in an event row
_MARKUP = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]()#+!|<>&~"})


class Markdown(str):
    """Markdown of ours, which templates take as it is; never of foreign text."""

    __slots__ = ()


def inert(value: object) -> str:
    """A value as markdown that shows it and does nothing else.

    Text has no markup, no line breaks and at most 200 characters; numbers have four digits, None is a dash.
    """
    if isinstance(value, Markdown):
        return value
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split())[:200].translate(_MARKUP)


# Jinja's own escaping is that of HTML; "finalize" sees every value that a template shows
_TEMPLATES = Environment(finalize=inert, autoescape=False, trim_blocks=True)  # noqa: S701  markdown, see above
_TABLE = _TEMPLATES.from_string(
    "|{% for header in headers %} {{ header }} |{% endfor %}\n\n"
    "|{% for _ in headers %}---|{% endfor %}\n"
    "{% for row in rows %}\n\n|{% for value in row %} {{ value }} |{% endfor %}{% endfor %}"
)
_PICTURE = _TEMPLATES.from_string("![{{ title }}](data:image/png;base64,{{ image }})\n\n{{ note }}")


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.MarkdownMetadataValue:
    """A markdown table; cells are made inert, see :func:`inert`."""
    return dg.MetadataValue.md(_TABLE.render(headers=headers, rows=rows))


def record_table(cells: Sequence[Cell], records: Sequence[object]) -> dg.MarkdownMetadataValue:
    """One line per record, with the cells of its view for Dagster."""
    rows = [[_shown(record, cell) for cell in cells] for record in records]
    return markdown_table([cell.title for cell in cells], rows)


def window_table(rows: Sequence[Window]) -> dg.MarkdownMetadataValue:
    """One line per primary window: what an operator wants to see of a supplier."""
    return record_table(WINDOW_VIEWS.dagster, [row for row in rows if row.primary])


def _shown(record: object, cell: Cell) -> object:
    """The value of a cell; None for what is unknown."""
    value, *more = cell.values(record)
    match cell.shape:
        case Shape.RANGE if cell.unit(type(record)) is Unit.RANK:
            return value if [value] == more else f"{value}–{more[0]}"
        case Shape.RANGE:
            return interval_text(value, *more)
        case Shape.OF:
            return f"{value}/{more[0]}"
        case Shape.JOINED:
            return ",".join(map(str, (value, *more)))
        case Shape.DOCS:
            return more[-1] if more[-1] in TOLD_STATUSES else value
        case _:
            if isinstance(value, datetime):
                return value.strftime("%Y-%m-%d %H:%M")
            if isinstance(value, Mapping):
                return ", ".join(f"{name} {count}" for name, count in value.items()) or None
            return value


def interval_text(low: float | None, high: float | None) -> str | None:
    """``0.512–0.634``, or None where there is no interval."""
    return None if low is None or high is None else f"{low:.3f}–{high:.3f}"


def counts(values: Mapping[str, int]) -> str:
    """``ok 120, transport 3``: a histogram in one line."""
    return ", ".join(f"{name} {count}" for name, count in sorted(values.items())) or "none"


def counts_in(text: str) -> Counter[str]:
    """The histogram that :func:`counts` wrote."""
    pairs = (part.rpartition(" ") for part in text.split(", ") if text != "none")
    return Counter({name: int(count) for name, _, count in pairs})


def interval_plot(title: str, rows: Sequence[Mapping[str, Any]], note: str = "") -> dg.MarkdownMetadataValue:
    """Horizontal bars with their intervals, as a PNG inside markdown (at most some 50 KB).

    Each row has ``label``, ``score`` and, where known, ``low`` and ``high``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.9 + 0.34 * max(1, len(rows))), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    ordered = list(reversed(rows))
    places = range(len(ordered))
    axes.barh(places, [row["score"] for row in ordered], color="#9db8d9", height=0.62)
    for place, row in zip(places, ordered, strict=True):
        if row.get("low") is not None:
            axes.plot([row["low"], row["high"]], [place, place], color="#1f3b63", linewidth=2)
    labels = [str(row["label"])[:48] for row in ordered]
    axes.set_yticks(list(places), labels, fontsize=8, parse_math=False)  # a $ is no formula
    axes.set_xlim(0, max(1.0, *(row.get("high") or row["score"] for row in ordered)) if ordered else 1.0)
    axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    axes.set_xlabel("score with 95 % interval", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return picture(title, image.getvalue(), note)


def picture(title: str, png: bytes, note: str = "") -> dg.MarkdownMetadataValue:
    """A PNG inside markdown. It lives in a row of the event log: keep it below some 100 KB."""
    image = Markdown(base64.b64encode(png).decode())
    return dg.MetadataValue.md(_PICTURE.render(title=title, image=image, note=note))


def set_aside_metadata(reasons: Mapping[str, str | None]) -> dict[str, Any]:
    """Metadata that says which tasks are set aside and why; empty where none is."""
    return {"set_aside": dict(list(reasons.items())[:_REASONS])} if reasons else {}
