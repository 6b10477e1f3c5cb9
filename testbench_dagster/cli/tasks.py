"""``testbench tasks``: which tasks can be measured, on which kind of supplier, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from testbench_dagster.cli.output import emit, emit_text, format_option, note
from testbench_dagster.config import load_config
from testbench_dagster.tasks.explained import (
    chosen,
    counts,
    explain,
    explain_several,
    is_leaf,
    row_of,
    verdict_on,
)
from testbench_dagster.tasks.index import TaskIndex
from testbench_dagster.tasks.specs import absolute_path
from testbench_dagster.tasks.verdicts import SUPPLIER_KINDS

_COLUMNS = ("task", "output_type", *SUPPLIER_KINDS, "why")


@click.command(short_help="Which tasks can be measured, and where")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--why", metavar="NAME", help="Explain one task, group or tag, with what to write for it.")
@format_option
@click.pass_obj
def tasks(config: str | None, patterns: Sequence[str], why: str | None, format_: str) -> None:
    """Show which tasks of lm-eval can be measured, how, and on which kind of supplier.

    PATTERN is a name or shell pattern of tasks, groups and tags. Without one a table shows counts; the other
    formats list all tasks. Nothing is loaded, built or asked for it.
    """
    found = load_config(config)
    index = TaskIndex.load([Path(absolute_path(found.base, path)) for path in found.settings.task_paths])
    if why is not None:
        if patterns:
            raise click.UsageError("--why explains one name; leave the patterns out")
        _explain(index, why, format_)
        return
    entries = chosen(index, patterns)
    if format_ == "table" and not patterns:
        rows = counts(verdict_on(entry) for entry in entries)
        emit(rows, format_, ("group", "what", *SUPPLIER_KINDS), "Tasks by kind of supplier")
        note("a pattern shows single tasks (`testbench tasks 'mmlu*'`), --format csv all of them")
        return
    emit([row_of(entry, verdict_on(entry)) for entry in entries], format_, _COLUMNS, "Tasks")


def _explain(index: TaskIndex, name: str, format_: str) -> None:
    entries = chosen(index, [name])
    plain = name.removesuffix("~chat")
    if len(entries) == 1 and is_leaf(entries[0]):
        found = explain(entries[0], verdict_on(entries[0]))
        rows = [row_of(entries[0], verdict_on(entries[0]))]
    else:
        found = explain_several(plain, entries)
        rows = [{"task": plain, "tasks": len(entries)}]
    if format_ != "table":
        rows[0] |= {"sentences": list(found.sentences), "config": found.config}
        emit(rows, format_, list(rows[0]), plain)
        return
    emit_text("\n".join(found.sentences) + "\n")
    if found.config is not None:
        emit_text(f"\nIn testbench.yaml:\n\n{found.config}")
