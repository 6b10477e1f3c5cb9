"""Kinds of runs: the tag by whose values Dagster bounds how many runs go at a time (`dagster.yaml`).

Jobs carry it by themselves. Runs that name assets instead of a job, as those of backfills and of the UI's
"Materialize" do, get it when they are put into the queue (:mod:`.run_queue`).
"""

from __future__ import annotations

from collections.abc import Collection

KIND_TAG = "testbench/kind"
"""Tag that says of what kind a run is."""
EVALUATION_KIND, RESCORE_KIND, PROBES, SUMMARIES_KIND = "evaluation", "rescore", "service_probes", "summaries"

EVALUATION = ("relay_responses", "supplier_scores", "taxonomy_summaries")
"""The assets of a supplier, in their order."""
RESCORING = EVALUATION[1:]
"""Those that relay nothing."""

#: The kind of a run that materializes an asset; what costs most comes first.
_KINDS = {
    "relay_responses": EVALUATION_KIND,
    "service_probes": PROBES,
    "supplier_scores": RESCORE_KIND,
    "taxonomy_summaries": SUMMARIES_KIND,
}


def kind_of(assets: Collection[str] | None) -> str | None:
    """The kind of a run that materializes these assets, all there are for None; None: it needs no bound."""
    return next((kind for asset, kind in _KINDS.items() if assets is None or asset in assets), None)
