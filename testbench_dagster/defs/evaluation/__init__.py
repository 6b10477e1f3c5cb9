"""Evaluation: relays and scores, one partition per supplier, many suppliers per run.

Belongs here: everything that turns prompts into windows, and decides when. Does not: rankings across
suppliers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import Settings
from testbench_dagster.defs.evaluation.assets import relay_responses, supplier_scores
from testbench_dagster.defs.evaluation.checks import evaluation_checks
from testbench_dagster.defs.evaluation.scheduled_backfills import backfill_schedules, request_backfill
from testbench_dagster.defs.evaluation.schedules import nightly_evaluation_schedule
from testbench_dagster.defs.evaluation.sensors import stale_scores_sensor

EVALUATION = ("relay_responses", "supplier_scores", "taxonomy_summaries")
"""The assets of a supplier, in their order."""
RESCORING = EVALUATION[1:]
"""Those that relay nothing."""

KIND_TAG = "testbench/kind"
"""Run tag by whose values Dagster bounds how many runs go at a time (`dagster.yaml`)."""
EVALUATION_KIND, RESCORE_KIND = "evaluation", "rescore"

evaluate_suppliers = dg.define_asset_job(
    "evaluate_suppliers",
    selection=dg.AssetSelection.assets(*EVALUATION),
    tags={KIND_TAG: EVALUATION_KIND},
    description="Relay what is due to the run's suppliers, score the answers, refresh their summaries.",
)

rescore = dg.define_asset_job(
    "rescore",
    selection=dg.AssetSelection.assets(*RESCORING),
    tags={KIND_TAG: RESCORE_KIND},
    description="Score the stored answers of the run's suppliers anew where a task's filters or metrics "
    "changed, and refresh their summaries. Relays nothing.",
)


def definitions(settings: Settings) -> dict[str, Sequence[Any]]:
    """This package's definitions."""
    return {
        "assets": [relay_responses, supplier_scores],
        "asset_checks": evaluation_checks(),
        "jobs": [evaluate_suppliers, rescore, *([request_backfill] if settings.schedules else [])],
        "sensors": [stale_scores_sensor(settings)],
        "schedules": [
            nightly_evaluation_schedule(settings.automation),
            *backfill_schedules(settings.schedules),
        ],
    }
