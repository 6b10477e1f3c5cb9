"""Checks of the evaluation: evidence is complete and owned, scores are fresh, tight and reproducible.

Unpartitioned, one evaluation per run over the run's suppliers, violations in the metadata
(`reference/dagster.md` section 2.5: partitioned checks stay planned for ever in range runs).
"""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import FaultCount, OwnerCount
from testbench_dagster.core.records.identity import ToldChange
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.core.window import Window
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.checks import violations_result
from testbench_dagster.defs.lineage import references_metadata
from testbench_dagster.defs.partitions import run_suppliers
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.sample.data import definition_changed
from testbench_dagster.stages.score.answered import answered_docs
from testbench_dagster.stages.score.batch import score_batch
from testbench_dagster.stages.score.groups import proxies_of
from testbench_dagster.stages.score.missing import why_no_scores
from testbench_dagster.stages.score.remarks import (
    EMPTY_LIMIT,
    LATE_LIMIT,
    Remarks,
    empty_answers,
    late_answers,
    refused_parameters,
)
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

FAULT_RATE_LIMIT = 0.2  # share of a supplier's attempts; above it the supplier deserves a look
_RESCORED_DOCS = 20  # per run


def _suppliers(context: dg.AssetCheckExecutionContext) -> list[str]:
    return run_suppliers(context.instance, context.run.tags)


def _primary(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> list[Window]:
    return [row for row in windows(workspace, suppliers=_suppliers(context)) if row.primary]


def _by_name(remarks: Remarks) -> dict[str, str]:
    return {f"{supplier} {task}": remark for (supplier, task), remark in remarks.items()}


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
        """Every attempt inside the window age carries a fault of the closed list and the owner it has."""
        owners = {fault.value: fault.owner.value for fault in Fault}
        oldest = datetime.now(UTC) - timedelta(days=workspace.config.settings.sampling.max_age_days)
        rows = typed.group(
            workspace.documents,
            OwnerCount,
            {"supplier": {"in": _suppliers(context)}, "finished_at": {"gte": oldest}},
        )
        violations = {
            f"{row.supplier} {row.fault}": row.n for row in rows if owners.get(row.fault) != row.owner
        }
        return violations_result(violations, dg.AssetCheckSeverity.ERROR)

    @dg.asset_check(asset="relay_responses")
    def supplier_fault_rate(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """At most a fifth of a supplier's attempts inside the window age failed by its own fault."""
        oldest = datetime.now(UTC) - timedelta(days=workspace.config.settings.sampling.max_age_days)
        rows = typed.group(
            workspace.documents,
            FaultCount,
            {"supplier": {"in": _suppliers(context)}, "finished_at": {"gte": oldest}},
        )
        totals: dict[str, int] = {}
        blamed: dict[str, int] = {}
        for row in rows:
            fault = Fault(row.fault)
            if fault.answered or fault.blames_supplier:
                totals[row.supplier] = totals.get(row.supplier, 0) + row.n
            if fault.blames_supplier:
                blamed[row.supplier] = blamed.get(row.supplier, 0) + row.n
        violations = {
            key: round(count / totals[key], 3)
            for key, count in blamed.items()
            if count / totals[key] > FAULT_RATE_LIMIT
        }
        return violations_result(violations, dg.AssetCheckSeverity.WARN, limit=FAULT_RATE_LIMIT)

    @dg.asset_check(asset="supplier_scores")
    def scores_fresh(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Every supported task of the run's suppliers has scores younger than ``sampling.max_age_days``.

        Where there are none it says why.
        """
        violations = _by_name(why_no_scores(workspace, _primary(context, workspace)))
        return violations_result(violations, dg.AssetCheckSeverity.WARN)

    @dg.asset_check(asset="supplier_scores")
    def windows_tight(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Windows hold as many docs as everybody is asked in the epoch, where a half width sets how many.

        That number fits the median supplier; how wide a single interval is stays its supplier's own. Those
        for which a proxy stands are asked a part of the docs only.
        """
        violations: dict[str, Any] = {}
        active = {s.key: s for s in active_suppliers(workspace)}
        references = workspace.config.settings.reference_keys
        represented = proxies_of(workspace.documents, active, references)
        for row in _primary(context, workspace):
            rule = workspace.spec(row.task).samples
            if rule is None or rule.half_width is None or row.score is None:
                continue
            if row.supplier in represented:
                continue
            wanted = min(row.n_planned or 0, workspace.config.settings.sampling.window)
            if row.asked + row.n_void < wanted:
                violations[f"{row.supplier} {row.task}"] = f"{row.asked} of {counted(wanted, 'doc')}"
        return violations_result(violations, dg.AssetCheckSeverity.WARN)

    @dg.asset_check(asset="supplier_scores")
    def answers_in_time(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """At most 5 % of a window's docs were answered only in a later run: such answers may be looked up."""
        remarks = late_answers(_primary(context, workspace))
        return violations_result(_by_name(remarks), dg.AssetCheckSeverity.WARN, limit=LATE_LIMIT)

    @dg.asset_check(asset="supplier_scores")
    def answers_have_text(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """At most 10 % of a window's answers are empty because our token limit cut them."""
        remarks = empty_answers(workspace, _primary(context, workspace))
        return violations_result(_by_name(remarks), dg.AssetCheckSeverity.WARN, limit=EMPTY_LIMIT)

    @dg.asset_check(asset="supplier_scores")
    def requests_taken(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """No supplier refuses the form of a task's requests, because of a parameter say."""
        remarks = refused_parameters(workspace, _primary(context, workspace))
        return violations_result(_by_name(remarks), dg.AssetCheckSeverity.WARN)

    @dg.asset_check(asset="supplier_scores")
    def models_unchanged(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """No change of what the run's suppliers answer was detected within the last day."""
        where = {
            "supplier": {"in": _suppliers(context)},
            "detected_at": {"gt": datetime.now(UTC) - timedelta(days=1)},
        }
        violations = {
            f"{change.supplier} {change.at:%Y-%m-%d %H:%M}": change.reason
            for change in typed.find(workspace.documents, ToldChange, where, sort=[("at", 1)])
        }
        return violations_result(violations, dg.AssetCheckSeverity.WARN)

    @dg.asset_check(asset="supplier_scores")
    def alike_with_reference(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """No supplier answers or scores otherwise than the reference of its model, as last compared.

        Looked at are the run's suppliers, and all that are compared with a reference among them. Who is not
        known yet, or has no reference, is no violation. Nothing is said of what anybody serves.
        """
        keys = _suppliers(context)
        ours = typed.find(workspace.documents, ReferenceRecord, {"_id": {"in": keys}})
        of_references = typed.find(workspace.documents, ReferenceRecord, {"reference": {"in": keys}})
        compared = {one.id: one for one in (*ours, *of_references)}
        records = [compared[key] for key in sorted(compared, key=lambda key: _by_verdict(compared[key]))]
        verdicts = Counter(one.as_reference for one in records)
        return violations_result(
            {
                one.id: f"{one.finding} (reference: {one.reference})"
                for one in records
                if one.as_reference == "no"
            },
            dg.AssetCheckSeverity.WARN,
            compared=len(records),
            alike=verdicts["yes"],
            not_yet_known=verdicts["not yet known"],
            **references_metadata(records),
        )

    @dg.asset_check(asset="supplier_scores")
    def scores_reproducible(
        context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.AssetCheckResult:
        """Scoring a random sample of stored answers again gives the stored metrics, value by value."""
        violations: dict[str, str] = {}
        checked = 0
        pairs = [(key, spec) for key in _suppliers(context) for spec in workspace.specs]
        random.shuffle(pairs)
        for key, spec in pairs:
            registration = workspace.datasets.current(spec.name)
            if registration is None or checked >= _RESCORED_DOCS:
                continue
            if definition_changed(spec, registration):
                continue  # edited and not yet materialized: the worker would score by other rules
            docs = list(answered_docs(workspace.documents, key, spec, registration))
            chosen = random.sample(docs, min(len(docs), _RESCORED_DOCS - checked))
            if not chosen:
                continue
            where = {
                "answer_id": {"in": [d.answer_id for d in chosen]},
                "scorer_version": scorer_version(registration),
            }
            # an answer that could not be scored is left alone: it may cost its time limit once more
            found = typed.find(workspace.documents, ScoreRecord, where)
            scored = [score for score in found if score.error is None]
            ids = {score.answer_id for score in scored}
            chosen = [d for d in chosen if d.answer_id in ids]
            again = {score.id: score for score in score_batch(workspace, spec, registration, chosen)}
            for stored in scored:
                new = again.get(stored.id)
                if new is None:  # put off: a service that the metric asks is gone, say
                    continue
                checked += 1
                if (new.metrics, new.error) != (stored.metrics, stored.error):
                    violations[stored.id] = f"{key} {spec.name} doc {stored.doc_id}"
        return violations_result(violations, dg.AssetCheckSeverity.ERROR, scores_compared=checked)

    return [
        attempts_have_an_owner,
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
