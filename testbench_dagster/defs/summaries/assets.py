"""Assets ``taxonomy_summaries`` (per supplier) and ``leaderboard`` (one for all)."""

from collections.abc import Sequence

import dagster as dg

from testbench_dagster.defs.metadata import interval_plot, interval_text, markdown_table
from testbench_dagster.defs.partitions import supplier_backfill_policy, supplier_partitions
from testbench_dagster.leaderboard import Entry, refresh_leaderboard
from testbench_dagster.taxonomies.refresh import refresh_summaries
from testbench_dagster.workspace import Workspace

GROUP = "summaries"
_PLOTTED = 30  # suppliers on the plot: it lives in an event row


@dg.asset(
    group_name=GROUP,
    partitions_def=supplier_partitions,
    backfill_policy=supplier_backfill_policy(),
    deps=["supplier_scores"],
    kinds={"python"},
)
def taxonomy_summaries(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    """Abilities of the suppliers: their windows rolled up into every configured taxonomy."""
    keys = context.partition_keys  # once: every access reads the whole partition list
    documents = refresh_summaries(workspace, keys)
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
        metadata={"summaries": len(documents), "abilities": markdown_table(headers, rows[:200])}
    )


@dg.asset(group_name=GROUP, deps=[taxonomy_summaries], kinds={"python"})
def leaderboard(workspace: dg.ResourceParam[Workspace]) -> dg.MaterializeResult:
    """All suppliers ranked by taxonomy, with intervals; overlapping intervals are ties."""
    entries = refresh_leaderboard(workspace)
    first = [e for e in entries if e.taxonomy == entries[0].taxonomy] if entries else []
    note = "**Simulation**: these suppliers are simulated." if any(e.simulation for e in entries) else ""
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
            "suppliers": len({e.supplier for e in entries}),
            "dagster/row_count": len(entries),
        }
    )


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
