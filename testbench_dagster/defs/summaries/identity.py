"""Asset ``identity_groups``: which suppliers answer alike, who stands for whom; and its check."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.identity import ChangeRecord, IdentityGroupRecord, Suspect
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.prompts import EpochRecord
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.set_aside import VoidDocRecord
from testbench_dagster.core.records.splits import SplitRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.records.suspicions import SuspicionRecord
from testbench_dagster.defs import freshness
from testbench_dagster.defs.automation import at_times, checked_cron
from testbench_dagster.defs.checks import ActiveSuppliers, Violation, violations_result
from testbench_dagster.defs.lineage import (
    changes_metadata,
    observe_changes,
    public_gaps_metadata,
    touches,
)
from testbench_dagster.defs.metadata import markdown_table, picture
from testbench_dagster.defs.summaries.plots import SIMULATION
from testbench_dagster.stages.identify.identify import IdentityReport, refresh_identity
from testbench_dagster.stages.identify.public_gaps import flag_words, newest_gaps, refresh_public_gaps
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_SHOWN = 200  # rows of a table: it lives in an event row
_NAMED = 100  # members of a group in it
_PLOTTED = 36  # suppliers on the agreement matrix


def identity_groups_asset(automation: AutomationSettings) -> dg.AssetsDefinition:
    """The asset ``identity_groups``, refreshed by itself at the times of the summaries."""
    cron = checked_cron("summaries", automation.summaries)

    @dg.asset(
        group_name="summaries",
        deps=["relay_responses"],
        automation_condition=at_times(cron, dg.AssetSelection.assets("relay_responses"))
        if automation.summaries.enabled
        else None,
        freshness_policy=freshness.SUMMARIES,
        kinds={"python"},
        metadata=touches(
            reads=(
                SupplierRecord,
                AttemptRecord,
                ScoreRecord,
                EpochRecord,
                VoidDocRecord,
                PlanRecord,
                IdentityGroupRecord,
                ChangeRecord,
                SplitRecord,
                LaneEndRecord,
                PublicGapRecord,
                SuspicionRecord,
            ),
            writes={
                IdentityGroupRecord.collection.name: "group and proxy of each supplier",
                ChangeRecord.collection.name: "members that left their group's answers",
                SplitRecord.collection.name: "members whose scores differ from their proxy's",
                SupplierRecord.collection.name: "the cut of a supplier that changed",
                PlanRecord.collection.name: "who was cut or split off is due at once",
                PublicGapRecord.collection.name: "who is better on public questions than on fresh ones",
                SuspicionRecord.collection.name: "what looks as if it hid something",
            },
        ),
    )
    def identity_groups(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.MaterializeResult[Any]:
        """Suppliers that answer alike, from their answers to common prompts, and the proxy of each group.

        Says who answers like whom, never what runs behind an endpoint. Members answer a part of the docs
        themselves. One that leaves its group's answers is cut at that answer, and the change recorded (see
        detected_changes); one whose scores differ from its proxy's is split off. Where tasks of framework
        `twins` are asked, who is better on public questions than on fresh ones of the kind.
        """
        report = refresh_identity(workspace)
        observe_changes(context, report.changes)
        # after the groups: nobody is compared with those it is grouped with
        gaps = refresh_public_gaps(workspace)
        return dg.MaterializeResult(metadata=_metadata(workspace, report) | _of_public_gaps(gaps))

    return identity_groups


def _metadata(workspace: Workspace, report: IdentityReport) -> dict[str, Any]:
    groups = report.groups
    proxies = {placed.group: placed.proxy for placed in report.documents}
    table = markdown_table(
        ["group", "stands for it", "members"],
        [
            [group, proxies[group], _named(members)]
            for group, members in sorted(groups.items(), key=lambda item: -len(item[1]))[:_SHOWN]
        ],
    )
    metadata: dict[str, Any] = {
        "suppliers": report.n_suppliers,
        "answers_compared": report.n_answers,
        "groups": len(groups),
        "members": sum(len(members) for members in groups.values()),
        "answer_alike": table,
        **changes_metadata(report.changes),
        "dagster/row_count": report.n_suppliers,
    }
    if report.suspects:
        rows = sorted(report.suspects.items())[:_SHOWN]
        metadata["suspects"] = markdown_table(["supplier", "why"], [list(row) for row in rows])
    if report.suspicions:
        strongest = sorted(report.suspicions, key=lambda one: (-one.strength, one.id))[:_SHOWN]
        metadata["suspicions"] = markdown_table(
            ["kind", "supplier", "other", "what was seen"],
            [[one.kind, one.supplier, one.other or "", one.reason] for one in strongest],
        )
    image = agreement_picture(workspace, report)
    return metadata if image is None else {**metadata, "agreement": image}


def _named(members: Sequence[str]) -> str:
    more = len(members) - _NAMED
    return ", ".join(members[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _of_public_gaps(gaps: Sequence[PublicGapRecord]) -> dict[str, Any]:
    """What is told of public questions and fresh ones; nothing where none are asked."""
    return {} if not gaps else {"pairs_compared": len(gaps), "better_on_public": sum(g.flagged for g in gaps)}


def agreement_picture(workspace: Workspace, report: IdentityReport) -> dg.MarkdownMetadataValue | None:
    """How often suppliers agree, pair by pair, ordered by group; None where nothing can be compared."""
    # beside matplotlib, which it imports on use: 20 ms
    from testbench_dagster.identity.plots import agreement_matrix

    ordered = sorted(
        (placed for placed in report.documents if placed.n_prompts),
        key=lambda placed: (placed.service, -placed.size, placed.group, placed.id),
    )[:_PLOTTED]
    if len(ordered) < 2:
        return None
    note = SIMULATION if workspace.config.settings.simulation else ""
    title = "Share of common prompts answered alike"
    return picture(title, agreement_matrix(ordered, report.groupings, title), note)


@dg.asset_check(asset="identity_groups")
def identity_consistent(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
    """No supplier answers like two groups that differ: none is suspected of routing to several backends."""
    violations = {
        placed.id: placed.suspect
        for placed in typed.find(workspace.documents, Suspect)
        if placed.suspect is not None
    }
    return violations_result(violations, dg.AssetCheckSeverity.WARN)


@dg.asset_check(asset="identity_groups")
def public_not_special(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.AssetCheckResult:
    """No active supplier is better on public questions than on fresh ones of the kind, beside its peers.

    As last compared, and only where that was so in two of its last four epochs with a verdict. Whoever has no
    verdict is no violation.
    """
    suppliers = ActiveSuppliers(context, workspace)
    newest = newest_gaps(workspace, suppliers.keys)
    return suppliers.result(
        [
            Violation(one.supplier, {one.task: flag_words(one)}, one.compared_at, one.excess or 0.0, 1)
            for one in newest
            if one.flagged
        ],
        dg.AssetCheckSeverity.WARN,
        None,
        compared=len(newest),
        better=sum(one.verdict == "better" for one in newest),
        not_better=sum(one.verdict == "not better" for one in newest),
        no_verdict=sum(one.verdict == "no verdict" for one in newest),
        **public_gaps_metadata(newest),
    )
