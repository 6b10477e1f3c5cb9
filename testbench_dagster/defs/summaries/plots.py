"""Pictures of abilities in the metadata of the summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from testbench_dagster.defs.metadata import Markdown, picture
from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import TAXONOMY_SUMMARIES
from testbench_dagster.taxonomies import plots
from testbench_dagster.taxonomies.model import Taxonomy
from testbench_dagster.taxonomies.refresh import configured_taxonomies
from testbench_dagster.workspace import Workspace

SIMULATION = Markdown("**Simulation**: these suppliers are simulated.")
_IN_AN_EVENT = 20
"""Suppliers on a heat map that lives in a row of the event log."""


def supplier_plots(
    workspace: Workspace, documents: Sequence[Document]
) -> dict[str, dg.MarkdownMetadataValue]:
    """For the summaries of one supplier: per taxonomy the graph and the bars."""
    taxonomies = {taxonomy.name: taxonomy for taxonomy in configured_taxonomies(workspace)}
    simulated = workspace.config.settings.simulation
    found = {}
    for document in documents:
        name = document["taxonomy"]
        title = f"{name}: {document['supplier']}"
        drawn = (taxonomies[name], document["nodes"], title, plots.SIMULATED if simulated else "")
        for kind, draw in (("graph", plots.dag), ("bars", plots.bars)):
            found[f"{kind}_{_key(name)}"] = picture(title, draw(*drawn), SIMULATION if simulated else "")
    return found


def ability_heatmaps(workspace: Workspace, suppliers: Sequence[str]) -> dict[str, dg.MarkdownMetadataValue]:
    """Per taxonomy the best of these suppliers by their abilities, from the stored summaries."""
    simulated = workspace.config.settings.simulation
    found = {}
    for taxonomy in configured_taxonomies(workspace):
        nodes = _stored_nodes(workspace, taxonomy, suppliers)
        if nodes:
            title = f"Abilities: {taxonomy.name}"
            note = plots.SIMULATED if simulated else ""
            image = plots.heatmap(taxonomy, nodes, title, note, most=_IN_AN_EVENT)
            found[f"abilities_{_key(taxonomy.name)}"] = picture(title, image, SIMULATION if simulated else "")
    return found


def _stored_nodes(
    workspace: Workspace, taxonomy: Taxonomy, suppliers: Sequence[str]
) -> dict[str, Mapping[str, plots.Node]]:
    wanted = set(suppliers)
    where = {"taxonomy": taxonomy.name}
    rows = workspace.documents.find(TAXONOMY_SUMMARIES, where)
    return {d["supplier"]: d["nodes"] for d in rows if d["supplier"] in wanted}


def _key(name: str) -> str:
    """A taxonomy's name as part of a metadata key."""
    return "".join(c if c.isalnum() else "_" for c in name)
