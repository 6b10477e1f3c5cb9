"""Summaries: what it all means. Taxonomy summaries per supplier, and what is said across suppliers.

Belongs here: views over windows, and when they are refreshed. Does not: anything that relays or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import Settings
from testbench_dagster.defs.automation import sensor_status
from testbench_dagster.defs.kinds import KIND_TAG, SUMMARIES_KIND
from testbench_dagster.defs.lineage import detected_changes, supplier_plans
from testbench_dagster.defs.summaries.assets import (
    leaderboard_asset,
    supplier_snapshots_asset,
    taxonomy_summaries,
)
from testbench_dagster.defs.summaries.checks import summary_checks
from testbench_dagster.defs.summaries.identity import (
    identity_consistent,
    identity_groups_asset,
    public_not_special,
)
from testbench_dagster.defs.summaries.schedules import daily_snapshots_schedule, hourly_summaries_schedule

refresh_summaries = dg.define_asset_job(
    "refresh_summaries",
    selection=dg.AssetSelection.assets("leaderboard"),
    description="Rank all suppliers anew from their stored summaries.",
)

refresh_identity = dg.define_asset_job(
    "refresh_identity",
    selection=dg.AssetSelection.assets("identity_groups"),
    description="Compare all suppliers by their stored answers: groups, proxies, changes. Relays nothing.",
)

refresh_abilities = dg.define_asset_job(
    "refresh_abilities",
    selection=dg.AssetSelection.assets("taxonomy_summaries"),
    tags={KIND_TAG: SUMMARIES_KIND},
    description="Roll the current windows of the run's suppliers up anew, without relaying or scoring.",
)

take_snapshots = dg.define_asset_job(
    "take_snapshots",
    selection=dg.AssetSelection.assets("supplier_snapshots"),
    description="Append the day's windows and summaries of all active suppliers to the history.",
)


def definitions(settings: Settings, first_day: date) -> dict[str, Sequence[Any]]:
    """This package's definitions; ``first_day`` is that of the history."""
    automation = settings.automation
    return {
        "assets": [
            taxonomy_summaries,
            identity_groups_asset(automation),
            leaderboard_asset(automation),
            supplier_snapshots_asset(first_day),
            supplier_plans,
            detected_changes,
        ],
        "asset_checks": [*summary_checks(), identity_consistent, public_not_special],
        "jobs": [refresh_summaries, refresh_identity, refresh_abilities, take_snapshots],
        "sensors": [
            dg.AutomationConditionSensorDefinition(
                "summaries_automation",
                target=dg.AssetSelection.assets("identity_groups", "leaderboard"),
                default_status=sensor_status(automation.summaries_sensor),
                minimum_interval_seconds=automation.summaries_sensor.every_s,
                description="Refreshes the unpartitioned summaries when something new arrived.",
            )
        ],
        "schedules": [
            hourly_summaries_schedule(automation),
            daily_snapshots_schedule(automation),
        ],
    }
