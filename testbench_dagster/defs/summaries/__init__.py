"""Summaries: what it all means. Taxonomy summaries per supplier and the leaderboard over all of them.

Belongs here: views over windows. Does not: anything that relays or scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from testbench_dagster.defs.summaries.assets import leaderboard, taxonomy_summaries

refresh_summaries = dg.define_asset_job(
    "refresh_summaries",
    selection=dg.AssetSelection.assets("leaderboard"),
    description="Rank all suppliers anew from their stored summaries.",
)


def definitions() -> dict[str, Sequence[Any]]:
    """This room's definitions."""
    return {"assets": [taxonomy_summaries, leaderboard], "jobs": [refresh_summaries]}
