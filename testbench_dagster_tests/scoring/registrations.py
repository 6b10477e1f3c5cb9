"""A registered task as rows and slots look at it."""

from __future__ import annotations

from datetime import UTC, datetime

from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task_flags import MetricFlags, TaskFlags


def of_a_mean(n_docs: int, *, higher: bool = True) -> Registration:
    """The task ``task`` whose only metric, ``acc``, is the mean of its docs' values."""
    return Registration(
        task="task",
        task_hash="h",
        framework="lm_eval",
        lm_task="task",
        engine_version="0",
        config_hash="c",
        fingerprint="f",
        eval_split="test",
        splits={"test": n_docs},
        flags=TaskFlags(
            output_type="generate_until",
            features=[],
            multiple_input=False,
            multiple_target=False,
            repeats=1,
            num_fewshot=0,
            version="1",
            metrics={"acc": MetricFlags(aggregation="mean", higher_is_better=higher)},
            filters=["none"],
            metric_order=["acc"],
        ),
        n_docs=n_docs,
        n_fewshot=0,
        registered_at=datetime(2026, 3, 1, tzinfo=UTC),
    )
