"""Pictures of abilities: the graph coloured by score, bars with intervals, suppliers by abilities.

Each function returns the bytes of a PNG or SVG. Colours are matplotlib's *cividis*, made to look the same to
colour-blind readers (Nunez, Anderton and Renslow, PLOS ONE 13 (2018), e0199239); what is not measured is
hatched grey and says so in words. ``note`` (such as that suppliers are simulated) stands under the picture.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.core.wording import counted
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.summary import NOT_APPLICABLE, UNDEFINED, NodeSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
Node = NodeSummary | Ability
"""What is drawn of an ability: as just summarized, or as it was stored."""
Format = Literal["png", "svg"]

SIMULATED = "Simulation: these suppliers are simulated."
"""The note for suppliers that do not exist."""
MOST_SUPPLIERS = 60
"""Rows of a heat map; more cannot be read."""
_COLOURS = "cividis"
_NO_DATA = "#d9d9d9"
#: What is said of nodes without a score, by status, where it is not that there is no data.
_WITHOUT_SCORE = {UNDEFINED: "no task yet", NOT_APPLICABLE: "not asked"}
_INK = "#222222"
_BOX = (1.0, 0.74)  # width and height of a node, in layout units
_STEP = 1.34  # from one layer to the next


def dag(
    taxonomy: Taxonomy, nodes: Mapping[str, Node], title: str, note: str = "", format_: Format = "png"
) -> bytes:
    """The taxonomy from left to right, each node coloured by its score.

    Full lines lead to children that a node's score is made of, dotted ones to abilities that it builds on but
    is not scored by. Nodes that the root does not reach have a dashed frame.
    """
    from matplotlib import colormaps
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path

    places = layout(taxonomy)
    width = _STEP * max(x for x, _ in places.values()) + _BOX[0]
    height = max(y for _, y in places.values()) + 1.0
    figure, axes = _canvas(max(4.0, 1.9 * width), max(2.0, 0.58 * height) + 0.8, title, note)
    axes.set_axis_off()
    axes.set_xlim(-0.05, width + 0.05)
    axes.set_ylim(height - 0.4, -0.6)
    made_of = {node: {p.name for p in taxonomy.parts(node) if p.leaves is None} for node in taxonomy.nodes}
    for parent, child in taxonomy.edges:
        (x0, y0), (x1, y1) = places[parent], places[child]
        start, end = (_STEP * x0 + _BOX[0], y0), (_STEP * x1, y1)
        bend = (end[0] - start[0]) / 2
        curve = Path(
            [start, (start[0] + bend, y0), (end[0] - bend, y1), end],
            [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
        )
        counts = child in made_of[parent]
        axes.add_patch(
            PathPatch(
                curve, facecolor="none", edgecolor="#777777", linewidth=1.1, linestyle="-" if counts else ":"
            )
        )
    reached = taxonomy.reached()
    colours = colormaps[_COLOURS]
    for name, (x, y) in places.items():
        node = nodes.get(name)
        score = None if node is None else node.score
        face = _NO_DATA if score is None else colours(min(1.0, max(0.0, score)))
        axes.add_patch(
            FancyBboxPatch(
                (_STEP * x, y - _BOX[1] / 2),
                *_BOX,
                boxstyle="round,pad=0,rounding_size=0.08",
                facecolor=face,
                edgecolor="#999999" if score is None else _INK,
                linewidth=0.9,
                linestyle="-" if name in reached else "--",
                hatch="////" if score is None else None,
            )
        )
        ink = "white" if score is not None and score < 0.55 else _INK
        back = {"facecolor": _NO_DATA, "edgecolor": "none", "pad": 1.0} if score is None else None
        lines = textwrap.wrap(name.replace("_", " "), 22)[:2]
        axes.text(
            _STEP * x + _BOX[0] / 2,
            y - 0.13,
            "\n".join(lines),
            ha="center",
            va="center",
            color=ink,
            fontsize=7.5 if len(lines) == 1 else 6.5,
            fontweight="bold",
            bbox=back,
            parse_math=False,
        )
        axes.text(
            _STEP * x + _BOX[0] / 2,
            y + 0.21,
            _figures(node),
            ha="center",
            va="center",
            color=ink,
            fontsize=6.8,
            bbox=back,
            parse_math=False,
        )
    _legend(figure, axes)
    return _image(figure, format_)


def bars(
    taxonomy: Taxonomy, nodes: Mapping[str, Node], title: str, note: str = "", format_: Format = "png"
) -> bytes:
    """One bar per ability with its 95 % interval, children indented under their (first) parent."""
    from matplotlib import colormaps

    order = _outline(taxonomy)
    longest = max(len(name) + 2 * depth for name, depth in order)
    figure, axes = _canvas(4.6 + 0.07 * longest, 1.3 + 0.27 * len(order), title, note)
    colours = colormaps[_COLOURS]
    for place, (name, _) in enumerate(order):
        node = nodes.get(name)
        score = None if node is None else node.score
        if score is None:
            axes.barh(place, 1.0, color="white", edgecolor="#bbbbbb", hatch="////", height=0.62, linewidth=0)
            axes.text(
                0.02,
                place,
                _figures(node),
                va="center",
                fontsize=7,
                color=_INK,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
            )
            continue
        axes.barh(place, score, color=colours(0.72), height=0.62)
        if node is not None and node.ci_low is not None and node.ci_high is not None:
            axes.plot([node.ci_low, node.ci_high], [place, place], color=colours(0.0), linewidth=2)
        axes.text(
            1.02,
            place,
            _figures(node),
            va="center",
            fontsize=7,
            color=_INK,
            transform=axes.get_yaxis_transform(),
        )
    labels = ["    " * depth + name.replace("_", " ") for name, depth in order]
    axes.set_yticks(range(len(order)), labels, fontsize=8, parse_math=False)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
    axes.tick_params(axis="y", pad=5.0 * longest, length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("score with 95 % interval", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return _image(figure, format_)


def heatmap(
    taxonomy: Taxonomy,
    suppliers: Mapping[str, Mapping[str, Node]],
    title: str,
    note: str = "",
    format_: Format = "png",
    most: int = MOST_SUPPLIERS,
) -> bytes:
    """Suppliers by abilities, best root score first; of more than ``most`` only the best, and it says so."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    names = [name for name, _ in _outline(taxonomy)]

    def rank(key: str) -> tuple[bool, float, str]:
        score = _score(suppliers[key], taxonomy.root)
        return score is None, -(score or 0.0), key

    keys = sorted(suppliers, key=rank)
    shown = keys[:most]
    if len(shown) < len(keys):
        note = f"The best {len(shown)} of {counted(len(keys), 'supplier')}. {note}".strip()
    cell = 0.42
    left = 0.065 * min(34, max((len(key) for key in shown), default=0))
    figure, axes = _canvas(
        max(4.5, left + cell * len(names) + 1.4), 2.4 + 0.24 * max(1, len(shown)), title, note
    )
    colours = colormaps[_COLOURS]
    for row, key in enumerate(shown):
        for column, name in enumerate(names):
            score = _score(suppliers[key], name)
            face = _NO_DATA if score is None else colours(min(1.0, max(0.0, score)))
            axes.add_patch(
                Rectangle(
                    (column, row),
                    1,
                    1,
                    facecolor=face,
                    edgecolor="white",
                    linewidth=0.6,
                    hatch="////" if score is None else None,
                )
            )
            if score is not None:
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{100 * score:.0f}",
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if score < 0.55 else _INK,
                )
    axes.set_xlim(0, len(names))
    axes.set_ylim(max(1, len(shown)), 0)
    labels = [name.replace("_", " ")[:30] for name in names]
    axes.set_xticks(
        [i + 0.5 for i in range(len(names))], labels, rotation=55, ha="right", fontsize=7.5, parse_math=False
    )
    axes.get_xticklabels()[0].set_fontweight("bold")
    # addresses differ at their ends
    texts = [key if len(key) <= 34 else f"{key[:12]}…{key[-21:]}" for key in shown]
    axes.set_yticks([i + 0.5 for i in range(len(shown))], texts, fontsize=7, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    _legend(figure, axes)
    return _image(figure, format_)


def layout(taxonomy: Taxonomy) -> dict[str, tuple[int, float]]:
    """Column and height of every node: columns by the longest way from the root, parents amid their children.

    Nodes of one column are at least 1 apart. Nodes out of the root's reach stand below the others of theirs.
    """
    column: dict[str, int] = {}
    for node in taxonomy.top_down():
        column.setdefault(node, 0)
        for child in taxonomy.children(node):
            column[child] = max(column.get(child, 0), column[node] + 1)
    height: dict[str, float] = {}
    free = 0.0
    parents = {child for _, child in taxonomy.edges}
    tops = [taxonomy.root, *(n for n in taxonomy.nodes if n not in parents and n != taxonomy.root)]
    for top in tops:
        todo = [(top, False)]
        while todo:
            node, ready = todo.pop()
            if node in height:
                continue
            fresh = [child for child in taxonomy.children(node) if child not in height]
            if fresh and not ready:
                todo.append((node, True))
                todo += [(child, False) for child in reversed(fresh)]
            elif not taxonomy.children(node):
                height[node] = free
                free += 1.0
            else:
                below = [height[child] for child in taxonomy.children(node)]
                height[node] = sum(below) / len(below)
    reached = taxonomy.reached()
    for number in set(column.values()):
        own = sorted((n for n in column if column[n] == number), key=lambda n: (n not in reached, height[n]))
        for before, node in pairwise(own):
            height[node] = max(height[node], height[before] + 1.0)
    return {node: (column[node], height[node]) for node in taxonomy.nodes}


def _outline(taxonomy: Taxonomy) -> list[tuple[str, int]]:
    """Every node once with its depth, children right after their first parent."""
    seen: dict[str, int] = {}
    parents = {child for _, child in taxonomy.edges}
    todo = [(n, 0) for n in reversed(list(taxonomy.nodes)) if n not in parents and n != taxonomy.root]
    todo.append((taxonomy.root, 0))
    while todo:
        node, depth = todo.pop()
        if node not in seen:
            seen[node] = depth
            todo += [(child, depth + 1) for child in reversed(taxonomy.children(node))]
    return list(seen.items())


def _score(nodes: Mapping[str, Node], name: str) -> float | None:
    return nodes[name].score if name in nodes else None


def _figures(node: Node | None) -> str:
    if node is None or node.score is None:
        return _WITHOUT_SCORE.get("" if node is None else node.status, "no data")
    interval = ""
    if node.ci_low is not None:
        interval = f" [{node.ci_low:.2f}, {node.ci_high:.2f}]"
    part = "" if node.n_measured == node.n_tasks else f"  {node.n_measured}/{counted(node.n_tasks, 'task')}"
    return f"{node.score:.2f}{interval}{part}"


def _canvas(width: float, height: float, title: str, note: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", parse_math=False)
    if note:
        wrapped = textwrap.fill(note, max(30, math.floor(width * 13)))
        figure.supxlabel(wrapped, fontsize=8, color="#9c2f00", x=0.01, ha="left", parse_math=False)
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(norm=Normalize(0, 1), cmap=colormaps[_COLOURS])
    bar = figure.colorbar(scale, ax=axes, fraction=0.03, pad=0.01, shrink=0.8, aspect=25)
    bar.set_label("score", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _image(figure: Figure, format_: Format) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=format_)
    return stream.getvalue()
