"""Network: who is asked. The roster of suppliers and its dynamic partitions.

Belongs here: discovery of suppliers. Does not: what they answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from testbench_dagster.defs.network.assets import suppliers

refresh_suppliers = dg.define_asset_job(
    "refresh_suppliers",
    selection=dg.AssetSelection.groups("network"),
    description="Bring the roster and the supplier partitions up to date with the configuration.",
)


def definitions() -> dict[str, Sequence[Any]]:
    """This room's definitions."""
    return {"assets": [suppliers], "jobs": [refresh_suppliers]}
