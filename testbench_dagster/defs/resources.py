"""Resources: the opened installation. Assets ask for ``workspace: dg.ResourceParam[Workspace]``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.defs.hosts import admit
from testbench_dagster.stages.workspace import Workspace


def workspace_resource(installation: Workspace | Path) -> dg.ResourceDefinition:
    """A resource that gives each run the installation, with a heartbeat for as long as the run lasts.

    The heartbeat tells other processes, and the sensor ``lost_runs``, that the run's process is alive.
    Sensors and schedules get the installation without one. A run that this machine may not execute fails here
    (see :mod:`.hosts`); an installation that is shared was looked at when its process began.

    Args:
        installation: an opened one that all runs of this process share (commands, tests), or the path of a
            configuration that each run opens for itself.
    """

    def opened(context: dg.InitResourceContext) -> Iterator[Workspace]:
        with _opened(installation) as workspace:
            run = context.dagster_run
            if run is None:
                yield workspace
                return
            if not isinstance(installation, Workspace) and context.instance is not None:
                admit(context.instance, run, workspace)
            with Heartbeat(workspace.documents, run.run_id) as heartbeat:
                workspace.heartbeat = heartbeat
                try:
                    yield workspace
                finally:
                    workspace.heartbeat = None

    return dg.ResourceDefinition(
        resource_fn=dg.resource(opened).resource_fn,
        description="The installation: configuration, stores, tasks, lm-eval worker.",
    )


@contextmanager
def _opened(installation: Workspace | Path) -> Iterator[Workspace]:
    if isinstance(installation, Workspace):
        yield installation
        return
    with Workspace.open(installation) as workspace:
        yield workspace
