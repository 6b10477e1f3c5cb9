"""Pictures of abilities in the metadata of the summaries."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from testbench_dagster.core.records.rankings import TaxonomySummaryRecord
from testbench_dagster.defs.metadata import Markdown, picture
from testbench_dagster.ranking.entry import Board
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.taxonomies import plots

SIMULATION = Markdown("**Simulation**: these suppliers are simulated.")
_IN_AN_EVENT = 20
"""Suppliers on a heat map that lives in a row of the event log."""


def supplier_plots(
    workspace: Workspace, summaries: Sequence[TaxonomySummaryRecord]
) -> dict[str, dg.MarkdownMetadataValue]:
    """For the summaries of one supplier: per taxonomy the graph and the bars."""
    taxonomies = {taxonomy.name: taxonomy for taxonomy in configured_taxonomies(workspace)}
    simulated = workspace.config.settings.simulation
    found = {}
    for summary in summaries:
        name = summary.taxonomy
        title = f"{name}: {summary.supplier}"
        drawn = (taxonomies[name], summary.nodes, title, plots.SIMULATED if simulated else "")
        for kind, draw in (("graph", plots.dag), ("bars", plots.bars)):
            found[f"{kind}_{_key(name)}"] = picture(title, draw(*drawn), SIMULATION if simulated else "")
    return found


def ability_heatmaps(workspace: Workspace, board: Board) -> dict[str, dg.MarkdownMetadataValue]:
    """Per taxonomy the best suppliers of a board by their abilities, as the board read them.

    None of a taxonomy by which nothing is measured yet: all of it would say so.
    """
    found = {}
    for taxonomy in configured_taxonomies(workspace):
        nodes = {supplier: own for (supplier, name), own in board.nodes.items() if name == taxonomy.name}
        if any(node.score is not None for own in nodes.values() for node in own.values()):
            title = f"Abilities: {taxonomy.name}"
            note = plots.SIMULATED if board.simulation else ""
            image = plots.heatmap(taxonomy, nodes, title, note, most=_IN_AN_EVENT)
            shown = picture(title, image, SIMULATION if board.simulation else "")
            found[f"abilities_{_key(taxonomy.name)}"] = shown
    return found


def _key(name: str) -> str:
    """A taxonomy's name as part of a metadata key."""
    return "".join(c if c.isalnum() else "_" for c in name)
