"""Asset ``suppliers``: the roster, and one dynamic partition per supplier in it."""

import hashlib
from collections.abc import Iterable
from typing import Any

import dagster as dg

from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.sources import InstallationRecord, SourceLossRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.defs import freshness
from testbench_dagster.defs.lineage import touches
from testbench_dagster.defs.metadata import markdown_table
from testbench_dagster.defs.partitions import SUPPLIER, add_suppliers
from testbench_dagster.stages.discover.roster import RosterReport, refresh_roster
from testbench_dagster.stages.plan.plan_cache import evaluation_problems
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

GROUP = "network"
_SHOWN = 500  # rows of a table: it lives in an event row


@dg.asset(
    group_name=GROUP,
    freshness_policy=freshness.ROSTER,
    kinds={"python"},
    metadata=touches(
        reads=(
            SupplierRecord,
            InstallationRecord,
            SourceLossRecord,
            HeightRecord,
            SessionRecord,
            PlanRecord,
        ),
        writes={
            SupplierRecord.collection.name: "joins, leaves, returns and changes, with their history",
            InstallationRecord.collection.name: "whose suppliers these are, with the names of its sources",
            SourceLossRecord.collection.name: "who was left out all at once, until that is believed",
            HeightRecord.collection.name: "the newest block of a service",
            SessionRecord.collection.name: "the sessions of its applications",
            PlanRecord.collection.name: "who joined, returned or changed is due at once",
        },
    ),
)
def suppliers(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[Any]:
    """The roster of suppliers, with joins, leaves and changes recorded; adds their partitions."""
    report = refresh_roster(workspace)
    for what, told in [*report.problems.items(), *report.warnings.items()]:
        context.log.warning(f"{what}: {told}")
    known = set(context.instance.get_dynamic_partitions(SUPPLIER))
    add_suppliers(context.instance, [key for key in report.active if key not in known])
    version = dg.DataVersion(roster_version(report.known))
    return dg.MaterializeResult(metadata=roster_metadata(workspace, report), data_version=version)


def roster_version(suppliers: Iterable[Supplier]) -> str:
    """What Dagster tells two rosters apart by.

    The roster is materialized every hour; without it what was made before would be shown as out of date.
    """
    rows = [
        (
            s.key,
            s.status,
            s.source,
            s.transport,
            s.api,
            s.model,
            s.base_url,
            s.owner,
            s.stake_upokt,
            s.joined_at,
            s.left_at,
            s.cut_at,
            None if s.price is None else (s.price.prompt, s.price.completion),
        )
        for s in suppliers
    ]
    return hashlib.sha256(repr(rows).encode()).hexdigest()[:16]


def roster_metadata(workspace: Workspace, report: RosterReport) -> dict[str, Any]:
    """What a refresh of the roster found, for its materialization."""
    rows = [
        [
            s.key,
            s.status,
            s.source,
            s.transport,
            s.api,
            s.model,
            s.base_url,
            None if s.stake_upokt is None else s.stake_upokt // 1_000_000,
            None if s.joined_at is None else f"{s.joined_at:%Y-%m-%d %H:%M}",
            None if s.cut_at is None else f"{s.cut_at:%Y-%m-%d %H:%M}",
        ]
        for s in report.known[:_SHOWN]
    ]
    headers = [
        "supplier", "status", "source", "transport", "api", "model", "base URL", "stake (POKT)", "joined",
        "last change of model",
    ]  # fmt: skip
    problems = [[what, problem] for what, problem in report.problems.items()]
    warnings = [
        [what, warning]
        for what, warning in (
            *report.warnings.items(),
            *evaluation_problems(workspace, report.active).items(),
        )
    ]
    return {
        "roster": markdown_table(headers, rows),
        "active": len(report.active),
        "joined": len(report.joined),
        "left": len(report.left),
        "changed": len(report.changed),
        "returned": len(report.returned),
        "problems": markdown_table(["source or supplier", "problem"], problems[:_SHOWN]),
        "warnings": markdown_table(["application or supplier", "warning"], warnings[:_SHOWN]),
        "dagster/row_count": len(report.active),
        **_sessions(workspace),
        **{f"height of {service}": height for service, height in report.heights.items()},
    }


def _sessions(workspace: Workspace) -> dict[str, Any]:
    """The newest known session of each application on Pocket Network, where there are any."""
    rows = [
        [s.service, s.app, s.session_id, s.start_height, s.end_height, len(s.suppliers)]
        for s in typed.find(workspace.documents, SessionRecord, sort=[("_id", 1)])
    ]
    if not rows:
        return {}
    headers = ["service", "application", "session", "first block", "last block", "suppliers"]
    return {"sessions": markdown_table(headers, rows[:_SHOWN])}
