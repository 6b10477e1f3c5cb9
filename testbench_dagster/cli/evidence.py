"""Commands ``evidence`` and ``rescore``: a bundle for a dispute, and its check on any machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, note
from testbench_dagster.core.wording import counted
from testbench_dagster.evidence import layout
from testbench_dagster.evidence.layout import BundleError
from testbench_dagster.stages.dispute.rescore import OnProgress
from testbench_dagster.stages.dispute.rescore import rescore as check

_COLUMNS = ("task", "docs", "equal", "different", "unchecked", "failed", "attempts", "windows", "why")


class _Unusable(click.ClickException):
    """The file is no bundle that can be read."""

    exit_code = 2


@click.command(short_help="Write the evidence for a supplier's scores")
@click.option("--supplier", "-s", required=True, metavar="KEY", help="The supplier, <address>@<service>.")
@click.option(
    "--task", "-t", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable)."
)
@click.option(
    "--doc",
    "docs",
    multiple=True,
    type=click.IntRange(min=0),
    metavar="ID",
    help="Only this doc (repeatable).",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write (a zip file).",
)
@click.pass_obj
def evidence(
    config: str | None, supplier: str, tasks: tuple[str, ...], docs: tuple[int, ...], out: Path
) -> None:
    """Write what a supplier's scores rest on into one file: prompts, raw answers, targets, failures, hashes.

    Anyone can check the file with `testbench rescore`. It holds no keys, headers or endpoint addresses, but
    questions with their targets: name single docs to reveal fewer of them.
    """
    with Testbench.open(config) as testbench, _progress() as progress:
        written = testbench.evidence(
            supplier,
            out,
            tasks=tasks or None,
            docs=docs or None,
            on_progress=lambda done, total: progress("attempts", done, total),
        )
    for name, why in written.left_out.items():
        note(f"left out: {name}: {why}")
    counts = ", ".join(f"{count} {kind}" for kind, count in written.counts.items())
    click.echo(f"{written.path}  {counted(written.size, 'byte')}: {counts}")
    click.echo(f"sha256 of its manifest: {written.sha256}")


@click.command(short_help="Check an evidence bundle")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--trust-code", is_flag=True, help="Run the task definitions in the bundle: they may contain any code."
)
@click.option(
    "--max-mb",
    type=click.IntRange(min=1),
    default=layout.MAX_TOTAL_MB,
    show_default=True,
    help="What the bundle may unpack to.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Output format.",
)
def rescore(file: Path, trust_code: bool, max_mb: int, format_: str) -> int:
    """Check an evidence bundle: every hash, answer, score and window is computed again from FILE alone.

    Needs no configuration, stores or network. Exit code 0: everything is equal to the last bit. 1: something
    differs, or could not be checked. 2: the file cannot be used.
    """
    try:
        with _progress() as progress:
            report = check(file, trust_code=trust_code, max_mb=max_mb, on_progress=progress)
    except BundleError as error:
        raise _Unusable(str(error)) from None
    if format_ == "json":
        click.echo(json.dumps(report.to_json(), indent=1))
    else:
        title = f"{report.supplier}, as of {report.made_at}" + (" (simulated)" if report.simulation else "")
        emit([vars(task) for task in report.tasks], "table", _COLUMNS, title)
        click.echo(f"sha256 of the manifest: {report.sha256}")
        for line in report.lines():
            click.echo(line)
    return 0 if report.equal else 1


@contextmanager
def _progress() -> Iterator[OnProgress]:
    """A bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def progressed(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield progressed
