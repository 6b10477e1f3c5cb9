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

from testbench_dagster.core.errors import StoreError

FORMATS = click.Choice(["table", "json", "csv"])


def format_option(function: Any) -> Any:
    """The ``--format`` option all listing commands share."""
    return click.option(
        "--format", "format_", type=FORMATS, default="table", show_default=True, help="Output format."
    )(function)


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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        numeric = any(isinstance(row.get(column), (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    console = Console()
    if not console.is_terminal:
        # into a file or pipe: no wrapping at an imagined 80 columns, nor at any other number
        console.width = 10_000
        console.width = max(200, console.measure(table).maximum)
    console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items()) or "–"
    return "".join(c if c.isprintable() else "�" for c in str(value))


def note(text: str) -> None:
    """Say something to the person at the terminal (stderr)."""
    click.echo(text, err=True)
