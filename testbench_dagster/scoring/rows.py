"""The rows of ``testbench scores``: what the samples of a supplier and task say, one per metric and filter.

Pure of where the samples come from and of when they are looked at; see :mod:`.windows`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from testbench_dagster.core.capabilities import is_unsupported
from testbench_dagster.core.doc_states import DocState, own_faults_hold_up
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import Measured
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.core.window import (
    NO_DATA,
    NOT_APPLICABLE,
    OK,
    PARTIAL,
    REFUSED,
    SCORED_STATUSES,
    TASK,
    UNREACHABLE,
    UNSUPPORTED,
    Sample,
    Window,
)
from testbench_dagster.scoring.failures import (
    Failures,
    FailuresAs,
    failures_of,
    is_mean,
    is_of_some_docs,
    is_proportion,
)
from testbench_dagster.scoring.reliability import Calls, first_attempt_success
from testbench_dagster.statistics.intervals import (
    bounded_n,
    clustered_standard_error,
    effective_n,
    standard_error,
    wilson,
)
from testbench_dagster.statistics.quantiles import nearest_rank


@dataclass(frozen=True)
class Aggregation:
    """What rows need besides the samples of one supplier.

    ``aggregate(spec, flags, metric, values)`` is the framework's score of a metric that is no mean of its
    docs' values, None where there is none. ``clusters(task, task_hash, column, doc_ids)`` gives the cluster
    of each doc (:attr:`~testbench_dagster.core.task.TaskSpec.cluster`). ``empty(registration, doc_ids)`` is
    what the task's scorer makes of an empty answer to each doc, by doc id and filter, of those it looked at.
    """

    aggregate: Callable[[TaskSpec, TaskFlags, str, Sequence[Any]], float | None]
    clusters: Callable[[str, str, str, Sequence[int]], Sequence[Hashable]]
    empty: Callable[[Registration, Collection[int]], Mapping[int, Mapping[str, Mapping[str, Any]]]]


class _Docs:
    """The samples of a window sorted by what became of their docs, which is looked at for every metric."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.all = samples
        self.scored = [s for s in samples if s.metrics is not None]
        # where everything is scored nothing else has to be looked for
        rest = [s for s in samples if s.metrics is None] if len(self.scored) < len(samples) else []
        self.unanswered = [s for s in rest if not s.fault.answered]
        self.failed = [s for s in rest if s.failed]
        self.open = [s for s in rest if s.open]
        self.void = [s for s in rest if s.void]
        self.lost = [s for s in rest if s.failed or s.open]
        self.counted = [s for s in samples if s.counts] if self.failed else self.scored
        self.late = {s.doc_id for s in self.scored if s.late}
        #: Docs that our own faults, or scores that are to come, hold up.
        self.ours = sum(s.ours or s.state is DocState.SCORED for s in rest)


def task_windows(
    supplier: Supplier,
    spec: TaskSpec,
    registration: Registration | None,
    samples: Sequence[Sample],
    aggregation: Aggregation,
    calls: Calls,
    *,
    wanted: int | None = None,
    refused: bool = False,
    silent: bool = False,
) -> Iterator[Window]:
    """Yield the windows of one supplier and task, the primary metric and filter first.

    ``calls`` are those that the supplier was asked, of all the task's docs. Everybody is asked ``wanted``
    docs in the present epoch. ``refused``: the supplier refuses requests of this form altogether.
    ``silent``: it never answered anything, of any task, so that nothing is known of it.
    """
    unasked = status_if_not_asked(supplier, spec, registration)
    if registration is None:
        pair, status = (spec.metric, spec.filter), unasked or NO_DATA
        yield _row(supplier, spec, None, pair, True, status, _Docs([]), None, calls)
        return
    primary = primary_pair(spec, registration)
    if unasked is not None:
        for pair in _pairs(registration, [], primary):
            yield _row(supplier, spec, registration, pair, pair == primary, unasked, _Docs([]), None, calls)
        return
    if spec.signs and registration.flags.questions_of_epoch:
        wanted = len(samples)  # how many probes it takes follows from the roster, which the planner knows
    whole = counted = _Docs(samples)
    as_counted = counted_samples(spec, registration, samples, primary)
    if as_counted is not samples:
        counted = _Docs(as_counted)
    for pair in _pairs(registration, whole.scored, primary):
        docs = counted if pair == primary else whole
        valued = [(s.doc_id, v) for s in docs.scored if (v := value_of(s, pair)) is not None]
        status = _status(docs, registration, valued, refused=refused, silent=silent)
        row = _row(supplier, spec, registration, pair, pair == primary, status, docs, wanted, calls)
        yield _with_scores(row, spec, registration, docs, valued, aggregation)


def _status(
    docs: _Docs,
    registration: Registration,
    valued: Sequence[tuple[int, Any]],
    *,
    refused: bool,
    silent: bool,
) -> str:
    if any(s.unreachable for s in docs.open):
        return UNREACHABLE
    if not valued:
        if page_is_absent(docs.unanswered, registration):
            return UNSUPPORTED
        if refused:
            return REFUSED
        if silent or not docs.lost:
            return NO_DATA
    held_up = own_faults_hold_up(docs.ours, len(docs.scored) + len(docs.lost))
    return PARTIAL if docs.open or held_up else OK


def counted_samples(
    spec: TaskSpec, registration: Registration, samples: Sequence[Sample], primary: tuple[str, str]
) -> Sequence[Sample]:
    """The samples as they count in the primary metric: those failed that were scored and lack a finite value.

    Only where a failed doc has a worst value and others have one: an answer that leaves the metric without
    a value would otherwise be left out of the mean, or leave it without one. The same ones where none does.
    """
    if not is_mean(registration, primary[0]):
        return samples
    lacking = {id(s) for s in samples if s.scored and not is_finite(value_of(s, primary))}
    if not lacking:
        return samples
    finite = [value_of(s, primary) for s in samples if s.scored and id(s) not in lacking]
    if not finite or failures_of(spec, registration, primary[0], finite).kind is not FailuresAs.WORST:
        return samples
    return [
        replace(s, metrics=None, state=DocState.FAILED, fault=Fault.UNSCORABLE) if id(s) in lacking else s
        for s in samples
    ]


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a doc's value is a number that a mean can be made of."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def status_if_not_asked(supplier: Supplier, spec: TaskSpec, registration: Registration | None) -> str | None:
    """The status of a task that a supplier is not asked, whatever it answered before; None where it is.

    The configuration may leave the task out, or the supplier take no requests of its kind.
    """
    if not spec.asked_of(supplier):
        return NOT_APPLICABLE
    if registration is not None and is_unsupported(supplier.api, registration, supplier.echo_logprobs):
        return UNSUPPORTED
    return None


def page_is_absent(samples: Sequence[Sample], registration: Registration) -> bool:
    """Whether the supplier says that it does not serve the page the task asks for."""
    asks_page = registration.flags.output_type == "get"
    return asks_page and any(s.fault.row.denies_page for s in samples)


def primary_pair(spec: TaskSpec, registration: Registration) -> tuple[str, str]:
    """The configured (metric, filter), by default the task's first."""
    flags = registration.flags
    # the store keeps JSON objects sorted by key: the task's own order stands beside
    names = flags.metric_order or list(flags.metrics)
    return spec.metric or names[0], spec.filter or flags.filters[0]


def value_of(sample: Sample, pair: tuple[str | None, str | None]) -> Any:
    """A sample's raw value of a (metric, filter), None where the scorer gave none."""
    metric, name = pair
    return (sample.metrics or {}).get(str(name), {}).get(str(metric))


def _pairs(
    registration: Registration, scored: Sequence[Sample], primary: tuple[str, str]
) -> list[tuple[str, str]]:
    pairs = dict.fromkeys([primary])
    for sample in scored:
        for name, metrics in (sample.metrics or {}).items():
            pairs.update(dict.fromkeys((metric, name) for metric in metrics))
    # of a metric of some answers alone its n is to be seen, also where it is 0
    shown = [m for m in registration.flags.metrics if not scored or is_of_some_docs(registration, m)]
    for name in registration.flags.filters:
        pairs.update(dict.fromkeys((metric, name) for metric in shown))
    return list(pairs)


def measured(samples: Sequence[Sample], registration: Registration, primary: tuple[str, str]) -> Measured:
    """What gates and plans look at: scored docs, and their mean if it is one of values in [0, 1]."""
    values = [v for s in samples if s.scored and (v := value_of(s, primary)) is not None]
    return Measured(
        n=len(values),
        mean=sum(values) / len(values)
        if values and is_proportion(values, registration, primary[0])
        else None,
    )


def _row(
    supplier: Supplier,
    spec: TaskSpec,
    registration: Registration | None,
    pair: tuple[str | None, str | None],
    primary: bool,
    status: str,
    docs: _Docs,
    planned: int | None,
    calls: Calls,
) -> Window:
    scored, counted = docs.scored, docs.counted
    flags = registration.flags.metrics.get(pair[0] or "") if registration else None
    newest = max(counted, key=lambda s: (s.epoch, s.round), default=None)
    return Window(
        **known_beforehand(supplier, spec, registration),
        metric=pair[0],
        filter=pair[1],
        primary=primary,
        status=status,
        n=0,
        n_planned=planned,
        coverage=None,
        score=None,
        ci_low=None,
        ci_high=None,
        score_errors_as_zero=None,
        bound_low=None,
        bound_high=None,
        errors=dict(sorted(Counter(s.fault.value for s in docs.unanswered).items())),
        truncated=sum(s.fault.row.cut_short for s in scored),
        latency_ms={name: _quantile(calls.latencies_ms, q) for name, q in (("p50", 0.5), ("p95", 0.95))},
        tokens={
            "prompt": _sum(s.prompt_tokens for s in scored),
            "completion": _sum(s.completion_tokens for s in scored),
        },
        first_sample_at=min((s.at for s in counted), default=None),
        last_sample_at=max((s.at for s in counted), default=None),
        epoch=newest.epoch if newest else None,
        round=newest.round if newest else None,
        higher_is_better=flags is None or flags.higher_is_better,
        first_attempt_success=first_attempt_success([(calls.asked, calls.at_once)]),
        n_released=len(docs.all),
        n_failed=len(docs.failed),
        n_open=len(docs.open),
        n_void=len(docs.void),
        n_late=len(docs.late),
        next_attempt_at=min((s.next_at for s in docs.open if s.next_at is not None), default=None),
        n_unmetered=sum(s.prompt_tokens is None or s.completion_tokens is None for s in scored),
    )


def known_beforehand(supplier: Supplier, spec: TaskSpec, registration: Registration | None) -> dict[str, Any]:
    """The columns of a window that roster, configuration and registration say, by name."""
    return {
        "supplier": supplier.key,
        "service": supplier.service,
        "address": supplier.address,
        "task": spec.name,
        "task_hash": registration.task_hash if registration else None,
        "group": spec.group,
        "framework": spec.framework,
        "cut_at": supplier.cut_at,
        "model": supplier.model,
        "kind": TASK,
        "missing": None,
        # of the numbers that tokens and price make, see :mod:`.costs`
        "cost": None,
        "cost_per_1000_right": None,
    }


def _with_scores(
    row: Window,
    spec: TaskSpec,
    registration: Registration,
    docs: _Docs,
    valued: Sequence[tuple[int, Any]],
    aggregation: Aggregation,
) -> Window:
    """Fill in the numbers that depend on the (doc id, value) of one metric and filter, in doc order."""
    n, planned, metric = len(valued), max(row.n_planned or 0, len(valued)), str(row.metric)
    changes: dict[str, Any] = {"n": n, "n_planned": planned, "coverage": n / planned if planned else None}
    answered = score_numbers(spec, registration, metric, valued, aggregation)
    changes["score_answered"] = answered["score"]
    failures = failures_of(spec, registration, metric, [value for _, value in valued])
    changes["failures"] = failures.kind.value
    if row.status in SCORED_STATUSES:
        if not docs.lost or failures.kind is FailuresAs.EXCLUDED:
            changes |= answered
        elif failures.kind is FailuresAs.WORST:
            changes |= _with_worst(spec, registration, metric, docs.lost, valued, failures, aggregation)
        else:
            changes |= _with_empty(
                spec, registration, (metric, str(row.filter)), docs.lost, valued, aggregation
            )
        changes |= _bounds(failures, docs, valued)
        if failures.worst == 0.0:
            changes["score_errors_as_zero"] = changes["score"]
    return Window(**{**vars(row), **changes})


def _with_worst(
    spec: TaskSpec,
    registration: Registration,
    metric: str,
    lost: Sequence[Sample],
    valued: Sequence[tuple[int, Any]],
    failures: Failures,
    aggregation: Aggregation,
) -> dict[str, float | None]:
    """Numbers over all docs, those without an answer at the worst value.

    The interval reaches from its lower end if every open doc had the lesser of the two ends of the scale, to
    its upper end if every one had the greater.
    """

    def numbers(open_: float) -> dict[str, float | None]:
        filled = [(s.doc_id, open_ if s.open else failures.worst) for s in lost]
        both = sorted([*valued, *filled], key=lambda pair: pair[0])
        return score_numbers(spec, registration, metric, both, aggregation)

    worst = failures.worst
    if worst is None:
        raise ValueError(f"{metric}: a failed doc has no value to count as")
    found = numbers(worst)
    if failures.best is not None and any(s.open for s in lost):
        best = numbers(failures.best)
        low, high = (found, best) if worst < failures.best else (best, found)
        found |= {"ci_low": low["ci_low"], "ci_high": high["ci_high"]}
    return found


def _with_empty(
    spec: TaskSpec,
    registration: Registration,
    pair: tuple[str, str],
    lost: Sequence[Sample],
    valued: Sequence[tuple[int, Any]],
    aggregation: Aggregation,
) -> dict[str, float | None]:
    """Numbers over all docs, those without an answer as if it were empty; none while that is not scored."""
    empty = aggregation.empty(registration, {s.doc_id for s in lost})
    filled = [(s.doc_id, empty.get(s.doc_id, {}).get(pair[1], {}).get(pair[0])) for s in lost]
    if any(value is None for _, value in filled):
        return dict.fromkeys(("score", "ci_low", "ci_high", "se"))
    both = sorted([*valued, *filled], key=lambda one: one[0])
    return score_numbers(spec, registration, pair[0], both, aggregation)


def _bounds(failures: Failures, docs: _Docs, valued: Sequence[tuple[int, Any]]) -> dict[str, float | None]:
    """The least and the greatest score that closing docs, void ones and late answers could make of a row."""
    worst, best = failures.worst, failures.best
    everything = len(valued) + len(docs.lost) + len(docs.void)
    if worst is None or best is None or not everything:
        return {"bound_low": None, "bound_high": None}
    total, failed = float(sum(value for _, value in valued)), len(docs.failed) * worst
    unknown = len(docs.open) + len(docs.void)
    least = total
    if docs.late:
        least = float(sum(worst if doc_id in docs.late else value for doc_id, value in valued))
    ends = (least + failed + unknown * worst) / everything, (total + failed + unknown * best) / everything
    return {"bound_low": min(ends), "bound_high": max(ends)}


def score_numbers(
    spec: TaskSpec,
    registration: Registration,
    metric: str,
    valued: Sequence[tuple[int, Any]],
    aggregation: Aggregation,
) -> dict[str, float | None]:
    """Score, interval and standard error of the (doc id, value) of one metric, in doc order."""
    numbers: dict[str, float | None] = dict.fromkeys(("score", "ci_low", "ci_high", "se"))
    if not valued:
        return numbers
    values, n = [value for _, value in valued], len(valued)
    mean = is_mean(registration, metric)
    if mean:
        score: float | None = float(sum(values) / n)
    else:
        score = aggregation.aggregate(spec, registration.flags, metric, values)
    # what is no number (a mean over NaN, an infinite perplexity) is unknown: JSON has no word for it
    if score is None or not math.isfinite(score):
        return numbers
    numbers["score"] = score
    if not mean:
        return numbers
    proportion = is_proportion(values, registration, metric)
    if spec.cluster is None:
        numbers["se"] = _error(values)
        if proportion:
            alike = bounded_n(values)
            total = float(sum(values)) if alike == n else min(score, 1.0) * alike
            numbers["ci_low"], numbers["ci_high"] = wilson(total, alike)
        return numbers
    shared = aggregation.clusters(
        spec.name, registration.task_hash, spec.cluster, [doc_id for doc_id, _ in valued]
    )
    numbers["se"] = _error(values, shared)
    if proportion:
        alike = effective_n(values, shared) * bounded_n(values) / n
        numbers["ci_low"], numbers["ci_high"] = wilson(min(score, 1.0) * alike, alike)
    return numbers


def _error(values: Sequence[float], clusters: Sequence[Hashable] | None = None) -> float | None:
    """Standard error of the mean, None where squares of the values are beyond the largest float."""
    try:
        error = standard_error(values)
        if clusters is not None:
            # few clusters may by chance vary less than independent docs: never narrower than those
            error = max(error, clustered_standard_error(values, clusters))
    except OverflowError:
        return None
    return error if math.isfinite(error) else None


def _quantile(ordered: Sequence[float], q: float) -> float | None:
    """The quantile of ascending values, None of none."""
    return ordered[nearest_rank(len(ordered), q) - 1] if ordered else None


def _sum(values: Iterator[int | None]) -> int | None:
    known = [v for v in values if v is not None]
    return sum(known) if known else None
