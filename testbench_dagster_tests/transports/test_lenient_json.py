"""The second reading of bodies: as lm-eval's parser reads them, within bounds, and never another text."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.transports import lenient_json
from testbench_dagster.transports.lenient_json import (
    MAX_LENIENT_DEPTH,
    Unreadable,
    declared_charset,
    read_json,
)

MB = 1024 * 1024


def storable(value: Any) -> Any:
    """A value of Python's parser without lone surrogates, and equal to itself."""
    if isinstance(value, str):
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return repr(value) if isinstance(value, float) else value


TEXTS = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(
    ["\\", "\\ud83d", '"', "\ud83d\ude00"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4) | st.lists(VALUES, max_size=4), st.booleans())
def test_what_python_reads_is_read_so(value: Any, ascii_only: bool) -> None:
    written = json.dumps(value, ensure_ascii=ascii_only)
    if not ascii_only and any("\ud800" <= c <= "\udfff" for c in written):
        return  # no body has those
    body = written.encode()
    assert storable(read_json(body)) == storable(json.loads(body))


@settings(deadline=None)
@given(VALUES)
def test_what_is_readable_strictly_is_never_changed(value: Any) -> None:
    try:
        body = orjson.dumps(value)
    except TypeError:
        return
    found = read_json(body, "iso8859-1")
    assert storable(found) == storable(orjson.loads(body))


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([None, "iso8859-1", "utf-16", "gbk", "shift_jis", "cp1252"]))
def test_nothing_makes_it_raise_anything_else(body: bytes, charset: str | None) -> None:
    for each in (body, b"{" + body, b'{"a": "' + body + b'"}'):
        with suppress(Unreadable):
            read_json(each, charset)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (r'"\ud83d"', "\ufffd"),
        (r'"\ud83d\ude00"', "\U0001f600"),
        (r'"\\ud83d"', "\\ud83d"),
        (r'"\\\ud83d"', "\\\ufffd"),
        (r'"\\\\ud83d\ud83dx"', "\\\\ud83d\ufffdx"),
        (r'"\ude00\ud83d"', "\ufffd\ufffd"),
        (r'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (r'"\"\ud83d"', '"\ufffd'),
        ('"a\nb\0"', "a\nb\0"),
    ],
)
def test_texts(said: str, found: str) -> None:
    assert read_json(f'{{"a": NaN, "b": {said}}}'.encode())["b"] == found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"nothing",
        b"NaN",
        b"{NaN}",
        b'{"a": NaN} {"a": 1}',
        b'{"a": NaN}\n{"a": 1}',
        b'{"a": NaN}[1]',
        b'{"a": NaN}\ndata: {"b": 1}',
        b'{"a": 1',
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * (MAX_LENIENT_DEPTH + 1) + b"NaN" + b"]" * (MAX_LENIENT_DEPTH + 1),
        b'{"a":' * 100_000,
        b"\x00" * 8,
        b"\xff\xfe" + b"x" * 7,
    ],
)
def test_what_is_no_json_stays_none(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read_json(body)


def test_it_may_be_as_deep_as_it_says_and_brackets_in_texts_do_not_count() -> None:
    depth = MAX_LENIENT_DEPTH
    value = read_json(b"[" * depth + b"NaN" + b"]" * depth)
    for _ in range(depth):
        (value,) = value
    assert value != value
    assert read_json(b'{"a": NaN, "b": "' + b'[\\"' * 2000 + b'"}')["b"] == '["' * 2000


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lenient_json, "MAX_LENIENT_BYTES", 20)
    assert read_json(b'{"a": NaN, "b": 1  }')["b"] == 1
    with pytest.raises(Unreadable):
        read_json(b'{"a": NaN, "b": 1   }')


@pytest.mark.parametrize(
    ("content_type", "found"),
    [
        ("application/json; charset=iso-8859-1", "iso8859-1"),
        ('text/plain; x=y; CHARSET="Windows-1252"', "cp1252"),
        ("application/json; charset = latin1", "iso8859-1"),
        ("application/json; charset=UTF-16LE", "utf-16-le"),
        ("application/json; charset=shift_jis", "shift_jis"),
        ("application/json; charset=utf-8", None),
        ("application/json; charset=us-ascii", None),
        ("application/json", None),
        (None, None),
        ("", None),
        # codecs of Python that are no charsets, or take more than linear time
        *(
            (f"application/json; charset={name}", None)
            for name in ("punycode", "idna", "zip", "hex", "rot13")
        ),
        *((f"text/plain; charset={name}", None) for name in ("unicode_escape", "utf-7", "nothing", "../x")),
        ("text/plain; " + "x" * 500 + "; charset=latin1", None),
    ],
)
def test_charsets(content_type: str | None, found: str | None) -> None:
    assert declared_charset(content_type) == found
    assert found is None or declared_charset(f"; charset={found}") == found


def hostile() -> dict[str, bytes]:
    """Bodies of nearly 8 MB, each a way to make a parser work."""
    size = 8 * MB - 100
    return {
        "lists": b'{"a":NaN,"b":[' + b"[]," * (size // 3) + b"[]]}",
        "objects": b"[" + b'{"":NaN},' * (size // 9) + b"1]",
        "numbers": b'{"a":NaN,"b":[' + b"1," * (size // 2) + b"1]}",
        "long number": b'{"a":NaN,"b":' + b"1" * size + b"}",
        "long numbers": b'{"a":NaN,"b":[' + (b"1" * 4000 + b",") * (size // 4001) + b"1]}",
        "texts": b'{"a":NaN,"b":[' + b'"",' * (size // 3) + b'""]}',
        "surrogates": b'{"a":NaN,"b":"' + b"\\ud83d" * (size // 6) + b'"}',
        "escapes": b'{"a":NaN,"b":"' + b"\\\\\\ud83d" * (size // 8) + b'"}',
        "quotes": b'{"a":NaN,"b":"' + b'\\"' * (size // 2),
        "deep": b'{"a":NaN,"b":' + b"[" * size,
        "deep in a text": b'{"a":NaN,"b":["' + b"[" * size,
        "no UTF-8": b'{"a":"' + b"\xff" * size + b'"}',
        "white space": b" " * size + b"x",
        "white space behind": b'{"a":NaN}' + b" " * size + b"{",
        "backslashes": b'{"a":NaN,"\\ud":"' + b"\\" * size,
        "zeros": b"\x00" * size,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", hostile())
def test_a_hostile_body_takes_no_longer_than_a_few_honest_ones(name: str) -> None:
    """In CPU time of this thread, beside that of reading as many bytes of honest JSON strictly."""
    body = hostile()[name]
    honest = orjson.dumps({"choices": [{"text": "word " * 10} for _ in range(8 * MB // 65)]})
    took = []
    for each, read in ((honest, orjson.loads), (body, read_json)):
        began = time.thread_time()
        with suppress(Unreadable):
            read(each)
        took.append(time.thread_time() - began)
    assert took[1] < max(60 * took[0], 3.0), took
