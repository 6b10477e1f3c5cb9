"""What docs deliver: from 0 to 1, and more is better, whichever way the metric counts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.sampling import SampleRule
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Sample
from testbench_dagster.scoring.delivered import delivered_docs
from testbench_dagster_tests.scoring.registrations import of_a_mean

AT = datetime(2026, 3, 1, tzinfo=UTC)
SPEC = TaskSpec("task", "task", "task", None, None, None, None, None, {}, SampleRule())


@pytest.mark.parametrize("higher", [True, False])
def test_more_is_better_and_what_is_not_delivered_is_nothing(higher: bool) -> None:
    samples = [
        Sample(0, AT, 1, 1, Fault.OK, {"none": {"acc": 0.25}}),
        Sample(1, AT, 1, 1, Fault.SUPPLIER_REFUSED, state=DocState.FAILED),
        Sample(2, AT, 1, 1, Fault.TRANSPORT, state=DocState.OPEN),
        Sample(3, AT, 1, 1, Fault.CLIENT_REQUEST, state=DocState.VOID),
    ]
    docs = delivered_docs(SPEC, of_a_mean(9, higher=higher), samples)
    own = 0.25 if higher else 0.75
    assert [tuple(doc) for doc in docs] == [(0, own, False), (1, 0.0, False), (2, 0.0, True)]
