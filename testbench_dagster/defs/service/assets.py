"""Asset ``service_probes``: one run carries any number of suppliers, and shows those alone that it probed."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from testbench_dagster.board import links
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.service_probes import FaultOfProbe, ServiceProbeRecord
from testbench_dagster.core.records.service_quality import ServiceQualityRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.defs import freshness
from testbench_dagster.defs.checks import violations_result
from testbench_dagster.defs.evaluation.assets import FORCE_TAG
from testbench_dagster.defs.lineage import touches
from testbench_dagster.defs.metadata import counts, markdown_table
from testbench_dagster.defs.partitions import supplier_backfill_policy, supplier_partitions
from testbench_dagster.defs.per_partition import service_shown
from testbench_dagster.stages.discover.roster import active_keys
from testbench_dagster.stages.service.probe import ServiceProbeProgress
from testbench_dagster.stages.service.probing import Probed, probe
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

GROUP = "service"
FAILED_LIMIT = 0.2  # share of a supplier's probes; above it the supplier deserves a look
_CHECKED = timedelta(days=1)
_LEAST = 3  # probes in that time: of fewer a share says nothing
_LOG_EVERY_S = 10.0
_TOLD = 20  # suppliers named in the log
_CHECK = "probes_answered"


class ProbeConfig(dg.Config):
    """Run configuration of ``service_probes``: all optional.

    ``force`` asks every configured workload now, due or not, as does the run tag ``testbench/force: true``.
    ``suppliers`` are the keys of those of the run's partitions that are meant; None for all of them.
    """

    force: bool = False
    suppliers: list[str] | None = None


@dg.asset(
    group_name=GROUP,
    partitions_def=supplier_partitions,
    backfill_policy=supplier_backfill_policy(),
    deps=[dg.AssetDep("suppliers")],
    freshness_policy=freshness.SERVICE,
    kinds={"python"},
    output_required=False,
    check_specs=[
        dg.AssetCheckSpec(
            _CHECK,
            asset="service_probes",
            description="Of no active supplier more than a fifth of the service probes of the last day "
            "failed, as availability counts: neither rate limits nor what is ours. Those with the largest "
            "share come first.",
        )
    ],
    metadata=touches(
        reads=(
            SupplierRecord,
            HeightRecord,
            SessionRecord,
            PlanRecord,
            AttemptRecord,
            ServiceProbeRecord,
            ServiceQualityRecord,
        ),
        writes={
            ServiceProbeRecord.collection.name: "every attempt at a probe, with what was seen of its stream",
            ServiceQualityRecord.collection.name: "what the probes of the suppliers come to, by workload",
            HeightRecord.collection.name: "the newest block of a service",
            SessionRecord.collection.name: "the sessions of its applications",
        },
    ),
)
def service_probes(
    context: dg.AssetExecutionContext, config: ProbeConfig, workspace: dg.ResourceParam[Workspace]
) -> Iterator[dg.AssetCheckResult]:
    """How fast suppliers answer, and whether they do: streamed requests of their own, behind no score.

    A run probes those of its partitions that are due (of all of them what is configured, with the tag
    `testbench/force: true`), and materializes the partitions of those that it probed alone. Who is relayed to
    by another process is left to the next run.
    """
    keys = context.partition_keys  # once: every access reads the whole partition list
    if config.suppliers is not None:
        keys = [key for key in keys if key in set(config.suppliers)]
    force = config.force or context.run.tags.get(FORCE_TAG, "").lower() == "true"
    logged = 0.0

    def log(progress: ServiceProbeProgress) -> None:
        nonlocal logged
        if progress.elapsed_s - logged >= _LOG_EVERY_S:
            logged = progress.elapsed_s
            context.log.info(f"{progress.done} of {counted(progress.due, 'probe')} done")

    probed = probe(workspace, keys, only_due=not force, on_progress=log)
    if workspace.on_probed is not None:
        workspace.on_probed(probed)
    _tell(context, probed)
    for key, shown in _shown(workspace, probed).items():
        context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=shown))
    yield _answered(workspace)


def _tell(context: dg.AssetExecutionContext, probed: Probed) -> None:
    report = probed.report
    if not probed.due:
        context.log.info(f"no probe is due of these suppliers; the tag {FORCE_TAG}: true probes them now")
        return
    attempts = counted(report.attempts, "attempt")
    context.log.info(
        f"{report.done} of {counted(report.due, 'probe')} done in {report.seconds:.1f} s, with {attempts} "
        f"({counts(report.faults)})"
    )
    left = {**report.problems, **report.put_off}
    for key, why in list(left.items())[:_TOLD]:
        context.log.warning(f"{key}: {why}")
    for key, why in list(report.held.items())[:_TOLD]:
        context.log.info(f"{key} is left to the next run: {why}")
    more = len(left) + len(report.held) - min(len(left), _TOLD) - min(len(report.held), _TOLD)
    if more:
        context.log.info(f"and {counted(more, 'other')} likewise")


def _shown(workspace: Workspace, probed: Probed) -> dict[str, dict[str, Any]]:
    """By supplier that was probed what its partition shows: these probes, and what is known of it now."""
    of_supplier: defaultdict[str, list[ServiceProbeRecord]] = defaultdict(list)
    for one in probed.attempts:
        of_supplier[one.supplier].append(one)
    recent = defaultdict(list)
    for row in probed.recent:
        recent[row.supplier].append(row)
    url = workspace.config.settings.board.url
    shown = {}
    for key, attempts in of_supplier.items():
        shown[key] = {
            "attempts": len(attempts),
            "answered": sum(Fault(one.fault).answered for one in attempts),
            "outcomes": counts(Counter(one.fault for one in attempts)),
            "probes": _table(attempts),
            **service_shown(recent[key]),
        }
        if url is not None:
            shown[key]["board"] = dg.MetadataValue.url(url + links.supplier(key))
    return shown


def _table(attempts: Sequence[ServiceProbeRecord]) -> dg.MarkdownMetadataValue:
    headers = ["workload", "ended in", "first token (ms)", "whole (ms)", "tokens", "counted by", "remarks"]
    rows = [
        [
            one.workload,
            one.fault,
            one.first_token_ms,
            one.ended_ms,
            one.completion_tokens,
            one.tokens_source,
            one.error or ("asked without " + ", ".join(one.left_out) if one.left_out else None),
        ]
        for one in attempts[:_TOLD]
    ]
    return markdown_table(headers, rows)


def _answered(workspace: Workspace) -> dg.AssetCheckResult:
    """Who of all active suppliers fails too many of its probes: the worst first."""
    since = datetime.now(UTC) - _CHECKED
    failed: defaultdict[str, Counter[str]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    for row in typed.group(workspace.documents, FaultOfProbe, {"finished_at": {"gte": since}}):
        available = Fault(row.fault).row.available
        if available is not None:
            total[row.supplier] += row.n
        if available is False:
            failed[row.supplier][row.fault] += row.n
    active = active_keys(workspace)
    shares = {
        key: faults.total() / total[key]
        for key, faults in failed.items()
        if key in active and total[key] >= _LEAST
    }
    worst = sorted(shares, key=lambda key: (-shares[key], -failed[key].total(), key))
    violations: Mapping[str, str] = {
        key: f"{failed[key].total()} of {counted(total[key], 'probe')} failed: {counts(failed[key])}"
        for key in worst
        if shares[key] > FAILED_LIMIT
    }
    return violations_result(
        violations,
        dg.AssetCheckSeverity.WARN,
        _CHECK,
        limit=FAILED_LIMIT,
        suppliers_probed=len(active & total.keys()),
    )
