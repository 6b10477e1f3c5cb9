"""Commands that reach out: ``check`` and ``run``."""

from __future__ import annotations

import re
import threading
import time
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.interrupts import INTERRUPTED, stoppable
from testbench_dagster.cli.output import note
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.wording import counted

if TYPE_CHECKING:
    from testbench_dagster.defs.local_evaluation import RunReport
    from testbench_dagster.relays.report import Progress

#: Seconds between two lines on who is waited for, where there is no terminal.
_TELL_EVERY_S = 15.0
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
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable).")
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
@click.pass_context
def run(
    context: click.Context,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    max_relays: int | None,
    retry_errors: bool,
    force: bool,
    wait: timedelta | None,
) -> None:
    """Evaluate now: refresh the catalog where stale, relay what is due, score, summarize, rank.

    The same Dagster assets as in the UI, recorded in the instance. Safe to interrupt and to start again: what
    has a stored answer is not asked twice. A doc without an answer is open, and counts as wrong until it
    closes: it is asked again 15 minutes, 2 hours, ... later, by the next run or by this one with --wait.
    Ctrl-C stops sending and scores what is there; once more ends it.
    """
    with Testbench.open(context.obj) as testbench, RelayBar() as bar:

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
                stop=stop,
            )

        report = stoppable(evaluate, bar.stopping)
    if report.interrupted:
        context.exit(INTERRUPTED)
    if report.problem:
        raise TestbenchError(f"{report.problem}; `testbench check` says why")


class RelayBar:
    """A bar on stderr while relays run, if that is a terminal; notes are printed in its place.

    Where it is none, and nobody but those who are waited for is left, that is said in a line now and then.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("relays", total=None, rate="")
        self._silent = not console.is_terminal
        self._told_at = 0.0

    def __enter__(self) -> RelayBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def planned(self, calls: int) -> None:
        """Begin anew for so many calls."""
        self._bar.start()
        self._bar.reset(self._task, total=calls, rate="", description="relays")

    def progressed(self, progress: Progress) -> None:
        """Show how far they are."""
        rate = progress.sent / progress.seconds if progress.seconds else 0.0
        waits = waits_text(progress)
        text = f"{rate:.0f}/s, {progress.in_flight} in flight{waits and f'; {waits}'}"
        self._bar.update(self._task, completed=progress.final, rate=text)
        if self._silent and waits and not progress.working:
            now = time.monotonic()
            if now - self._told_at >= _TELL_EVERY_S:
                self._told_at = now
                note(f"evaluation: {waits}")

    def scored(self, done: int, total: int) -> None:
        """Show how far scoring is."""
        self._bar.start()
        self._bar.update(self._task, description="scores", total=total, completed=done, rate="docs")

    def stopping(self) -> None:
        """Say that an interrupt was heard."""
        self.note("stopping: nothing is sent any more; what is stored is scored (Ctrl-C again ends at once)")

    def note(self, text: str) -> None:
        """Say something to the person at the terminal."""
        self._bar.stop()
        note(text)


def waits_text(progress: Progress) -> str:
    """Who is waited for, why and until when; empty where nobody is."""
    if not progress.waits:
        return ""
    first = progress.waits[0]
    more = f" and {progress.n_waits - 1} more" if progress.n_waits > 1 else ""
    return f"waits for {first.supplier} ({first.fault.value}) until {first.until.astimezone():%H:%M:%S}{more}"


@click.command(short_help="Say what is wrong, and how to mend it")
@click.option("--no-suppliers", is_flag=True, help="Do not send anything to the suppliers.")
@click.pass_obj
def check(config: str | None, no_suppliers: bool) -> None:
    """Validate configuration, stores, tasks and suppliers, and say how to fix what is wrong."""
    with Testbench.open(config) as testbench:
        found = testbench.check(suppliers=not no_suppliers, on_finding=_show)
    failed = sum(finding.failed for finding in found)
    if failed:
        raise TestbenchError(f"{counted(failed, 'problem')} found")


def _show(finding: Finding) -> None:
    mark = "ok   " if finding.ok else "warn " if finding.warning else "FAIL "
    click.echo(f"{mark} {finding.what}: {finding.detail}")
