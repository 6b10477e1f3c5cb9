"""Checks of the summaries: abilities rest on the tasks they are made of."""

from typing import Any

import dagster as dg

from testbench_dagster.defs.partitions import run_suppliers
from testbench_dagster.stores.documents.collections import TAXONOMY_SUMMARIES
from testbench_dagster.workspace import Workspace

_OFFENDERS_SHOWN = 50


def summary_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of the room."""

    @dg.asset_check(asset="taxonomy_summaries")
    def taxonomies_covered(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Every ability of the run's suppliers has at least one measured task behind it."""
        offenders: dict[str, Any] = {}
        lowest: float | None = None
        where = {"supplier": {"in": run_suppliers(context.instance, context.run.tags)}}
        for summary in workspace.documents.find(TAXONOMY_SUMMARIES, where):
            root = summary["nodes"][summary["root"]]
            lowest = root["coverage"] if lowest is None else min(lowest, root["coverage"])
            bare = [name for name, node in summary["nodes"].items() if not node["n_measured"]]
            if bare:
                offenders[f"{summary['supplier']} {summary['taxonomy']}"] = ", ".join(bare)
        return dg.AssetCheckResult(
            passed=not offenders,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "offenders": dict(list(offenders.items())[:_OFFENDERS_SHOWN]),
                "n_offenders": len(offenders),
                **({} if lowest is None else {"lowest_coverage": lowest}),
            },
        )

    return [taxonomies_covered]
