"""Two suppliers compared on the docs both answered: per task, and over all tasks together.

The values are what was delivered of docs that are closed for both: one that a supplier left unanswered for
good has the worst value, and is counted beside where the other answered it (``only_a_failed``,
``only_b_failed``). Void docs take no part.

Docs enter in the order in which they are asked, up to the first that is open for either: neither of the two
chooses by when it answers, or does not, which docs the interval has seen when it decides.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from testbench_dagster.core.doc_answer import SCORED, AnswerKind
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.scoring.failures import failures_of, higher_is_better, is_mean, is_proportion
from testbench_dagster.scoring.rows import is_finite, primary_pair
from testbench_dagster.stages.discover.roster import known_suppliers, named_suppliers
from testbench_dagster.stages.score.samples import WindowSamples
from testbench_dagster.stages.score.window_answers import IndexedDoc, TaskDocs
from testbench_dagster.stages.score.windows import window_docs_by_task
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.intervals import standard_error
from testbench_dagster.statistics.paired import (
    checked_margin,
    docs_to_decide_overall,
    half_differences,
    mcnemar,
    paired_difference,
    verdict,
)
from testbench_dagster.statistics.sequences import bounds_of_many
from testbench_dagster.statistics.strata import Rounds, rounds_of
from testbench_dagster.statistics.strata import bounds_of_many as bounds_of_rounds

#: What stands for the task in the last row.
OVERALL = "overall"
NO_DATA = "no data"
NO_SCORES = "its answers are signatures, texts to compare with each other, no scores"
NOT_ASKED = "it is not asked of both"
NO_MEAN = "the metric is no mean over docs, so its docs do not show a difference"
OPEN_FIRST = "the docs behind the first open one wait until it closes"
OPEN_TASKS = "tasks of which no doc is closed for both yet, or has a value, may still differ either way"
CROSSED = "how the two differ changed over the docs, so no difference fits all of them"
NO_BOUNDS = "values outside of 0 to 1 have no interval that is valid at all times"
ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """One row of ``testbench compare``; the fields are documented in docs/reference.md.

    ``difference`` is A less B, in the metric's unit; ``ci_low`` and ``ci_high`` hold the true one with 95 %
    however often one looks, and with them the verdict stands. They exist for metrics that are means of values
    in [0, 1], unless its two bounds crossed: then the verdict is undecided.
    """

    a: str
    b: str
    task: str
    metric: str | None = None
    filter: str | None = None
    n_common: int = 0
    mean_a: float | None = None
    mean_b: float | None = None
    difference: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    se: float | None = None
    only_a_higher: int | None = None
    only_b_higher: int | None = None
    p_mid: float | None = None
    verdict: str = NO_DATA
    docs_needed: int | None = None
    only_a_failed: int = 0
    only_b_failed: int = 0
    note: str | None = None
    model_a: str | None = None
    model_b: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


#: Columns of a comparison's rows, with their types.
COMPARISON_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("a", "b", "task", "metric", "filter"), str),
    "n_common": int,
    **dict.fromkeys(("mean_a", "mean_b", "difference", "ci_low", "ci_high", "se"), float),
    **dict.fromkeys(("only_a_higher", "only_b_higher"), int),
    "p_mid": float,
    "verdict": str,
    **dict.fromkeys(("docs_needed", "only_a_failed", "only_b_failed"), int),
    **dict.fromkeys(("note", "model_a", "model_b"), str),
}


@dataclass(frozen=True)
class _Pairs:
    """A task's row, and what the overall row takes of it: scores in the order of asking, more is better.

    ``rate`` is the most docs a supplier is asked, which is known before the first answer. ``waits``: both
    were asked, and the first doc is open for either, or one of them has no value of any, so that there is
    nothing to take yet. ``higher``: more is better of the metric itself.
    """

    row: Comparison
    a: Sequence[float] = ()
    b: Sequence[float] = ()
    rate: int = 1
    waits: bool = False
    higher: bool = True


def compare(
    workspace: Workspace,
    a: str,
    b: str,
    *,
    tasks: Sequence[str] | None = None,
    margin: float | None = None,
    alpha: float = ALPHA,
    now: datetime | None = None,
    overall_only: bool = False,
) -> list[Comparison]:
    """Compare two suppliers by key: a row per task (or of the given tasks and groups), then one over all of
    them. ``overall_only``: that last one alone, which takes a fraction of the time.

    Signatures are no scores to compare, and a task that is not asked of both has no common docs: such are
    left out, or have a row without data where they are named.

    Intervals hold with probability 1 - ``alpha``. With ``margin`` the verdict "equal within" is given where
    the difference certainly lies within plus and minus so much.

    Raises:
        ConfigError: a supplier is not on the roster or compared with itself, a task is not configured, or the
            margin does not lie between 0 and 1.
    """
    known = {supplier.key: supplier for supplier in named_suppliers(workspace, (a, b))}
    for key in (a, b):
        if key not in known:
            names = ", ".join([s.key for s in known_suppliers(workspace)][:20]) or "none"
            raise ConfigError(f"supplier {key!r} is not on the roster; on it are: {names}")
    if a == b:
        raise ConfigError(f"supplier {a!r} is given twice; name two suppliers to compare")
    try:
        checked_margin(margin)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    now = now or datetime.now(UTC)
    specs = [
        spec
        for spec in workspace.chosen_specs(tasks)
        if tasks is not None or not (spec.signs or _not_asked(spec, known[a], known[b]))
    ]
    current = {found.task: found for found in workspace.datasets.tasks({spec.name for spec in specs})}
    asked = [
        (spec, current[spec.name])
        for spec in specs
        if spec.name in current and not (spec.signs or _not_asked(spec, known[a], known[b]))
    ]
    # all of a supplier's at once: what shows it alive then is read once, not for each task
    both = (known[a], known[b])
    read = zip(*(window_docs_by_task(workspace, one, asked, now) for one in both), strict=True)
    sure = _Sure(margin, alpha, alpha)
    pairs = [
        _pairs(a, b, spec, registration, two, sure)
        for (spec, registration), two in zip(asked, read, strict=True)
    ]
    bounded = pairs if overall_only else _bounded([(pairs, sure)])[0]
    pairs_of = {one.row.task: one for one in bounded}
    found = [pairs_of.get(spec.name) or _without_data(known[a], known[b], spec) for spec in specs]
    rounds = _rounds(found)
    overall = _overall(a, b, found, sure, rounds, rounds.bounds(alpha))
    rows = [*(() if overall_only else (pairs.row for pairs in found)), overall]
    return [replace(row, model_a=known[a].model, model_b=known[b].model) for row in rows]


def compare_with_trusted(
    trusted: Supplier,
    others: Iterable[tuple[Supplier, Iterable[tuple[TaskSpec, Registration, WindowSamples, WindowSamples]]]],
    *,
    alpha: float,
) -> list[list[Comparison]]:
    """Compare suppliers with one that is trusted, by samples that were read: as :func:`compare` does.

    Each comes with the tasks that both are asked, and the samples of either. Intervals over all tasks hold
    with probability 1 - ``alpha``; those of single tasks share as much. A doc that the trusted one left
    unanswered for good says nothing of the other, and is no common doc. How many docs it takes to decide is
    not worked out. Intervals of all suppliers are worked out together, which costs a fraction.
    """
    compared = []
    for supplier, read in others:
        rows = list(read)
        sure = _Sure(None, alpha, alpha / max(1, len(rows)), trusted=True)
        pairs = [
            _pairs(
                supplier.key,
                trusted.key,
                spec,
                registration,
                [TaskDocs.from_samples(spec, registration, w.samples, refused=w.refused) for w in two],
                sure,
            )
            for spec, registration, *two in rows
        ]
        compared.append((supplier.key, pairs, sure))
    found = _bounded([(pairs, sure) for _, pairs, sure in compared])
    rounds = [_rounds(pairs) for pairs in found]
    return [
        [*(one.row for one in pairs), _overall(key, trusted.key, pairs, sure, of_pairs, bounds)]
        for (key, _, sure), pairs, of_pairs, bounds in zip(
            compared, found, rounds, bounds_of_rounds(rounds, alpha), strict=True
        )
    ]


@dataclass(frozen=True)
class _Sure:
    """What is the same to whoever asks, and with which probability an interval may miss the truth.

    ``alpha`` over all tasks, ``task_alpha`` of a single one. ``trusted``: B's failures are not counted.
    """

    margin: float | None
    alpha: float
    task_alpha: float
    trusted: bool = False


def _without_data(one: Supplier, other: Supplier, spec: TaskSpec) -> _Pairs:
    """The row of a task that has no scores of both, with the reason where there can be none."""
    row = Comparison(one.key, other.key, spec.name, spec.metric, spec.filter)
    if spec.signs:
        return _Pairs(replace(row, note=NO_SCORES))
    return _Pairs(replace(row, note=NOT_ASKED) if _not_asked(spec, one, other) else row)


def _pairs(
    a: str,
    b: str,
    spec: TaskSpec,
    registration: Registration,
    read: Sequence[TaskDocs],
    sure: _Sure,
) -> _Pairs:
    """The row of a task, of what there is of both suppliers; its interval is for :func:`_bounded`."""
    row = Comparison(a, b, spec.name, spec.metric, spec.filter)
    pair = primary_pair(spec, registration)
    question = registration.flags.question
    of_a, of_b = ({question(doc.epoch, doc.doc_id): doc for doc in found.docs} for found in read)
    scored = [doc.value for doc in (*of_a.values(), *of_b.values()) if is_finite(doc.value)]
    worst = failures_of(spec, registration, pair[0], scored).worst
    docs, waits = _in_order(of_a, of_b, {*read[0].open, *read[1].open})
    if sure.trusted:
        docs = [two for two in docs if two[1].kind is not AnswerKind.FAILED]
    common = list(_values(docs, worst))
    row = replace(
        row,
        metric=pair[0],
        filter=pair[1],
        n_common=len(common),
        only_a_failed=sum(a.kind is AnswerKind.FAILED and b.kind in SCORED for a, b in docs),
        only_b_failed=sum(b.kind is AnswerKind.FAILED and a.kind in SCORED for a, b in docs),
        note=OPEN_FIRST if waits else None,
    )
    values_a, values_b = [x for x, _ in common], [y for _, y in common]
    if not is_mean(registration, pair[0]):
        return _Pairs(replace(row, note=NO_MEAN))
    if not common:
        # who refuses the form of the task's requests altogether has no score in it, as in abilities
        bounded = not scored or is_proportion(scored, registration, pair[0])
        waits |= any(doc.kind in SCORED and not is_finite(doc.value) for two in docs for doc in two)
        return _Pairs(row, waits=waits and bounded and not any(found.refused for found in read))
    higher = higher_is_better(registration, pair[0])
    if not is_proportion((*values_a, *values_b), registration, pair[0]):
        return _Pairs(_unbounded(row, values_a, values_b))
    if not higher:
        values_a, values_b = ([1 - value for value in values] for values in (values_a, values_b))
    rate = registration.n_docs if spec.samples is None else min(spec.samples.max, registration.n_docs)
    return _Pairs(row, values_a, values_b, rate, higher=higher)


def _not_asked(spec: TaskSpec, one: Supplier, other: Supplier) -> bool:
    """Whether a task is not asked of both."""
    return not (spec.asked_of(one) and spec.asked_of(other))


def _in_order(
    of_a: dict[tuple[int, int], IndexedDoc],
    of_b: dict[tuple[int, int], IndexedDoc],
    is_open: Collection[IndexedDoc],
) -> tuple[list[tuple[IndexedDoc, IndexedDoc]], bool]:
    """The docs of both in the order in which they are asked, up to the first that is open for either.

    And whether there is one. That order is known beforehand, and further docs only ever come behind: in the
    order of answering a supplier would decide what the interval sees first, by answering slowly.
    """
    both = [(of_a[doc], of_b[doc]) for doc in of_a.keys() & of_b.keys()]
    both.sort(key=lambda two: max(two[0].place, two[1].place))
    if not is_open:
        return both, False
    closed = list(takewhile(lambda two: not any(doc in is_open for doc in two), both))
    return closed, len(closed) < len(both)


def _values(
    docs: Sequence[tuple[IndexedDoc, IndexedDoc]], worst: float | None
) -> Iterator[tuple[float, float]]:
    """Values of the docs that are closed for both.

    A doc that one of them left unanswered for good has its worst value; a void one is no doc.
    """
    for of_a, of_b in docs:
        a = worst if of_a.kind is AnswerKind.FAILED else of_a.value
        b = worst if of_b.kind is AnswerKind.FAILED else of_b.value
        if is_finite(a) and is_finite(b):
            yield float(a), float(b)


def _unbounded(row: Comparison, a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Means and difference of a metric without bounds (a perplexity): no interval is valid at all times."""
    n = len(a)
    mean_a, mean_b = math.fsum(a) / n, math.fsum(b) / n
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return replace(
        row,
        mean_a=mean_a,
        mean_b=mean_b,
        difference=math.fsum(differences) / n,
        se=standard_error(differences),
        only_a_higher=sum(d > 0 for d in differences),
        only_b_higher=sum(d < 0 for d in differences),
        verdict="undecided",
        note=NO_BOUNDS,
    )


def _bounded(compared: Sequence[tuple[Sequence[_Pairs], _Sure]]) -> list[list[_Pairs]]:
    """The rows of tasks with their intervals, worked out of all together."""
    halves = [half_differences(one.a, one.b) for pairs, _ in compared for one in pairs if one.a]
    alphas = [sure.task_alpha for pairs, sure in compared for one in pairs if one.a]
    bounds = iter(bounds_of_many(halves, alphas))
    return [
        [replace(one, row=_with_figures(one, sure, next(bounds))) if one.a else one for one in pairs]
        for pairs, sure in compared
    ]


def _with_figures(pairs: _Pairs, sure: _Sure, bounds: tuple[float, float]) -> Comparison:
    a, b = pairs.a, pairs.b
    found = paired_difference(a, b, sure.task_alpha, bounds)
    binary = {*a, *b} <= {0.0, 1.0}
    row = replace(
        _with_interval(pairs.row, found.low, found.high),
        mean_a=found.mean_a,
        mean_b=found.mean_b,
        difference=found.difference,
        se=found.standard_error,
        only_a_higher=found.only_a,
        only_b_higher=found.only_b,
        p_mid=mcnemar(found.only_a, found.only_b).mid if binary and not sure.trusted else None,
        verdict=verdict(found.low, found.high, sure.margin),
        docs_needed=None if sure.trusted else found.docs_to_decide(sure.margin),
    )
    return row if pairs.higher else _as_measured(row)


def _with_interval(row: Comparison, low: float, high: float) -> Comparison:
    """A row with its interval; with none where what was refuted is all there is."""
    return replace(row, ci_low=low, ci_high=high) if low <= high else replace(row, note=CROSSED)


def _as_measured(row: Comparison) -> Comparison:
    """Turn a row of 1 - value back into the metric's own values; the verdict stands."""
    if row.mean_a is None or row.mean_b is None or row.difference is None:
        raise ValueError("a row of a comparison without figures has no values to turn back")
    return replace(
        row,
        mean_a=1 - row.mean_a,
        mean_b=1 - row.mean_b,
        difference=-row.difference,
        ci_low=None if row.ci_high is None else -row.ci_high,
        ci_high=None if row.ci_low is None else -row.ci_low,
        only_a_higher=row.only_b_higher,
        only_b_higher=row.only_a_higher,
    )


def _rounds(found: Sequence[_Pairs]) -> Rounds:
    """The common docs of all tasks as they are bet on together, as halves of differences."""
    measured = [pairs for pairs in found if pairs.a]
    halves = [half_differences(pairs.a, pairs.b) for pairs in measured]
    return rounds_of(halves, [pairs.rate for pairs in measured])


def _overall(
    a: str,
    b: str,
    found: Sequence[_Pairs],
    sure: _Sure,
    rounds: Rounds,
    bounds: tuple[float, float],
) -> Comparison:
    """The mean of the tasks' differences, each task with equal weight.

    The interval bets on rounds of common docs of all tasks, of each as many as it is asked docs for one of
    the task asked fewest (see :mod:`testbench_dagster.statistics.strata`). Docs that complete no round are in
    the difference only. A task that waits for its first doc may come out anyhow: the interval holds all of
    it. Else who loses in a task would leave it out of the verdict by leaving that doc open, or by answers
    that the metric has no value for.
    """
    rows = [pairs.row for pairs in found]
    row = Comparison(
        a,
        b,
        OVERALL,
        n_common=sum(r.n_common for r in rows),
        only_a_failed=sum(r.only_a_failed for r in rows),
        only_b_failed=sum(r.only_b_failed for r in rows),
    )
    measured = [pairs for pairs in found if pairs.a]
    if not measured:
        return row
    strata = [_means(pairs.a, pairs.b) for pairs in measured]
    tasks = len(measured)
    halves = [half_differences(pairs.a, pairs.b) for pairs in measured]
    low, high = (2 * bound - 1 for bound in bounds)
    waiting = sum(pairs.waits for pairs in found)
    if waiting and low <= high:
        low, high = (
            (tasks * bound + end * waiting) / (tasks + waiting) for bound, end in ((low, -1), (high, 1))
        )
        row = replace(row, note=OPEN_TASKS)
    return replace(
        _with_interval(row, low, high),
        n_common=sum(len(pairs.a) for pairs in measured),
        mean_a=math.fsum(x for x, _ in strata) / tasks,
        mean_b=math.fsum(y for _, y in strata) / tasks,
        difference=math.fsum(x - y for x, y in strata) / tasks,
        se=math.sqrt(math.fsum(standard_error(h) ** 2 for h in halves)) * 2 / tasks,
        only_a_higher=sum(x > y for p in measured for x, y in zip(p.a, p.b, strict=True)),
        only_b_higher=sum(x < y for p in measured for x, y in zip(p.a, p.b, strict=True)),
        verdict=verdict(low, high, sure.margin),
        docs_needed=None
        if waiting or sure.trusted
        else docs_to_decide_overall(rounds, sure.alpha, sure.margin, bounds),
    )


def _means(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The two means over common docs."""
    return math.fsum(a) / len(a), math.fsum(b) / len(b)
