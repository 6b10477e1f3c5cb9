"""Checks of the summaries: abilities rest on the tasks they are made of."""

import dagster as dg

from testbench_dagster.defs.checks import ActiveSuppliers, noted
from testbench_dagster.stages.health import lowest_coverage
from testbench_dagster.stages.workspace import Workspace

_ABILITIES = "abilities_at"


def summary_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of the package."""

    @dg.asset_check(asset="taxonomy_summaries")
    def taxonomies_covered(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Every ability that a supplier's configured tasks could measure has a measured task behind it.

        Of all active suppliers.
        """
        suppliers = ActiveSuppliers(context, workspace)
        violations = noted(suppliers.unhealthy({"n_uncovered": {"gt": 0}}), "uncovered", _ABILITIES)
        lowest = lowest_coverage(workspace, suppliers.keys)
        return suppliers.result(
            violations,
            dg.AssetCheckSeverity.WARN,
            _ABILITIES,
            **({} if lowest is None else {"lowest_coverage": lowest}),
        )

    return [taxonomies_covered]
