"""The command ``service``: how fast suppliers answer, and whether they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, model_option, note
from testbench_dagster.cli.read import first_day
from testbench_dagster.cli.service_lines import missing_probes, number, shares, with_interval
from testbench_dagster.core.service_quality import ServiceQuality

#: Columns of the table, of the readable texts that stand for several numbers each.
_COLUMNS = (
    "supplier", "model", "workload", "period", "probes", "first_token_ms", "p90", "tokens_per_s", "in_all",
    "latency_ms", "uptime",
)  # fmt: skip
#: Columns of which a table shows nothing where no row has anything to say.
_RARE = ("estimated_tokens_per_s", "context")


@click.command(short_help="How fast suppliers answer, and if they do")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--by-day", is_flag=True, help="A row per day instead of the last 72 hours.")
@click.option(
    "--since",
    metavar="WHEN",
    help="With --by-day, how far back: 30d (the default), 8w, a date, or all.",
)
@model_option
@format_option
@click.pass_obj
def service(
    config: str | None,
    suppliers: tuple[str, ...],
    by_day: bool,
    since: str | None,
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Show speed, latency and uptime by workload, as service probes of the last 72 hours found them.

    A percentile is shown with its 95 % interval, and only of enough probes: 6 for a median, 29 for a p90.
    """
    if since is not None and not by_day:
        raise click.UsageError("--since chooses days; give --by-day too")
    first = first_day(since or "30d") if by_day else None
    with Testbench.open(config) as testbench:
        found = testbench.service_quality(
            suppliers or None, models=models or None, by_day=by_day, since=first
        )
    rows = found.rows
    if not rows:
        note(
            "no service probes in this time: `service_probes: {enabled: true}` has suppliers probed "
            "(docs/service-quality.md)"
        )
    if format_ != "table":
        emit(rows, format_, list(found.columns), "Service quality")
        return
    shown = [_readable(row) for row in rows]
    columns = [*_COLUMNS, *(name for name in _RARE if any(row[name] is not None for row in shown))]
    emit(shown, "table", columns, "Service quality")
    if lacking := missing_probes([ServiceQuality.from_json(row) for row in rows]):
        note(lacking)


def _readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as people read it: percentiles with their intervals."""
    one = ServiceQuality.from_json(row)
    estimate = one.estimated_tokens_per_s
    reach = None
    if one.context_asked is not None:
        claimed = one.context_asked if one.context_claimed is None else one.context_claimed
        reach = f"{one.context_reached or 0:,}/{claimed:,}"
    return {
        "supplier": one.supplier,
        "model": one.model,
        "workload": one.workload,
        "period": one.period,
        "probes": f"{one.n_answered}/{one.n}",
        "first_token_ms": with_interval(one.ttft_ms, "p50"),
        "p90": number(one.ttft_ms["p90"]),
        "tokens_per_s": with_interval(one.tokens_per_s, "p50"),
        "in_all": with_interval(one.tokens_per_s_end_to_end, "p50"),
        "latency_ms": with_interval(one.latency_ms, "p50"),
        "uptime": shares(one),
        "estimated_tokens_per_s": None
        if estimate["value"] is None
        else f"{number(estimate['value'])} ({number(estimate['low'])}–{number(estimate['high'])})",
        "context": reach,
    }
