"""Sensor ``new_suppliers``: who joined, left or changed; their partitions; first evaluations."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.records.plans import PlanId
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.automation import run_key, sensor_status
from testbench_dagster.defs.catalog.sensors import catalog_is_ready
from testbench_dagster.defs.network.assets import roster_metadata, roster_version
from testbench_dagster.defs.partitions import (
    RUNS_PER_TICK,
    SUPPLIER,
    add_suppliers,
    pack_ranges,
    range_tags,
    supplier_partitions,
    suppliers_in_flight,
    suppliers_per_run,
)
from testbench_dagster.stages.discover.roster import refresh_roster, retirable
from testbench_dagster.stages.statements import server_problem
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Suppliers that join at a tick, with their partitions: 50,000 are there after ten minutes.
NEW_KEYS_PER_TICK = 5000
#: Partitions that are dropped at a tick: the daemon asks twice for each, which takes up to 40 ms.
DROPPED_PER_TICK = 250
_REPORT_EVERY = timedelta(hours=1)  # the roster is materialized at least that often, so that it stays fresh
_READ_WITHIN_S = 40.0  # a tick has 60 s
_DATA_VERSION = "dagster/data_version"  # Dagster's tag


def _report_is_due(cursor: str | None, now: datetime) -> bool:
    """Whether the roster is to be shown again, though nothing is new."""
    if not cursor:
        return True
    reported_at = datetime.fromisoformat(json.loads(cursor)["reported_at"])
    return reported_at + _REPORT_EVERY <= now or is_ahead(reported_at, now)


def new_suppliers_sensor(automation: AutomationSettings) -> dg.SensorDefinition:
    """The sensor, polling the supplier sources as often as configured."""

    @dg.sensor(
        name="new_suppliers",
        job_name="evaluate_suppliers",
        minimum_interval_seconds=automation.new_suppliers.every_s,
        default_status=sensor_status(automation.new_suppliers),
        description="Brings the roster and the supplier partitions up to date with the supplier sources "
        "and requests a first evaluation of who joined.",
    )
    def new_suppliers(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult:
        if (problem := server_problem(workspace)) is not None:  # it would retire the others' suppliers
            return dg.SensorResult(skip_reason=problem, cursor=context.cursor)
        now = datetime.now(UTC)
        report = refresh_roster(workspace, deadline_s=_READ_WITHIN_S, most_new=NEW_KEYS_PER_TICK)
        for what, told in [*report.problems.items(), *report.warnings.items()]:
            context.log.warning(f"{what}: {told}")
        before = list(context.instance.get_dynamic_partitions(SUPPLIER))
        known = set(before)
        added = list(islice((key for key in report.active if key not in known), NEW_KEYS_PER_TICK))
        add_suppliers(context.instance, added)
        order = [*before, *added]
        busy = suppliers_in_flight(context.instance, order, probed=True)
        dropped = _droppable(context.instance, workspace, known.difference(report.active), busy, now)
        runs = _first_evaluations(workspace, order, added, busy)
        if not (report.anything_new or added or dropped or _report_is_due(context.cursor, now)):
            doubted = "".join(f"; {told}" for told in report.doubted.values())
            return dg.SensorResult(
                skip_reason=f"{counted(len(report.active), 'supplier')}, nothing new{doubted}",
                cursor=context.cursor,
            )
        return dg.SensorResult(
            dynamic_partitions_requests=[supplier_partitions.build_delete_request(dropped)]
            if dropped
            else [],
            run_requests=runs,
            asset_events=[
                dg.AssetMaterialization(
                    "suppliers",
                    metadata=roster_metadata(workspace, report),
                    tags={_DATA_VERSION: roster_version(report.known)},
                )
            ],
            cursor=json.dumps({"reported_at": now.isoformat()}),
        )

    return new_suppliers


def _droppable(
    instance: dg.DagsterInstance,
    workspace: Workspace,
    gone: Collection[str],
    busy: Collection[str],
    now: datetime,
) -> list[str]:
    """Partitions of who left that no unfinished run or backfill covers.

    A range that ends at one that is not there any more could not be resolved.
    """
    free = {key for key in retirable(workspace, now, gone) if key not in busy} if gone else set()
    if not free:
        return []
    from testbench_dagster.defs.backfills import covered_by_backfills  # with Dagster's storages, 0.5 s

    return sorted(free - covered_by_backfills(instance, free))[:DROPPED_PER_TICK]


def _first_evaluations(
    workspace: Workspace, order: Sequence[str], added: Sequence[str], busy: Collection[str]
) -> list[dg.RunRequest]:
    """Runs of who joined just now and was never planned, as many as a tick may request.

    Whoever else was never evaluated is due, and left to `stale_scores`: were both to ask, a supplier would be
    evaluated twice at the same time.
    """
    if not added or not catalog_is_ready(workspace):
        return []
    planned = typed.by_id(workspace.documents, PlanId, added)
    wanted = [key for key in added if key not in planned and key not in busy]
    place = {key: i for i, key in enumerate(order)}
    return [
        # a key that was dropped and is added again stands at another place: that is another first time
        dg.RunRequest(run_key=run_key("first", first, last, str(place[first])), tags=range_tags(first, last))
        for first, last in pack_ranges(order, wanted, suppliers_per_run())[:RUNS_PER_TICK]
    ]
