"""Assets ``taxonomy_summaries`` (by supplier), ``leaderboard`` and ``supplier_snapshots`` (by day)."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from testbench_dagster.board.tables import with_values
from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.health import HealthRecord
from testbench_dagster.core.records.identity import IdentityGroupRecord
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.core.records.rankings import (
    GroupScoresRecord,
    LeaderboardRecord,
    RankingPartRecord,
    SupplierSnapshotRecord,
    TaxonomySummaryRecord,
)
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.service_quality import ServiceQualityRecord
from testbench_dagster.core.records.set_aside import ScorerOutageRecord, SetAsideRecord, VoidDocRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.records.windows import WindowAnswersRecord, WindowRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.defs import freshness
from testbench_dagster.defs.automation import at_times, checked_cron
from testbench_dagster.defs.lineage import observe_plans, plans_metadata, touches
from testbench_dagster.defs.metadata import (
    NOT_PUBLISHED,
    interval_plot,
    markdown_table,
    record_table,
    set_aside_metadata,
)
from testbench_dagster.defs.partitions import supplier_backfill_policy, supplier_partitions
from testbench_dagster.defs.per_partition import abilities_shown, show_partitions
from testbench_dagster.defs.summaries.plots import SIMULATION, ability_heatmaps, supplier_plots
from testbench_dagster.ranking.entry import ENTRY_VIEWS, Entry
from testbench_dagster.stages.discover.roster import named_suppliers
from testbench_dagster.stages.health import note_abilities
from testbench_dagster.stages.plan.plan_cache import refresh_plans
from testbench_dagster.stages.publish.publish import Published, publish
from testbench_dagster.stages.snapshot import begin_history, take_snapshots
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace

GROUP = "summaries"
_PLOTTED = 30  # suppliers on the plot: it lives in an event row


@dg.asset(
    group_name=GROUP,
    partitions_def=supplier_partitions,
    backfill_policy=supplier_backfill_policy(),
    deps=["supplier_scores"],
    freshness_policy=freshness.SUMMARIES,
    kinds={"python"},
    metadata=touches(
        reads=(
            SupplierRecord,
            WindowRecord,
            ScoreRecord,
            AttemptRecord,
            LaneEndRecord,
            IdentityGroupRecord,
            TaxonomySummaryRecord,
            SupplierSnapshotRecord,
            PlanRecord,
            EpochRecord,
            VoidDocRecord,
            PromptRecord,
            SetAsideRecord,
            ScorerOutageRecord,
            HeightRecord,
            SessionRecord,
        ),
        writes={
            TaxonomySummaryRecord.collection.name: "one per supplier and taxonomy",
            PlanRecord.collection.name: "when each of the suppliers is due next, and what it would be asked",
            SupplierSnapshotRecord.collection.name: "the first of each supplier",
            HealthRecord.collection.name: "which abilities of the suppliers rest on no task, for checks",
        },
    ),
)
def taxonomy_summaries(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[Any]:
    """Abilities of the suppliers: their windows rolled up into every configured taxonomy.

    The end of an evaluation: the suppliers' plans are made anew here (see supplier_plans), since gates look
    at abilities.
    """
    keys = set(context.partition_keys)  # once: every access reads the whole partition list
    suppliers = [s for s in named_suppliers(workspace, keys) if s.left_at is None]
    summaries = refresh_summaries(workspace, [s.key for s in suppliers])
    begin_history(workspace, [s.key for s in suppliers])
    plans = refresh_plans(workspace, suppliers)
    note_abilities(workspace, [s.key for s in suppliers])
    observe_plans(context, plans)
    show_partitions(context, abilities_shown(summaries))
    return dg.MaterializeResult(
        metadata={
            "summaries": len(summaries),
            **plans_metadata(plans),
            **(supplier_plots(workspace, summaries) if len(keys) == 1 else {}),
        }
    )


def leaderboard_asset(automation: AutomationSettings) -> dg.AssetsDefinition:
    """The asset ``leaderboard``, refreshed by itself at the configured times if something new arrived."""
    cron = checked_cron("summaries", automation.summaries)

    @dg.asset(
        group_name=GROUP,
        deps=[
            "task_datasets",
            "suppliers",
            "sampled_prompts",
            "relay_responses",
            "supplier_scores",
            taxonomy_summaries,
            "identity_groups",
            "service_probes",
        ],
        # not eager: that waits for ever for a supplier that was never summarized. Only for new summaries and
        # new speeds: groups and windows are shown as last stored
        automation_condition=at_times(cron, dg.AssetSelection.assets(taxonomy_summaries, "service_probes"))
        if automation.summaries.enabled
        else None,
        freshness_policy=freshness.SUMMARIES,
        kinds={"python"},
        metadata=touches(
            reads=(
                SupplierRecord,
                IdentityGroupRecord,
                ReferenceRecord,
                PublicGapRecord,
                WindowRecord,
                WindowAnswersRecord,
                EpochRecord,
                VoidDocRecord,
                ScoreRecord,
                AttemptRecord,
                LaneEndRecord,
                TaxonomySummaryRecord,
                SetAsideRecord,
                ServiceQualityRecord,
            ),
            writes={
                LeaderboardRecord.collection.name: "one per taxonomy, and the files in "
                "TESTBENCH_HOME/published and where `publish` says",
                GroupScoresRecord.collection.name: "one per group of tasks",
                RankingPartRecord.collection.name: "where there are more than 2,000 suppliers",
            },
        ),
    )
    def leaderboard(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.MaterializeResult[Any]:
        """All suppliers ranked by taxonomy, with intervals and ties; published as a page and as feeds.

        As of one instant, which the metadata shows: every window, summary and sample is read for it.
        """
        return _ranking(context, workspace)

    return leaderboard


def supplier_snapshots_asset(first_day: date) -> dg.AssetsDefinition:
    """Build the asset: history begins on ``first_day``, at first use; earlier days lack nothing."""
    days = dg.DailyPartitionsDefinition(start_date=first_day.isoformat(), timezone="UTC", end_offset=1)

    @dg.asset(
        group_name=GROUP,
        partitions_def=days,
        deps=[dg.AssetDep(taxonomy_summaries, partition_mapping=dg.AllPartitionMapping())],
        freshness_policy=freshness.SNAPSHOTS,
        kinds={"python"},
        metadata=touches(
            reads=(
                SupplierRecord,
                WindowRecord,
                EpochRecord,
                VoidDocRecord,
                ScoreRecord,
                AttemptRecord,
                IdentityGroupRecord,
                TaxonomySummaryRecord,
                SupplierSnapshotRecord,
            ),
            writes={SupplierSnapshotRecord.collection.name: "one per supplier and day"},
        ),
    )
    def supplier_snapshots(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.MaterializeResult[Any]:
        """History: every active supplier's scores and abilities of a day, never changed once it is over."""
        day, today = date.fromisoformat(context.partition_key), datetime.now(UTC).date()
        if not today - timedelta(days=1) <= day <= today:
            raise TestbenchError(
                f"supplier_snapshots of {day}: a snapshot shows the present, so only today and yesterday "
                "can be taken; windows of other days are not invented"
            )
        taken = take_snapshots(workspace, day)
        return dg.MaterializeResult(metadata={"suppliers": taken, "dagster/row_count": taken})

    return supplier_snapshots


def _ranking(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult[Any]:
    # with Jinja2: 40 ms
    from testbench_dagster.board.published import render_page

    published = publish(workspace, render_page)
    if published.problem:
        context.log.warning(f"not published: {published.problem}")
    entries = published.board.entries
    first = [e for e in entries if e.taxonomy == entries[0].taxonomy] if entries else []
    note = SIMULATION if any(e.simulation for e in entries) else ""
    return dg.MaterializeResult(
        metadata={
            "as_of": dg.MetadataValue.timestamp(published.board.made_at),
            "ranking": record_table(with_values(Entry, ENTRY_VIEWS.dagster, entries), entries),
            **_plot(first, note),
            "published": _published_table(published),
            **({} if published.place is None else {"published to": published.problem or published.place}),
            **({NOT_PUBLISHED: published.problem} if published.problem else {}),
            **{f"file {path.name}": dg.MetadataValue.path(path) for path in published.files},
            **set_aside_metadata(published.board.set_aside),
            **ability_heatmaps(workspace, published.board),
            "suppliers": len({e.supplier for e in entries}),
            "dagster/row_count": len(entries),
        }
    )


def _plot(entries: Sequence[Entry], note: str) -> dict[str, dg.MarkdownMetadataValue]:
    """The scores of a taxonomy's best suppliers as a picture; none before somebody has one."""
    rows = [
        {
            # scores over other tasks are other scores
            "label": f"{entry.supplier} ({entry.ranked_among})" if entry.ranked_among else entry.supplier,
            "score": entry.score,
            "low": entry.ci_low,
            "high": entry.ci_high,
        }
        for entry in entries
        if entry.score is not None
    ][:_PLOTTED]
    return {"plot": interval_plot(f"Leaderboard: {entries[0].taxonomy}", rows, note)} if rows else {}


def _published_table(published: Published) -> dg.MarkdownMetadataValue:
    """The files written, and why one was not."""
    rows: list[list[object]] = [
        [str(path), f"{counted(size, 'byte', ',')}"] for path, size in published.files.items()
    ]
    rows += [[name, f"not written: {why}"] for name, why in published.left_out.items()]
    return markdown_table(["file", "size"], rows)
