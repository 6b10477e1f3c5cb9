"""A body of several signed answers comes apart at its separators, however packets cut it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.transports.pocket.errors import CodecError
from testbench_dagster.transports.pocket.streams import SEPARATOR, PartSplitter

PARTS = [b"one", b"|", b"two||POKT_STREAM|x", b"||||", b"\0" * 40]
BODY = b"".join(part + SEPARATOR for part in PARTS)


def split(pieces: list[bytes]) -> tuple[list[bytes], bytes | None]:
    splitter = PartSplitter()
    parts = [part for piece in pieces for part in splitter.feed(piece)]
    return parts, splitter.finish()


def test_the_separator_is_that_of_the_miners() -> None:
    assert SEPARATOR == b"||POKT_STREAM||"


@pytest.mark.parametrize("tail", [b"", b"rest", SEPARATOR[:-1]])
def test_cut_at_every_byte(tail: bytes) -> None:
    body = BODY + tail
    expected = (PARTS, tail or None)
    for cut in range(len(body) + 1):
        assert split([body[:cut], body[cut:]]) == expected
    assert split([body[at : at + 1] for at in range(len(body))]) == expected
    assert split([body]) == expected


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=30).filter(lambda p: b"||" not in p + b"|")), st.data())
def test_cut_anywhere(parts: list[bytes], draw: st.DataObject) -> None:
    body = b"".join(part + SEPARATOR for part in parts)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert split(pieces) == (parts, None)


def test_parts_come_as_soon_as_they_are_whole() -> None:
    splitter = PartSplitter()
    assert splitter.feed(b"one" + SEPARATOR[:5]) == []
    assert splitter.feed(SEPARATOR[5:] + b"two") == [b"one"]
    assert splitter.feed(SEPARATOR + b"three" + SEPARATOR) == [b"two", b"three"]
    assert splitter.finish() is None


def test_a_body_without_separator_is_a_rest() -> None:
    assert split([b"a", b"b"]) == ([], b"ab")
    assert split([]) == ([], None)


def test_empty_parts_are_left_out() -> None:
    assert split([SEPARATOR * 3 + b"x" + SEPARATOR * 2]) == ([b"x"], None)


def test_parts_are_bounded() -> None:
    splitter = PartSplitter(max_part=100)
    assert splitter.feed(b"x" * 100) == []
    with pytest.raises(CodecError, match="more than the allowed 100 bytes"):
        splitter.feed(b"x")
    with pytest.raises(CodecError, match="allowed 100"):
        PartSplitter(max_part=100).feed(b"x" * 101 + SEPARATOR)
    assert PartSplitter(max_part=100).feed((b"x" * 100 + SEPARATOR) * 50) == [b"x" * 100] * 50


def test_time_grows_with_the_body_only() -> None:
    splitter = PartSplitter()
    start = time.process_time()
    for _ in range(20_000):
        splitter.feed(b"|" * 400)  # 8 MB that look like a separator's start
    assert time.process_time() - start < 2  # about 0.1 s; searched anew each time it would be half an hour
    assert splitter.finish() == b"|" * 8_000_000
