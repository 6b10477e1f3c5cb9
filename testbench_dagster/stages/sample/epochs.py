"""How many docs of each task everybody is asked in its present epoch, as the epoch's record says it."""

from __future__ import annotations

from collections.abc import Iterable

from testbench_dagster.core.records.prompts import EpochSpread, NewestEpoch
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import common_docs
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stores.documents import DocumentStore, typed


def wanted_docs(documents: DocumentStore, tasks: Iterable[tuple[TaskSpec, Registration]]) -> dict[str, int]:
    """By task how many docs everybody is asked, in two queries; ``start`` where no epoch began yet."""
    known = list(tasks)
    names = {"in": sorted(spec.name for spec, _ in known)}
    newest = {row.task: row.max_epoch for row in typed.group(documents, NewestEpoch, {"task": names})}
    where = {"task": names, "epoch": {"in": sorted(set(newest.values()))}}
    variances = {
        row.task: row.variance
        for row in typed.find(documents, EpochSpread, where)
        if newest.get(row.task) == row.epoch
    }
    return {
        spec.name: common_docs(spec.samples, registration.n_docs, variances.get(spec.name))
        for spec, registration in known
    }
