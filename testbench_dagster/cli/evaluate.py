"""Commands that reach out: ``check`` and ``run``."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.interrupts import INTERRUPTED, stoppable
from testbench_dagster.cli.output import note
from testbench_dagster.cli.progress import TELL_EVERY_S, RelayBar
from testbench_dagster.cli.summary import summary_line
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.wording import counted, duration

if TYPE_CHECKING:
    from testbench_dagster.defs.local_evaluation import RunReport
    from testbench_dagster.tasks.worker import Waiting

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Duration(click.ParamType[timedelta]):
    """A length of time: a number of seconds, or one with a unit (s, m, h, d)."""

    name = "duration"

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read it."""
        if isinstance(value, timedelta):
            return value
        found = _DURATION.fullmatch(value.strip())
        if found is None:
            self.fail(f"{value!r} is no length of time; write 90s, 30m, 2h or 3d", param, ctx)
        number, unit = found.groups()
        try:
            return timedelta(**{_UNITS[unit or "s"]: float(number)})
        except OverflowError:
            self.fail(
                f"{value!r} is too long; leave the length out to wait until nothing is open", param, ctx
            )


@click.command(short_help="Evaluate now what is due")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option(
    "--task", "-t", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable)."
)
@click.option(
    "--max-relays", type=click.IntRange(min=0), metavar="N", help="Send at most N relays, retries included."
)
@click.option("--retry-errors", is_flag=True, help="Ask open docs again now, not at their next occasion.")
@click.option("--force", is_flag=True, help="Ask again what is fresh: relay everything in the windows anew.")
@click.option(
    "--wait",
    type=Duration(),
    is_flag=False,
    flag_value=timedelta.max,
    default=None,
    metavar="[DURATION]",
    help="Stay for the later occasions of open docs, until none is open or for so long (30m, 2h, 3d).",
)
@click.option("--quiet", "-q", is_flag=True, help="Show no progress, only notes and the summary.")
@click.pass_context
def run(
    context: click.Context,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    max_relays: int | None,
    retry_errors: bool,
    force: bool,
    wait: timedelta | None,
    quiet: bool,
) -> None:
    """Evaluate now: refresh the catalog where stale, relay what is due, score, summarize, rank.

    The same Dagster assets as in the UI, recorded in the instance. Safe to interrupt and to start again: what
    has a stored answer is not asked twice. A doc without an answer is open, and counts as wrong until it
    closes: it is asked again 15 minutes, 2 hours, ... later, by the next run or by this one with --wait.
    Ctrl-C stops sending and scores what is there (a task that is being prepared is left); once more ends it.
    The last line says what came of it.
    """
    with Testbench.open(context.obj) as testbench, RelayBar(quiet=quiet) as bar:

        def evaluate(stop: threading.Event) -> RunReport:
            return testbench.run(
                suppliers or None,
                tasks or None,
                max_relays=max_relays,
                retry_errors=retry_errors,
                force=force,
                wait=wait is not None and (wait == timedelta.max or wait),
                on_planned=bar.planned,
                on_progress=bar.progressed,
                on_note=bar.note,
                on_scored=bar.scored,
                on_stage=bar.stage,
                on_wait=bar.waiting,
                stop=stop,
            )

        report = stoppable(evaluate, bar.stopping)
    note(summary_line(report, context.obj))
    if report.interrupted:
        context.exit(INTERRUPTED)
    if report.problem and report.nothing_allowed:
        raise TestbenchError(report.problem)
    if report.problem:
        raise TestbenchError(f"{report.problem}; `testbench check` says why")


@click.command(short_help="Say what is wrong, and how to mend it")
@click.option("--no-suppliers", is_flag=True, help="Do not send anything to the suppliers.")
@click.pass_obj
def check(config: str | None, no_suppliers: bool) -> None:
    """Validate configuration, stores, tasks and suppliers, and say how to fix what is wrong."""
    with Testbench.open(config) as testbench:
        found = testbench.check(suppliers=not no_suppliers, on_finding=_show, on_wait=_waiting())
    failed = sum(finding.failed for finding in found)
    if failed:
        raise TestbenchError(f"{counted(failed, 'problem')} found")


def _waiting() -> Callable[[Waiting | None], None]:
    """Tells every few seconds which task is waited for."""
    told_at = 0.0

    def told(waiting: Waiting | None) -> None:
        nonlocal told_at
        if waiting is not None and time.monotonic() - told_at >= TELL_EVERY_S:
            told_at = time.monotonic()
            note(f"waits for {waiting}, for {duration(waiting.seconds)}")

    return told


def _show(finding: Finding) -> None:
    mark = "ok   " if finding.ok else "warn " if finding.warning else "FAIL "
    click.echo(f"{mark} {finding.what}: {finding.detail}")
    if finding.paste:
        click.echo(f"        {finding.paste}")
