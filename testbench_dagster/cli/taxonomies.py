"""The command ``taxonomies``: what suppliers are able to do, which taxonomies there are, pictures of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, model_option, note, note_set_aside
from testbench_dagster.core.errors import ConfigError, TestbenchError
from testbench_dagster.core.records.rankings import Ability
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.files import writing
from testbench_dagster.taxonomies import plots

if TYPE_CHECKING:
    from testbench_dagster.taxonomies.model import Taxonomy

_COLUMNS = (
    "supplier",
    "model",
    "taxonomy",
    "node",
    "status",
    "score",
    "ci_low",
    "ci_high",
    "n_measured",
    "n_tasks",
)
_LIST_COLUMNS = ("taxonomy", "spec", "configured", "node", "children", "tasks")
_KINDS = ("dag", "bars", "heatmap")
_SUFFIXES = (".png", ".svg")


@click.command(short_help="Abilities of the suppliers")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--taxonomy", metavar="NAME", help="Only this taxonomy.")
@click.option(
    "--list", "listing", is_flag=True, help="List the built-in and configured taxonomies, node by node."
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Draw a picture into a .png or .svg file.",
)
@click.option(
    "--kind",
    type=click.Choice(_KINDS),
    default="dag",
    show_default=True,
    help="The picture: the graph or bars of one supplier, or all suppliers by ability.",
)
@model_option
@format_option
@click.pass_obj
def taxonomies(
    config: str | None,
    suppliers: tuple[str, ...],
    taxonomy: str | None,
    listing: bool,
    plot: Path | None,
    kind: str,
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Show the abilities of the suppliers: taxonomy nodes with intervals and coverage."""
    if listing:
        if plot or suppliers or models:
            raise click.UsageError(
                "--list shows taxonomies, not suppliers; leave out --plot, --supplier and --model"
            )
        with Workspace.open(config, hurried=True) as workspace:
            rows = list(_listing(workspace, taxonomy))
        emit(rows, format_, _LIST_COLUMNS, "Taxonomies")
    elif plot:
        if plot.suffix not in _SUFFIXES:
            raise click.UsageError(f"--plot {plot}: name a file that ends in {' or '.join(_SUFFIXES)}")
        with Workspace.open(config, hurried=True) as workspace:
            image = _picture(workspace, suppliers, models, taxonomy, kind, plot.suffix)
        with writing(plot, "name another file with --plot"):
            plot.write_bytes(image)
        click.echo(str(plot))
    else:
        with Testbench.open(config) as testbench:
            found = testbench.taxonomies(suppliers or None, taxonomy, models=models or None)
        note_set_aside(found.set_aside)
        emit(found.rows, format_, _COLUMNS, "Abilities")


def _listing(workspace: Workspace, only: str | None) -> Iterator[dict[str, Any]]:
    """One row per node of every taxonomy, the configured ones first."""
    # with scoring: 80 ms
    from testbench_dagster.stages.summarize.refresh import configured_taxonomies
    from testbench_dagster.taxonomies.load import builtin_names, load_taxonomy

    specs = workspace.config.settings.taxonomies
    found = list(zip(specs, configured_taxonomies(workspace), strict=True))
    for name in builtin_names():
        spec = f"builtin:{name}"
        if spec not in specs:
            found.append((spec, load_taxonomy(spec, workspace.config.base)))
    names = [taxonomy.name for _, taxonomy in found]
    if only is not None and only not in names:
        raise ConfigError(f"no taxonomy {only!r}; there are: {', '.join(dict.fromkeys(names))}")
    for spec, taxonomy in found:
        if only in (None, taxonomy.name):
            for node in taxonomy.top_down():
                yield {
                    "taxonomy": taxonomy.name,
                    "spec": spec,
                    "configured": spec in specs,
                    "node": node,
                    "root": node == taxonomy.root,
                    "detached": node in taxonomy.detached,
                    "children": list(taxonomy.children(node)),
                    "tasks": list(taxonomy.nodes[node]),
                    "weights": {part.name: part.weight for part in taxonomy.parts(node)},
                }


def _picture(
    workspace: Workspace,
    suppliers: Sequence[str],
    models: Sequence[str],
    name: str | None,
    kind: str,
    suffix: str,
) -> bytes:
    taxonomy = _chosen_taxonomy(workspace, name)
    nodes: dict[str, dict[str, Ability]] = {}
    chosen = Testbench(workspace).taxonomies(suppliers or None, taxonomy.name, models=models or None)
    for row in chosen.rows:
        nodes.setdefault(row["supplier"], {})[row["node"]] = Ability.from_document(row)
    if not nodes:
        raise TestbenchError(
            f"nothing is summarized by {taxonomy.name!r} yet; `testbench run` evaluates the suppliers"
        )
    text = plots.SIMULATED if workspace.config.settings.simulation else ""
    if text:
        note("These suppliers are simulated.")
    if kind == "heatmap":
        title = f"Abilities: {taxonomy.name}"
        return plots.heatmap(taxonomy, nodes, title, text, format_=_format(suffix))
    if len(nodes) > 1:
        some = ", ".join(list(nodes)[:20])
        raise click.UsageError(f"--kind {kind} shows one supplier; name it with --supplier, one of: {some}")
    key, own = next(iter(nodes.items()))
    draw = plots.dag if kind == "dag" else plots.bars
    return draw(taxonomy, own, f"{taxonomy.name}: {key}", text, _format(suffix))


def _chosen_taxonomy(workspace: Workspace, name: str | None) -> Taxonomy:
    # with scoring: 80 ms
    from testbench_dagster.stages.summarize.refresh import configured_taxonomies

    configured = {taxonomy.name: taxonomy for taxonomy in configured_taxonomies(workspace)}
    if name is None and len(configured) == 1:
        return next(iter(configured.values()))
    if name is None and configured:
        raise click.UsageError(
            f"--plot shows one taxonomy; name it with --taxonomy, one of: {', '.join(configured)}"
        )
    if name is None or name not in configured:
        raise ConfigError(
            f"taxonomy {name!r} is not configured; configured are: {', '.join(configured) or 'none'}"
        )
    return configured[name]


def _format(suffix: str) -> plots.Format:
    return "svg" if suffix == ".svg" else "png"
