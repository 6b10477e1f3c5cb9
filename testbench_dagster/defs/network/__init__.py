"""Network: who is asked. The roster of suppliers and its dynamic partitions.

Belongs here: discovery of suppliers. Does not: what they answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import Settings
from testbench_dagster.defs.network.assets import suppliers
from testbench_dagster.defs.network.sensors import new_suppliers_sensor

refresh_suppliers = dg.define_asset_job(
    "refresh_suppliers",
    selection=dg.AssetSelection.groups("network"),
    description="Bring the roster and the supplier partitions up to date with the supplier sources.",
)


def definitions(settings: Settings) -> dict[str, Sequence[Any]]:
    """This package's definitions."""
    return {
        "assets": [suppliers],
        "jobs": [refresh_suppliers],
        "sensors": [new_suppliers_sensor(settings.automation)],
    }
