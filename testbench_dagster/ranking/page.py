"""The leaderboard as one HTML file that needs nothing else: style, script and drawings are inside.

Without JavaScript it is a document of plain tables; the script adds tabs, sorting and the filter. All text
that comes from suppliers or task data goes through :func:`text`, and the page's own policy (a Content
Security Policy naming the hashes of its script and style) keeps anything else from running or loading.

Size: the rankings come first; ability columns and the details of suppliers, best first, are added as long as
they fit into :data:`MAX_BYTES`, and the page says what it left out. 5,000 suppliers stay below it.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib import resources

from testbench_dagster.core.columns import Cell, Shape, Unit, columns_of
from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.core.window import WINDOW_VIEWS, Window
from testbench_dagster.ranking.cells import (
    UNKNOWN,
    cell_writer,
    interval_text,
    number_text,
    ranks_text,
    sort_writer,
)
from testbench_dagster.ranking.entry import ENTRY_VIEWS, Board, Entry

MAX_BYTES = 9_500_000
_TIED = ' class="tie" title="tied with others in this range"'
_SPARE = 1000  # bytes kept for what stands around the details
_CELL_CHARS = 400  # of a task's cell: all kinds of errors have room
_ABILITIES = 12  # columns of them at most; a supplier's details show all
_STYLE = resources.files(__package__).joinpath("page.css").read_text("utf-8")
_SCRIPT = resources.files(__package__).joinpath("page.js").read_text("utf-8")


def _hash(code: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() + "'"


#: Nothing may be loaded, and only the page's own script and style apply.
POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; "
    "base-uri 'none'; form-action 'none'"
)
_READING = """
<p>Every score lies in 0–1 and is drawn as a dot on its 95 % interval: the true score lies within it in 95 of
100 cases. A <b>rank</b> such as 2–5 holds the supplier's true rank with 95 % confidence: somebody else
counts as better only if the difference of the two scores is more than chance explains, allowing for all the
comparisons made. <b>Suppliers whose ranks overlap are tied</b>: the order of the rows among them says
nothing. “Best” is the probability that nobody is better, from a parametric bootstrap.</p>
<p>Suppliers of one <b>group</b> answer alike; they are measured together and share one score and their ranks.
<b>Errors</b> are docs that ended in the supplier's own fault; they are not part of the score.
<b>Available</b> is the share of answered docs among those answered or failed through the supplier or the
network.
<b>Newest</b> is the age of the last sample when this page was made. A dash means unknown, never zero.</p>
"""


def text(value: object, limit: int = 200) -> str:
    """Text made inert for HTML: escaped, cut, invisible and direction-changing characters replaced."""
    shown = str(value)
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return html.escape(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def render_page(board: Board, max_bytes: int = MAX_BYTES) -> str:
    """The whole page; at most ``max_bytes`` long in UTF-8 as long as its frame and one row fit."""
    anchors = {supplier.key: f"s{i}" for i, supplier in enumerate(board.suppliers)}
    head, tail = _head(board), f"<script>{_SCRIPT}</script></body></html>\n"
    left = max_bytes - len((head + tail).encode()) - _SPARE
    sections = []
    for i, (name, entries) in enumerate(board.rankings.items()):
        section, used = _section(board, name, i, entries, anchors, left // (len(board.rankings) - i))
        sections.append(section)
        left -= used
    return head + "".join(sections) + _details(board, anchors, left) + tail


# ------------------------------------------------------------------------------------------------ frame


def _head(board: Board) -> str:
    made = board.made_at.strftime("%Y-%m-%d %H:%M UTC")
    notice = (
        '<p class="simulation" role="note"><b>Simulation.</b> These suppliers are simulated: nothing here is '
        "about a real one.</p>"
        if board.simulation
        else ""
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>Leaderboard{' (simulation)' if board.simulation else ''}</title>"
        f"<style>{_STYLE}</style></head>"
        "<body><header><h1>Leaderboard</h1><p>Made "
        f'<time datetime="{board.made_at.isoformat()}">{made}</time>, '
        f"{len(board.suppliers)} suppliers.</p>{notice}"
        '<p class="controls" id="controls" hidden><label>Filter suppliers '
        '<input type="search" id="filter" autocomplete="off"></label> <output id="shown"></output></p>'
        f"<details><summary>How to read this</summary>{_READING}</details></header>"
        '<div id="tabs" role="tablist" aria-label="Taxonomies" hidden></div>'
    )


# ------------------------------------------------------------------------------------------------ rankings


def _section(
    board: Board, name: str, number: int, entries: Sequence[Entry], anchors: Mapping[str, str], room: int
) -> tuple[str, int]:
    """One ranking, and the bytes it takes."""
    scale = _scale(entries)
    write = [_cell_writer(cell, board.made_at, scale, anchors) for cell in ENTRY_VIEWS.page]
    rows = ["<tr>" + "".join(cell(entry) for cell in write) for entry in entries]
    abilities = _ability_names(board, name)
    heads = "".join(_column(cell.title, cell.explanation, _order(cell)) for cell in ENTRY_VIEWS.page)
    more_heads = "".join(_column(ability, "Ability", "n", "ability") for ability in abilities)
    cells = [_ability_cells(board.nodes.get((e.supplier, name), {}), abilities) for e in entries]
    notes = []
    room -= _SPARE + len(heads.encode())
    if _bytes(rows) + _bytes(cells) + len(more_heads.encode()) <= room:
        heads += more_heads
        rows = [row + more for row, more in zip(rows, cells, strict=True)]
    elif abilities:
        notes.append("The abilities are left out here to keep the page small.")
    shown = _fitting(rows, room)
    if shown < len(rows):
        notes.append(f"Only the first {shown} of {len(rows)} suppliers are shown, to keep the page small.")
    body = "".join(rows[:shown])
    section = (
        f'<section id="t{number}" aria-labelledby="h{number}"><h2 id="h{number}"><bdi>{text(name)}</bdi></h2>'
        + "".join(f"<p>{note}</p>" for note in notes)
        + ("" if entries else "<p>No suppliers yet.</p>")
        + f'<div class="wide" tabindex="0" role="region" aria-labelledby="h{number}"><table class="ranking">'
        + f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )
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


def _column(title: str, explanation: str, kind: str, style: str = "") -> str:
    attributes = f' data-k="{kind}"' if kind else ""
    attributes += f' title="{text(explanation)}"' if explanation else ""
    attributes += f' class="{style}"' if style else ""
    shown = f"<bdi>{text(title, 60)}</bdi>" if style else title or '<span class="hide">Drawing</span>'
    return f'<th scope="col"{attributes}>{shown}</th>'


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
) -> Callable[[Entry], str]:
    """Returns what writes a cell of the ranking."""
    if cell.shape is Shape.DRAWING:
        score, low, high = cell.readers
        return lambda entry: f"<td>{_drawing(score(entry), low(entry), high(entry), scale)}</td>"
    shown = cell_writer(Entry, cell, made_at)
    if cell.shape is Shape.NAME:
        return lambda entry: (
            f'<th scope="row"><a href="#{anchors[entry.supplier]}"><bdi>{text(shown(entry))}</bdi></a></th>'
        )
    if cell.shape is Shape.RANGE and cell.unit(Entry) is Unit.RANK:
        first, last = cell.readers
        return lambda entry: f"<td{_TIED if first(entry) != last(entry) else ''}>{text(shown(entry))}</td>"
    number = sort_writer(Entry, cell, made_at)
    if number is not None:
        return lambda entry: f'<td data-v="{number(entry)}">{text(shown(entry))}</td>'
    if _is_name(cell):
        (read,) = cell.readers
        return lambda entry: f"<td>{_name(read(entry))}</td>"
    return lambda entry: f"<td>{text(shown(entry))}</td>"


def _ability_names(board: Board, taxonomy: str) -> list[str]:
    for (_, name), nodes in board.nodes.items():
        if name == taxonomy:
            return [node for node in nodes if node != board.roots.get(taxonomy)][:_ABILITIES]
    return []


def _ability_cells(nodes: Mapping[str, Ability], names: Sequence[str]) -> str:
    scores = (nodes[name].score if name in nodes else None for name in names)
    return "".join(f"<td>{number_text(score)}</td>" for score in scores)


def _scale(entries: Sequence[Entry]) -> tuple[float, float]:
    """Ends of the drawings' axis: 0 to 1, wider where scores are no shares."""
    ends = [v for e in entries for v in (e.score, e.ci_low, e.ci_high) if v is not None]
    return min([0.0, *ends]), max([1.0, *ends])


def _drawing(score: float | None, low: float | None, high: float | None, scale: tuple[float, float]) -> str:
    if score is None:
        return ""

    def place(value: float) -> str:
        return f"{3 + 114 * (value - scale[0]) / (scale[1] - scale[0]):.1f}"

    line = "" if low is None or high is None else f'<path d="M{place(low)} 7H{place(high)}"/>'
    return (
        f'<svg viewBox="0 0 120 14" aria-hidden="true">{line}<circle cx="{place(score)}" cy="7" r="3"/></svg>'
    )


# ------------------------------------------------------------------------------------------------ details


def _details(board: Board, anchors: Mapping[str, str], room: int) -> str:
    order = list(dict.fromkeys(entry.supplier for entry in board.entries))
    places: dict[str, list[Entry]] = {}
    for entry in board.entries:
        places.setdefault(entry.supplier, []).append(entry)
    parts: list[str] = []
    for key in order:  # not made if it has no place: there may be thousands
        part = _supplier(board, key, anchors[key], places[key])
        room -= len(part.encode())
        if room < 0:
            break
        parts.append(part)
    missing = len(order) - len(parts)
    note = (
        f"<p>{missing} suppliers are left out here to keep the page small; "
        "<code>testbench scores --supplier KEY</code> and the JSON feed have them.</p>"
        if missing
        else ""
    )
    return f'<section id="suppliers"><h2>Suppliers</h2>{note}{"".join(parts)}</section>'


def _supplier(board: Board, key: str, anchor: str, entries: Sequence[Entry]) -> str:
    rows = board.windows.get(key, ())
    first = entries[0]
    facts = []
    if first.group is not None:
        facts.append(f"Group {_name(first.group)}, represented by {_name(first.proxy)}.")
    cuts = [row.cut_at for row in rows if row.cut_at is not None]
    if cuts:
        facts.append(f"Only answers after {max(cuts):%Y-%m-%d %H:%M} UTC count: its model changed then.")
    for entry in entries:
        nodes = board.nodes.get((key, entry.taxonomy), {})
        shown = [
            f"<bdi>{text(node)}</bdi> {number_text(value.score)} "
            f"({interval_text(value.ci_low, value.ci_high)})"
            for node, value in nodes.items()
            if value.score is not None
        ]
        if shown:
            facts.append(f"<b><bdi>{text(entry.taxonomy)}</bdi></b>: {', '.join(shown)}.")
    heads = "".join(f'<th scope="col">{cell.title}' for cell in WINDOW_VIEWS.page)
    write = [cell_writer(Window, cell, board.made_at) for cell in WINDOW_VIEWS.page]
    table = "".join(_task([text(cell(row), _CELL_CHARS) for cell in write]) for row in rows)
    ranks = ranks_text(first.rank_low, first.rank_high)
    return (
        f'<details id="{anchor}"><summary><bdi>{text(key)}</bdi> '
        f"<span>rank {ranks}, score {number_text(first.score)}</span></summary>"
        + "".join(f"<p>{fact}</p>" for fact in facts)
        + f'<div class="wide"><table><thead><tr>{heads}</tr></thead>'
        + f"<tbody>{table}</tbody></table></div></details>"
    )


def _task(cells: Sequence[str]) -> str:
    """A row of a supplier's tasks; the first cell is its name."""
    name, *others = cells
    head = f'<tr><th scope="row"><bdi>{name}</bdi></th>'
    return head + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"


def _name(value: object) -> str:
    return UNKNOWN if value is None else f"<bdi>{text(value)}</bdi>"
