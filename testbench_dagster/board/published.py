"""The published page: the leaderboard as one HTML file, made from the board's templates.

It needs nothing else: style, script and drawings are inside. Without JavaScript it is a document of plain
tables; its one script adds tabs, sorting and the filter, which on the board are addresses. Nobody else's
runs: the page's own policy (a Content Security Policy naming the hashes of its script and style) keeps
anything else from running or loading, and templates escape what they show.

Size: the rankings come first; columns of abilities or tasks and the details of suppliers, best first, are
added as long as they fit into :data:`MAX_BYTES`, and the page says what it left out. 5,000 suppliers stay
below it.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from typing import Any

from markupsafe import Markup

from testbench_dagster.board import links
from testbench_dagster.board.tables import (
    RankingTable,
    Table,
    drawn_abilities,
    score_scale,
    scored,
    with_values,
)
from testbench_dagster.board.templating import environment, stylesheet
from testbench_dagster.core.window import WINDOW_VIEWS, Window
from testbench_dagster.ranking.entry import ALL_TASKS, ENTRY_VIEWS, Board, Entry
from testbench_dagster.ranking.places import places, shares_of_best

MAX_BYTES = 9_500_000
_SPARE = 1000  # bytes kept for what stands around the details
_PARTS = 12  # columns of abilities or tasks at most; a supplier's details show all
_SET_ASIDE = 50  # tasks at most; the JSON feed has all
#: Columns of service quality, which go after those of parts.
_SERVICE = frozenset({"ttft_p50_ms", "tokens_per_s_p50", "uptime"})
#: What goes into a page from a template: text that is escaped already.
_Macro = Callable[..., Markup]


def _file(name: str) -> str:
    """The text of a file beside this module."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


_STYLE = f"{stylesheet().decode('utf-8')}{_file('published.css')}"
_SCRIPT = _file("published.js")


def _hash(code: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() + "'"


#: Nothing may be loaded, and only the page's own script and style apply.
POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; "
    "base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class _To:
    """Where the names in a ranking lead: to the details of a supplier, further below."""

    anchors: Mapping[str, str]

    def supplier(self, key: str) -> str:
        return f"#{self.anchors[key]}"

    def model(self, model: str) -> None:
        return None

    def members(self, unit: str) -> None:
        return None


def render_page(board: Board, max_bytes: int = MAX_BYTES) -> str:
    """The whole page; at most ``max_bytes`` long in UTF-8 as long as its frame and one row fit."""
    anchors = {supplier.key: f"s{i}" for i, supplier in enumerate(board.suppliers)}
    frame = functools.partial(_frame, board)
    left = max_bytes - _size([frame(Markup(), Markup())]) - _SPARE
    sections = []
    for i, (name, entries) in enumerate(board.rankings.items()):
        section = _section(board, name, i, entries, anchors, left // (len(board.rankings) - i))
        left -= _size([section])
        sections.append(section)
    return frame(_joined(sections), _details(board, anchors, left))


def _frame(board: Board, sections: Markup, details: Markup) -> str:
    """The page around its rankings and details."""
    told = list(board.published_set_aside.items())
    return (
        environment()
        .get_template("published.html.jinja")
        .render(
            board=board,
            home=board.url,
            simulation=board.simulation,
            models=sorted({supplier.model for supplier in board.suppliers}),
            set_aside=told[:_SET_ASIDE],
            set_aside_more=max(0, len(told) - _SET_ASIDE),
            sections=sections,
            details=details,
            # files of this package, which are to arrive as they are
            policy=Markup(POLICY),  # noqa: S704
            style=Markup(_STYLE),  # noqa: S704
            script=Markup(_SCRIPT),  # noqa: S704
        )
        + "\n"
    )


def _macros(template: str) -> Any:
    return environment().get_template(template).module


def _joined(parts: Iterable[Markup]) -> Markup:
    """Parts one after another; ``Markup.join`` would look into each of them again."""
    return Markup("".join(parts))  # noqa: S704  of markup alone


def _size(parts: Iterable[str]) -> int:
    return sum(len(part.encode("utf-8", "replace")) for part in parts)


def _fitting(parts: Sequence[str], space: int) -> int:
    """How many of the parts, from the first on, fit."""
    for i, part in enumerate(parts):
        space -= _size([part])
        if space < 0:
            return i
    return len(parts)


# ------------------------------------------------------------------------------------------------ rankings


def _section(
    board: Board,
    name: str,
    number: int,
    entries: Sequence[Entry],
    anchors: Mapping[str, str],
    space: int,
    *,
    service: bool = True,
) -> Markup:
    """One ranking; without the columns of ``service`` quality where all suppliers fit only so."""
    found = places(entries)
    cells = [
        cell
        for cell in (*ENTRY_VIEWS.page, *ENTRY_VIEWS.published)
        if service or cell.paths[0] not in _SERVICE
    ]
    table = RankingTable(
        cells, entries, shares_of_best(found), _To(anchors), {}, board.made_at, sortable=True
    )
    grid = f"g{number}"
    section: _Macro = _macros("published_parts.html.jinja").section
    names, score_of = _scores_by_part(board, name)
    lacking = board.lacking.get(name, ())

    def drawn(parts: Sequence[str]) -> list[Markup]:
        macro: _Macro = _macros("tables.html.jinja").place
        return [
            macro(
                [
                    (row, [score_of(entry.supplier, part) for part in parts])
                    for row, entry in zip(table.place(place, most=None), place.rows, strict=True)
                ],
                table.scale,
                grid,
            )
            for place in found
        ]

    def around(rows: Sequence[Markup], parts: Sequence[str], left_out: str = "", shown: int = 0) -> Markup:
        return section(
            number=number,
            name=name,
            lacking=lacking[:_PARTS],
            lacking_more=max(0, len(lacking) - _PARTS),
            left_out=left_out,
            shown=shown,
            n=len(entries),
            table=table,
            grid=grid,
            parts=parts,
            rows=_joined(rows),
        )

    rows = drawn(names)
    parts, left_out = names, "" if service else "speeds and uptimes"
    if names and _size(rows) > space - _SPARE - _size([around((), names)]):
        parts, less = [], "tasks" if name == ALL_TASKS else "abilities"
        left_out = less if service else f"{less}, {left_out}"
        rows = drawn(parts)
    fitting = _fitting(rows, space - _SPARE - _size([around((), parts, left_out)]))
    if fitting < len(rows) and service and any(entry.uptime is not None for entry in entries):
        return _section(board, name, number, entries, anchors, space, service=False)
    shown = sum(len(place.rows) for place in found[:fitting])
    return around(rows[:fitting], parts, left_out, shown)


def _scores_by_part(board: Board, name: str) -> tuple[Sequence[str], Callable[[str, str], float | None]]:
    """What has a column beside the ranking, and the score of a supplier in it.

    The abilities of the taxonomy, of a ranking over all tasks the tasks.
    """
    if name == ALL_TASKS:
        tasks = dict.fromkeys(row.task for rows in board.windows.values() for row in rows)
        scores = {(key, row.task): row.score for key, rows in board.windows.items() for row in rows}
        return list(tasks)[:_PARTS], lambda supplier, task: scores.get((supplier, task))
    nodes = next((nodes for (_, taxonomy), nodes in board.nodes.items() if taxonomy == name), {})
    abilities = [node for node in nodes if node != board.roots.get(name)]

    def score(supplier: str, node: str) -> float | None:
        found = board.nodes.get((supplier, name), {}).get(node)
        return None if found is None else found.score

    return abilities[:_PARTS], score


# ------------------------------------------------------------------------------------------------ details


def _details(board: Board, anchors: Mapping[str, str], space: int) -> Markup:
    order = list(dict.fromkeys(entry.supplier for entry in board.entries))
    ranked: dict[str, list[Entry]] = {}
    for entry in board.entries:
        ranked.setdefault(entry.supplier, []).append(entry)
    parts: list[Markup] = []
    cells = (*WINDOW_VIEWS.page, *WINDOW_VIEWS.published)
    rows = list(chain.from_iterable(board.windows.values()))
    table = Table(Window, with_values(Window, cells, rows), board.made_at)
    for key in order:  # not made if it has no place: there may be thousands
        part = _supplier(board, key, anchors[key], ranked[key], table)
        space -= _size([part])
        if space < 0:
            break
        parts.append(part)
    details: _Macro = _macros("published_parts.html.jinja").details
    return details(len(order) - len(parts), _joined(parts))


def _supplier(board: Board, key: str, anchor: str, entries: Sequence[Entry], table: Table) -> Markup:
    rows = board.windows.get(key, ())
    abilities = [
        (entry.taxonomy, *drawn_abilities(board.nodes.get((key, entry.taxonomy), {}))) for entry in entries
    ]
    on, groups = score_scale(rows), board.group_windows.get(key, ())
    on_groups = score_scale(groups)
    supplier: _Macro = _macros("published_parts.html.jinja").supplier
    return supplier(
        key=key,
        anchor=anchor,
        first=entries[0],
        cut=max((row.cut_at for row in rows if row.cut_at is not None), default=None),
        abilities=[found for found in abilities if found[2]],
        windows=scored(rows, on),
        scale=on,
        groups=scored(groups, on_groups),
        groups_scale=on_groups,
        table=table,
        address=f"{board.url}{links.supplier(key)}" if board.url else None,
    )
