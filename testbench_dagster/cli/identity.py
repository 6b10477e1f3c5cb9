"""Commands ``identity`` and ``references``: who answers like whom, who changed, who is as the reference."""

from __future__ import annotations

import click

from testbench_dagster.api import Testbench
from testbench_dagster.cli.output import emit, format_option, model_option, note
from testbench_dagster.core.wording import counted

_GROUP_COLUMNS = (
    "supplier",
    "model",
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
    "model_a",
    "model_b",
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
_CHANGE_COLUMNS = ("supplier", "model", "kind", "task", "at", "detected_at", "cut", "reason")
_REFERENCE_COLUMNS = (
    "supplier",
    "model",
    "reference",
    "as_reference",
    "difference",
    "difference_low",
    "difference_high",
    "n_docs",
    "n_unanswered",
    "n_equal",
    "n_whole",
    "trigger_f1",
    "schema_accuracy",
    "reference_schema_accuracy",
    "finding",
)


@click.command(short_help="Which suppliers answer alike")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@click.option("--refresh", is_flag=True, help="Compare the stored answers anew before showing the groups.")
@click.option("--pairs", is_flag=True, help="Show the evidence pair by pair (of the chosen suppliers).")
@click.option("--changes", is_flag=True, help="Show the detected changes, newest first.")
@model_option
@format_option
@click.pass_obj
def identity(
    config: str | None,
    suppliers: tuple[str, ...],
    refresh: bool,
    pairs: bool,
    changes: bool,
    models: tuple[str, ...],
    format_: str,
) -> None:
    """Show which suppliers answer alike: groups, who stands for them, suspects and changes.

    Suppliers of a group answer like each other. Whether they run the same model nobody can see. Of each pair
    `finding` says what is certain and what is not yet.
    """
    if pairs and changes:
        raise click.UsageError("--pairs and --changes exclude each other; give one")
    chosen, patterns = suppliers or None, models or None
    with Testbench.open(config) as testbench:
        if refresh:
            report = testbench.refresh_identity()
            note(
                f"{counted(report.n_answers, 'answer')} of {counted(report.n_suppliers, 'supplier')} compared"
            )
        if changes:
            rows = testbench.changes(chosen, models=patterns).rows
            if not rows:
                note("no changes detected")
            emit(rows, format_, _CHANGE_COLUMNS, "Detected changes")
        elif pairs:
            rows = testbench.identity_pairs(chosen, models=patterns).rows
            emit(rows, format_, _PAIR_COLUMNS, "Pairs")
        else:
            rows = testbench.identity(chosen, models=patterns).rows
            if not rows:
                note("nothing compared yet: run `testbench run`, or `testbench identity --refresh`")
            emit(rows, format_, _GROUP_COLUMNS, "Who answers like whom")


@click.command(short_help="Who is as the reference of its model")
@click.option(
    "--supplier", "-s", "suppliers", multiple=True, metavar="KEY", help="Only this supplier (repeatable)."
)
@model_option
@format_option
@click.pass_obj
def references(config: str | None, suppliers: tuple[str, ...], models: tuple[str, ...], format_: str) -> None:
    """Show whether suppliers answer and score as the reference of their model does, as last compared.

    A reference is a supplier that the configuration trusts to serve a model (suppliers[].reference). What is
    said is how answers and scores differ from its own, never what a supplier runs.
    """
    with Testbench.open(config) as testbench:
        rows = testbench.references(suppliers or None, models=models or None).rows
    if not rows:
        note("nothing compared with a reference yet: mark one with `reference: true`, and `testbench run`")
    emit(rows, format_, _REFERENCE_COLUMNS, "Against the reference")
