"""What a supplier delivered on each doc of a window: what means of common docs are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Sample
from testbench_dagster.scoring.failures import FailuresAs, failures_of, is_proportion
from testbench_dagster.scoring.rows import counted_samples, primary_pair, value_of


class DeliveredDoc(NamedTuple):
    """What a doc counts as in the primary metric, from 0 to 1; the worst while it is ``open`` or failed.

    More is better: of a metric where lower is, the ``value`` is 1 less its own.
    """

    doc_id: int
    value: float
    open: bool


def delivered_docs(
    spec: TaskSpec, registration: Registration, samples: Sequence[Sample]
) -> tuple[DeliveredDoc, ...]:
    """The docs that a window's primary score is the mean of.

    None where it is no mean of values from 0 to 1, and where docs depend on each other in clusters: such
    means have no interval of differences here.
    """
    pair = primary_pair(spec, registration)
    samples = counted_samples(spec, registration, samples, pair)
    valued = [(s, v) for s in samples if s.scored and (v := value_of(s, pair)) is not None]
    failures = failures_of(spec, registration, pair[0], [v for _, v in valued])
    worst = failures.worst
    proportion = is_proportion([v for _, v in valued], registration, pair[0])
    if failures.kind is not FailuresAs.WORST or worst is None or failures.best is None:
        return ()
    if not proportion or spec.cluster:
        return ()
    values = {s.doc_id: float(v) for s, v in valued}
    higher = failures.best > 0

    def oriented(value: float) -> float:
        return value if higher else 1.0 - value

    return tuple(
        DeliveredDoc(s.doc_id, oriented(values.get(s.doc_id, worst)), s.open)
        for s in samples
        if s.doc_id in values or s.failed or s.open
    )
