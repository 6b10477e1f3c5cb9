"""The agreement matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from testbench_dagster.core.records.identity import IdentityGroupRecord
from testbench_dagster.identity import Grouping

_LABEL_CHARS = 28
_NUMBERED = 14  # suppliers up to which cells carry numbers


def agreement_matrix(
    placed: Sequence[IdentityGroupRecord], groupings: Mapping[str, Grouping], title: str
) -> bytes:
    """PNG of who agrees with whom how often; the records of ``identity_groups`` in the order shown.

    Groups of several are framed. Grey: no common prompts, or another service.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    n = len(placed)
    side = 2.4 + 0.24 * n
    figure = Figure(figsize=(side + 0.9, side), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor("#d9d9d9")
    cells = [[_agreement(a, b, groupings) for b in placed] for a in placed]
    image = axes.imshow(
        [[float("nan") if v is None else v for v in row] for row in cells], cmap="viridis", vmin=0, vmax=1
    )
    if n <= _NUMBERED:
        for i, row in enumerate(cells):
            for j, value in enumerate(row):
                if value is not None:
                    colour = "black" if value > 0.6 else "white"
                    text = f"{value:.2f}".removeprefix("0") if value < 1 else "1"
                    axes.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    start = 0
    while start < n:
        end = start + 1
        while end < n and placed[end].group == placed[start].group:
            end += 1
        if end - start > 1:
            size = end - start
            frame = Rectangle((start - 0.5, start - 0.5), size, size, fill=False, edgecolor="#d62728", lw=2)
            axes.add_patch(frame)
        start = end
    labels = [_short(one.id) for one in placed]
    axes.set_xticks(range(n), labels, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(range(n), labels, fontsize=7, parse_math=False)
    axes.set_title(title, fontsize=9, loc="left", parse_math=False)
    figure.colorbar(image, ax=axes, shrink=0.7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _agreement(
    a: IdentityGroupRecord, b: IdentityGroupRecord, groupings: Mapping[str, Grouping]
) -> float | None:
    if a.service != b.service:
        return None
    if a.id == b.id:
        return a.self_agreement
    return groupings[a.service].pair(a.id, b.id).agreement


def _short(key: str) -> str:
    return key if len(key) <= _LABEL_CHARS else f"{key[:12]}…{key[-14:]}"
