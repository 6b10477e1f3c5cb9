"""What a doc without an answer counts as in the score of a metric.

A metric that is a mean of values within bounds has a worst value, unless it is of some answers alone. One
over all docs at once (BLEU, F1, MCC) has none, but says what an empty answer is worth. A mean without bounds
has neither, unless the task names one. Bounds follow from the metric's definition (:mod:`.bounds`); only
where that is not known they are those of a share, as long as no value lies outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from testbench_dagster.core.prompt import GENERATED
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MEAN
from testbench_dagster.scoring.bounds import UNIT, Bounds, declared_bounds

#: Aggregations over log-probabilities: an empty answer has none.
_OF_LIKELIHOODS = frozenset({"perplexity", "weighted_perplexity", "bits_per_byte"})
#: Kinds of requests of which an answer can be empty.
_MAY_BE_EMPTY = GENERATED | {"multiple_choice"}


class FailuresAs(StrEnum):
    """What a failed doc counts as, by the names that rows publish."""

    WORST = "as_worst"
    EMPTY = "as_empty"
    EXCLUDED = "excluded"


@dataclass(frozen=True, slots=True)
class Failures:
    """What a failed doc counts as; the ``worst`` and the ``best`` value of a doc where they are known."""

    kind: FailuresAs
    worst: float | None = None
    best: float | None = None


def failures_of(spec: TaskSpec, registration: Registration, metric: str, values: Sequence[Any]) -> Failures:
    """What a failed doc counts as in a metric of a task, given the values of the docs that were scored."""
    if spec.signs or is_of_some_docs(registration, metric):
        return Failures(FailuresAs.EXCLUDED)
    if not is_mean(registration, metric):
        return Failures(FailuresAs.EMPTY if counts_empty(registration, metric) else FailuresAs.EXCLUDED)
    higher = higher_is_better(registration, metric)
    bounds = bounds_of(registration, metric, values)
    if spec.worst is not None and metric == (spec.metric or _first(registration)):
        best = None
        if bounds is not None and bounds.least <= spec.worst <= bounds.most:
            best = bounds.most if higher else bounds.least
        return Failures(FailuresAs.WORST, spec.worst, best)
    # without a value nothing shows that a loss is bounded by 1; scores are taken to begin at 0
    unknown = declared_bounds(registration, metric) is None and not (values or higher)
    if bounds is None or unknown:
        return Failures(FailuresAs.EXCLUDED)
    return Failures(FailuresAs.WORST, *(bounds if higher else reversed(bounds)))


def bounds_of(registration: Registration, metric: str, values: Sequence[Any]) -> Bounds | None:
    """Between which values the docs of a metric lie, given some of them; None where there are no bounds.

    A value outside of what the definition says shows that it is another metric of that name.
    """
    declared = declared_bounds(registration, metric)
    least, most = declared or UNIT
    if not (math.isfinite(least) and math.isfinite(most)):
        return None
    within = all(isinstance(v, (int, float)) and least <= v <= most for v in values)
    return Bounds(least, most) if within else None


def counts_empty(registration: Registration, metric: str) -> bool:
    """Whether a failed doc counts in a metric as an empty answer does."""
    known = registration.flags.metrics.get(metric)
    return (
        known is not None
        and known.aggregation != MEAN
        and known.aggregation not in _OF_LIKELIHOODS
        and registration.flags.output_type in _MAY_BE_EMPTY
    )


def _first(registration: Registration) -> str:
    return (registration.flags.metric_order or list(registration.flags.metrics))[0]


def higher_is_better(registration: Registration, metric: str) -> bool:
    """Whether more of a metric is better, as is taken of one that the task does not declare."""
    known = registration.flags.metrics.get(metric)
    return known is None or known.higher_is_better


def is_mean(registration: Registration, metric: str) -> bool:
    """Whether lm-eval aggregates a metric by its plain mean."""
    known = registration.flags.metrics.get(metric)
    return known is None or known.aggregation == MEAN


def is_of_some_docs(registration: Registration, metric: str) -> bool:
    """Whether a metric is of some answers alone: nothing says that a failed doc would have had one."""
    known = registration.flags.metrics.get(metric)
    return known is not None and bool(known.of_some_docs)


def is_proportion(values: Sequence[Any], registration: Registration, metric: str) -> bool:
    """Whether the score is a mean of numbers in [0, 1], which Wilson's interval is for."""
    return is_mean(registration, metric) and bounds_of(registration, metric, values) == UNIT
