"""The factory of all Dagster definitions: the packages put together over one installation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any, cast

import dagster as dg

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import StoreError
from testbench_dagster.defs import catalog, evaluation, network, operations, service, summaries
from testbench_dagster.defs.entry_points import with_switches
from testbench_dagster.defs.hosts import REQUESTED_BY_TAG, statement_tags
from testbench_dagster.defs.partitions import task_partitions
from testbench_dagster.defs.resources import workspace_resource
from testbench_dagster.stages.retain import check_retention
from testbench_dagster.stages.snapshot import history_began
from testbench_dagster.stages.statements import own_host, statement
from testbench_dagster.stages.workspace import Workspace


def build_definitions(
    workspace: Workspace | None = None, *, switched: Mapping[str, bool] | None = None
) -> dg.Definitions:
    """Build all definitions for the configured tasks.

    Args:
        workspace: an opened installation that every run in this process shares (commands, tests); by
            default each run opens its own from the configuration.
        switched: sensors and schedules that begin switched on or off, whatever the configuration says.

    Raises:
        ConfigError: the configuration is wrong; nothing is loaded then.
    """
    # whoever loads a code location waits for an answer, and it loads without the store
    opened = workspace or Workspace(load_config(), hurried=True)
    check_retention(opened)
    settings = with_switches(opened.config.settings, switched or {})
    packages = [
        catalog.definitions(settings, task_partitions(opened.specs)),
        network.definitions(settings),
        evaluation.definitions(settings),
        service.definitions(settings),
        summaries.definitions(settings, _first_day(opened)),
        operations.definitions(settings, alerts=(switched or {}).get("run_failure", True)),
    ]

    own = statement(opened.config, opened.specs)
    if workspace is None:
        opened.close()

    def collected(kind: str) -> list[Any]:
        return [definition for package in packages for definition in package.get(kind, ())]

    return dg.Definitions(
        assets=[_described(asset) for asset in collected("assets")],
        asset_checks=collected("asset_checks"),
        jobs=collected("jobs"),
        sensors=collected("sensors"),
        schedules=collected("schedules"),
        resources={"workspace": workspace_resource(workspace or opened.config.path)},
        executor=dg.in_process_executor,
        metadata={**statement_tags(own), REQUESTED_BY_TAG: own_host()},
    )


def _first_day(workspace: Workspace) -> date:
    """The day on which the history began: today where it did not yet, or the store cannot be read now."""
    today = datetime.now(UTC).date()
    try:
        began = history_began(workspace)
    except StoreError:  # told by whatever needs the store; code locations load without it
        return today
    return today if began is None else min(began, today)


def _described(asset: dg.AssetsDefinition | dg.AssetSpec) -> dg.AssetsDefinition | dg.AssetSpec:
    """An asset with what all of them say alike: who looks after it, and where its code stands.

    The owner is the team of the asset's group, for alerts and searches of the UI.
    """
    if isinstance(asset, dg.AssetSpec):
        return asset.replace_attributes(owners=[f"team:{asset.group_name}"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # both are pinned to one minor, and tested
        located = cast(dg.AssetsDefinition, dg.with_source_code_references([asset])[0])
        return located.map_asset_specs(
            lambda spec: spec.replace_attributes(owners=[f"team:{spec.group_name}"])
        )
