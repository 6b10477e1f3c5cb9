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
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from testbench_dagster.leaderboard.ranking import Board, Entry
from testbench_dagster.scoring.windows import Window

MAX_BYTES = 9_500_000
_SPARE = 1000  # bytes kept for what stands around the details
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

#: Title, explanation, kind of order: numbers with n, text with t.
_COLUMNS = (
    ("Rank", "95 % confidence; overlapping ranks are ties", "n"),
    ("Supplier", "", "t"),
    ("Score", "", "n"),
    ("95 % interval", "", "n"),
    ("", "Score on its interval", ""),
    ("Best", "Probability that nobody is better", "n"),
    ("Tasks", "Measured of all", "n"),
    ("Docs", "Behind the score", "n"),
    ("Errors", "Share of docs that ended in the supplier's own fault", "n"),
    ("Available", "Answered docs among those answered or failed through supplier or network", "n"),
    ("p50", "Median latency", "n"),
    ("p95", "95 % of answers are faster", "n"),
    ("Newest", "Age of the newest sample", "n"),
    ("Group", "Suppliers that answer alike", "t"),
)


def _section(
    board: Board, name: str, number: int, entries: Sequence[Entry], anchors: Mapping[str, str], room: int
) -> tuple[Markup, int]:
    """One ranking, and the bytes it takes."""
    scale = _scale(entries)

    def rows_with(abilities: Sequence[str]) -> list[Markup]:
        return [_row(board, name, entry, anchors[entry.supplier], scale, abilities) for entry in entries]

    abilities = _ability_names(board, name)
    rows = rows_with(abilities)
    heads = joined(_PARTS.column(*column) for column in _COLUMNS)
    more_heads = joined(_PARTS.ability_column(ability) for ability in abilities)
    notes = []
    room -= _SPARE + len(heads.encode())
    if _bytes(rows) + len(more_heads.encode()) <= room:
        heads += more_heads
    elif abilities:
        rows = rows_with(())
        notes.append("The abilities are left out here to keep the page small.")
    shown = _fitting(rows, room)
    if shown < len(rows):
        notes.append(f"Only the first {shown} of {len(rows)} suppliers are shown, to keep the page small.")
    section = _PARTS.section(number, name, notes, not entries, heads, joined(rows[:shown]))
    return section, len(section.encode())


def _bytes(parts: Sequence[str]) -> int:
    return sum(len(part.encode()) for part in parts)


def _fitting(parts: Sequence[str], room: int) -> int:
    """How many of the parts, from the first on, fit."""
    for i, part in enumerate(parts):
        room -= len(part.encode())
        if room < 0:
            return i
    return len(parts)


def _ability_names(board: Board, taxonomy: str) -> list[str]:
    for (_, name), nodes in board.nodes.items():
        if name == taxonomy:
            return [node for node in nodes if node != board.roots.get(taxonomy)][:_ABILITIES]
    return []


def _scale(entries: Sequence[Entry]) -> tuple[float, float]:
    """Ends of the drawings' axis: 0 to 1, wider where scores are no shares."""
    ends = [v for e in entries for v in (e.score, e.ci_low, e.ci_high) if v is not None]
    return min([0.0, *ends]), max([1.0, *ends])


def _row(
    board: Board,
    taxonomy: str,
    entry: Entry,
    anchor: str,
    scale: tuple[float, float],
    abilities: Sequence[str],
) -> Markup:
    score, low, high = entry.score, entry.ci_low, entry.ci_high
    values = [_rank(entry), anchor, readable(entry.supplier), _number(score), _interval(low, high)]
    lined = score is not None and low is not None and high is not None
    drawn = (low, high, score) if lined else (score,)
    values += [_place(value, scale) for value in drawn if value is not None]
    p50, p95 = entry.latency_ms.get("p50"), entry.latency_ms.get("p95")
    age = _age(board.made_at, entry.last_sample_at)
    values += (
        _percent(entry.p_best),
        f"{entry.tasks_measured}/{entry.tasks_total}",
        str(entry.n),
        _percent(entry.error_rate),
        _percent(entry.availability),
        _whole(p50),
        _milliseconds(p50),
        _whole(p95),
        _milliseconds(p95),
        _whole(age),
        _duration(age),
        "–" if entry.group is None else readable(entry.group),
    )
    nodes = board.nodes.get((entry.supplier, taxonomy), {})
    values += [_number(nodes.get(ability, {}).get("score")) for ability in abilities]
    tied = entry.rank_low != entry.rank_high
    pattern = _row_pattern(tied, score is not None, lined, entry.group is not None, len(abilities))
    return filled(pattern, values)


@functools.cache
def _row_pattern(tied: bool, drawn: bool, lined: bool, grouped: bool, abilities: int) -> str:
    return str(_PARTS.row(tied, drawn, lined, grouped, abilities))


def _place(value: float, scale: tuple[float, float]) -> str:
    """Where a score is drawn."""
    return f"{3 + 114 * (value - scale[0]) / (scale[1] - scale[0]):.1f}"


# ------------------------------------------------------------------------------------------------ details


def _details(board: Board, anchors: Mapping[str, str], room: int) -> Markup:
    order = list(dict.fromkeys(entry.supplier for entry in board.entries))
    places: dict[str, list[Entry]] = {}
    for entry in board.entries:
        places.setdefault(entry.supplier, []).append(entry)
    parts: list[Markup] = []
    for key in order:  # not made if it has no place: there may be thousands
        part = _supplier(board, key, anchors[key], places[key])
        room -= len(part.encode())
        if room < 0:
            break
        parts.append(part)
    section: Markup = _PARTS.details(len(order) - len(parts), joined(parts))
    return section


def _supplier(board: Board, key: str, anchor: str, entries: Sequence[Entry]) -> Markup:
    rows = board.windows.get(key, ())
    cuts = [row.cut_at for row in rows if row.cut_at is not None]
    cut = f"{max(cuts):%Y-%m-%d %H:%M}" if cuts else ""
    abilities = []
    for entry in entries:
        nodes = board.nodes.get((key, entry.taxonomy), {})
        known = [(node, value) for node, value in nodes.items() if value.get("score") is not None]
        if known:
            abilities.append((entry.taxonomy, known))
    values = [value for row in rows for value in _task_values(board.made_at, row)]
    tasks = filled(_task_pattern() * len(rows), values) if rows else ""
    details: Markup = _PARTS.supplier(key, anchor, entries[0], cut, abilities, tasks)
    return details


def _task_values(made_at: datetime, row: Window) -> tuple[str, ...]:
    planned = "" if row.n_planned is None else f"/{row.n_planned}"
    return (
        readable(row.task),
        _number(row.score),
        _interval(row.ci_low, row.ci_high),
        f"{row.n}{planned}" if row.status != "unsupported" else "unsupported",
        ", ".join(f"{readable(fault)} {count}" for fault, count in row.errors.items()) or "none",
        _milliseconds(row.latency_ms.get("p50")),
        _milliseconds(row.latency_ms.get("p95")),
        _duration(_age(made_at, row.last_sample_at)),
    )


@functools.cache
def _task_pattern() -> str:
    return str(_PARTS.task())


# ------------------------------------------------------------------------------------------------ cells


def _rank(entry: Entry) -> str:
    if entry.rank_low is None:
        return "–"
    return str(entry.rank_low) if entry.rank_low == entry.rank_high else f"{entry.rank_low}–{entry.rank_high}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:.3f}–{high:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _whole(value: float | None) -> str:
    return "" if value is None else str(round(value))


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f} ms" if value < 1000 else f"{value / 1000:.1f} s"


def _age(made_at: datetime, at: datetime | None) -> float | None:
    return None if at is None else max(0.0, (made_at - at).total_seconds())


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _parts() -> Any:
    """The macros of the template: functions that return markup and escape all else they are given."""
    environment = Environment(autoescape=True)
    environment.filters |= {"inert": text, "interval": _interval, "number": _number, "rank": _rank}
    source = "".join(line.strip() for line in _file("page.html.jinja").splitlines())
    return environment.from_string(source).module


_PARTS = _parts()
