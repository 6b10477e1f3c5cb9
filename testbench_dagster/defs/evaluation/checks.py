"""Checks of the evaluation: evidence is complete and owned, scores are fresh, tight and reproducible.

Unpartitioned, one evaluation per run over all active suppliers, violations in the metadata
(`reference/dagster.md` section 2.5: partitioned checks stay planned for ever in range runs).
"""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from testbench_dagster.core.records.identity import ToldChange
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.defs.checks import ActiveSuppliers, Violation, noted, violations_result
from testbench_dagster.defs.lineage import references_metadata
from testbench_dagster.defs.metadata import markdown_table
from testbench_dagster.defs.partitions import run_suppliers
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.health import note_reproduced, widest_scores
from testbench_dagster.stages.score.groups import proxies_of
from testbench_dagster.stages.score.remarks import EMPTY_LIMIT, LATE_LIMIT
from testbench_dagster.stages.score.reproduce import score_again
from testbench_dagster.stages.statements import refused_hosts
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

FAULT_RATE_LIMIT = 0.2  # share of a supplier's attempts; above it the supplier deserves a look
_RESCORED_DOCS = 20  # per run
_ATTEMPTS, _SCORES = "attempts_at", "scores_at"  # parts of the kept health, by their dates


def _by_verdict(record: ReferenceRecord) -> tuple[int, str, str]:
    """Those that differ first, each reference's together."""
    order = ("no", "not yet known", "yes")
    return order.index(record.as_reference), record.reference, record.id


def evaluation_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of the package."""

    @dg.asset_check(asset="relay_responses")
    def attempts_have_an_owner(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Every attempt inside the window age carries a fault of the closed list and the owner it has.

        Of all active suppliers, as of when each was asked last.
        """
        suppliers = ActiveSuppliers(context, workspace)
        rows = suppliers.unhealthy({"n_unowned": {"gt": 0}})
        violations = noted(rows, "unowned", _ATTEMPTS)
        return suppliers.result(violations, dg.AssetCheckSeverity.ERROR, _ATTEMPTS)

    @dg.asset_check(asset="relay_responses")
    def hosts_agree(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
        """Within a day no machine was refused a run because it goes by another configuration or packages.

        Such a machine relays nothing; it is admitted again once it goes by what the code server does.
        """
        return violations_result(refused_hosts(workspace), dg.AssetCheckSeverity.WARN)

    @dg.asset_check(asset="relay_responses")
    def supplier_fault_rate(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """At most a fifth of a supplier's attempts inside the window age failed by its own fault.

        Of all active suppliers, as of when each was asked last.
        """
        suppliers = ActiveSuppliers(context, workspace)
        violations = [
            Violation(row.id, {"": round(row.fault_share, 3)}, row.attempts_at, row.fault_share, 1)
            for row in suppliers.unhealthy({"fault_share": {"gt": FAULT_RATE_LIMIT}})
            if row.fault_share is not None
        ]
        warn = dg.AssetCheckSeverity.WARN
        return suppliers.result(violations, warn, _ATTEMPTS, limit=FAULT_RATE_LIMIT)

    @dg.asset_check(asset="supplier_scores")
    def scores_fresh(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Every supported task of the active suppliers has scores younger than ``sampling.max_age_days``.

        Where there are none it says why.
        """
        suppliers, now = ActiveSuppliers(context, workspace), datetime.now(UTC)
        violations = list(noted(suppliers.unhealthy({"n_stale": {"gt": 0}}), "stale", _SCORES))
        for row in suppliers.unhealthy({"n_stale": 0, "scores_until": {"lt": now}}):
            told = f"the newest score of a task counted until {row.scores_until:%Y-%m-%d %H:%M} UTC"
            violations.append(Violation(row.id, {"": told}, row.scores_at, 0, 1))
        return suppliers.result(violations, dg.AssetCheckSeverity.WARN, _SCORES)

    @dg.asset_check(asset="supplier_scores")
    def windows_tight(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Windows hold as many docs as everybody is asked in the epoch, where a half width sets how many.

        Of all active suppliers. That number fits the median supplier; how wide a single interval is stays its
        supplier's own: the widest are listed. Those for which a proxy stands are asked a part of the docs
        only.
        """
        suppliers = ActiveSuppliers(context, workspace)
        active = {s.key: s for s in active_suppliers(workspace)}
        references = workspace.config.settings.reference_keys
        represented = proxies_of(workspace.documents, active, references)
        rows = [row for row in suppliers.unhealthy({"n_short": {"gt": 0}}) if row.id not in represented]
        widest = markdown_table(["supplier", "task", "half width"], widest_scores(workspace, active))
        return suppliers.result(
            noted(rows, "short", _SCORES), dg.AssetCheckSeverity.WARN, _SCORES, widest=widest
        )

    @dg.asset_check(asset="supplier_scores")
    def answers_in_time(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """At most 5 % of a window's docs were answered only in a later run: such answers may be looked up.

        Of all active suppliers.
        """
        suppliers = ActiveSuppliers(context, workspace)
        violations = noted(suppliers.unhealthy({"n_late": {"gt": 0}}), "late", _SCORES)
        return suppliers.result(violations, dg.AssetCheckSeverity.WARN, _SCORES, limit=LATE_LIMIT)

    @dg.asset_check(asset="supplier_scores")
    def answers_have_text(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """At most 10 % of a window's answers are empty because our token limit cut them.

        Of all active suppliers.
        """
        suppliers = ActiveSuppliers(context, workspace)
        violations = noted(suppliers.unhealthy({"n_empty": {"gt": 0}}), "empty", _SCORES)
        return suppliers.result(violations, dg.AssetCheckSeverity.WARN, _SCORES, limit=EMPTY_LIMIT)

    @dg.asset_check(asset="supplier_scores")
    def requests_taken(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """No active supplier refuses the form of a task's requests, because of a parameter say."""
        suppliers = ActiveSuppliers(context, workspace)
        violations = noted(suppliers.unhealthy({"n_refused": {"gt": 0}}), "refused", _SCORES)
        return suppliers.result(violations, dg.AssetCheckSeverity.WARN, _SCORES)

    @dg.asset_check(asset="supplier_scores")
    def models_unchanged(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """No change of what an active supplier answers was detected within the last day.

        The newest first, whichever suppliers the run was about.
        """
        suppliers = ActiveSuppliers(context, workspace)
        active = frozenset(suppliers.keys)
        where = {"detected_at": {"gt": datetime.now(UTC) - timedelta(days=1)}}
        told: defaultdict[str, dict[str, str]] = defaultdict(dict)
        newest: dict[str, datetime] = {}
        for change in typed.find(workspace.documents, ToldChange, where, sort=[("at", -1)]):
            if change.supplier in active:
                told[change.supplier][f"{change.at:%Y-%m-%d %H:%M}"] = change.reason
                newest[change.supplier] = max(
                    change.detected_at, newest.get(change.supplier, change.detected_at)
                )
        violations = [
            Violation(key, reasons, newest[key], newest[key].timestamp(), len(reasons))
            for key, reasons in told.items()
        ]
        return suppliers.result(violations, dg.AssetCheckSeverity.WARN)

    @dg.asset_check(asset="supplier_scores")
    def alike_with_reference(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """No active supplier answers or scores otherwise than the reference of its model, as last compared.

        Who is not known yet, or has no reference, is no violation. Nothing is said of what anybody serves.
        """
        suppliers = ActiveSuppliers(context, workspace)
        active = frozenset(suppliers.keys)
        compared = [one for one in typed.find(workspace.documents, ReferenceRecord) if one.id in active]
        records = sorted(compared, key=_by_verdict)
        verdicts = Counter(one.as_reference for one in records)
        return suppliers.result(
            [
                Violation(
                    one.id,
                    {"": f"{one.finding} (reference: {one.reference})"},
                    one.compared_at,
                    abs(one.difference or 0.0),
                    1,
                )
                for one in records
                if one.as_reference == "no"
            ],
            dg.AssetCheckSeverity.WARN,
            None,
            compared=len(records),
            alike=verdicts["yes"],
            not_yet_known=verdicts["not yet known"],
            **references_metadata(records),
        )

    @dg.asset_check(asset="supplier_scores")
    def scores_reproducible(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Scoring a random sample of stored answers again gives the stored metrics, value by value.

        Drawn are answers of the run's suppliers. Who failed before is named until those answers give the
        stored values, whomever a run is about.
        """
        suppliers = ActiveSuppliers(context, workspace)
        rows = {row.id: row.unreproduced or {} for row in suppliers.unhealthy({"n_unreproduced": {"gt": 0}})}
        keys = run_suppliers(context.instance, context.run.tags)
        report = score_again(workspace, keys, _RESCORED_DOCS, {key: rows[key] for key in keys if key in rows})
        note_reproduced(workspace, report, rows)
        violations = noted(
            suppliers.unhealthy({"n_unreproduced": {"gt": 0}}), "unreproduced", "reproduced_at"
        )
        error = dg.AssetCheckSeverity.ERROR
        return suppliers.result(violations, error, scores_compared=report.compared)

    return [
        attempts_have_an_owner,
        hosts_agree,
        supplier_fault_rate,
        scores_fresh,
        windows_tight,
        answers_in_time,
        answers_have_text,
        requests_taken,
        models_unchanged,
        alike_with_reference,
        scores_reproducible,
    ]
