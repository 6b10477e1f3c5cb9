"""How the docs of who is represented differ from its proxy's: what node scores are corrected by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbench_dagster.scoring.delivered import DeliveredDoc
from testbench_dagster.stages.score.windows import MeasuredSupplier
from testbench_dagster.statistics.control_variate import Differences, Represented
from testbench_dagster.statistics.task_score import TaskScore


def represented_suppliers(
    suppliers: Mapping[str, MeasuredSupplier],
    scores: Mapping[str, Mapping[str, TaskScore]],
    proxies: Mapping[str, str],
) -> dict[str, Represented]:
    """What is known of each supplier that another stands for (``proxies``), both being measured with docs.

    ``scores``: the tasks of each supplier that a mean can be made of.
    """
    return {
        key: _represented(suppliers[key], suppliers[proxy], scores[proxy])
        for key, proxy in proxies.items()
        if key in suppliers and proxy in suppliers
    }


def _represented(
    own: MeasuredSupplier, proxy: MeasuredSupplier, scores: Mapping[str, TaskScore]
) -> Represented:
    found: tuple[dict[str, Differences], ...] = ({}, {}, {})
    for task, docs in own.docs.items():
        theirs = {doc.doc_id: doc.value for doc in proxy.docs.get(task, ())}
        common = [doc for doc in docs if doc.doc_id in theirs]
        if not common or task not in scores:
            continue
        as_it_counts = _differences(common, theirs, None)
        some_open = any(doc.open for doc in common)
        for by_task, end in zip(found, (None, 0.0, 1.0), strict=True):
            by_task[task] = _differences(common, theirs, end) if some_open else as_it_counts
    return Represented(scores, *found)


def _differences(
    docs: Sequence[DeliveredDoc], theirs: Mapping[int, float], open_as: float | None
) -> Differences:
    return Differences.from_pairs(
        (open_as if doc.open and open_as is not None else doc.value, theirs[doc.doc_id]) for doc in docs
    )
