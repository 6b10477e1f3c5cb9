"""``testbench migrate``: stores made by an earlier version become those of this one."""

from __future__ import annotations

import click

from testbench_dagster.config import load_config
from testbench_dagster.stages.migrate import migrate


@click.command("migrate", short_help="Bring older stores to this version's form")
@click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
@click.pass_obj
def migrate_command(config: str | None, dry_run: bool) -> None:
    """Bring stores made by an earlier version to this one's form. Loses nothing, and may be repeated.

    `run`, `up` and `demo` do it by themselves where it only adds something and no other process is at work.
    """
    migrate(load_config(config), click.echo, dry_run=dry_run)
