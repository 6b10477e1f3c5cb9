"""Commands that show what is known: ``scores``, ``export``."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, model_option, note, with_values
from testbench_dagster.core.task import SIGNATURES
from testbench_dagster.core.window import GROUP, WINDOW_VIEWS, Window
from testbench_dagster.core.wording import counted

#: Cut suppliers of which a table is followed by the reason.
_CUTS_TOLD = 10


@click.command(short_help="Scores with intervals, by task")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option(
    "--task", "-t", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable)."
)
@model_option
@format_option
@click.pass_obj
def scores(
    config: str | None,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Show the current windows: one row per supplier, task, metric and filter.

    First by the metric and filter that each task is scored by, then groups of tasks as lm-eval makes one
    score of them, then tasks and groups by their other metrics and filters. `cut_at`: the supplier's
    model changed then, and what it answered before counts no more.
    """
    with Testbench.open(config) as testbench:
        rows = testbench.scores(suppliers or None, tasks or None, models=models or None).rows
        cut = list(dict.fromkeys(row["supplier"] for row in rows if row["cut_at"]))
        cuts = testbench.cuts(cut).rows if cut else []
    if format_ == "table":
        _show(rows, cuts)
    else:
        emit(rows, format_, WINDOW_VIEWS.commands, "Scores")


def _show(rows: Sequence[Mapping[str, Any]], cuts: Sequence[Mapping[str, Any]]) -> None:
    """Print the primary rows, what cut them, those of groups, and below them other metrics and filters."""
    texts = dict.fromkeys(row["task"] for row in rows if row["framework"] == SIGNATURES)
    if texts:
        note(f"Signatures are texts to compare and have no score: {', '.join(texts)}.")
    names = [name for name in with_values(Window, WINDOW_VIEWS.commands, rows) if name != "missing"]
    of_groups = [name for name in names if name != "cut_at"]
    columns = names if cuts else of_groups.copy()
    others = [row for row in rows if not row["primary"]]
    primary = [row for row in rows if row["primary"]]
    emit([row for row in primary if row["kind"] != GROUP], "table", columns, "Scores")
    for cut in cuts[:_CUTS_TOLD]:
        at = f"{cut['cut_at']:%Y-%m-%d %H:%M}"
        note(f"{cut['supplier']}: what it answered up to {at} UTC does not count: {cut['reason']}")
    if len(cuts) > _CUTS_TOLD:
        note(f"{counted(len(cuts) - _CUTS_TOLD, 'other')} likewise: `testbench identity --changes` says why")
    groups = [row for row in primary if row["kind"] == GROUP]
    if any(row.get("missing") for row in groups):
        of_groups.insert(of_groups.index("status") + 1, "missing")
    if groups:
        emit(groups, "table", of_groups, "\nGroups, as lm-eval aggregates them")
    if others:
        told_by = ("supplier", "model", "task", "metric", "filter")
        rest = [name for name in columns if name not in told_by and name != "cut_at"]
        emit(others, "table", [*told_by, *rest], "\nBy other metrics and filters")


@click.command(short_help="Write parquet files for analysts")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to."
)
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable).")
@click.pass_obj
def export(config: str | None, out: Path, suppliers: tuple[str, ...], tasks: tuple[str, ...]) -> None:
    """Write parquet files for analysts: prompts, attempts, scores, windows, answers, item matrix, ranking."""
    # a tenth less time: what an export makes goes with its batch, and is nothing to look for among the rest
    gc.set_threshold(50_000, 20, 20)
    with Testbench.open(config) as testbench:
        written = testbench.export(out, suppliers or None, tasks or None)
    for path, rows in written.items():
        click.echo(f"{path}  {counted(rows, 'row')}")
