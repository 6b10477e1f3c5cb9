"""Rows of a metric that is of some answers alone: its n says of how many, and nothing else counts in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MetricFlags
from testbench_dagster.core.window import Sample, Window
from testbench_dagster.scoring.delivered import delivered_docs
from testbench_dagster.scoring.reliability import NO_CALLS
from testbench_dagster.scoring.rows import Aggregation, task_windows
from testbench_dagster_tests.scoring.registrations import of_a_mean

AT = datetime(2026, 3, 1, tzinfo=UTC)
SUPPLIER = Supplier("s", "external", "http://127.0.0.1:9/v1", "chat", "m")
SPEC = TaskSpec("task", "task", "task", None, None, None, None, None, {}, SampleRule())
AGGREGATION = Aggregation(lambda *_: None, lambda *_: [], lambda *_: {})


@pytest.fixture
def registration() -> Registration:
    plain = of_a_mean(10)
    mean = MetricFlags(aggregation="mean", higher_is_better=True)
    metrics = {"exact": mean, "schema_valid": replace(mean, of_some_docs=True)}
    flags = replace(plain.flags, metrics=metrics, metric_order=["exact", "schema_valid"])
    return replace(plain, flags=flags)


def answered(*metrics: Mapping[str, int]) -> list[Sample]:
    return [Sample(n, AT, 1, 1, Fault.OK, {"none": one}) for n, one in enumerate(metrics)]


def rows(registration: Registration, samples: Sequence[Sample], spec: TaskSpec = SPEC) -> dict[str, Window]:
    made = task_windows(SUPPLIER, spec, registration, samples, AGGREGATION, NO_CALLS, wanted=len(samples))
    return {str(row.metric): row for row in made}


def test_docs_without_a_value_are_in_neither_share_nor_n(registration: Registration) -> None:
    called = [{"exact": 1, "schema_valid": 1}] * 3 + [{"exact": 0, "schema_valid": 0}]
    found = rows(registration, answered(*called, *[{"exact": 1}] * 4))
    assert (found["exact"].n, found["exact"].score) == (8, 7 / 8)
    assert (found["schema_valid"].n, found["schema_valid"].score) == (4, 3 / 4)


def test_failed_docs_count_as_wrong_in_the_main_metric_alone(registration: Registration) -> None:
    samples = answered({"exact": 1, "schema_valid": 1}, {"exact": 1})
    samples.append(Sample(2, AT, 1, 1, Fault.SUPPLIER_REFUSED, state=DocState.FAILED))
    found = rows(registration, samples)
    assert (found["exact"].score, found["exact"].failures) == (2 / 3, "as_worst")
    valid = found["schema_valid"]
    assert (valid.n, valid.score, valid.n_failed, valid.failures) == (1, 1.0, 1, "excluded")


def test_who_never_has_a_value_has_a_row_that_says_so(registration: Registration) -> None:
    found = rows(registration, answered(*[{"exact": 1}] * 5))
    assert list(found) == ["exact", "schema_valid"]
    assert (found["schema_valid"].n, found["schema_valid"].score) == (0, None)
    assert found["exact"].status == "ok"


def test_as_the_main_metric_it_fails_nobody_without_a_value(registration: Registration) -> None:
    spec = replace(SPEC, metric="schema_valid")
    samples = answered({"exact": 1, "schema_valid": 1}, {"exact": 1})
    found = rows(registration, samples, spec)
    assert (found["schema_valid"].n, found["schema_valid"].score, found["schema_valid"].n_failed) == (
        1,
        1.0,
        0,
    )
    assert delivered_docs(spec, registration, samples) == ()
