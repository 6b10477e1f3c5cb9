"""Sensor ``new_suppliers``: who joined, left or changed; their partitions; first evaluations."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Cursor:
    """What a tick tells the next one.

    ``asked_to`` is the last partition, in their order, whose first evaluation is no more to be requested: it
    was, or others do it. Empty for none; None where nothing tells it.
    """

    reported_at: datetime | None = None
    asked_to: str | None = None

    @classmethod
    def read(cls, text: str | None) -> _Cursor:
        if not text:
            return cls()
        told = json.loads(text)
        return cls(datetime.fromisoformat(told["reported_at"]), told.get("asked_to"))

    def first_unasked(self, order: Sequence[str]) -> int:
        """Place in ``order`` of the first partition to request; who is there without a cursor is known."""
        if self.asked_to == "":
            return 0
        return order.index(self.asked_to) + 1 if self.asked_to in order else len(order)

    def report_is_due(self, now: datetime) -> bool:
        if self.reported_at is None or is_ahead(self.reported_at, now):
            return True
        return self.reported_at + _REPORT_EVERY <= now

    def text(self) -> str | None:
        if self.reported_at is None:
            return None
        return json.dumps({"reported_at": self.reported_at.isoformat(), "asked_to": self.asked_to})


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
        cursor = _Cursor.read(context.cursor)
        before = list(context.instance.get_dynamic_partitions(SUPPLIER))
        known = set(before)
        added = list(islice((key for key in report.active if key not in known), NEW_KEYS_PER_TICK))
        add_suppliers(context.instance, added)
        order = [*before, *added]
        busy = suppliers_in_flight(context.instance, order, probed=True)
        dropped = _droppable(context.instance, workspace, known.difference(report.active), busy, now)
        runs, asked_to = _first_evaluations(workspace, order, cursor.first_unasked(before), busy)
        if not (report.anything_new or added or dropped or runs or cursor.report_is_due(now)):
            doubted = "".join(f"; {told}" for told in report.doubted.values())
            return dg.SensorResult(
                skip_reason=f"{counted(len(report.active), 'supplier')}, nothing new{doubted}",
                cursor=_Cursor(cursor.reported_at, asked_to).text(),
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
            cursor=_Cursor(now, asked_to).text(),
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
    workspace: Workspace, order: Sequence[str], start: int, busy: Collection[str]
) -> tuple[list[dg.RunRequest], str]:
    """Runs of those from a place in ``order`` on that nobody planned yet, and the last that was looked at.

    As many as a tick may request; none while there is nothing to ask.
    """
    size, runs = suppliers_per_run(), []
    joined = order[start : start + size * RUNS_PER_TICK]
    if joined and catalog_is_ready(workspace):
        planned = typed.by_id(workspace.documents, PlanId, joined)
        wanted = [key for key in joined if key not in planned and key not in busy]
        ranges = pack_ranges(order, wanted, size)
        place = {key: i for i, key in enumerate(order)}
        runs = [
            # a key that was dropped and is added again stands at another place: that is another first time
            dg.RunRequest(
                run_key=run_key("first", first, last, str(place[first])), tags=range_tags(first, last)
            )
            for first, last in ranges[:RUNS_PER_TICK]
        ]
        start = place[ranges[RUNS_PER_TICK][0]] if len(ranges) > RUNS_PER_TICK else start + len(joined)
    return runs, order[start - 1] if start else ""
