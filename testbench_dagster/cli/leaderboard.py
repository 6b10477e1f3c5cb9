"""Commands that publish: ``leaderboard`` (table, JSON, CSV, HTML page) and ``feed`` (for gateways)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import (
    emit,
    emit_text,
    format_option,
    model_option,
    note,
    note_set_aside,
    with_values,
)
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.wording import counted
from testbench_dagster.ranking.entry import ENTRY_VIEWS, ORDERS, Entry
from testbench_dagster.stages.rank import make_board
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.files import writing


def ranking_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a table shows of a leaderboard's rows; sparse columns only where there is a value."""
    return with_values(Entry, ENTRY_VIEWS.commands, rows)


@click.command(short_help="Rank the suppliers")
@click.option("--taxonomy", metavar="NAME", help="Rank by this taxonomy only.")
@click.option("--task", "-t", metavar="NAME", help="Rank by this task, or group with a score, instead.")
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the self-contained HTML page to this file instead of printing.",
)
@click.option(
    "--by",
    type=click.Choice(ORDERS),
    default=ORDERS[0],
    show_default=True,
    help="Order of the rows, the best first; ranks stay those of the score.",
)
@model_option
@format_option
@click.pass_obj
def leaderboard(
    config: str | None,
    taxonomy: str | None,
    task: str | None,
    page: Path | None,
    by: str,
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Rank the suppliers; those that cannot be told apart are tied and share a range of ranks."""
    if page is not None and by != ORDERS[0]:
        raise click.UsageError("--html writes the page, which sorts by any column; leave out --by")
    if page is not None and models:
        raise click.UsageError("--html writes the page of all suppliers; leave out --model")
    if task is not None and (taxonomy is not None or page is not None):
        other = "--taxonomy" if taxonomy is not None else "--html"
        raise click.UsageError(f"--task and {other} are both given; choose one")
    with Workspace.open(config, hurried=True) as workspace:
        if page is not None:
            # with Jinja2: 40 ms
            from testbench_dagster.board.published import render_page

            _write(page, render_page(make_board(workspace, taxonomy)))
            return
        found = Testbench(workspace).leaderboard(taxonomy, task=task, models=models or None, by=by)
    rows = found.rows
    note_set_aside(found.set_aside)
    if any(row["simulation"] for row in rows):
        note("These suppliers are simulated.")
    emit(rows, format_, ranking_columns(rows), "Leaderboard")


@click.command(short_help="Quality of the suppliers, for gateways")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["json", "prometheus"]),
    default="json",
    show_default=True,
    help="Form of the feed.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file, which appears whole, instead of printing.",
)
@click.option("--serve", is_flag=True, help="Serve both forms and the page over HTTP until interrupted.")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; anybody there may read."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9469, show_default=True, help="Port; 0: a free one."
)
@click.option(
    "--cache",
    "cache_s",
    type=click.FloatRange(0, 86400),
    default=60,
    show_default=True,
    help="Seconds a leaderboard is served before it is made anew.",
)
@click.pass_obj
def feed(
    config: str | None, format_: str, out: Path | None, serve: bool, host: str, port: int, cache_s: float
) -> None:
    """Quality of the suppliers for gateways: scores, lower bounds, ages, groups, availability, latency."""
    if serve and out is not None:
        raise click.UsageError("--serve and --out exclude each other")
    # the feeds: 20 ms
    from testbench_dagster.ranking.feeds import render_json, render_prometheus

    with Workspace.open(config, hurried=True) as workspace:
        if serve:
            _serve(workspace, host, port, cache_s)
            return
        render = render_json if format_ == "json" else render_prometheus
        text = render(make_board(workspace))
    if out is not None:
        _write(out, text)
    else:
        emit_text(text)


def _write(path: Path, text: str) -> None:
    # with pyarrow: 0.1 s
    from testbench_dagster.stages.publish.publish import write_whole

    with writing(path, "choose another file"):
        write_whole(path, text)
    note(f"written: {path}  ({counted(len(text.encode('utf-8', 'replace')), 'byte', ',')})")


def _serve(workspace: Workspace, host: str, port: int, cache_s: float) -> None:
    # with a web server: 50 ms
    from testbench_dagster.board.serve import Feed, FeedServer

    served = Feed(lambda: make_board(workspace), cache_s)
    try:
        server = FeedServer(host, port, served)
    except OSError as error:
        raise TestbenchError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose others with --host and --port"
        ) from None
    shown = f"[{host}]" if ":" in host else host
    note(
        f"serving http://{shown}:{server.server_address[1]}/metrics, /feed.json, /leaderboard.html, /healthz"
    )
    try:
        with server:
            server.serve_forever()
    except KeyboardInterrupt:
        note("interrupted")
    finally:
        served.close()
