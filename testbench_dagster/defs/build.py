"""The factory of all Dagster definitions: the rooms put together over one installation."""

from __future__ import annotations

from typing import Any

import dagster as dg

from testbench_dagster.config import load_config
from testbench_dagster.defs import catalog, evaluation, network, summaries
from testbench_dagster.defs.partitions import task_partitions
from testbench_dagster.defs.resources import workspace_resource
from testbench_dagster.workspace import Workspace


def build_definitions(workspace: Workspace | None = None) -> dg.Definitions:
    """Build all definitions for the configured tasks.

    Args:
        workspace: an opened installation that every run in this process shares (commands, tests); by
            default each run opens its own from the configuration.

    Raises:
        ConfigError: the configuration is wrong; nothing is loaded then.
    """
    opened = workspace or Workspace(load_config())
    rooms = [
        catalog.definitions(task_partitions(opened.specs)),
        network.definitions(),
        evaluation.definitions(),
        summaries.definitions(),
    ]

    def collected(kind: str) -> list[Any]:
        return [definition for room in rooms for definition in room.get(kind, ())]

    resource = (
        dg.ResourceDefinition.hardcoded_resource(workspace)
        if workspace is not None
        else workspace_resource(opened.config.path)
    )
    return dg.Definitions(
        assets=collected("assets"),
        asset_checks=collected("asset_checks"),
        jobs=collected("jobs"),
        resources={"workspace": resource},
        executor=dg.in_process_executor,
    )
