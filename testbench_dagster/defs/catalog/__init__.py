"""Catalog: what is asked. Task datasets, prompt sequences, and the checks that both can be trusted.

Belongs here: everything partitioned by task. Does not: anything about a supplier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import Settings
from testbench_dagster.defs.catalog.assets import catalog_assets
from testbench_dagster.defs.catalog.checks import catalog_checks
from testbench_dagster.defs.catalog.schedules import weekly_epochs_schedule
from testbench_dagster.defs.catalog.sensors import stale_catalog_sensor

refresh_catalog = dg.define_asset_job(
    "refresh_catalog",
    selection=dg.AssetSelection.groups("catalog"),
    description="Load the tasks' data and complete their prompt sequences.",
)


def definitions(settings: Settings, partitions: dg.StaticPartitionsDefinition) -> dict[str, Sequence[Any]]:
    """This package's definitions for the configured tasks."""
    return {
        "assets": catalog_assets(partitions),
        "asset_checks": catalog_checks(),
        "jobs": [refresh_catalog],
        "sensors": [stale_catalog_sensor(settings.automation, partitions)],
        "schedules": [weekly_epochs_schedule(settings.automation, partitions)],
    }
