"""Assets ``task_datasets`` and ``sampled_prompts``, one partition per task, one run for any range of them."""

from datetime import datetime
from typing import Any

import dagster as dg

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.identity import IdentityGroupRecord
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.set_aside import SetAsideRecord, VoidDocRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.records.windows import WindowRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.defs import freshness
from testbench_dagster.defs.lineage import touches
from testbench_dagster.defs.metadata import markdown_table, set_aside_metadata
from testbench_dagster.defs.per_partition import show_partitions
from testbench_dagster.defs.waits import waits_in_log
from testbench_dagster.stages.sample.catalogue import PromptReport
from testbench_dagster.stages.sample.set_aside import prepare_dataset, prepare_prompts
from testbench_dagster.stages.sample.spread import measured_spreads
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.lm_eval_version import LM_EVAL_VERSION

GROUP = "catalog"
SET_ASIDE = "set aside"


class PromptsConfig(dg.Config):
    """Run configuration of ``sampled_prompts``, optional.

    ``roll_before``: an instant (ISO 8601 with offset); where the current epoch is older the next one begins.
    """

    roll_before: str | None = None


def _instant(text: str | None) -> datetime | None:
    """``roll_before`` as an instant; what is wrong with it is no task's fault."""
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"roll_before {text!r} is no instant of ISO 8601: {error}") from None
    if instant.tzinfo is None:
        raise ConfigError(f"roll_before {text} has no time zone; add one, such as +00:00")
    return instant


def _relayable(report: PromptReport) -> str:
    if not report.relayable:
        return "no: needs the supplier's prefix token"
    return f"yes, but for {counted(report.void, 'doc')} that no store holds" if report.void else "yes"


def catalog_assets(partitions: dg.StaticPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Both assets over the given task partitions."""

    @dg.asset(
        group_name=GROUP,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        code_version=f"lm-eval-{LM_EVAL_VERSION}",
        freshness_policy=freshness.CATALOG,
        kinds={"python", "huggingface"},
        metadata=touches(
            reads=(SetAsideRecord,),
            writes={
                "the dataset store": "docs and registration of each task",
                SetAsideRecord.collection.name: "tasks that cannot be loaded",
            },
        ),
    )
    def task_datasets(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.MaterializeResult[Any]:
        """Processed docs of each lm-eval task, loaded from the hub or local files into the dataset store.

        A task that cannot be loaded is set aside: its partition says why, and the others go on.
        """
        rows: list[list[Any]] = []
        shown: dict[str, dict[str, Any]] = {}
        total, aside = 0, {}
        for name in context.partition_keys:
            with waits_in_log(context, workspace):
                made = prepare_dataset(workspace, workspace.spec(name))
            registration = made.registration
            if registration is None:
                aside[name] = made.reason
                rows.append([name, None, None, None, None, None, SET_ASIDE])
                context.log.warning(f"task {name} is set aside: {made.reason}")
                shown[name] = {"set_aside": made.reason}
                continue
            total += registration.n_docs
            notes = {"doc_notes": dict(registration.flags.doc_notes)} if registration.flags.doc_notes else {}
            shown[name] = {"dagster/partition_row_count": registration.n_docs, **notes}
            rows.append(
                [
                    name,
                    registration.n_docs,
                    registration.n_fewshot,
                    registration.flags.output_type,
                    registration.eval_split,
                    registration.task_hash[:12],
                    "new or changed" if made.changed else "unchanged",
                ]
            )
        show_partitions(context, shown)
        headers = ["task", "docs", "few-shot pool", "output type", "split", "task hash", "state"]
        return dg.MaterializeResult(
            metadata={
                "tasks": markdown_table(headers, rows),
                "dagster/row_count": total,
                "lm_eval_version": LM_EVAL_VERSION,
                **set_aside_metadata(aside),
            }
        )

    @dg.asset(
        group_name=GROUP,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        deps=[task_datasets],
        freshness_policy=freshness.CATALOG,
        kinds={"python"},
        metadata=touches(
            # an epoch's number of docs follows from the windows of the last one
            reads=(
                SupplierRecord,
                EpochRecord,
                PromptRecord,
                VoidDocRecord,
                SetAsideRecord,
                WindowRecord,
                AttemptRecord,
                LaneEndRecord,
                ScoreRecord,
                IdentityGroupRecord,
            ),
            writes={
                EpochRecord.collection.name: "number and seed of each epoch, and how docs varied before it",
                PromptRecord.collection.name: "the requests, in the order of the seed",
                VoidDocRecord.collection.name: "docs whose prompts no store holds",
                SetAsideRecord.collection.name: "tasks whose prompts cannot be built",
            },
        ),
    )
    def sampled_prompts(
        context: dg.AssetExecutionContext, config: PromptsConfig, workspace: dg.ResourceParam[Workspace]
    ) -> dg.MaterializeResult[Any]:
        """The ordered prompt sequence of each task's current epoch, the same for every supplier.

        A task whose prompts cannot be built is set aside: its partition says why, and the others go on.
        """
        roll_before = _instant(config.roll_before)
        specs = [workspace.spec(name) for name in context.partition_keys]
        spreads = {} if roll_before is None else measured_spreads(workspace, specs)
        rows: list[list[Any]] = []
        shown: dict[str, dict[str, Any]] = {}
        built, aside = 0, {}
        for spec in specs:
            name = spec.name
            with waits_in_log(context, workspace):
                made = prepare_prompts(workspace, spec, roll_before=roll_before, spread=spreads.get(name))
            report = made.report
            if report is None:
                aside[name] = made.reason
                rows.append([name, None, None, None, None, None, None, SET_ASIDE])
                context.log.warning(f"task {name} is set aside: {made.reason}")
                shown[name] = {"set_aside": made.reason}
                continue
            built += report.built
            shown[name] = {"epoch": report.epoch.epoch, "positions": report.positions}
            rows.append(
                [
                    name,
                    report.epoch.epoch,
                    report.positions,
                    report.built,
                    ", ".join(report.apis),
                    report.epoch.commitment,
                    report.revealed.seed if report.revealed else None,
                    _relayable(report),
                ]
            )
        show_partitions(context, shown)
        headers = [
            "task",
            "epoch",
            "positions",
            "built now",
            "forms",
            "seed SHA-256",
            "seed before",
            "relayable",
        ]
        return dg.MaterializeResult(
            metadata={
                "sequences": markdown_table(headers, rows),
                "prompts_built": built,
                **set_aside_metadata(aside),
            }
        )

    return [task_datasets, sampled_prompts]
