"""Partitions: one per supplier (dynamic), one per task (static, from the configuration). Never their product.

Supplier × task is rows in the document store: Dagster writes 1.66 KB per partition and event
(`reference/dagster.md` section 1.2), so its partitions must stay few.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import dagster as dg

from testbench_dagster.errors import ConfigError
from testbench_dagster.tasks.specs import TaskSpec

SUPPLIER = "supplier"
SUPPLIERS_PER_RUN_ENV = "TESTBENCH_SUPPLIERS_PER_RUN"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"

supplier_partitions = dg.DynamicPartitionsDefinition(name=SUPPLIER)


def task_partitions(specs: Sequence[TaskSpec]) -> dg.StaticPartitionsDefinition:
    """One partition per configured leaf task."""
    return dg.StaticPartitionsDefinition([spec.name for spec in specs])


def suppliers_per_run() -> int:
    """How many suppliers one run carries at most (``TESTBENCH_SUPPLIERS_PER_RUN``, default 50)."""
    text = os.environ.get(SUPPLIERS_PER_RUN_ENV, "50")
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{SUPPLIERS_PER_RUN_ENV} is {text!r}; set it to a whole number of at least 1")
    return int(text)


def supplier_backfill_policy() -> dg.BackfillPolicy:
    """The policy all supplier assets share: they only run together in one run if it is the same."""
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=suppliers_per_run())


def range_tags(start: str, end: str) -> dict[str, str]:
    """Run tags that select a contiguous range of partitions."""
    return {RANGE_START: start, RANGE_END: end}


def contiguous_ranges(order: Sequence[str], wanted: Sequence[str], size: int) -> list[tuple[str, str]]:
    """Cut the wanted keys into runs of neighbours in ``order``, each at most ``size`` long.

    Returns (first, last) pairs that together cover exactly the wanted keys.
    """
    position: Mapping[str, int] = {key: i for i, key in enumerate(order)}
    places = sorted(position[key] for key in wanted)
    ranges: list[tuple[int, int]] = []
    for place in places:
        if ranges and place == ranges[-1][1] + 1 and place - ranges[-1][0] < size:
            ranges[-1] = (ranges[-1][0], place)
        else:
            ranges.append((place, place))
    return [(order[first], order[last]) for first, last in ranges]


def run_suppliers(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> list[str]:
    """The supplier keys a run is about, from its tags; every known supplier for a run without any."""
    known = list(instance.get_dynamic_partitions(SUPPLIER))
    if (single := tags.get("dagster/partition")) is not None:
        return [single]
    start, end = tags.get(RANGE_START), tags.get(RANGE_END)
    if start in known and end in known:
        return known[known.index(start) : known.index(end) + 1]
    return known
