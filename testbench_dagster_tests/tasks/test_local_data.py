"""Local data files: every format gives the same rows, and every fault is named with its place."""

from __future__ import annotations

import gzip
import json
import os

import pandas as pd
import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.tasks.local_data import read_rows

ROWS = [
    {"question": "Wie viel? é漢🙂", "answer": "1", "subject": "a", "score": 0.1},
    {"question": 'a "quoted", line\nbreak', "answer": "2", "subject": "b", "score": 1e-17},
    {"question": "third", "answer": None, "subject": "a", "score": -3.0},
]


def write(path, rows=ROWS):
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if path.name.endswith(".jsonl"):
        path.write_text(lines, encoding="utf-8")
    elif path.name.endswith(".jsonl.gz"):
        path.write_bytes(gzip.compress(lines.encode()))
    elif path.name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    elif path.name.endswith(".json.gz"):
        path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    elif path.name.endswith(".parquet"):
        pd.DataFrame(rows).to_parquet(path)
    else:
        pd.DataFrame(rows).to_csv(path, index=False)  # pandas packs by the ending
    return path


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "json.gz", "parquet"])
def test_every_format_gives_equal_rows(ending, tmp_path):
    assert read_rows(write(tmp_path / f"rows.{ending}")) == ROWS


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv_gives_text_numbers_and_nulls(ending, tmp_path):
    rows = [{**row, "answer": row["answer"] and f"no. {row['answer']}"} for row in ROWS]
    assert read_rows(write(tmp_path / f"rows.{ending}", rows)) == rows


def test_endings_may_be_capital(tmp_path):
    path = write(tmp_path / "rows.jsonl").rename(tmp_path / "ROWS.JSONL")
    assert read_rows(path) == ROWS


def test_nested_values_and_blank_lines_survive(tmp_path):
    row = {"options": ["a", {"deep": [1, None]}], "targets": {"labels": [0, 1]}, "big": 2**53 + 1}
    path = tmp_path / "rows.jsonl"
    path.write_text(f"\n{json.dumps(row)}\n\n  \n{json.dumps(row)}", encoding="utf-8")
    assert read_rows(path) == [row, row]


def test_where_keeps_matching_rows_in_order(tmp_path):
    path = write(tmp_path / "rows.jsonl")
    assert read_rows(path, {"subject": "a"}) == [ROWS[0], ROWS[2]]
    assert read_rows(path, {"subject": "a", "question": "third"}) == [ROWS[2]]


def test_where_compares_as_text(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"level": 1, "ok": True}, {"level": 2, "ok": False}])
    assert read_rows(path, {"level": "2"}) == [{"level": 2, "ok": False}]
    assert read_rows(path, {"ok": "True"}) == [{"level": 1, "ok": True}]


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"a": 1}])
    assert read_rows(path) == [{"a": 1}]
    state = path.stat()
    write(path, [{"a": 2}])
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1_000_000))
    assert read_rows(path) == [{"a": 2}]


def test_callers_cannot_spoil_the_cache(tmp_path):
    path = write(tmp_path / "rows.jsonl")
    read_rows(path).clear()
    assert read_rows(path) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"a": 1}\n{"a": \n', r"rows\.jsonl: line 2 is not valid JSON"),
        ("rows.jsonl", b'{"a": 1}\n\n[1, 2]\n', r"rows\.jsonl: row 3 is no object but list"),
        ("rows.jsonl", b'{"a": 1}\nnull\n', r"row 2 is no object but NoneType"),
        ("rows.jsonl", b"", r"rows\.jsonl holds no rows$"),
        ("rows.jsonl", b"\n\n", r"holds no rows$"),
        ("rows.jsonl", b'{"a": "\xff"}\n', r"rows\.jsonl cannot be read: .*utf-8"),
        ("rows.json", b"{]", r"rows\.json cannot be read"),
        ("rows.json", b"[1]", r"row 1 is no object but int"),
        ("rows.json", b"[]", r"holds no rows$"),
        ("rows.jsonl.gz", b'{"a": 1}\n', r"rows\.jsonl\.gz cannot be read: .*gzip"),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 2000, mtime=0)[:40], r"cannot be read"),
        ("rows.parquet", b"no parquet", r"rows\.parquet cannot be read"),
        ("rows.csv", b"", r"rows\.csv cannot be read"),
        ("rows.csv", b"a,b\n", r"rows\.csv holds no rows$"),
        ("rows.tsv", b"a\tb\n", r"rows\.tsv: unknown kind of file; use \.jsonl"),
    ],
)
def test_faults_are_named(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message):
        read_rows(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TaskError, match=r"data file .*absent\.jsonl does not exist; correct the path"):
        read_rows(tmp_path / "absent.jsonl")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(TaskError, match=r"rows\.jsonl cannot be read"):
        read_rows(tmp_path / "rows.jsonl")


def test_where_faults_are_named(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"a": "x", "b": 1}, {"b": 2}])
    with pytest.raises(TaskError, match=r"row 2 has no column 'a', which where: filters by"):
        read_rows(path, {"a": "x"})
    with pytest.raises(TaskError, match=r"holds no rows with b = '7'$"):
        read_rows(path, {"b": "7"})


@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_json_may_hold_a_row_in_each_line(ending, tmp_path):
    path = tmp_path / f"rows.{ending}"
    text = "\n".join(json.dumps(row) for row in ROWS).encode()
    path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    assert read_rows(path) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', r"rows\.json: line 2 is not valid JSON"),
        (b'{"a": 1} {"a": 2}', r"rows\.json cannot be read: Extra data"),
    ],
)
def test_lines_that_are_no_rows_are_named_in_json_too(content, message, tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message):
        read_rows(path)
