"""What is registered of a task: its data as stored, and whether its definition is still the same."""

from __future__ import annotations

from collections.abc import Sequence

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.prompt import TaskData
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.sources import definition_state


def definition_changed(spec: TaskSpec, registration: Registration) -> bool:
    """Whether the worker would score by another definition of the task than the registered one."""
    return registration.flags.definition not in (None, definition_state(spec))


def current_registration(workspace: Workspace, spec: TaskSpec) -> Registration:
    """The current registration of a task.

    Raises:
        TaskError: it was never registered.
    """
    current = workspace.datasets.current(spec.name)
    if current is None:
        raise TaskError(
            f"task {spec.name!r} has no dataset yet; materialize task_datasets (testbench run does it)"
        )
    return current


def task_data(
    workspace: Workspace, registration: Registration, doc_ids: Sequence[int] | None = None
) -> TaskData:
    """Read a registered task's docs (all, or the given ones with doc 0) and, for all docs, its pool."""
    chosen = None if doc_ids is None else sorted({0, *doc_ids})
    docs = {d.doc_id: d.body for d in workspace.datasets.docs(registration.task_hash, chosen)}
    pool = [] if doc_ids is not None else workspace.datasets.fewshot(registration.task_hash)
    return TaskData(docs, [d.body for d in pool], registration.flags)
