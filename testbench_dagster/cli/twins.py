"""Command ``twins``: who is better on public questions than on fresh ones of the kind."""

from __future__ import annotations

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, model_option, note

# the verdict before its figures: a narrow terminal has no room for the last columns
_COLUMNS = (
    "supplier",
    "task",
    "epoch",
    "verdict",
    "flagged",
    "n_pairs",
    "public_share",
    "fresh_share",
    "excess",
    "excess_low",
    "excess_high",
    "p",
    "peers",
    "peers_public_share",
    "peers_fresh_share",
    "peers_shift",
    "finding",
)


@click.command(short_help="Who is better on public questions")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--refresh", is_flag=True, help="Compare the stored answers anew before showing them.")
@click.option("--epochs", "every_epoch", is_flag=True, help="Show every epoch, not the newest alone.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@model_option
@format_option
@click.pass_obj
def twins(
    config: str | None,
    suppliers: tuple[str, ...],
    refresh: bool,
    every_epoch: bool,
    as_json: bool,
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Show who is better on public questions than on fresh ones of the kind, beside its peers.

    Tasks of framework `twins` ask both, mixed. `excess` is how much more the odds of a supplier favour public
    questions than those of its peers, in logits. `flagged` takes two epochs that found it better. Nothing is
    said of why. See docs/twins.md.
    """
    with Testbench.open(config) as testbench:
        table = testbench.twins(
            suppliers or None, models=models or None, refresh=refresh, every_epoch=every_epoch
        )
    if not table.rows:
        note("no pairs compared yet: configure a task of framework twins, and `testbench run`")
    emit(table.rows, "json" if as_json else format_, _COLUMNS, "Public questions and fresh ones")
