"""What the planner needs to know of the current window of one supplier and task."""

from __future__ import annotations

from datetime import UTC, datetime

from testbench_dagster.planning.due import Measured
from testbench_dagster.scoring.samples import window_samples
from testbench_dagster.scoring.windows import measured, primary_pair
from testbench_dagster.stores.datasets import Registration
from testbench_dagster.tasks.specs import TaskSpec
from testbench_dagster.workspace import Workspace


def measured_now(workspace: Workspace, supplier: str, spec: TaskSpec, registration: Registration) -> Measured:
    """Number of scored docs and mean of the primary metric in the current window."""
    samples = window_samples(workspace, supplier, spec, registration, datetime.now(UTC))
    return measured(samples, registration, primary_pair(spec, registration))
