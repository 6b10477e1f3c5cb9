"""The factory of all Dagster definitions: the packages put together over one installation."""

from __future__ import annotations

from typing import Any

import dagster as dg

from testbench_dagster.config import load_config
from testbench_dagster.defs import catalog, evaluation, network, operations, summaries
from testbench_dagster.defs.partitions import task_partitions
from testbench_dagster.defs.resources import workspace_resource
from testbench_dagster.stages.retain import check_retention
from testbench_dagster.stages.workspace import Workspace


def build_definitions(workspace: Workspace | None = None) -> dg.Definitions:
    """Build all definitions for the configured tasks.

    Args:
        workspace: an opened installation that every run in this process shares (commands, tests); by
            default each run opens its own from the configuration.

    Raises:
        ConfigError: the configuration is wrong; nothing is loaded then.
    """
    opened = workspace or Workspace(load_config())
    check_retention(opened)
    settings = opened.config.settings
    packages = [
        catalog.definitions(settings, task_partitions(opened.specs)),
        network.definitions(settings),
        evaluation.definitions(settings),
        summaries.definitions(settings),
        operations.definitions(settings),
    ]

    def collected(kind: str) -> list[Any]:
        return [definition for package in packages for definition in package.get(kind, ())]

    return dg.Definitions(
        assets=collected("assets"),
        asset_checks=collected("asset_checks"),
        jobs=collected("jobs"),
        sensors=collected("sensors"),
        schedules=collected("schedules"),
        resources={"workspace": workspace_resource(workspace or opened.config.path)},
        executor=dg.in_process_executor,
    )
