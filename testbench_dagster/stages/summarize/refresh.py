"""The summary stage: windows of a supplier rolled up into the configured taxonomies, one document each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from testbench_dagster.core.errors import ConfigError, TaskError
from testbench_dagster.core.records.identity import ProxyOfSupplier
from testbench_dagster.core.records.rankings import (
    Ability,
    PooledAbility,
    SummariesOfSupplier,
    SummarizedTask,
    TaxonomySummaryRecord,
)
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.window import Window
from testbench_dagster.stages.configured_taxonomies import key_of, read_taxonomies
from testbench_dagster.stages.discover.roster import active_suppliers, named_suppliers
from testbench_dagster.stages.score.groups import proxies_of
from testbench_dagster.stages.score.represented import represented_suppliers
from testbench_dagster.stages.score.windows import MeasuredSupplier, measured_suppliers
from testbench_dagster.stages.summarize.pooling import pooled_nodes, task_priors
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.task_score import left_out, measured_tasks, not_applicable
from testbench_dagster.stores.documents import document_id, typed
from testbench_dagster.tasks.index import TaskIndex
from testbench_dagster.taxonomies.model import Taxonomy, TaxonomyError, is_placeholder
from testbench_dagster.taxonomies.summary import Summary, covariance, represented_summary, summarize_many


def configured_taxonomies(workspace: Workspace) -> list[Taxonomy]:
    """Load the taxonomies of the configuration; groups in them stand for their configured leaf tasks.

    Raises:
        ConfigError: one cannot be read, makes no sense with these tasks, or has another's name; names the
            key.
    """
    read = read_taxonomies(workspace.config)
    groups = _configured_groups(workspace, {task for taxonomy in read for task in taxonomy.tasks()})
    configured = []
    for position, taxonomy in enumerate(read):
        try:
            configured.append(taxonomy.with_groups(groups))
        except TaxonomyError as error:
            raise ConfigError(
                f"{key_of(workspace.config, position)}: with groups replaced by their tasks, {error}"
            ) from error
    return configured


def _configured_groups(workspace: Workspace, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Of the names that are no configured task: those that are a group of configured tasks, with them.

    A group is what the configuration calls one, or what lm-eval does (``mmlu_stem`` where ``mmlu`` is
    configured).
    """
    specs = workspace.specs
    tasks = {spec.name for spec in specs}
    unknown = {name for name in names if name not in tasks and not is_placeholder(name)}
    found = {}
    for name in sorted(unknown):
        if members := tuple(spec.name for spec in specs if spec.group == name):
            found[name] = members
    nested = {group.name: tuple(dict.fromkeys(group.tasks)) for group in workspace.groups}
    found |= {name: nested[name] for name in unknown - set(found) if name in nested}
    rest = unknown - set(found)
    if rest:
        include = {Path(folder) for spec in specs for folder in spec.include}
        index = TaskIndex.load(sorted(include), rest)
        for name in sorted(rest & set(index.entries)):
            try:
                leaves = index.leaves(name)
            except TaskError:  # a task of Python: cannot be configured either
                continue
            # a task under an alias is a configuration of its own, which nobody means by lm-eval's name
            if members := tuple(leaf.name for leaf in leaves if leaf.name in tasks):
                found[name] = members
    return found


def refresh_summaries(
    workspace: Workspace, suppliers: Sequence[str], now: datetime | None = None
) -> list[TaxonomySummaryRecord]:
    """Compute and store the summaries of suppliers with these keys as of ``now``; return them.

    Those of whom they stand for are made anew as well: they rest on their answers too.
    """
    taxonomies = configured_taxonomies(workspace)
    if not taxonomies:
        return []
    now = now or datetime.now(UTC)
    chosen = set(suppliers)
    known = _with_proxies_and_members(workspace, chosen)
    active = {s.key: s for s in known if s.left_at is None}
    proxies = proxies_of(workspace.documents, active, workspace.config.settings.reference_keys)
    members = [key for key, proxy in proxies.items() if proxy in chosen and key not in chosen]
    wanted = dict.fromkeys([*suppliers, *sorted(members)])
    others = {proxies[key] for key in wanted if key in proxies} - wanted.keys()
    read = [s for s in known if s.key in others or s.key in wanted]
    compared = {key for pair in proxies.items() if pair[0] in wanted for key in pair}
    measured = {m.supplier: m for m in measured_suppliers(workspace, read, now, with_docs=compared)}
    measured = {key: measured.get(key) or MeasuredSupplier(key, [], {}) for key in (*wanted, *others)}
    records = summary_records(workspace, taxonomies, measured, now, proxies)
    records = [one for one in records if one.supplier not in others]
    typed.upsert(workspace.documents, TaxonomySummaryRecord, records)
    return [one for one in records if one.supplier in chosen]


def _with_proxies_and_members(workspace: Workspace, keys: Collection[str]) -> list[Supplier]:
    """Suppliers with these keys, those who stand for them, and those for whom they stand."""
    placed = typed.by_id(workspace.documents, ProxyOfSupplier, keys)
    members = typed.find(workspace.documents, ProxyOfSupplier, {"proxy": {"in": sorted(keys)}})
    proxies = (row.proxy for row in placed.values())
    return named_suppliers(workspace, {*keys, *proxies, *(row.id for row in members)})


def summary_records(
    workspace: Workspace,
    taxonomies: Sequence[Taxonomy],
    suppliers: Mapping[str, MeasuredSupplier],
    now: datetime,
    proxies: Mapping[str, str] | None = None,
) -> list[TaxonomySummaryRecord]:
    """The summaries of suppliers from what was measured of them, by key; nothing is stored.

    ``proxies``: by supplier who stands for it; of both the docs are needed.
    """
    measured = {key: measured_tasks(own.rows) for key, own in suppliers.items()}
    cannot = [left_out(own.rows) for own in suppliers.values()]
    is_not = [not_applicable(own.rows) for own in suppliers.values()]
    priors = task_priors(workspace, measured) if workspace.config.settings.summaries.partial_pooling else None
    represented = represented_suppliers(suppliers, measured, proxies or {})
    made: dict[tuple[str, str], TaxonomySummaryRecord] = {}
    for taxonomy in taxonomies:
        summaries = summarize_many(taxonomy, list(measured.values()), cannot, is_not)
        for key, summary in zip(measured, summaries, strict=True):
            shrunk = pooled_nodes(taxonomy, summary, priors) if priors is not None else {}
            if key in represented:
                summary = represented_summary(summary, represented[key])
            made[key, taxonomy.name] = _record(key, summary, suppliers[key].rows, now, shrunk)
    return [made[key, taxonomy.name] for key in measured for taxonomy in taxonomies]


def outdated_summaries(workspace: Workspace, before: datetime) -> list[str]:
    """Suppliers on the roster with a summary last made before an instant."""
    where = {"summarized_at": {"lt": before}}
    outdated = {row.supplier for row in typed.group(workspace.documents, SummariesOfSupplier, where)}
    return [s.key for s in active_suppliers(workspace) if s.key in outdated]


def docs_and_errors(rows: Iterable[Window]) -> tuple[int, int]:
    """Docs behind the primary scores of some windows, and docs left unanswered for good."""
    counts = [_docs_and_errors(row) for row in rows if row.primary]
    return sum(n for n, _ in counts), sum(errors for _, errors in counts)


def node_covariance(summary: TaxonomySummaryRecord) -> tuple[list[str], list[list[float | None]]]:
    """Nodes of a stored summary and the covariance of their scores, None where one has none.

    It is not stored itself: weights and the tasks' standard errors, which are, say the same in less. They do
    not of scores that rest on a proxy's docs too: there it is None as well.
    """
    weights = [None if node.shared else node.weights or None for node in summary.nodes.values()]
    errors = {task: one.se for task, one in (summary.tasks or {}).items()}
    return list(summary.nodes), covariance(weights, errors)


def _docs_and_errors(row: Window) -> tuple[int, int]:
    return row.n, row.n_failed


def _record(
    supplier: str,
    summary: Summary,
    rows: Sequence[Window],
    now: datetime,
    shrunk: Mapping[str, PooledAbility],
) -> TaxonomySummaryRecord:
    counts = {row.task: _docs_and_errors(row) for row in rows if row.primary}
    waiting = {row.task: row.n_open for row in rows if row.primary}
    nodes: dict[str, Ability] = {}
    for name, node in summary.nodes.items():
        own = [counts[task] for task in (*node.weights, *node.missing) if task in counts]
        nodes[name] = Ability(
            node=node.node,
            status=node.status,
            score=node.score,
            se=node.se,
            ci_low=node.ci_low,
            ci_high=node.ci_high,
            weights=node.weights,
            n_tasks=node.n_tasks,
            n_measured=node.n_measured,
            coverage=node.coverage,
            weight_coverage=node.weight_coverage,
            min_n=node.min_n,
            missing=list(node.missing),
            left_out=list(node.left_out),
            not_applicable=list(node.not_applicable),
            n_open=sum(waiting.get(task, 0) for task in (*node.weights, *node.missing)),
            n=sum(n for n, _ in own),
            errors=sum(errors for _, errors in own),
            partial_pooling=shrunk.get(name),
            own_score=node.own_score,
            n_own=sum(summary.tasks[task].n for task in node.weights),
            shared=node.shared,
        )
    root = nodes[summary.root]
    return TaxonomySummaryRecord(
        id=document_id("taxonomy_summary", supplier, summary.taxonomy),
        supplier=supplier,
        taxonomy=summary.taxonomy,
        summarized_at=now,
        score=root.score,
        root=summary.root,
        n=root.n,
        errors=root.errors,
        nodes=nodes,
        tasks={
            task: SummarizedTask(score=one.score, n=one.n, se=one.error, ci_low=low, ci_high=high)
            for task, one in summary.tasks.items()
            for low, high in (one.interval,)
        },
    )
