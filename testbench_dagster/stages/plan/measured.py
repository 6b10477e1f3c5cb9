"""What the planner needs to know of the current window of one supplier and task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import Measured
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.planning.gates import TaskState
from testbench_dagster.scoring.rows import is_mean, measured, primary_pair, value_of
from testbench_dagster.stages.score.samples import window_samples
from testbench_dagster.stages.workspace import Workspace


@dataclass(frozen=True)
class WindowState:
    """The window as sampling rules (``measured``) and as gates (``state``) look at it."""

    measured: Measured = field(default_factory=Measured)
    state: TaskState = field(default_factory=TaskState)


def window_state(
    workspace: Workspace, supplier: Supplier, spec: TaskSpec, registration: Registration, now: datetime
) -> WindowState:
    """Read the current window: scored docs, mean and values of the primary metric, failed docs."""
    samples = window_samples(workspace, supplier, spec, registration, now)
    pair = primary_pair(spec, registration)
    found = measured(samples, registration, pair)
    answered = sorted((s for s in samples if s.scored), key=lambda s: (s.at, s.doc_id))
    values = [v for s in answered if isinstance(v := value_of(s, pair), (int, float))]
    in_unit = tuple(float(v) for v in values) if found.mean is not None else ()
    state = TaskState(
        present=any(s.counts for s in samples),
        score=sum(values) / len(values) if values and is_mean(registration, pair[0]) else None,
        signature=next((v for s in reversed(answered) if isinstance(v := value_of(s, pair), str)), None),
        values=in_unit,
    )
    return WindowState(replace(found, values=in_unit), state)
