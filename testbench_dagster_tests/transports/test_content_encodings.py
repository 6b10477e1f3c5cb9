"""Bodies that came compressed, or say so."""

from __future__ import annotations

import gzip
import zlib
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.transports.content_encodings import MAX_MEMBERS, BadEncoding, decoder_for

BODY = b'{"choices": [{"message": {"content": "fine"}}]}' * 20
PACKED = gzip.compress(BODY, mtime=0)


def decoded(encoding: str | None, body: bytes, cuts: list[int] | None = None, limit: int = 10**6) -> bytes:
    decoder = decoder_for(encoding)
    if decoder is None:
        return body
    places = [0, *sorted(min(cut, len(body)) for cut in cuts or ()), len(body)]
    pieces = [body[start:end] for start, end in pairwise(places)]
    return b"".join(decoder.feed(piece, limit) for piece in pieces if piece) + decoder.finish()


@pytest.mark.parametrize(
    "encoding", [None, "", "identity", "utf-8", "aws-chunked", "binary, none", "x" * 1000]
)
def test_what_is_no_compression_is_taken_as_it_is(encoding: str | None) -> None:
    assert decoder_for(encoding) is None


@given(
    st.sampled_from(
        [
            ("gzip", PACKED),
            ("X-GZIP ", PACKED + b"\0" * 16),
            ("identity, gzip", PACKED),
            ("aws-chunked,gzip", PACKED),
            ("gzip", gzip.compress(BODY[:100], mtime=0) + gzip.compress(BODY[100:], mtime=0)),
            ("gzip", BODY),
            ("br", BODY),
            ("zstd", b"\n" + BODY),
            ("deflate", zlib.compress(BODY)),
            ("deflate", zlib.compress(BODY)[2:-4]),
            ("deflate", BODY),
        ]
    ),
    st.lists(st.integers(0, len(BODY)), max_size=20),
)
def test_however_it_arrives(case: tuple[str, bytes], cuts: list[int]) -> None:
    assert decoded(*case, cuts).strip() == BODY


@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("gzip", PACKED[:-10], "incomplete"),
        ("gzip", b"\x1f\x8b" + b"x" * 20, "."),
        ("gzip", b"\x00\x01\x02", "."),
        ("deflate", b"\xff\xff\xff", "."),
        ("br", b"\x8b\x02", "'br' was not asked for"),
        ("br", b"\x8b", "'br' was not asked for"),
        ("gzip", b"\x1f", "incomplete"),
        ("gzip, gzip, deflate, gzip", PACKED, "more than 3 times"),
        ("gzip", PACKED * (MAX_MEMBERS + 1), "more than 64 members"),
    ],
)
def test_what_cannot_be_decompressed(encoding: str, body: bytes, said: str) -> None:
    with pytest.raises(BadEncoding, match=said):
        decoded(encoding, body)


@pytest.mark.parametrize(("encoding", "body"), [("gzip", b""), ("gzip", b"{"), ("br", b""), ("deflate", b"")])
def test_what_is_next_to_nothing(encoding: str, body: bytes) -> None:
    assert decoded(encoding, body) == body


def test_a_bomb_is_cut_at_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 10**7, mtime=0)
    decoder = decoder_for("gzip")
    assert decoder is not None and len(decoder.feed(bomb, 1000)) == 1000


@given(
    st.sampled_from(["gzip", "deflate", "br"]),
    st.binary(max_size=40),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_nothing_else_is_raised(encoding: str, body: bytes, cuts: list[int]) -> None:
    with suppress(BadEncoding):
        decoded(encoding, body, cuts)
