"""Pictures as lists of what is drawn where, to be compared with what was approved when they were looked at.

A list does not depend on how a version of matplotlib renders. Who changes a picture on purpose looks at it,
runs the test with ``APPROVE_PICTURES=1`` and commits the new list.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text


def figure_of(draw: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure that a function saves."""
    caught: list[Figure] = []
    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", lambda figure, *_, **__: caught.append(figure))
        draw()
    (figure,) = caught
    return figure


def assert_approved(figure: Figure, file: Path) -> None:
    """Compare what a figure shows with the approved list in a file."""
    found = "".join(f"{line}\n" for line in shown(figure))
    if os.environ.get("APPROVE_PICTURES"):
        file.write_text(found, encoding="utf-8")
    assert found == file.read_text(encoding="utf-8")


def shown(figure: Figure) -> Iterator[str]:
    """What a figure shows, one line for each thing."""
    width, height = figure.get_size_inches()
    yield f"figure {width:.2f} x {height:.2f} inches, {figure.dpi:g} dots an inch"
    for kind, text in (("title", figure._suptitle), ("note", figure._supxlabel)):  # type: ignore[attr-defined]
        if text is not None:
            yield f"{kind} {_text(text)}"
    figure.draw_without_rendering()  # lays it out
    axes, *bars = figure.axes
    yield from _axes(axes)
    for bar in bars:
        own, beside = bar.get_position(), axes.get_position()
        tall = height * own.height / (width * own.width)
        yield f"bar {tall:.0f} times as tall as wide, {own.height / beside.height:.1f} of the height"
        yield f"bar says {bar.get_ylabel()!r} in {bar.yaxis.label.get_size():g}, {_ticks(bar.yaxis)}"


def _axes(axes: Axes) -> Iterator[str]:
    if axes.axison:
        frame = [name for name, spine in axes.spines.items() if spine.get_visible()]
        yield f"axes {to_hex(axes.get_facecolor())}, frame {' '.join(frame) or 'none'}"
    else:
        yield "axes off"
    for name, axis, (low, high) in (("x", axes.xaxis, axes.get_xlim()), ("y", axes.yaxis, axes.get_ylim())):
        yield f"{name} from {low:.3g} to {high:.3g}: {axis.label.get_text()!r} in {axis.label.get_size():g}"
        if axes.axison:
            yield f"{name} {_ticks(axis)}"
    for image in axes.images:
        values = [[f"{v:.2f}" for v in row] for row in image.get_array().filled(-1).tolist()]
        yield f"image {image.get_cmap().name} {image.get_clim()} {values}"
    for patch in axes.patches:
        points = patch.get_patch_transform().transform(patch.get_path().vertices)
        if len(points) > 5:  # rounded corners: from corner to corner
            points = [points.min(axis=0), points.max(axis=0)]
        place = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
        look = f"{_colour(patch.get_facecolor())} in {_colour(patch.get_edgecolor())}"
        line = f"{patch.get_linestyle()} {patch.get_linewidth():g}"
        yield f"{type(patch).__name__} {place} {look} {line} {patch.get_hatch() or ''}".rstrip()
    for line in axes.lines:
        place = " ".join(f"{x:.3f},{y:.3f}" for x, y in line.get_xydata())
        yield f"line {place} {_colour(line.get_color())} {line.get_linewidth():g}"
    for text in axes.texts:
        yield f"text {_text(text)}"
    if axes.get_title(loc="left"):
        yield f"heading {_text(axes._left_title)}"  # type: ignore[attr-defined]


def _colour(colour: Any) -> str:
    code = to_hex(colour, keep_alpha=True)
    return "none" if code.endswith("00") else code[:7]


def _text(text: Text) -> str:
    x, y = text.get_position()
    box = text.get_bbox_patch()
    back = f" on {_colour(box.get_facecolor())} {box.get_boxstyle().pad:.3f}" if box else ""
    weight = "" if text.get_weight() == "normal" else f" {text.get_weight()}"
    anchor = f"{text.get_ha()} {text.get_va()}"
    maths = " as maths" if text.get_parse_math() else ""
    said = text.get_text().replace("\n", " / ")
    look = f"{text.get_size():g}{weight} {_colour(text.get_color())}{back}{maths}"
    return f"{x:.2f},{y:.2f} {anchor} {said!r} in {look}"


def _ticks(axis: Any) -> str:
    ticks = [tick for tick in axis.get_major_ticks() if tick.label1.get_text()]
    said = [f"{tick.get_loc():.3g} {tick.label1.get_text()!r}" for tick in ticks]
    if not ticks:
        return "no labels"
    first = ticks[0]
    label = first.label1
    look = f"{label.get_size():g} {label.get_weight()} {label.get_ha()} turned {label.get_rotation():g}"
    look += " as maths" if label.get_parse_math() else ""
    marks = f"marks {first.tick1line.get_markersize():g}, pad {first.get_pad():.3g}"
    return f"labels {', '.join(said)} in {look}, {marks}"
