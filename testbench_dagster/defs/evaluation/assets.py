"""Assets ``relay_responses`` and ``supplier_scores``: one run carries a range of suppliers in one process."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.health import HealthRecord
from testbench_dagster.core.records.identity import ChangeRecord, IdentityGroupRecord, ScoreStreamRecord
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.rankings import TaxonomySummaryRecord
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.records.service_quality import ServiceQualityRecord
from testbench_dagster.core.records.set_aside import ScorerOutageRecord, SetAsideRecord, VoidDocRecord
from testbench_dagster.core.records.signatures import SignatureRecord
from testbench_dagster.core.records.splits import SplitRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.records.windows import WindowAnswersRecord, WindowRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.defs import freshness
from testbench_dagster.defs.lineage import changes_metadata, observe_changes, references_metadata, touches
from testbench_dagster.defs.metadata import counts, window_table
from testbench_dagster.defs.partitions import supplier_backfill_policy, supplier_partitions
from testbench_dagster.defs.per_partition import relays_shown, scores_shown, show_partitions
from testbench_dagster.defs.waits import waits_in_log
from testbench_dagster.relays.report import Progress
from testbench_dagster.scoring.groups import group_windows
from testbench_dagster.stages.health import note_attempts, note_scores
from testbench_dagster.stages.identify.identify import detect_changes
from testbench_dagster.stages.identify.references import refresh_references
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.score.remarks import empty_answers
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.service.quality import refresh_service_quality
from testbench_dagster.stages.workspace import Workspace

GROUP = "evaluation"
FORCE_TAG = "testbench/force"
"""Run or backfill tag: ask again what is fresh. The dialogs of the UI take it without any YAML."""
_LOG_EVERY_S = 10.0  # progress lines in the run's log; never one event per relay
_SHOWN = 50  # suppliers, and tasks of each, in metadata
_TOLD = 5  # pairs of task and supplier named in a line
_LEASE_WAIT_S = 35.0  # a lease expires within 30 s of its holder's death


class RelayConfig(dg.Config):
    """Run configuration of ``relay_responses``: all optional.

    ``force`` asks again what is fresh, as does the run tag ``testbench/force: true``.
    """

    tasks: list[str] | None = None
    max_relays: int | None = None
    retry_errors: bool = False
    force: bool = False


@dg.asset(
    group_name=GROUP,
    partitions_def=supplier_partitions,
    backfill_policy=supplier_backfill_policy(),
    deps=[
        dg.AssetDep("sampled_prompts", partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("suppliers"),
    ],
    freshness_policy=freshness.EVALUATION,
    kinds={"python"},
    metadata=touches(
        reads=(
            SupplierRecord,
            HeightRecord,
            SessionRecord,
            EpochRecord,
            VoidDocRecord,
            PromptRecord,
            AttemptRecord,
            PlanRecord,
            IdentityGroupRecord,
            TaxonomySummaryRecord,
            ScoreRecord,
            ScorerOutageRecord,
            SetAsideRecord,
            WindowRecord,
        ),
        writes={
            AttemptRecord.collection.name: "every attempt, with its evidence",
            LaneEndRecord.collection.name: "suppliers that were left, and what they were not asked",
            ScoreRecord.collection.name: "of suppliers whose turn ended while others were still asked",
            ScorerOutageRecord.collection.name: "whose answers of these wait for a scorer",
            SignatureRecord.collection.name: "what a new signature stands for",
            PlanRecord.collection.name: "who failed, who was put off, whose relays of a session are used up",
            SupplierRecord.collection.name: "who echoes log-probabilities",
            HeightRecord.collection.name: "the newest block of a service",
            SessionRecord.collection.name: "the sessions of its applications",
            WindowRecord.collection.name: "takes out cached rows of what it is about to ask",
            HealthRecord.collection.name: "how the suppliers' attempts ended, for checks",
        },
    ),
)
def relay_responses(
    context: dg.AssetExecutionContext, config: RelayConfig, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[Any]:
    """Every attempt to get the due prompts answered by the suppliers, stored as evidence.

    A supplier whose turn has ended is scored while others are still asked. One that does not answer is waited
    for, and left in time; why, and what it was not asked, is kept. Notes in the suppliers' plans who failed
    and who was put off (see supplier_plans).
    """
    keys = context.partition_keys  # once: every access reads the whole partition list
    logged = 0.0

    def log(progress: Progress) -> None:
        nonlocal logged
        if workspace.on_progress is not None:
            workspace.on_progress(progress)
        if progress.seconds - logged >= _LOG_EVERY_S:
            logged = progress.seconds
            waits = "".join(
                f"; waits for {wait.supplier} ({wait.fault.value}) until {wait.until:%H:%M:%S} UTC"
                for wait in progress.waits
            )
            paces = "".join(
                f"; {lane.account} is asked at its pace of {lane.words}" for lane in progress.paces
            )
            context.log.info(
                f"{counted(progress.final, 'relay')} final, {progress.in_flight} in flight{waits}{paces}"
            )

    report = relay_due(
        workspace,
        keys,
        tasks=config.tasks,
        max_relays=config.max_relays,
        retry_errors=config.retry_errors,
        force_since=_force_since(context, config),
        lease_wait_s=_LEASE_WAIT_S,
        on_progress=log,
        on_planned=workspace.on_planned,
        score_ended=True,
    )
    for key, problem in (*report.problems.items(), *report.refused.items()):
        context.log.warning(f"{key}: {problem}")
    for key, why in report.left.items():
        context.log.warning(f"{key} was left: {why}")
    if report.out_of_money:
        told = ", ".join(list(report.out_of_money)[:_TOLD])
        context.log.info(f"the budget of money ended the turns of {told}, which is ours and blames nobody")
    not_asked = [
        f"{task} of {key} ({why})"
        for key, tasks in report.not_applicable.items()
        for task, why in tasks.items()
    ]
    if not_asked:
        more = f" and {len(not_asked) - _TOLD} more" if len(not_asked) > _TOLD else ""
        context.log.info(f"skipped, for it is not asked: {', '.join(not_asked[:_TOLD])}{more}")
    note_attempts(workspace, keys)
    show_partitions(context, relays_shown(report.relays.suppliers, report.left))
    total = report.relays.total
    latencies = {"p50_ms": total.p50_ms, "p95_ms": total.p95_ms}
    return dg.MaterializeResult(
        metadata={
            "suppliers": len(keys),
            "due": report.n_due,
            "sent": total.sent,
            "answered": total.answered,
            "settled": total.final,
            "canaries": total.canaries,
            "unsent_by_cap": total.unsent,
            "abandoned": total.abandoned,
            "outcomes": counts({fault.value: n for fault, n in total.faults.items()}),
            "relays_per_s": round(report.relays.relays_per_s, 1),
            **{name: round(value, 1) for name, value in latencies.items() if value is not None},
            **({"problems": dict(list(report.problems.items())[:50])} if report.problems else {}),
            **({"failed": dict(list(report.failed.items())[:50])} if report.failed else {}),
            **({"unsupported": dict(list(report.unsupported.items())[:50])} if report.unsupported else {}),
            **({"not_applicable": _first(report.not_applicable)} if not_asked else {}),
            **({"held_by_others": dict(list(report.refused.items())[:50])} if report.refused else {}),
            **({"left": dict(list(report.left.items())[:50])} if report.left else {}),
            **({"departed": report.departed[:50]} if report.departed else {}),
            **({"out_of_money": dict(list(report.out_of_money.items())[:50])} if report.out_of_money else {}),
        }
    )


def _first(tasks: Mapping[str, Mapping[str, str]]) -> dict[str, list[str]]:
    """The first tasks of the first suppliers, as metadata: there may be thousands."""
    return {key: list(of_supplier)[:_SHOWN] for key, of_supplier in list(tasks.items())[:_SHOWN]}


def _force_since(context: dg.AssetExecutionContext, config: RelayConfig) -> datetime | None:
    """With force, the instant the run was first created: a retry goes on where its predecessor ended."""
    if not config.force and context.run.tags.get(FORCE_TAG, "").lower() != "true":
        return None
    record = context.instance.get_run_record_by_id(context.run.get_root_run_id() or context.run.run_id)
    created = record.create_timestamp if record is not None else datetime.now(UTC)
    return created if created.tzinfo is not None else created.replace(tzinfo=UTC)


@dg.asset(
    group_name=GROUP,
    partitions_def=supplier_partitions,
    backfill_policy=supplier_backfill_policy(),
    deps=[relay_responses],
    freshness_policy=freshness.EVALUATION,
    kinds={"python"},
    metadata=touches(
        reads=(
            SupplierRecord,
            EpochRecord,
            VoidDocRecord,
            PromptRecord,
            AttemptRecord,
            LaneEndRecord,
            ScoreRecord,
            ScorerOutageRecord,
            SignatureRecord,
            IdentityGroupRecord,
            WindowRecord,
            PlanRecord,
            ChangeRecord,
            ScoreStreamRecord,
            SplitRecord,
            ReferenceRecord,
            ServiceProbeRecord,
            ServiceQualityRecord,
        ),
        writes={
            ScoreRecord.collection.name: "one per answer and filter",
            ScorerOutageRecord.collection.name: "whose answers wait for the service that a metric asks",
            SignatureRecord.collection.name: "what a new signature stands for",
            WindowRecord.collection.name: "the cached rows of the suppliers",
            WindowAnswersRecord.collection.name: "what became of the docs behind them",
            ScoreStreamRecord.collection.name: "the values of all docs in order, which changes show in",
            ChangeRecord.collection.name: "changes it detected",
            SplitRecord.collection.name: "members whose scores differ from their proxy's",
            SupplierRecord.collection.name: "the cut of a supplier that changed",
            PlanRecord.collection.name: "who was cut or split off is due at once",
            IdentityGroupRecord.collection.name: "the groups of a service where one was cut or split off",
            ReferenceRecord.collection.name: "who is as the reference of its model",
            HealthRecord.collection.name: "what is wrong with the suppliers' windows, for checks",
            ServiceQualityRecord.collection.name: "about how fast they write, by the answers",
        },
    ),
)
def supplier_scores(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult[Any]:
    """Scores of the answered docs exactly as lm-eval gives them, one document per answer and filter.

    A supplier that answers the same prompts otherwise than before, or whose scores moved, is cut there: what
    it answered before counts no more. The change is recorded (see detected_changes), and the groups of its
    service are made anew. Ends with the suppliers' windows cached for all who read them.
    """
    keys = context.partition_keys  # once: every access reads the whole partition list
    with waits_in_log(context, workspace):
        report = score_new(workspace, keys, on_progress=workspace.on_scored)
    for name, docs in report.waiting.items():
        wait = "waits" if docs == 1 else "wait"
        context.log.warning(
            f"{counted(docs, 'doc')} of task {name} {wait} for the service that its metric asks"
        )
    for name, docs in report.unread.items():
        wait = "waits" if docs == 1 else "wait"
        context.log.warning(
            f"{counted(docs, 'doc')} of task {name} {wait} because the answers cannot be read: "
            f"{report.why_unread[name]}"
        )
    for name, problem in report.problems.items():
        context.log.warning(f"task {name} could not be scored: {problem}")
    changes = detect_changes(workspace, keys)
    observe_changes(context, changes)
    refresh_window_cache(workspace, keys)
    compared = refresh_references(workspace, keys)
    metadata: dict[str, Any] = {
        "suppliers": len(keys),
        "docs_scored": report.n_scored,
        "docs_not_scorable": report.n_failed,
        "docs_put_off": report.n_put_off,
        **({"waiting_for_scorer": report.waiting} if report.waiting else {}),
        **({"waiting_for_answers": report.unread} if report.unread else {}),
        **({"scorer_problems": dict(list(report.problems.items())[:50])} if report.problems else {}),
        **changes_metadata(changes),
        **references_metadata(compared),
        "by_task": counts(dict(list(report.scored.items())[:100])),
    }
    rows = windows(workspace, suppliers=keys)
    note_scores(workspace, keys, rows)
    service = refresh_service_quality(workspace, keys, datetime.now(UTC)).recent  # answers tell of the speed
    show_partitions(context, scores_shown(keys, rows, workspace.config.settings.board.url, service))
    if len(keys) == 1:
        groups = list(group_windows(workspace.groups, rows))
        if groups:
            metadata["groups"] = window_table(groups)
        cut = empty_answers(workspace, [row for row in rows if row.primary])
        if cut:
            metadata["answers_cut_before_they_began"] = {task: text for (_, task), text in cut.items()}
    return dg.MaterializeResult(metadata=metadata)
