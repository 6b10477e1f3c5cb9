"""Text from outside, made safe to show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.text import MAX_ERROR_CHARS, escaped, readable, without_folders


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data: /srv/home/me/sets/a.jsonl, line 3: not JSON", "data: …/a.jsonl, line 3: not JSON"),
        ("[Errno 2] No such file: '/srv/me/a b.csv'", "[Errno 2] No such file: '…/a b.csv'"),
        ("~/sets/a.jsonl is torn", "…/a.jsonl is torn"),
        (r"C:\\sets\\mine\\a.jsonl is torn".replace("\\\\", "\\"), "…/a.jsonl is torn"),
        ("sets/a.jsonl of 3/4 docs, and/or none / all", "sets/a.jsonl of 3/4 docs, and/or none / all"),
        ("https://example.com/sets/a.jsonl", "https://example.com/sets/a.jsonl"),
    ],
)
def test_folders_of_absolute_paths_are_left_out(text: str, told: str) -> None:
    assert without_folders(text) == told


@given(st.text(max_size=2 * MAX_ERROR_CHARS))
def test_escaped_text_is_printable_and_bounded(text: str) -> None:
    found = escaped(text)
    assert found.isprintable() and len(found) <= MAX_ERROR_CHARS


def test_text_in_one_line_keeps_what_can_be_read() -> None:
    assert readable("\N{RIGHT-TO-LEFT OVERRIDE}x\x00\ud800\n") == "\ufffdx\ufffd\ufffd\ufffd"
    assert readable("שלום") == "שלום"
    assert readable("x" * 300) == "x" * 199 + "…"
    assert readable(None, 3) == "No…"
