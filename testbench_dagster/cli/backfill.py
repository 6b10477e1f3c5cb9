"""Command ``backfill``: hand a set of suppliers to the daemon, to evaluate or only to score anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import note
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.wording import counted

if TYPE_CHECKING:
    from testbench_dagster.defs.backfills import Outcome


@click.command(short_help="Have the daemon evaluate suppliers")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="This supplier (repeatable)."
)
@click.option("--all", "everyone", is_flag=True, help="All active suppliers.")
@click.option("--force", is_flag=True, help="Ask again what is fresh: relay everything in the windows anew.")
@click.option("--rescore", is_flag=True, help="Only score stored answers anew; relays nothing.")
@click.option("--wait", is_flag=True, help="Wait for the end; exit code 1 unless every partition succeeded.")
@click.pass_obj
def backfill(
    config: str | None, suppliers: tuple[str, ...], everyone: bool, force: bool, rescore: bool, wait: bool
) -> None:
    """Have the daemon evaluate suppliers, as a Dagster backfill; prints the backfill's id.

    It shows in the UI under Runs, Backfills, and starts as soon as a daemon runs (`testbench up`). To do it
    in this terminal instead use `testbench run --supplier KEY [--force]`, or `testbench run --max-relays 0`
    for what --rescore does.
    """
    if bool(suppliers) == everyone:
        raise click.UsageError("name suppliers with --supplier, or take --all")
    if force and rescore:
        raise click.UsageError("--force relays and --rescore does not; choose one")
    with Testbench.open(config) as testbench:
        requested = testbench.backfill(suppliers or None, rescore=rescore, force=force)
        click.echo(requested.id)
        note(f"backfill {requested.id} of {counted(len(requested.suppliers), 'supplier')} is requested")
        if not requested.daemon_is_running():
            note("no daemon is running: start `testbench up`, which will work it off")
            if wait:
                raise TestbenchError(f"backfill {requested.id} waits for a daemon")
        if wait:
            outcome = requested.wait(on_progress=_tell)
            if not outcome.succeeded:
                raise TestbenchError(f"backfill {requested.id} ended as {outcome.status}: {outcome.detail}")


def _tell(so_far: Outcome) -> None:
    """How far it is; the daemon takes some seconds to make the first runs."""
    if so_far.runs:
        note(f"{so_far.runs_ended} of {counted(so_far.runs, 'run')} ended")
