"""Which docs of a task are asked, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from testbench_dagster.core.records.prompts import PromptPlace
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Api
from testbench_dagster.stages.sample.epochs import newest_epochs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


def prompt_places(
    workspace: Workspace, registration: Registration | None, *, after: int | None = None, limit: int = 50
) -> Sequence[PromptPlace]:
    """Return the docs of the newest sequence, from the one behind position ``after`` on; one row for each."""
    if registration is None:
        return []
    epoch = newest_epochs(workspace.documents, [registration.task]).get(registration.task, 0)
    sequence = {"task": registration.task, "task_hash": registration.task_hash, "epoch": epoch}
    beyond: dict[str, Any] = {} if after is None else {"position": {"gt": after}}
    for api in get_args(Api):  # every form has the same docs in the same order
        where = {**sequence, "api": api, **beyond}
        found = typed.find(workspace.documents, PromptPlace, where, sort=[("position", 1)], limit=limit)
        if rows := list(found):
            return rows
    return []
