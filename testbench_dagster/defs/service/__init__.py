"""Service: how fast suppliers answer, measured by probes that enter no score.

Belongs here: the probes as an asset, and when they are sent. Does not: evaluation, which never streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import Settings
from testbench_dagster.defs.kinds import KIND_TAG, PROBES
from testbench_dagster.defs.service.assets import service_probes
from testbench_dagster.defs.service.sensors import service_probes_sensor

probe_service = dg.define_asset_job(
    "probe_service",
    selection=dg.AssetSelection.assets("service_probes"),
    tags={KIND_TAG: PROBES},
    description="Probe how fast the run's suppliers answer, and whether they do. No score rests on it.",
)


def definitions(settings: Settings) -> dict[str, Sequence[Any]]:
    """This package's definitions."""
    return {
        "assets": [service_probes],
        "jobs": [probe_service],
        "sensors": [service_probes_sensor(settings)],
    }
