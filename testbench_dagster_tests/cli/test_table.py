"""Tables on terminals of any width: what is shown can be read, and what is not shown is named."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
from rich.console import Console

from testbench_dagster.cli.output import emit
from testbench_dagster.cli.table import print_table
from testbench_dagster.cli.twins import _COLUMNS as OF_TWINS
from testbench_dagster_tests.public_gaps import gap

COLUMNS = ("supplier", "task", "status", "score", "ci_low", "ci_high", "n_open", "errors", "next_attempt_at")


def row(number: int) -> dict[str, Any]:
    return {
        "supplier": f"supplier-{number}@external",
        "task": "a_task_with_a_name",
        "status": "partial",
        "score": 0.123456,
        "ci_low": 0.1,
        "ci_high": 12.5,
        "n_open": 1234567,
        "errors": {"supplier_http": 41, "transport": 2},
        "next_attempt_at": None,
    }


ROWS = [row(1), row(2)]


def printed(width: int, *, terminal: bool = True) -> tuple[list[str], list[str]]:
    """The lines of the table, and the columns that were left out."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    left_out = print_table(ROWS, COLUMNS, "Title", console)
    return file.getvalue().splitlines(), left_out


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200, 300])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_broken(width: int) -> None:
    lines, left_out = printed(width)
    assert all(len(line) <= width for line in lines)
    shown = [name for name in COLUMNS if name not in left_out]
    assert list(COLUMNS[: len(shown)]) == shown, "columns are left out from the last one on"
    text = "\n".join(lines)
    for name, written in (("score", "0.1235"), ("ci_high", "12.5000"), ("n_open", "1234567")):
        assert text.count(written) == (len(ROWS) if name in shown else 0)
    for name in shown:
        assert all(word in text for word in name.split("_"))


def test_a_wide_terminal_shows_everything_on_one_line_a_row() -> None:
    lines, left_out = printed(200)
    assert left_out == []
    assert sum("supplier-1@external" in line for line in lines) == 1
    assert any("supplier_http 41, transport 2" in line for line in lines)


def test_texts_are_folded_before_columns_are_left_out() -> None:
    lines, left_out = printed(54)
    assert left_out == []
    text = "\n".join(lines)
    assert "supplier-1@external" not in text and "supplier-1@" in text


def test_the_first_column_is_shown_however_narrow_the_terminal() -> None:
    lines, left_out = printed(6)
    above = ("task", "status", "errors")  # all rows have them in common
    assert left_out == [name for name in COLUMNS[1:] if name not in above]
    assert "suppli" in "\n".join(lines)


def test_a_file_gets_every_column_unfolded() -> None:
    lines, left_out = printed(80, terminal=False)
    assert left_out == []
    assert (
        sum("supplier-2@external" in line and "supplier_http 41, transport 2" in line for line in lines) == 1
    )


def test_what_all_rows_have_in_common_stands_above_a_close_table() -> None:
    lines, _ = printed(90)
    assert lines[0] == "Title: task a_task_with_a_name, status partial, errors supplier_http 41, transport 2"
    text = "\n".join(lines[1:])
    assert "partial" not in text and text.count("0.1235") == 2


def close(rows: list[dict[str, Any]], columns: tuple[str, ...], width: int) -> tuple[list[str], list[str]]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    left_out = print_table(rows, columns, "Title", console)
    return [line.rstrip() for line in file.getvalue().splitlines()], left_out


def test_names_are_broken_where_they_can_be_and_instants_nowhere() -> None:
    rows = [
        {"task": f"mmlu_pro_computer_science_{n}", "due_at": "2026-12-31T15:36:13+00:00", "n": n}
        for n in (1, 2)
    ] + [{"task": "x", "due_at": None, "n": 3}]
    lines, left_out = close(rows, ("task", "due_at", "n"), 36)
    assert left_out == []
    assert [line.split() for line in lines if "2026" in line] == [
        ["mmlu_pro_", "2026-12-31", "15:36", "1"],
        ["mmlu_pro_", "2026-12-31", "15:36", "2"],
    ]
    assert any(line.strip() == "computer_" or line.strip().startswith("computer_science") for line in lines)


def test_columns_without_any_value_make_room_first() -> None:
    rows = [{"a": "x" * 12, "empty": None, "b": 1.5}, {"a": "y" * 12, "empty": None, "b": 2.5}]
    lines, left_out = close(rows, ("a", "empty", "b"), 20)
    assert left_out == ["empty"] and any("2.5000" in line for line in lines)


def test_a_sentence_gets_room_to_be_read_or_none() -> None:
    rows = [{"n": n, "reason": f"this is the {n}th sentence of some length, with words"} for n in (1, 2)]
    lines, left_out = close(rows, ("n", "reason"), 40)
    assert left_out == [] and "this is the 1th sentence" in "\n".join(lines)
    assert close(rows, ("n", "reason"), 20)[1] == ["reason"]


@pytest.mark.parametrize(
    ("format_", "said"), [("table", "Title: nothing to show\n"), ("json", "[]\n"), ("csv", "a,b\n")]
)
def test_without_rows_there_is_no_frame(capsys, format_, said):
    emit([], format_, ("a", "b"), "Title")
    assert capsys.readouterr().out.replace("\r", "") == said


def test_the_verdict_on_public_questions_is_shown_before_there_is_room_for_all_figures() -> None:
    rows = [dataclasses.asdict(gap(name)) for name in ("a", "b")]
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    left_out = print_table(rows, OF_TWINS, "Title", console)
    assert left_out and not {"verdict", "flagged", "public_share", "fresh_share", "excess"} & set(left_out)
