"""Assets ``taxonomy_summaries`` (by supplier), ``leaderboard`` and ``supplier_snapshots`` (by day)."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.defs import freshness
from testbench_dagster.defs.automation import checked_cron
from testbench_dagster.defs.metadata import interval_plot, interval_text, markdown_table
from testbench_dagster.defs.partitions import supplier_backfill_policy, supplier_partitions
from testbench_dagster.defs.summaries.plots import SIMULATION, ability_heatmaps, supplier_plots
from testbench_dagster.errors import TestbenchError
from testbench_dagster.leaderboard import Entry
from testbench_dagster.leaderboard.publish import Published, publish
from testbench_dagster.network.roster import active_suppliers
from testbench_dagster.planning.kept import refresh_plans
from testbench_dagster.snapshots import take_snapshots
from testbench_dagster.taxonomies.refresh import refresh_summaries
from testbench_dagster.workspace import Workspace

GROUP = "summaries"
_PLOTTED = 30  # suppliers on the plot: it lives in an event row


@dg.asset(
    group_name=GROUP,
    partitions_def=supplier_partitions,
    backfill_policy=supplier_backfill_policy(),
    deps=["supplier_scores"],
    freshness_policy=freshness.SUMMARIES,
    kinds={"python"},
)
def taxonomy_summaries(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[Any]:
    """Abilities of the suppliers: their windows rolled up into every configured taxonomy.

    The end of an evaluation: the suppliers' plans are made anew here, since gates look at abilities.
    """
    keys = set(context.partition_keys)  # once: every access reads the whole partition list
    suppliers = [s for s in active_suppliers(workspace) if s.key in keys]
    documents = refresh_summaries(workspace, [s.key for s in suppliers])
    refresh_plans(workspace, suppliers)
    rows = [
        [
            d["supplier"],
            d["taxonomy"],
            name,
            node["score"],
            interval_text(node["ci_low"], node["ci_high"]),
            f"{node['n_measured']}/{node['n_tasks']}",
        ]
        for d in documents
        for name, node in d["nodes"].items()
        if name == d["root"] or len(keys) == 1
    ]
    headers = ["supplier", "taxonomy", "ability", "score", "95 % interval", "tasks measured"]
    return dg.MaterializeResult(
        metadata={
            "summaries": len(documents),
            "abilities": markdown_table(headers, rows[:200]),
            **(supplier_plots(workspace, documents) if len(keys) == 1 else {}),
        }
    )


def leaderboard_asset(automation: AutomationSettings) -> dg.AssetsDefinition:
    """The asset ``leaderboard``, refreshed by itself at the configured times if something new arrived."""
    cron = checked_cron("summaries", automation.summaries)

    @dg.asset(
        group_name=GROUP,
        # groups are shown as last stored: waiting for them would keep the ranking back where nobody relays
        deps=[taxonomy_summaries],
        # on_cron, not eager: eager waits for ever for a supplier that was never summarized
        automation_condition=dg.AutomationCondition.on_cron(cron) if automation.summaries.enabled else None,
        freshness_policy=freshness.SUMMARIES,
        kinds={"python"},
    )
    def leaderboard(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult[Any]:
        """All suppliers ranked by taxonomy, with intervals and ties; published as a page and as feeds."""
        return _ranking(workspace)

    return leaderboard


_days = dg.DailyPartitionsDefinition(start_date="2026-11-01", timezone="UTC", end_offset=1)


@dg.asset(
    group_name=GROUP,
    partitions_def=_days,
    deps=[dg.AssetDep(taxonomy_summaries, partition_mapping=dg.AllPartitionMapping())],
    freshness_policy=freshness.SNAPSHOTS,
    kinds={"python"},
)
def supplier_snapshots(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[Any]:
    """Append-only history: every active supplier's windows and summaries of a day, never changed later."""
    day, today = date.fromisoformat(context.partition_key), datetime.now(UTC).date()
    if not today - timedelta(days=1) <= day <= today:
        raise TestbenchError(
            f"supplier_snapshots of {day}: a snapshot shows the present, so only today and yesterday can be "
            "taken; windows of other days are not invented"
        )
    taken = take_snapshots(workspace, day)
    return dg.MaterializeResult(metadata={"suppliers": taken, "dagster/row_count": taken})


def _ranking(workspace: Workspace) -> dg.MaterializeResult[Any]:
    published = publish(workspace)
    entries = published.board.entries
    first = [e for e in entries if e.taxonomy == entries[0].taxonomy] if entries else []
    note = SIMULATION if any(e.simulation for e in entries) else ""
    return dg.MaterializeResult(
        metadata={
            "ranking": markdown_table(HEADERS, leaderboard_rows(entries)),
            "plot": interval_plot(
                f"Leaderboard: {first[0].taxonomy}" if first else "Leaderboard",
                [
                    {"label": e.supplier, "score": e.score, "low": e.ci_low, "high": e.ci_high}
                    for e in first
                    if e.score is not None
                ][:_PLOTTED],
                note,
            ),
            "published": _published_table(published),
            **ability_heatmaps(workspace, [e.supplier for e in entries]),
            "suppliers": len({e.supplier for e in entries}),
            "dagster/row_count": len(entries),
        }
    )


def _published_table(published: Published) -> dg.MarkdownMetadataValue:
    """The files written, and why one was not."""
    rows: list[list[object]] = [[str(path), f"{size:,} bytes"] for path, size in published.files.items()]
    rows += [[name, f"not written: {why}"] for name, why in published.left_out.items()]
    return markdown_table(["file", "size"], rows)


HEADERS = ["taxonomy", "rank", "supplier", "score", "95 % interval", "tasks", "docs", "errors"]


def leaderboard_rows(entries: Sequence[Entry]) -> list[list[object]]:
    """Cells of the ranking table; tied suppliers show the range of ranks they share."""
    return [
        [
            e.taxonomy,
            e.rank_low if e.rank_low == e.rank_high else f"{e.rank_low}–{e.rank_high}",
            e.supplier,
            e.score,
            interval_text(e.ci_low, e.ci_high),
            f"{e.tasks_measured}/{e.tasks_total}",
            e.n,
            e.errors,
        ]
        for e in entries
    ]
