"""The ``compare`` command: two suppliers on the docs both answered."""

from __future__ import annotations

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option
from testbench_dagster.core.text import escaped

_COLUMNS = (
    "task",
    "metric",
    "n_common",
    "mean_a",
    "mean_b",
    "difference",
    "ci_low",
    "ci_high",
    "only_a_higher",
    "only_b_higher",
    "only_a_failed",
    "only_b_failed",
    "verdict",
    "docs_needed",
)


@click.command(short_help="Compare two suppliers doc by doc")
@click.argument("a")
@click.argument("b")
@click.option(
    "--task", "-t", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable)."
)
@click.option(
    "--margin",
    type=float,
    metavar="M",
    help="Call suppliers equal whose difference certainly lies within ±M, such as 0.02.",
)
@format_option
@click.pass_obj
def compare(
    config: str | None, a: str, b: str, tasks: tuple[str, ...], margin: float | None, format_: str
) -> None:
    """Compare suppliers A and B by the docs both answered: who is better, or how many docs it takes to say.

    Intervals and verdicts hold however often one looks.
    """
    with Testbench.open(config) as testbench:
        rows = testbench.compare(a, b, tasks or None, margin).rows
    columns = (*_COLUMNS, "note") if any(row["note"] for row in rows) else _COLUMNS
    models = [escaped(rows[-1][name], 80) for name in ("model_a", "model_b")]
    emit(rows, format_, columns, f"{a} (A, {models[0]}) against {b} (B, {models[1]})")
