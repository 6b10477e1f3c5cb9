"""The summary stage: windows of a supplier rolled up into the configured taxonomies, one document each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.errors import TestbenchError
from testbench_dagster.network.roster import active_suppliers
from testbench_dagster.scoring.windows import OK, Window, blames_supplier, windows
from testbench_dagster.stores.documents import Document, Group, document_id
from testbench_dagster.stores.documents.collections import TAXONOMY_SUMMARIES
from testbench_dagster.taxonomies.load import load_taxonomy
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.summary import TaskScore, summarize
from testbench_dagster.workspace import Workspace


def configured_taxonomies(workspace: Workspace) -> list[Taxonomy]:
    """Load the taxonomies of the configuration.

    Raises:
        TestbenchError: one cannot be read, or two share a name.
    """
    loaded: dict[str, Taxonomy] = {}
    for spec in workspace.config.settings.taxonomies:
        taxonomy = load_taxonomy(spec, workspace.config.base)
        if taxonomy.name in loaded:
            raise TestbenchError(
                f"taxonomies: {spec!r} gives the name {taxonomy.name!r} a second time; remove one"
            )
        loaded[taxonomy.name] = taxonomy
    return list(loaded.values())


def refresh_summaries(workspace: Workspace, suppliers: Sequence[str]) -> list[Document]:
    """Compute and store the summaries of the given suppliers; return them."""
    taxonomies = configured_taxonomies(workspace)
    if not taxonomies:
        return []
    now = datetime.now(UTC)
    by_supplier: dict[str, list[Window]] = {key: [] for key in suppliers}
    for row in windows(workspace, suppliers=suppliers, now=now):
        by_supplier[row.supplier].append(row)
    documents = [
        _document(key, taxonomy, rows, now) for key, rows in by_supplier.items() for taxonomy in taxonomies
    ]
    workspace.documents.upsert(TAXONOMY_SUMMARIES, documents)
    return documents


def outdated_summaries(workspace: Workspace, before: datetime) -> list[str]:
    """Suppliers on the roster with a summary last made before an instant."""
    where = {"summarized_at": {"lt": before}}
    rows = workspace.documents.group(TAXONOMY_SUMMARIES, Group(by=["supplier"]), where)
    outdated = {row["supplier"] for row in rows}
    return [s.key for s in active_suppliers(workspace) if s.key in outdated]


def measured_tasks(rows: Sequence[Window]) -> dict[str, TaskScore]:
    """The primary scores that a taxonomy can be made of: 0-1 metrics with data."""
    return {
        row.task: TaskScore(row.score, row.n)
        for row in rows
        if row.primary and row.status == OK and row.score is not None and row.ci_low is not None
    }


def docs_and_errors(rows: Sequence[Window]) -> tuple[int, int]:
    """Docs behind the primary scores of some windows, and docs that ended in the supplier's fault."""
    own = [row for row in rows if row.primary]
    errors = sum(count for row in own for fault, count in row.errors.items() if blames_supplier(fault))
    return sum(row.n for row in own if row.status == OK), errors


def _document(supplier: str, taxonomy: Taxonomy, rows: Sequence[Window], now: datetime) -> Document:
    summary = summarize(taxonomy, measured_tasks(rows))
    nodes: dict[str, Any] = {}
    for name, node in summary.nodes.items():
        scope = {*node.weights, *node.missing}
        n, errors = docs_and_errors([row for row in rows if row.task in scope])
        nodes[name] = asdict(node) | {"missing": list(node.missing), "n": n, "errors": errors}
    root = nodes[taxonomy.root]
    return {
        "_id": document_id("taxonomy_summary", supplier, taxonomy.name),
        "supplier": supplier,
        "taxonomy": taxonomy.name,
        "summarized_at": now,
        "score": root["score"],
        "root": taxonomy.root,
        "n": root["n"],
        "errors": root["errors"],
        "nodes": nodes,
    }
