"""``testbench tasks``: which tasks can be measured, on which kind of supplier, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from testbench_dagster.cli.output import emit, emit_text, format_option, note
from testbench_dagster.config import load_config
from testbench_dagster.tasks.explained import (
    Explanation,
    chosen,
    counts,
    explain,
    explain_other,
    explain_several,
    is_leaf,
    matches,
    of_other_frameworks,
    row_of,
    row_of_other,
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

    PATTERN is a name or shell pattern of tasks, groups and tags, or of tasks that another framework names
    (``fresh_*``). Without one a table shows counts of lm-eval's; the other formats list these. Nothing is
    loaded, built or asked for it.
    """
    found = load_config(config)
    index = TaskIndex.load([Path(absolute_path(found.base, path)) for path in found.settings.task_paths])
    if why is not None:
        if patterns:
            raise click.UsageError("--why explains one name; leave the patterns out")
        _explain(index, why, format_)
        return
    others = {pattern: of_other_frameworks(pattern) for pattern in patterns}
    # a pattern that another framework's tasks answer to need match nothing of lm-eval's
    of_lm_eval = [pattern for pattern in patterns if not others[pattern] or matches(index, pattern)]
    entries = chosen(index, of_lm_eval) if of_lm_eval or not patterns else []
    if format_ == "table" and not patterns:
        rows = counts(verdict_on(entry) for entry in entries)
        emit(rows, format_, ("group", "what", *SUPPLIER_KINDS), "Tasks by kind of supplier")
        note("a pattern shows single tasks (`testbench tasks 'mmlu*'`), --format csv all of them")
        return
    rows = [row_of(entry, verdict_on(entry)) for entry in entries]
    rows += [row_of_other(*one) for one in dict.fromkeys(one for found in others.values() for one in found)]
    emit(rows, format_, _COLUMNS, "Tasks")


def _explain(index: TaskIndex, name: str, format_: str) -> None:
    if name not in index.entries and (others := of_other_frameworks(name)):
        found, rows = explain_other(*others[0]), [row_of_other(*others[0])]
        _tell(found, rows, name, format_)
        return
    entries = chosen(index, [name])
    plain = name.removesuffix("~chat")
    if len(entries) == 1 and is_leaf(entries[0]):
        found = explain(entries[0], verdict_on(entries[0]))
        rows = [row_of(entries[0], verdict_on(entries[0]))]
    else:
        found = explain_several(plain, entries)
        rows = [{"task": plain, "tasks": len(entries)}]
    _tell(found, rows, plain, format_)


def _tell(found: Explanation, rows: list[dict[str, Any]], plain: str, format_: str) -> None:
    if format_ != "table":
        rows[0] |= {"sentences": list(found.sentences), "config": found.config}
        emit(rows, format_, list(rows[0]), plain)
        return
    emit_text("\n".join(found.sentences) + "\n")
    if found.config is not None:
        emit_text(f"\nIn testbench.yaml:\n\n{found.config}")
