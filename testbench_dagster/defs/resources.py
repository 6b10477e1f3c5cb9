"""Resources: the opened installation. Assets ask for ``workspace: dg.ResourceParam[Workspace]``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from testbench_dagster.workspace import Workspace


def workspace_resource(config_path: Path) -> dg.ResourceDefinition:
    """A resource that opens the installation once per run and closes it afterwards."""

    def opened(_context: dg.InitResourceContext) -> Iterator[Workspace]:
        with Workspace.open(config_path) as workspace:
            yield workspace

    return dg.ResourceDefinition(
        resource_fn=dg.resource(opened).resource_fn,
        description=f"The installation configured by {config_path.name}: stores, tasks, lm-eval worker.",
    )
