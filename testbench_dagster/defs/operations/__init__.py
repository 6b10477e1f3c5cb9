"""Operations: what keeps the installation itself in order. Lost runs, alerts, retention.

Belongs here: everything about runs and storage as such. Does not: anything that measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbench_dagster.config.settings import Settings
from testbench_dagster.defs.operations.alerts import run_failure_sensor
from testbench_dagster.defs.operations.change_alerts import change_alerts_sensor
from testbench_dagster.defs.operations.lost_runs import lost_runs_sensor
from testbench_dagster.defs.operations.retention import apply_retention, retention_schedule


def definitions(settings: Settings, *, alerts: bool = True) -> dict[str, Sequence[Any]]:
    """This package's definitions; ``alerts``: whether failed runs are told, which no setting switches off."""
    return {
        "jobs": [apply_retention],
        "sensors": [
            lost_runs_sensor(settings.automation),
            run_failure_sensor(settings.automation, running=alerts),
            change_alerts_sensor(settings.automation),
        ],
        "schedules": [retention_schedule(settings.automation)],
    }
