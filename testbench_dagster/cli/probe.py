"""Command ``probe``: how fast suppliers answer, now."""

from __future__ import annotations

import threading

import click

from testbench_dagster.api import Probes, Testbench
from testbench_dagster.cli.interrupts import INTERRUPTED, stoppable
from testbench_dagster.cli.output import emit, format_option, note
from testbench_dagster.cli.progress import RelayBar
from testbench_dagster.core.errors import TestbenchError

_COLUMNS = (
    "supplier",
    "workload",
    "fault",
    "first_token_ms",
    "ended_ms",
    "tokens_per_s",
    "completion_tokens",
    "tokens_source",
)


@click.command(short_help="Probe now how fast suppliers answer")
@click.argument("suppliers", nargs=-1, metavar="[SUPPLIER]...")
@format_option
@click.pass_context
def probe(context: click.Context, suppliers: tuple[str, ...], format_: str) -> None:
    """Probe now how fast suppliers answer: streamed requests of their own, which no score rests on.

    Asks the suppliers with these keys, by default all, every workload of `service_probes`, due or not, one
    request at a time to a host. Their budget holds. What was measured is kept, and counts in percentiles.
    """
    with Testbench.open(context.obj) as testbench, RelayBar(quiet=format_ != "table") as bar:

        def probing(stop: threading.Event) -> Probes:
            return testbench.probe(suppliers or None, on_stage=bar.stage, stop=stop)

        probes = stoppable(probing, bar.stopping)
    emit(probes.rows, format_, _COLUMNS, "Service probes")
    note(f"service: {probes.words}")
    if probes.interrupted:
        context.exit(INTERRUPTED)
    if not probes.answered:
        raise TestbenchError("no probe was answered; `testbench check` says why")
