"""What docs deliver: from 0 to 1, and more is better, whichever way the metric counts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MetricFlags, TaskFlags
from testbench_dagster.core.window import Sample
from testbench_dagster.scoring.delivered import delivered_docs

AT = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = TaskSpec("task", "task", "task", None, None, None, None, None, {}, SampleRule())


def registration(*, higher: bool) -> Registration:
    return Registration(
        task="task",
        task_hash="h",
        framework="lm_eval",
        lm_task="task",
        engine_version="0",
        config_hash="c",
        fingerprint="f",
        eval_split="test",
        splits={"test": 9},
        flags=TaskFlags(
            output_type="generate_until",
            features=[],
            multiple_input=False,
            multiple_target=False,
            repeats=1,
            num_fewshot=0,
            version="1",
            metrics={"m": MetricFlags(aggregation="mean", higher_is_better=higher)},
            filters=["none"],
            metric_order=["m"],
        ),
        n_docs=9,
        n_fewshot=0,
        registered_at=AT,
    )


@pytest.mark.parametrize("higher", [True, False])
def test_more_is_better_and_what_is_not_delivered_is_nothing(higher: bool) -> None:
    samples = [
        Sample(0, AT, 1, 1, Fault.OK, {"none": {"m": 0.25}}),
        Sample(1, AT, 1, 1, Fault.SUPPLIER_REFUSED, state=DocState.FAILED),
        Sample(2, AT, 1, 1, Fault.TRANSPORT, state=DocState.OPEN),
        Sample(3, AT, 1, 1, Fault.CLIENT_REQUEST, state=DocState.VOID),
    ]
    docs = delivered_docs(SPEC, registration(higher=higher), samples)
    own = 0.25 if higher else 0.75
    assert [tuple(doc) for doc in docs] == [(0, own, False), (1, 0.0, False), (2, 0.0, True)]
