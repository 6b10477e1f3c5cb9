"""Commands that show what is known: ``scores``, ``export``."""

from __future__ import annotations

from pathlib import Path

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, note
from testbench_dagster.core.task import SIGNATURES
from testbench_dagster.core.window import WINDOW_VIEWS


@click.command(short_help="Scores with intervals, by task")
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable).")
@format_option
@click.pass_obj
def scores(config: str | None, suppliers: tuple[str, ...], tasks: tuple[str, ...], format_: str) -> None:
    """Show the current windows: one row per supplier, task, metric and filter."""
    with Testbench.open(config) as testbench:
        rows = testbench.scores(suppliers or None, tasks or None).rows
    texts = dict.fromkeys(row["task"] for row in rows if row["framework"] == SIGNATURES)
    if texts and format_ == "table":
        note(f"Signatures are texts to compare and have no score: {', '.join(texts)}.")
    emit(rows, format_, WINDOW_VIEWS.commands, "Scores")


@click.command(short_help="Write parquet files for analysts")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write to."
)
@click.pass_obj
def export(config: str | None, out: Path) -> None:
    """Write parquet files for analysts: prompts, attempts, scores, windows, item matrix, leaderboard."""
    with Testbench.open(config) as testbench:
        written = testbench.export(out)
    for path, rows in written.items():
        click.echo(f"{path}  {rows} rows")
