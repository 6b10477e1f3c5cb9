"""Command ``suspicions``: which suppliers act together, and whose answers may not be their own."""

from __future__ import annotations

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, model_option, note
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.identify.suspicions import SUSPICION_KINDS

_COLUMNS = (
    "kind",
    "supplier",
    "other",
    "ordered",
    "since",
    "until",
    "strength",
    "observations",
    "share",
    "reason",
)


@click.command(short_help="Who may hide copies, routes or caches")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(SUSPICION_KINDS), help="Only this kind.")
@click.option("--refresh", is_flag=True, help="Look at what is stored anew before showing suspicions.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@model_option
@format_option
@click.pass_obj
def suspicions(
    config: str | None,
    suppliers: tuple[str, ...],
    kinds: tuple[str, ...],
    refresh: bool,
    as_json: bool,
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Show which suppliers act together, and whose answers may not be their own, with the evidence.

    Two suppliers that fail, slow down, vary or change together may hand requests on; or they share an
    upstream, an owner or a data centre. Nothing follows from a suspicion: no score, rank or group.
    """
    with Testbench.open(config) as testbench:
        if refresh:
            report = testbench.refresh_identity()
            note(
                f"{counted(report.n_answers, 'answer')} of {counted(report.n_suppliers, 'supplier')} compared"
            )
        rows = testbench.suspicions(suppliers or None, models=models or None, kinds=kinds or None).rows
    if not rows:
        note("no suspicions: none found, or nothing compared yet (`testbench run`, or --refresh)")
    emit(rows, "json" if as_json else format_, _COLUMNS, "Suspicions")
