"""How rows reach stdout: table, JSON or CSV; supplier-given text is never interpreted as markup."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from testbench_dagster.core.columns import columns_of
from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.wording import counted

_SET_ASIDE = 10  # tasks told one by one
FORMATS = click.Choice(["table", "json", "csv"])


def format_option(function: Any) -> Any:
    """The ``--format`` option all listing commands share."""
    return click.option(
        "--format", "format_", type=FORMATS, default="table", show_default=True, help="Output format."
    )(function)


def model_option(function: Any) -> Any:
    """The ``--model`` option of the commands that show many suppliers."""
    return click.option(
        "--model",
        "models",
        multiple=True,
        metavar="PATTERN",
        help="Only suppliers that claim such a model (a shell's pattern, ! leaves out; repeatable).",
    )(function)


def with_values(record: type, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of a record's columns that a table shows of its rows; sparse ones only where one has a value."""
    columns = columns_of(record)
    return [
        name
        for name in names
        if not columns[name].column.sparse or any(row.get(name) is not None for row in rows)
    ]


def emit(rows: Sequence[Mapping[str, Any]], format_: str, columns: Sequence[str], title: str) -> None:
    """Print rows; a table shows only ``columns``, JSON and CSV everything.

    Raises:
        StoreError: stdout cannot be written.
    """
    with _stdout():
        _print(rows, format_, columns, title)


def emit_text(text: str) -> None:
    """Print a text as it is. Raises StoreError: stdout cannot be written."""
    with _stdout():
        click.echo(text, nl=False)


@contextmanager
def _stdout() -> Iterator[None]:
    """While this lasts stdout is written. A reader that leaves early (head, less) has seen enough."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
        if not isinstance(error, BrokenPipeError):
            reason = error.strerror or error
            raise StoreError(f"cannot write the output: {reason}; send it elsewhere") from None


def _print(rows: Sequence[Mapping[str, Any]], format_: str, columns: Sequence[str], title: str) -> None:
    if format_ == "json":
        json.dump(list(rows), sys.stdout, indent=1, default=_json)
        sys.stdout.write("\n")
    elif format_ == "csv":
        names = list(rows[0]) if rows else list(columns)
        writer = csv.DictWriter(sys.stdout, names)
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {
                    k: json.dumps(v, default=_json) if isinstance(v, (dict, list)) else v
                    for k, v in row.items()
                }
            )
    else:
        _table(rows, columns, title)


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str) -> None:
    if not rows:
        click.echo(f"{title}: nothing to show")
        return
    # with rich: 40 ms
    from rich.console import Console

    # with rich as well
    from testbench_dagster.cli.table import print_table

    if left_out := print_table(rows, columns, title, Console()):
        note(f"no room for {', '.join(left_out)}: a wider terminal shows them, and --format csv or json")


def note_set_aside(reasons: Mapping[str, str]) -> None:
    """Tell which tasks are set aside and why, by task."""
    for task, reason in list(reasons.items())[:_SET_ASIDE]:
        note(f"task {task} is set aside: {reason}")
    if len(reasons) > _SET_ASIDE:
        note(f"{counted(len(reasons) - _SET_ASIDE, 'more task')} set aside; `testbench check` names all")


def note(text: str) -> None:
    """Say something to the person at the terminal (stderr)."""
    click.echo(text, err=True)
