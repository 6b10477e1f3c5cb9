"""Command ``identity``: who answers like whom, who stands for whom, and who changed."""

from __future__ import annotations

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, note

_GROUP_COLUMNS = (
    "supplier",
    "group",
    "role",
    "proxy",
    "n_members",
    "n_prompts",
    "self_agreement",
    "agreement",
    "nearest_proxy",
    "nearest_agreement",
    "suspect",
    "split_at",
    "n_cuts",
)
_PAIR_COLUMNS = (
    "a",
    "b",
    "n_common",
    "agreement",
    "ci_low",
    "ci_high",
    "distance",
    "relation",
    "certain",
    "same_group",
    "finding",
)
_CHANGE_COLUMNS = ("supplier", "kind", "task", "at", "detected_at", "cut", "reason")


@click.command(short_help="Which suppliers answer alike")
@click.option(
    "--supplier", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--refresh", is_flag=True, help="Compare the stored answers anew before showing the groups.")
@click.option("--pairs", is_flag=True, help="Show the evidence pair by pair (of the chosen suppliers).")
@click.option("--changes", is_flag=True, help="Show the detected changes, newest first.")
@format_option
@click.pass_obj
def identity(
    config: str | None, suppliers: tuple[str, ...], refresh: bool, pairs: bool, changes: bool, format_: str
) -> None:
    """Show which suppliers answer alike: groups, who stands for them, suspects and changes.

    Suppliers of a group answer like each other. Whether they run the same model nobody can see. Of each pair
    `finding` says what is certain and what is not yet.
    """
    if pairs and changes:
        raise click.UsageError("--pairs and --changes exclude each other; give one")
    chosen = suppliers or None
    with Testbench.open(config) as testbench:
        if refresh:
            report = testbench.refresh_identity()
            note(f"{report.n_answers} answers of {report.n_suppliers} suppliers compared")
        if changes:
            rows = testbench.changes(chosen).rows
            if not rows:
                note("no changes detected")
            emit(rows, format_, _CHANGE_COLUMNS, "Detected changes")
        elif pairs:
            emit(testbench.identity_pairs(chosen).rows, format_, _PAIR_COLUMNS, "Pairs")
        else:
            rows = testbench.identity(chosen).rows
            if not rows:
                note("nothing compared yet: run `testbench run`, or `testbench identity --refresh`")
            emit(rows, format_, _GROUP_COLUMNS, "Who answers like whom")
