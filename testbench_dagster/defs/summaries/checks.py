"""Checks of the summaries: abilities rest on the tasks they are made of."""

from typing import Any

import dagster as dg

from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.rankings import SupplierAbilities
from testbench_dagster.defs.checks import violations_result
from testbench_dagster.defs.partitions import run_suppliers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: States of planned tasks that no ability can wait for.
_NEVER_ASKED = ("unsupported", "not_applicable")


def summary_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of the package."""

    @dg.asset_check(asset="taxonomy_summaries")
    def taxonomies_covered(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Every ability that a supplier's configured tasks could measure has a measured task behind it."""
        violations: dict[str, Any] = {}
        lowest: float | None = None
        keys = run_suppliers(context.instance, context.run.tags)
        askable = {
            plan.id: {name for name, task in (plan.tasks or {}).items() if task.state not in _NEVER_ASKED}
            for plan in typed.find(workspace.documents, PlanRecord, {"_id": {"in": keys}})
        }
        for summary in typed.find(workspace.documents, SupplierAbilities, {"supplier": {"in": keys}}):
            root = summary.nodes[summary.root]
            if root.n_tasks:  # what it is not asked covers nothing, and lacks nothing
                lowest = root.coverage if lowest is None else min(lowest, root.coverage)
            bare = [
                name
                for name, node in summary.nodes.items()
                if not node.n_measured and askable.get(summary.supplier, set()) & set(node.missing)
            ]
            if bare:
                violations[f"{summary.supplier} {summary.taxonomy}"] = ", ".join(bare)
        extra = {} if lowest is None else {"lowest_coverage": lowest}
        return violations_result(violations, dg.AssetCheckSeverity.WARN, **extra)

    return [taxonomies_covered]
