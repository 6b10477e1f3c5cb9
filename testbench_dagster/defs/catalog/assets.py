"""Assets ``task_datasets`` and ``sampled_prompts``, one partition per task, one run for any range of them."""

from datetime import datetime
from typing import Any

import dagster as dg

from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.identity import IdentityGroupRecord
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.records.windows import WindowRecord
from testbench_dagster.defs import freshness
from testbench_dagster.defs.lineage import touches
from testbench_dagster.defs.metadata import markdown_table
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.sample.spread import measured_spreads
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tasks.lm_eval_version import LM_EVAL_VERSION

GROUP = "catalog"


class PromptsConfig(dg.Config):
    """Run configuration of ``sampled_prompts``, optional.

    ``roll_before``: an instant (ISO 8601 with offset); where the current epoch is older the next one begins.
    """

    roll_before: str | None = None


def catalog_assets(partitions: dg.StaticPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """Both assets over the given task partitions."""

    @dg.asset(
        group_name=GROUP,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        code_version=f"lm-eval-{LM_EVAL_VERSION}",
        freshness_policy=freshness.CATALOG,
        kinds={"python", "huggingface"},
        metadata={"writes": dg.MetadataValue.text("the dataset store: docs and registration of each task")},
    )
    def task_datasets(
        context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.MaterializeResult[Any]:
        """Processed docs of each lm-eval task, loaded from the hub or local files into the dataset store."""
        rows, total = [], 0
        for name in context.partition_keys:
            registration, changed = refresh_dataset(workspace, workspace.spec(name))
            total += registration.n_docs
            rows.append(
                [
                    name,
                    registration.n_docs,
                    registration.n_fewshot,
                    registration.flags.output_type,
                    registration.eval_split,
                    registration.task_hash[:12],
                    "new or changed" if changed else "unchanged",
                ]
            )
        headers = ["task", "docs", "few-shot pool", "output type", "split", "task hash", "state"]
        return dg.MaterializeResult(
            metadata={
                "tasks": markdown_table(headers, rows),
                "dagster/row_count": total,
                "lm_eval_version": LM_EVAL_VERSION,
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
                WindowRecord,
                AttemptRecord,
                LaneEndRecord,
                ScoreRecord,
                IdentityGroupRecord,
            ),
            writes={
                EpochRecord.collection.name: "number and seed of each epoch, and how docs varied before it",
                PromptRecord.collection.name: "the requests, in the order of the seed",
            },
        ),
    )
    def sampled_prompts(
        context: dg.AssetExecutionContext, config: PromptsConfig, workspace: dg.ResourceParam[Workspace]
    ) -> dg.MaterializeResult[Any]:
        """The ordered prompt sequence of each task's current epoch, the same for every supplier."""
        roll_before = None if config.roll_before is None else datetime.fromisoformat(config.roll_before)
        specs = [workspace.spec(name) for name in context.partition_keys]
        spreads = {} if roll_before is None else measured_spreads(workspace, specs)
        rows, built = [], 0
        for spec in specs:
            name = spec.name
            report = refresh_prompts(workspace, spec, roll_before=roll_before, spread=spreads.get(name))
            built += report.built
            rows.append(
                [
                    name,
                    report.epoch.epoch,
                    report.positions,
                    report.built,
                    ", ".join(report.apis),
                    report.epoch.commitment,
                    report.revealed.seed if report.revealed else None,
                    "yes" if report.relayable else "no: needs the supplier's prefix token",
                ]
            )
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
            metadata={"sequences": markdown_table(headers, rows), "prompts_built": built}
        )

    return [task_datasets, sampled_prompts]
