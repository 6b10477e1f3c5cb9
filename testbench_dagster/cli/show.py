"""Commands that show what is known: ``scores``, ``export``."""

from __future__ import annotations

import gc
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import click

from testbench_dagster.api import EXPORT_FORMATS, PARQUET, Testbench
from testbench_dagster.cli.output import emit, format_option, model_option, note, with_values
from testbench_dagster.core.task import SIGNATURES
from testbench_dagster.core.window import GROUP, WINDOW_VIEWS, Window
from testbench_dagster.core.wording import counted

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
#: Cut suppliers of which a table is followed by the reason.
_CUTS_TOLD = 10


@click.command(short_help="Scores with intervals, by task")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option(
    "--task", "-t", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable)."
)
@model_option
@format_option
@click.pass_obj
def scores(
    config: str | None,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Show the current windows: one row per supplier, task, metric and filter.

    First by the metric and filter that each task is scored by, then groups of tasks as lm-eval makes one
    score of them, then tasks and groups by their other metrics and filters. `cut_at`: the supplier's
    model changed then, and what it answered before counts no more.
    """
    with Testbench.open(config) as testbench:
        rows = testbench.scores(suppliers or None, tasks or None, models=models or None).rows
        cut = list(dict.fromkeys(row["supplier"] for row in rows if row["cut_at"]))
        cuts = testbench.cuts(cut).rows if cut else []
    if format_ == "table":
        _show(rows, cuts)
    else:
        emit(rows, format_, WINDOW_VIEWS.commands, "Scores")


def _show(rows: Sequence[Mapping[str, Any]], cuts: Sequence[Mapping[str, Any]]) -> None:
    """Print the primary rows, what cut them, those of groups, and below them other metrics and filters."""
    texts = dict.fromkeys(row["task"] for row in rows if row["framework"] == SIGNATURES)
    if texts:
        note(f"Signatures are texts to compare and have no score: {', '.join(texts)}.")
    names = [name for name in with_values(Window, WINDOW_VIEWS.commands, rows) if name != "missing"]
    of_groups = [name for name in names if name != "cut_at"]
    columns = names if cuts else of_groups.copy()
    others = [row for row in rows if not row["primary"]]
    primary = [row for row in rows if row["primary"]]
    emit([row for row in primary if row["kind"] != GROUP], "table", columns, "Scores")
    for cut in cuts[:_CUTS_TOLD]:
        at = f"{cut['cut_at']:%Y-%m-%d %H:%M}"
        note(f"{cut['supplier']}: what it answered up to {at} UTC does not count: {cut['reason']}")
    if len(cuts) > _CUTS_TOLD:
        note(f"{counted(len(cuts) - _CUTS_TOLD, 'other')} likewise: `testbench identity --changes` says why")
    groups = [row for row in primary if row["kind"] == GROUP]
    if any(row.get("missing") for row in groups):
        of_groups.insert(of_groups.index("status") + 1, "missing")
    if groups:
        emit(groups, "table", of_groups, "\nGroups, as lm-eval aggregates them")
    if others:
        told_by = ("supplier", "model", "task", "metric", "filter")
        rest = [name for name in columns if name not in told_by and name != "cut_at"]
        emit(others, "table", [*told_by, *rest], "\nBy other metrics and filters")


class _Instant(click.ParamType[datetime]):
    """An instant as ISO 8601 with its zone."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            if value == "last":
                self.fail("'last' goes with a destination: testbench export FOLDER --since last", param, ctx)
            self.fail(f"{value[:60]!r} is no time; give one such as 2026-11-01T00:00Z", param, ctx)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no zone; give one, such as {instant.isoformat()}Z", param, ctx)
        return instant


class _Since(click.ParamType[date | Literal["last"]]):
    """An instant; with a destination also a day, or that of the last export there."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> date | Literal["last"]:
        if ctx is not None and isinstance(ctx.params.get("dest"), str):
            if value == "last":
                return "last"
            if _DAY.fullmatch(value):
                with suppress(ValueError):
                    return date.fromisoformat(value)
        return _Instant().convert(value, param, ctx)


@click.command(short_help="Write files for analysts and other tools")
@click.argument("dest", required=False, is_eager=True)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for one file of each kind.",
)
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task or group (repeatable).")
@click.option(
    "--format",
    "format_",
    type=click.Choice(EXPORT_FORMATS),
    default=PARQUET,
    show_default=True,
    help="What to write.",
)
@click.option(
    "--since",
    type=_Since(),
    metavar="TIME",
    help="Only answers from then on (ISO 8601 with a zone); with DEST the first day, or `last` to go on from "
    "the last export to DEST.",
)
@click.option("--until", type=_Instant(), metavar="TIME", help="Only answers before.")
@click.pass_obj
def export(
    config: str | None,
    dest: str | None,
    out: Path | None,
    suppliers: tuple[str, ...],
    tasks: tuple[str, ...],
    format_: str,
    since: date | Literal["last"] | None,
    until: datetime | None,
) -> None:
    """Write files for analysts and other tools.

    With DEST, a folder or a URL such as s3://bucket/prefix: parquet of the facts by day
    (attempts/day=2026-12-01/attempts.parquet), which `--since last` keeps up to date. With `--out`, files of
    what is known now:

    `parquet`: prompts, attempts, scores, windows, answers, item matrix, ranking. `inspect`: a log per
    supplier and task that Inspect View opens. `lm-eval`: results and samples as `lm_eval --log_samples`
    writes them.
    """
    # a tenth less time: what an export makes goes with its batch, and is nothing to look for among the rest
    gc.set_threshold(50_000, 20, 20)
    if dest is not None:
        if out is not None or suppliers or tasks or until is not None or format_ != PARQUET:
            raise click.UsageError("DEST gets the facts of all by day: of the options it takes --since alone")
        _export_by_day(config, dest, since)
        return
    if out is None:
        raise click.UsageError(
            "Missing option '--out', for files of what is known now, or DEST, for facts by day"
        )
    first = since if isinstance(since, datetime) else None  # nothing else without DEST
    with Testbench.open(config) as testbench:
        written = testbench.export(
            out, suppliers or None, tasks or None, format=format_, since=first, until=until
        )
    for path, rows in written.items():
        click.echo(f"{path}  {counted(rows, 'row')}")
    if not written:
        note("There is nothing to write: no doc of these suppliers and tasks was asked then.")


def _export_by_day(config: str | None, dest: str, since: date | Literal["last"] | None) -> None:
    with Testbench.open(config) as testbench:
        done = testbench.export_by_day(dest, since=since)
    for path, rows in done.files.items():
        click.echo(f"{path}  {counted(rows, 'row')}")
    for path, rows in done.kept.items():
        note(f"kept as it was: {path}  {counted(rows, 'row')}; the store has fewer, as after retention")
    if not done.files:
        note("There is nothing to write: no fact of these days is stored.")
