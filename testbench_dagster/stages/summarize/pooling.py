"""Partial pooling of abilities: tasks with few docs are drawn towards what other suppliers reach on them.

Off by default; a summary then carries both: its raw scores and, per node, what pooling makes of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbench_dagster.core.records.rankings import PooledAbility, SupplierTasks
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.shrinkage import Prior, fit_prior
from testbench_dagster.statistics.task_score import TaskScore
from testbench_dagster.stores.documents import typed
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.summary import Summary, summarize

FEW_DOCS = 20
"""Tasks with fewer docs are pooled; more docs speak for themselves."""


def task_priors(workspace: Workspace, measured: Mapping[str, Mapping[str, TaskScore]]) -> dict[str, Prior]:
    """What active suppliers reach on each task: the given scores, and others' from their stored summaries."""
    shares: dict[str, dict[str, tuple[float, int]]] = {}
    for supplier, tasks in measured.items():
        for task, one in tasks.items():
            shares.setdefault(task, {})[supplier] = (one.score * one.n, one.n)
    others = {supplier.key for supplier in active_suppliers(workspace)} - set(measured)
    if others:
        for stored in typed.find(workspace.documents, SupplierTasks):
            if stored.supplier in others:
                for task, summarized in (stored.tasks or {}).items():
                    share = (summarized.score * summarized.n, summarized.n)
                    shares.setdefault(task, {})[stored.supplier] = share
    priors = {}
    for task, by_supplier in shares.items():
        prior = fit_prior([k for k, _ in by_supplier.values()], [n for _, n in by_supplier.values()])
        if prior is not None:
            priors[task] = prior
    return priors


def pooled_nodes(
    taxonomy: Taxonomy, summary: Summary, priors: Mapping[str, Prior]
) -> dict[str, PooledAbility]:
    """Per node that rests on a task with few docs: score, error and interval with those tasks pooled.

    ``tasks`` names them. Nodes without such a task are left out: pooling changes nothing for them.
    """
    few = {
        task: priors[task].pooled(one.score * one.n, one.n)
        for task, one in summary.tasks.items()
        if one.n < FEW_DOCS and task in priors
    }
    if not few:
        return {}
    changed = {
        task: TaskScore(few[task].score, one.n, few[task].se, few[task].ci_low, few[task].ci_high)
        if task in few
        else one
        for task, one in summary.tasks.items()
    }
    return {
        name: PooledAbility(
            score=node.score,
            se=node.se,
            ci_low=node.ci_low,
            ci_high=node.ci_high,
            tasks=sorted(set(few) & set(node.weights)),
        )
        for name, node in summarize(taxonomy, changed).nodes.items()
        if set(few) & set(node.weights)
    }
