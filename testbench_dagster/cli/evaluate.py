"""Commands that reach out: ``check`` and ``run``."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import note
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.wording import counted

if TYPE_CHECKING:
    from testbench_dagster.relays.report import Progress


@click.command(short_help="Evaluate now what is due")
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable).")
@click.option(
    "--max-relays", type=click.IntRange(min=0), metavar="N", help="Send at most N relays, retries included."
)
@click.option("--retry-errors", is_flag=True, help="Ask docs again that failed by the supplier's fault.")
@click.option("--force", is_flag=True, help="Ask again what is fresh: relay everything in the windows anew.")
@click.pass_obj
def run(
    config: str | None,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    max_relays: int | None,
    retry_errors: bool,
    force: bool,
) -> None:
    """Evaluate now: refresh the catalog where stale, relay what is due, score, summarize, rank.

    The same Dagster assets as in the UI, recorded in the instance. Safe to interrupt and to start again: what
    has a stored answer is not asked twice.
    """
    with Testbench.open(config) as testbench, RelayBar() as bar:
        report = testbench.run(
            suppliers or None,
            tasks or None,
            max_relays=max_relays,
            retry_errors=retry_errors,
            force=force,
            on_planned=bar.planned,
            on_progress=bar.progressed,
            on_note=bar.note,
        )
    if report.problem:
        raise TestbenchError(f"{report.problem}; `testbench check` says why")


class RelayBar:
    """A bar on stderr while relays run, if that is a terminal; notes are printed in its place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (
            TextColumn("relays"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("relays", total=None, rate="")

    def __enter__(self) -> RelayBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def planned(self, calls: int) -> None:
        """Begin anew for so many calls."""
        self._bar.start()
        self._bar.reset(self._task, total=calls, rate="")

    def progressed(self, progress: Progress) -> None:
        """Show how far they are."""
        rate = progress.sent / progress.seconds if progress.seconds else 0.0
        text = f"{rate:.0f}/s, {progress.in_flight} in flight"
        self._bar.update(self._task, completed=progress.final, rate=text)

    def note(self, text: str) -> None:
        """Say something to the person at the terminal."""
        self._bar.stop()
        note(text)


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
