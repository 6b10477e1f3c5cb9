"""Partitions: one per supplier (dynamic), one per task (static, from the configuration). Never their product.

Supplier × task is rows in the document store: Dagster writes 1.66 KB per partition and event
(`reference/dagster.md` section 1.2), so its partitions must stay few.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

import dagster as dg

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.task import TaskSpec

SUPPLIER = "supplier"
SUPPLIERS_PER_RUN_ENV = "TESTBENCH_SUPPLIERS_PER_RUN"
KIND_TAG, PROBES = "testbench/kind", "service_probes"
"""Tag that says of what kind a run is, and its value of those that probe how fast suppliers answer."""
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

#: A request takes the daemon 0.3 s to submit; what is left over is asked for by the next tick.
RUNS_PER_TICK = 20
#: Suppliers with nothing due that a range may run over: each costs a plan, a run of its own costs 5 s.
MAX_GAP = 10

UNFINISHED = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)

supplier_partitions = dg.DynamicPartitionsDefinition(name=SUPPLIER)


def task_partitions(specs: Sequence[TaskSpec]) -> dg.StaticPartitionsDefinition:
    """One partition per configured leaf task."""
    return dg.StaticPartitionsDefinition([spec.name for spec in specs])


def suppliers_per_run(default: int = 50) -> int:
    """How many suppliers one run carries at most: ``TESTBENCH_SUPPLIERS_PER_RUN``, else the default.

    Raises :class:`.ConfigError` where the variable is no such number.
    """
    text = os.environ.get(SUPPLIERS_PER_RUN_ENV, str(default))
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{SUPPLIERS_PER_RUN_ENV} is {text!r}; set it to a whole number of at least 1")
    return int(text)


def supplier_backfill_policy() -> dg.BackfillPolicy:
    """The policy all supplier assets share: they only run together in one run if it is the same."""
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=suppliers_per_run())


def range_tags(start: str, end: str) -> dict[str, str]:
    """Run tags that select a contiguous range of partitions."""
    return {RANGE_START: start, RANGE_END: end}


def pack_ranges(
    order: Sequence[str],
    wanted: Collection[str],
    max_size: int,
    max_gap: int = 0,
    blocked: Collection[str] = (),
) -> list[tuple[str, str]]:
    """Pack the wanted keys into contiguous ranges of ``order``, the fewest that the bounds allow greedily.

    Dagster's runs carry contiguous ranges only, so a range may run over up to ``max_gap`` keys that are not
    wanted between two that are (the run finds nothing to do for them), but never over one of ``blocked``.
    ``max_size`` bounds the length of a range, gaps included.

    Returns (first, last) pairs, disjoint and ascending, that together cover all wanted keys.
    """
    position: Mapping[str, int] = {key: i for i, key in enumerate(order)}
    fences = {position[key] for key in blocked if key in position}
    ranges: list[tuple[int, int]] = []
    for place in sorted(position[key] for key in wanted):
        if ranges:
            first, last = ranges[-1]
            gap = range(last + 1, place)
            if len(gap) <= max_gap and place - first < max_size and fences.isdisjoint(gap):
                ranges[-1] = (first, place)
                continue
        ranges.append((place, place))
    return [(order[first], order[last]) for first, last in ranges]


def suppliers_in_flight(
    instance: dg.DagsterInstance, order: Sequence[str], *, probed: bool = False
) -> set[str]:
    """The suppliers that a queued or running run is about, whatever its job.

    Runs that only probe how fast suppliers answer keep nobody from being evaluated, and their ranges span
    many who are not probed; they count where ``probed``.
    """
    position = {key: i for i, key in enumerate(order)}
    busy: set[str] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED))):
        if run.tags.get(KIND_TAG) == PROBES and not probed:
            continue
        single = run.tags.get("dagster/partition")
        start, end = run.tags.get(RANGE_START), run.tags.get(RANGE_END)
        if single in position:
            busy.add(str(single))
        elif start in position and end in position:
            busy.update(order[position[str(start)] : position[str(end)] + 1])
    return busy


def run_suppliers(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> list[str]:
    """The supplier keys a run is about, from its tags; every known supplier for a run without any."""
    known = list(instance.get_dynamic_partitions(SUPPLIER))
    if (single := tags.get("dagster/partition")) is not None:
        return [single]
    start, end = tags.get(RANGE_START), tags.get(RANGE_END)
    if start in known and end in known:
        return known[known.index(start) : known.index(end) + 1]
    return known
