"""Says in a run's log which task's framework is waited for, where that takes long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from testbench_dagster.core.wording import duration
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.worker import Waiting

#: Seconds after which a call is told of, and between two times.
_FIRST_S, _EVERY_S = 10.0, 60.0


@contextmanager
def waits_in_log(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[None]:
    """Log what this asset waits for, beside whoever is told of it anyway."""
    before, told_at = workspace.worker.on_wait, time.monotonic() - _EVERY_S

    def told(waiting: Waiting | None) -> None:
        nonlocal told_at
        if before is not None:
            before(waiting)
        if waiting is None or waiting.seconds < _FIRST_S or time.monotonic() - told_at < _EVERY_S:
            return
        told_at = time.monotonic()
        context.log.info(f"waits for {waiting}, for {duration(waiting.seconds)}")

    workspace.worker.on_wait = told
    try:
        yield
    finally:
        workspace.worker.on_wait = before
