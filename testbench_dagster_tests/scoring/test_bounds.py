"""What a failed doc is worth follows from the metric's definition, whatever was answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MetricFlags
from testbench_dagster.core.window import Sample, Window
from testbench_dagster.scoring.bounds import UNIT, declared_bounds
from testbench_dagster.scoring.delivered import delivered_docs
from testbench_dagster.scoring.failures import Failures, FailuresAs, failures_of, is_proportion
from testbench_dagster.scoring.reliability import NO_CALLS
from testbench_dagster.scoring.rows import counted_samples, task_windows
from testbench_dagster_tests.scoring.registrations import of_a_mean
from testbench_dagster_tests.scoring.test_of_some_docs import AGGREGATION, SPEC, SUPPLIER

AT = datetime(2026, 3, 1, tzinfo=UTC)


def registration(metric: str, framework: str = "lm_eval", **flags: Any) -> Registration:
    plain = of_a_mean(100)
    one = MetricFlags(**{"aggregation": "mean", "higher_is_better": True, **flags})
    of_task = replace(plain.flags, metrics={metric: one}, metric_order=[metric])
    return replace(plain, framework=framework, flags=of_task)


def samples(metric: str, values: Sequence[float | None]) -> list[Sample]:
    """Scored docs; None: one that failed."""
    return [
        Sample(n, AT, 1, 1, Fault.SUPPLIER_REFUSED, state=DocState.FAILED)
        if value is None
        else Sample(n, AT, 1, 1, Fault.OK, {"none": {metric: value}})
        for n, value in enumerate(values)
    ]


def row(task: Registration, of: Sequence[Sample], spec: TaskSpec = SPEC) -> Window:
    return next(task_windows(SUPPLIER, spec, task, of, AGGREGATION, NO_CALLS, wanted=len(of)))


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "exact_match", "math_verify", "f1"])
def test_what_is_known_of_lm_evals_metrics_asks_no_answers(metric: str) -> None:
    assert declared_bounds(registration(metric), metric) == UNIT
    assert failures_of(SPEC, registration(metric), metric, ()) == Failures(FailuresAs.WORST, 0.0, 1.0)
    lower = registration(metric, higher_is_better=False)
    assert failures_of(SPEC, lower, metric, ()) == Failures(FailuresAs.WORST, 1.0, 0.0)


@pytest.mark.parametrize("metric", ["bleu_diff", "eqbench", "wer"])
def test_what_is_known_to_have_no_bounds_has_none_whatever_is_answered(metric: str) -> None:
    """Who keeps back what is below 0 would else have its failed docs count as 0."""
    task = registration(metric)
    assert failures_of(SPEC, task, metric, (0.2, 0.9)).kind is FailuresAs.EXCLUDED
    assert not is_proportion((0.2, 0.9), task, metric)


@pytest.mark.parametrize("declared", [True, False])
def test_who_keeps_back_negative_values_gains_nothing_where_bounds_are_declared(declared: bool) -> None:
    """An honest supplier is at 0 on [-1, 1]; one that fails where it would be negative was shown at .5."""
    task = registration("reward", "mine", bounds=[-1.0, 1.0] if declared else None)
    honest = samples("reward", [1.0, -1.0] * 20)
    withholds = samples("reward", [1.0, None] * 20)
    assert row(task, honest).score == 0
    shown = row(task, withholds)
    assert shown.score == pytest.approx(0.0 if declared else 0.5)
    if declared:
        assert (shown.failures, shown.bound_low, shown.bound_high) == ("as_worst", 0.0, 0.0)
        assert (shown.ci_low, row(task, honest).ci_low) == (None, None), "Wilson's interval is for shares"
        assert delivered_docs(SPEC, task, withholds) == ()
    told = replace(SPEC, worst=-1.0)
    assert row(task, withholds, told).score == pytest.approx(0.0)


def test_a_loss_with_declared_bounds_has_its_worst_above() -> None:
    task = registration("regret", "mine", bounds=[0.0, 10.0], higher_is_better=False)
    assert failures_of(SPEC, task, "regret", (0.5,)) == Failures(FailuresAs.WORST, 10.0, 0.0)
    assert failures_of(SPEC, task, "regret", ()) == Failures(FailuresAs.WORST, 10.0, 0.0)
    assert failures_of(replace(SPEC, worst=4.0), task, "regret", ()) == Failures(FailuresAs.WORST, 4.0, 0.0)


def test_a_value_outside_shows_that_it_is_another_metric_of_that_name() -> None:
    assert failures_of(SPEC, registration("f1"), "f1", (0.5, 87.0)).kind is FailuresAs.EXCLUDED


def test_of_an_unknown_metric_the_values_say_it_as_long_as_nothing_else_does() -> None:
    task = registration("reward", "mine")
    assert declared_bounds(task, "reward") is None
    assert failures_of(SPEC, task, "reward", (0.5,)) == Failures(FailuresAs.WORST, 0.0, 1.0)
    assert failures_of(SPEC, task, "reward", (-0.5,)).kind is FailuresAs.EXCLUDED
    binary = registration("reward", "mine", binary=True)
    assert declared_bounds(binary, "reward") == UNIT
    assert declared_bounds(registration("acc", "mine"), "acc") is None, "a name says it of lm-eval's alone"


@pytest.mark.parametrize("lacks", [None, float("nan"), float("inf")])
def test_docs_without_a_finite_value_are_delivered_as_the_worst(lacks: float | None) -> None:
    task = of_a_mean(10)
    some = [Sample(n, AT, 1, 1, Fault.OK, {"none": {"acc": 1.0 if n < 6 else lacks}}) for n in range(10)]
    assert [doc.value for doc in delivered_docs(SPEC, task, some)] == [1.0] * 6 + [0.0] * 4
    assert counted_samples(SPEC, task, some[:6], ("acc", "none")) == some[:6]
