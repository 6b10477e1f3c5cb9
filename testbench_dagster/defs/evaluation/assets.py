"""Assets ``relay_responses`` and ``supplier_scores``: one run carries a range of suppliers in one process."""

from typing import Any

import dagster as dg

from testbench_dagster.defs.metadata import counts, window_table
from testbench_dagster.defs.partitions import supplier_backfill_policy, supplier_partitions
from testbench_dagster.relays.collect import collect
from testbench_dagster.relays.report import Progress
from testbench_dagster.scoring.score import score_new
from testbench_dagster.scoring.windows import windows
from testbench_dagster.workspace import Workspace

GROUP = "evaluation"
_LOG_EVERY_S = 10.0  # progress lines in the run's log; never one event per relay


class RelayConfig(dg.Config):
    """Run configuration of ``relay_responses``: all optional."""

    tasks: list[str] | None = None
    max_relays: int | None = None
    retry_errors: bool = False


@dg.asset(
    group_name=GROUP,
    partitions_def=supplier_partitions,
    backfill_policy=supplier_backfill_policy(),
    deps=[
        dg.AssetDep("sampled_prompts", partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep("suppliers"),
    ],
    kinds={"python"},
)
def relay_responses(
    context: dg.AssetExecutionContext, config: RelayConfig, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    """Every attempt to get the due prompts answered by the suppliers, stored as evidence."""
    keys = context.partition_keys  # once: every access reads the whole partition list
    logged = 0.0

    def log(progress: Progress) -> None:
        nonlocal logged
        if workspace.on_progress is not None:
            workspace.on_progress(progress)
        if progress.seconds - logged >= _LOG_EVERY_S:
            logged = progress.seconds
            context.log.info(f"{progress.settled} relays settled, {progress.in_flight} in flight")

    report = collect(
        workspace,
        keys,
        tasks=config.tasks,
        max_relays=config.max_relays,
        retry_errors=config.retry_errors,
        on_progress=log,
        on_planned=workspace.on_planned,
    )
    for key, problem in report.problems.items():
        context.log.warning(f"{key}: {problem}")
    assert report.relays is not None
    total = report.relays.total
    latencies = {"p50_ms": total.p50_ms, "p95_ms": total.p95_ms}
    return dg.MaterializeResult(
        metadata={
            "suppliers": len(keys),
            "due": report.n_due,
            "sent": total.sent,
            "settled": total.settled,
            "unsent_by_cap": total.unsent,
            "abandoned": total.abandoned,
            "outcomes": counts({fault.value: n for fault, n in total.faults.items()}),
            "relays_per_s": round(report.relays.relays_per_s, 1),
            **{name: round(value, 1) for name, value in latencies.items() if value is not None},
            **({"problems": dict(list(report.problems.items())[:50])} if report.problems else {}),
            **({"unsupported": dict(list(report.unsupported.items())[:50])} if report.unsupported else {}),
        }
    )


@dg.asset(
    group_name=GROUP,
    partitions_def=supplier_partitions,
    backfill_policy=supplier_backfill_policy(),
    deps=[relay_responses],
    kinds={"python"},
)
def supplier_scores(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    """Scores of the answered docs exactly as lm-eval gives them, one document per answer and filter."""
    keys = context.partition_keys  # once: every access reads the whole partition list
    report = score_new(workspace, keys)
    metadata: dict[str, Any] = {
        "suppliers": len(keys),
        "docs_scored": report.n_scored,
        "docs_not_scorable": report.n_failed,
        "docs_put_off": report.n_put_off,
        "by_task": counts(dict(list(report.scored.items())[:100])),
    }
    if len(keys) == 1:
        rows = windows(workspace, suppliers=keys)
        metadata["windows"] = window_table(rows)
    return dg.MaterializeResult(metadata=metadata)
