"""Command ``plan``: what would be relayed now, why the rest is not due, and what a budget buys."""

from __future__ import annotations

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, note

_COLUMNS = (
    "supplier",
    "task",
    "state",
    "docs",
    "calls",
    "canaries",
    "fresh",
    "open",
    "target",
    "half_width",
    "buys",
    "due_at",
    "reason",
)


@click.command(short_help="What would be asked now, and why not more")
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable).")
@click.option(
    "--budget",
    type=click.IntRange(min=0),
    metavar="N",
    help="Share N relays fairly and show the interval widths they buy (default: what is left of the day's).",
)
@click.option("--due", "only_due", is_flag=True, help="Leave out what is not due.")
@format_option
@click.pass_obj
def plan(
    config: str | None,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    budget: int | None,
    only_due: bool,
    format_: str,
) -> None:
    """Show what would be relayed now, and why each other task is not due. Sends nothing.

    `half_width` is that of the present 95 % interval of the primary score, `buys` the one to expect once the
    planned docs are answered at the present score. `open` docs were asked in vain and wait for their next
    occasion; `canaries` are docs of the task that were answered before, asked again with them.
    """
    with Testbench.open(config) as testbench:
        planned = testbench.plan(suppliers or None, tasks or None, budget=budget)
    if budget is None:
        for service, left in planned.left.items():
            note(f"{service}: {left} relays are left of today's budget")
    rows = [row for row in planned.rows if row["docs"]] if only_due else planned.rows
    emit(rows, format_, _COLUMNS, "Plan")
    if format_ == "table":
        of = "" if budget is None else f", of a budget of {budget}"
        canaries = sum(row["canaries"] for row in planned.rows)
        among = f", {canaries} of them canaries" if canaries else ""
        note(f"{planned.calls} relays would be sent now{among}{of}")
