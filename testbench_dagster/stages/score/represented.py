"""How the docs of who is represented differ from its proxy's: what node scores are corrected by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbench_dagster.scoring.delivered import DeliveredDoc
from testbench_dagster.stages.score.windows import MeasuredSupplier
from testbench_dagster.statistics.control_variate import Differences, Represented
from testbench_dagster.statistics.intervals import bounded_n, standard_error, wilson
from testbench_dagster.statistics.task_score import TaskScore

#: A proxy stands for nobody in a task of which it left more than this part of its docs unanswered: there own
#: docs, which are drawn from all, alone tell as much. Nothing that a member answers has a say in this.
_MOST_UNANSWERED = 0.1


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
    # a doc that the proxy left unanswered counts as the worst in its mean and in the differences alike: the
    # two cancel, so that its failures neither cost nor, where they are chosen, help who is represented
    stands = {
        task: _as_it_counts(proxy.docs[task]) if score.partial and proxy.docs.get(task) else score
        for task, score in scores.items()
    }
    answers = {
        row.task
        for row in proxy.rows
        if row.primary and row.n_failed + row.n_open <= _MOST_UNANSWERED * row.asked
    }
    found: tuple[dict[str, Differences], ...] = ({}, {}, {})
    for task, docs in own.docs.items():
        theirs = {doc.doc_id: doc.value for doc in proxy.docs.get(task, ())}
        common = [doc for doc in docs if doc.doc_id in theirs]
        if not common or task not in scores or task not in answers:
            continue
        as_it_counts = _differences(common, theirs, None)
        some_open = any(doc.open for doc in common)
        for by_task, end in zip(found, (None, 0.0, 1.0), strict=True):
            by_task[task] = _differences(common, theirs, end) if some_open else as_it_counts
    return Represented(stands, *found)


def _as_it_counts(docs: Sequence[DeliveredDoc]) -> TaskScore:
    """The mean with open docs as they count now, however they may close: the differences are to that."""
    values = [doc.value for doc in docs]
    mean, alike = sum(values) / len(values), bounded_n(values)
    low, high = wilson(min(mean, 1.0) * alike, alike)
    return TaskScore(mean, len(values), standard_error(values), min(low, mean), max(high, mean))


def _differences(
    docs: Sequence[DeliveredDoc], theirs: Mapping[int, float], open_as: float | None
) -> Differences:
    return Differences.from_pairs(
        (open_as if doc.open and open_as is not None else doc.value, theirs[doc.doc_id]) for doc in docs
    )
