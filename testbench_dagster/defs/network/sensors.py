"""Sensor ``new_suppliers``: who joined, left or changed; their partitions; first evaluations."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.automation import run_key, sensor_status
from testbench_dagster.defs.catalog.sensors import catalog_is_ready
from testbench_dagster.defs.network.assets import roster_metadata, roster_version
from testbench_dagster.defs.partitions import (
    SUPPLIER,
    pack_ranges,
    range_tags,
    supplier_partitions,
    suppliers_in_flight,
    suppliers_per_run,
)
from testbench_dagster.stages.discover.roster import refresh_roster, retirable
from testbench_dagster.stages.statements import server_problem
from testbench_dagster.stages.workspace import Workspace

#: The daemon looks every requested key up with a query of its own: 5,000 at once stalled it for 71 s.
NEW_KEYS_PER_TICK = 250
_REPORT_EVERY = timedelta(hours=1)  # the roster is materialized at least that often, so that it stays fresh
_READ_WITHIN_S = 40.0  # a tick has 60 s
_DATA_VERSION = "dagster/data_version"  # Dagster's tag


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
        report = refresh_roster(workspace, deadline_s=_READ_WITHIN_S)
        for what, told in [*report.problems.items(), *report.warnings.items()]:
            context.log.warning(f"{what}: {told}")
        order = list(context.instance.get_dynamic_partitions(SUPPLIER))
        known, active = set(order), set(report.active)
        added = [key for key in report.active if key not in known][:NEW_KEYS_PER_TICK]
        busy = suppliers_in_flight(context.instance, order, probed=True)
        dropped = [k for k in retirable(workspace, now) if k in known and k not in active and k not in busy]
        requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        if added:
            requests.append(supplier_partitions.build_add_request(added))
        # a range that ends at a dropped key could not be resolved: they go when nothing is in flight
        if dropped and not busy:
            requests.append(supplier_partitions.build_delete_request(dropped))
        if not report.anything_new and not requests and not _report_is_due(context.cursor, now):
            return dg.SensorResult(
                skip_reason=f"{counted(len(active), 'supplier')}, nothing new", cursor=context.cursor
            )
        return dg.SensorResult(
            dynamic_partitions_requests=requests,
            run_requests=_first_evaluations([*order, *added], added) if catalog_is_ready(workspace) else [],
            asset_events=[
                dg.AssetMaterialization(
                    "suppliers",
                    metadata=roster_metadata(workspace, report),
                    tags={_DATA_VERSION: roster_version(workspace)},
                )
            ],
            cursor=json.dumps({"reported_at": now.isoformat()}),
        )

    return new_suppliers


def _first_evaluations(order: list[str], added: list[str]) -> list[dg.RunRequest]:
    return [
        # a key that was dropped and is added again stands at another place: that is another first time
        dg.RunRequest(
            run_key=run_key("first", first, last, str(order.index(first))), tags=range_tags(first, last)
        )
        for first, last in pack_ranges(order, added, suppliers_per_run())
    ]


def _report_is_due(cursor: str | None, now: datetime) -> bool:
    if not cursor:
        return True
    return datetime.fromisoformat(json.loads(cursor)["reported_at"]) + _REPORT_EVERY <= now
