"""What each partition of a run shows of its own, however many others the run carried.

Belongs here: the stored state of one supplier as metadata of its partition, and how partitions get theirs.
Does not: what is said of a whole run (see the assets); how tables are made (see :mod:`.metadata`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from testbench_dagster.board import links
from testbench_dagster.core.records.rankings import TaxonomySummaryRecord
from testbench_dagster.core.service_quality import ALL_WORKLOADS, ServiceQuality
from testbench_dagster.core.window import NOT_APPLICABLE, NOT_ASKED_STATUSES, TASK, Window
from testbench_dagster.defs.metadata import counts, interval_text, markdown_table, window_table
from testbench_dagster.relays.report import Counts
from testbench_dagster.statistics.task_score import combined_tasks, measured_tasks

#: Rows of a table inside an event; the board has all.
_MOST_ROWS = 20


def show_partitions(context: dg.AssetExecutionContext, shown: Mapping[str, Mapping[str, Any]]) -> None:
    """Give each named partition of the run metadata of its own, beside those of the run.

    At once for all: ``add_asset_metadata`` reads the whole list of partitions for each of them, which took
    21 s of a run over 250 suppliers on PostgreSQL.
    """
    from testbench_dagster.defs.dagster_internals import add_partition_metadata  # 0.5 s where nothing ran yet

    add_partition_metadata(context.get_step_execution_context(), context.asset_key, shown)


def relays_shown(suppliers: Mapping[str, Counts], left: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """By supplier what it was asked in a run, and what came of it; why it was left before the end.

    The names say whose numbers these are: those of the whole run stand beside them.
    """
    shown: dict[str, dict[str, Any]] = {}
    for key, own in suppliers.items():
        times = {"supplier_p50_ms": own.p50_ms, "supplier_p95_ms": own.p95_ms}
        shown[key] = {
            "supplier_sent": own.sent,
            "supplier_answered": own.answered,
            "supplier_outcomes": counts({fault.value: n for fault, n in own.faults.items()}),
            **{name: round(value, 1) for name, value in times.items() if value is not None},
        }
    for key, why in left.items():
        shown.setdefault(key, {})["supplier_left"] = why
    return shown


def scores_shown(
    keys: Sequence[str],
    rows: Sequence[Window],
    board_url: str | None,
    service: Sequence[ServiceQuality] = (),
) -> dict[str, dict[str, Any]]:
    """By supplier what is stored of it now, whatever the run found to do.

    ``score`` is the mean over its measured tasks of scores in [0, 1], with the ends of its 95 % interval;
    the docs behind it by state; faults of docs without an answer; dates of its newest answer and of the last
    change of its model; its windows, the highest scores first; how fast and how reliably it answered
    service probes of the last 72 hours (``service``), if there were any; and its page, where the board has an
    address.
    """
    of_supplier: defaultdict[str, list[Window]] = defaultdict(list)
    for row in rows:
        if row.primary and row.kind == TASK:
            of_supplier[row.supplier].append(row)
    probed: defaultdict[str, list[ServiceQuality]] = defaultdict(list)
    for one in service:
        probed[one.supplier].append(one)
    return {key: _state(key, of_supplier[key], probed[key], board_url) for key in keys}


def _state(
    key: str, rows: Sequence[Window], service: Sequence[ServiceQuality], board_url: str | None
) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    scores = measured_tasks(rows)
    if scores:
        mean = combined_tasks(dict.fromkeys(scores, 1.0 / len(scores)), scores)
        low, high = mean.interval
        shown |= {"score": mean.score, "score_low": low, "score_high": high}
    asked = [row for row in rows if row.status not in NOT_ASKED_STATUSES | {NOT_APPLICABLE}]
    faults: Counter[str] = Counter()
    for row in asked:
        faults.update(row.errors)
    shown |= {
        "tasks_measured": f"{sum(row.score is not None for row in asked)} of {len(asked)}",
        "n": sum(row.n for row in asked),
        "n_failed": sum(row.n_failed for row in asked),
        "n_open": sum(row.n_open for row in asked),
        "errors": counts(faults),
    }
    newest = max((row.last_sample_at for row in asked if row.last_sample_at), default=None)
    changed = max((row.cut_at for row in rows if row.cut_at), default=None)
    for name, instant in (("newest_answer", newest), ("changed_at", changed)):
        if instant is not None:
            shown[name] = dg.MetadataValue.timestamp(instant)
    best = sorted(asked, key=lambda row: (row.score is None, -(row.score or 0.0), row.task))
    if best:
        shown["windows"] = window_table(best[:_MOST_ROWS])
    shown |= service_shown(service)
    if board_url is not None:
        shown["board"] = dg.MetadataValue.url(board_url + links.supplier(key))
    return shown


def service_shown(rows: Sequence[ServiceQuality]) -> dict[str, Any]:
    """Uptime over all workloads, and of each the medians that are known; nothing where nobody probed it."""
    shown: dict[str, Any] = {}
    for row in rows:
        if row.workload == ALL_WORKLOADS:
            shown |= {"uptime": row.uptime, "speed_estimate": row.estimated_tokens_per_s["value"]}
            continue
        shown |= {
            f"first_token_p50_ms_{row.workload}": row.ttft_ms["p50"],
            f"tokens_per_s_p50_{row.workload}": row.tokens_per_s["p50"],
            f"latency_p50_ms_{row.workload}": row.latency_ms["p50"],
        }
    return {name: round(value, 4) for name, value in shown.items() if value is not None}


def abilities_shown(summaries: Sequence[TaxonomySummaryRecord]) -> dict[str, dict[str, Any]]:
    """By supplier its abilities: the score of the first taxonomy's root with its interval, and all nodes."""
    of_supplier: defaultdict[str, list[TaxonomySummaryRecord]] = defaultdict(list)
    for summary in summaries:
        of_supplier[summary.supplier].append(summary)
    shown: dict[str, dict[str, Any]] = {}
    for key, own in of_supplier.items():
        root = own[0].nodes[own[0].root]
        values = {"score": root.score, "score_low": root.ci_low, "score_high": root.ci_high}
        rows = [
            [
                summary.taxonomy,
                name,
                node.score,
                interval_text(node.ci_low, node.ci_high),
                f"{node.n_measured}/{node.n_tasks}",
            ]
            for summary in own
            for name, node in summary.nodes.items()
        ]
        headers = ["taxonomy", "ability", "score", "95 % interval", "tasks measured"]
        shown[key] = {
            **{name: value for name, value in values.items() if value is not None},
            "abilities": markdown_table(headers, rows[:_MOST_ROWS]),
        }
    return shown
