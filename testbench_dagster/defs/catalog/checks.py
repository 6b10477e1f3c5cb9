"""Checks of the catalog: datasets are there and as registered, prompts follow from their seed."""

import random

import dagster as dg

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.ids import content_hash
from testbench_dagster.core.records.prompts import PromptPlace, PromptRecord
from testbench_dagster.core.sampling import asked_order
from testbench_dagster.defs.checks import violations_result
from testbench_dagster.stages.sample.catalogue import current_epoch, prompt_filter
from testbench_dagster.stages.sample.data import task_data
from testbench_dagster.stages.sample.set_aside import tasks_set_aside, void_docs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_PROMPTS_CHECKED = 5  # per task: rebuilding a prompt costs a millisecond, reading a task's docs more


def catalog_checks() -> list[dg.AssetChecksDefinition]:
    """All checks of the package."""

    @dg.asset_check(asset="task_datasets")
    def tasks_prepared(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
        """No configured task is set aside because it could not be prepared."""
        aside = tasks_set_aside(workspace, workspace.specs)
        return violations_result(aside, dg.AssetCheckSeverity.WARN)

    @dg.asset_check(asset="sampled_prompts")
    def docs_storable(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
        """No doc of a task is left out because its prompt cannot be stored."""
        return violations_result(void_docs(workspace, workspace.specs), dg.AssetCheckSeverity.WARN)

    @dg.asset_check(asset="task_datasets", blocking=True)
    def datasets_intact(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
        """Every registered task has docs, and they hash to the fingerprint they were registered with."""
        violations: dict[str, str] = {}
        for spec in workspace.specs:
            registration = workspace.datasets.current(spec.name)
            if registration is None:
                continue
            hashes = [
                [d.doc_hash for d in docs if content_hash(d.body) == d.doc_hash]
                for docs in (
                    list(workspace.datasets.docs(registration.task_hash)),
                    workspace.datasets.fewshot(registration.task_hash),
                )
            ]
            if not hashes[0]:
                violations[spec.name] = "has no docs"
            elif content_hash(hashes) != registration.fingerprint:
                violations[spec.name] = "differs from its fingerprint"
        return dg.AssetCheckResult(passed=not violations, metadata={"offenders": violations})

    @dg.asset_check(asset="sampled_prompts")
    def prompts_reproducible(workspace: dg.ResourceParam[Workspace]) -> dg.AssetCheckResult:
        """The stored order is the one of the seed, and rebuilding some prompts gives the same requests."""
        violations: dict[str, str] = {}
        checked = 0
        aside = tasks_set_aside(workspace, workspace.specs)
        for spec in workspace.specs:
            registration = workspace.datasets.current(spec.name)
            if registration is None or spec.name in aside:
                continue
            epoch = current_epoch(workspace, spec)
            order = asked_order(
                epoch.seed, registration.n_docs, epoch.doc_ids, pairs=bool(registration.flags.pairs)
            )
            where = {
                "task": spec.name,
                "task_hash": registration.task_hash,
                "epoch": epoch.epoch,
            }
            places = list(typed.find(workspace.documents, PromptPlace, where))
            if any(order[place.position : place.position + 1] != [place.doc_id] for place in places):
                violations[spec.name] = "the order does not follow from the seed"
                continue
            data = task_data(workspace, registration)
            for api in sorted({place.api for place in places}):
                positions = sorted(place.position for place in places if place.api == api)
                chosen = random.sample(positions, min(_PROMPTS_CHECKED, len(positions)))
                stored = list(
                    typed.find(
                        workspace.documents,
                        PromptRecord,
                        {**prompt_filter(registration, epoch.epoch, api), "position": {"in": chosen}},
                    )
                )
                stored = [prompt for prompt in stored if prompt.requests]  # not those that no store holds
                try:
                    rebuilt = workspace.framework(spec).build_prompts(
                        spec, data, [p.doc_id for p in stored], api, epoch.seed
                    )
                except TaskError as error:
                    violations[spec.name] = f"{api} prompts cannot be rebuilt: {error}"
                    continue
                again = {p.doc_id: p.requests for p in rebuilt}
                checked += len(stored)
                if any(again[p.doc_id] != p.requests for p in stored):
                    violations[spec.name] = f"rebuilding {api} prompts gives other requests"
        return dg.AssetCheckResult(
            passed=not violations, metadata={"offenders": violations, "prompts_rebuilt": checked}
        )

    return [tasks_prepared, docs_storable, datasets_intact, prompts_reproducible]
