"""Evaluation: relays and scores, one partition per supplier, many suppliers per run.

Belongs here: everything that turns prompts into windows. Does not: rankings across suppliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from testbench_dagster.defs.evaluation.assets import relay_responses, supplier_scores
from testbench_dagster.defs.evaluation.checks import evaluation_checks

evaluate_suppliers = dg.define_asset_job(
    "evaluate_suppliers",
    selection=dg.AssetSelection.assets("relay_responses", "supplier_scores", "taxonomy_summaries"),
    tags={"testbench/kind": "evaluation"},
    description="Relay what is due to the run's suppliers, score the answers, refresh their summaries.",
)


def definitions() -> dict[str, Sequence[Any]]:
    """This room's definitions."""
    return {
        "assets": [relay_responses, supplier_scores],
        "asset_checks": evaluation_checks(),
        "jobs": [evaluate_suppliers],
    }
