"""``testbench import-frameworks``: planning rules of pocket-ml-testbench as a piece of ``testbench.yaml``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click

from testbench_dagster.cli.output import note
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.planning.frameworks import import_frameworks


@click.command("import-frameworks", short_help="Translate rules of pocket-ml-testbench")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--framework",
    "frameworks",
    multiple=True,
    metavar="NAME",
    help="Which framework (repeatable); needed when the file has several.",
)
def import_frameworks_command(file: Path, frameworks: tuple[str, ...]) -> None:
    """Translate the frameworks of a pocket-ml-testbench manager configuration (JSON).

    FILE is the manager's config.json, or its frameworks object alone. Prints the planning block and the rules
    of single tasks as YAML, of all frameworks that are named; what was dropped or changed is told on stderr.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{file}: cannot be read as JSON ({error}); give it the manager's config.json"
        ) from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file}: is no JSON object; give it the manager's config.json")
    blocks = content.get("pocket_blocks_per_session")
    if blocks is not None and (isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1):
        raise ConfigError(
            f"{file}: pocket_blocks_per_session: {blocks!r} is no whole number above 0; correct it"
        )
    try:
        imported = import_frameworks(
            content.get("frameworks", content), frameworks, blocks_per_session=blocks
        )
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    for text in imported.notes:
        note(f"note: {text}")
    click.echo(imported.text, nl=False)
