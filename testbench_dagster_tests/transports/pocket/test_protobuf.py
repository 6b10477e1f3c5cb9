"""Bytes are canonical and those of Google's protobuf; hostile ones raise CodecError, soon, nothing else."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.transports.pocket.errors import CodecError
from testbench_dagster.transports.pocket.protobuf import Field, Schema, decode_message, encode_message
from testbench_dagster_tests.transports.pocket.oracle import Oracle

COIN = Schema("Coin", Field(1, "denom", "string"), Field(2, "amount", "string"))
LIST = Schema("List", Field(2, "gateways", "string", repeated=True))
ALL = Schema(
    "All",
    Field(17, "far", "uint64"),
    Field(1, "text", "string"),
    Field(2, "data", "bytes"),
    Field(3, "flag", "bool"),
    Field(4, "small", "uint32"),
    Field(5, "large", "uint64"),
    Field(6, "signed", "int64"),
    Field(7, "kind", "enum"),
    Field(8, "coin", "message", COIN),
    Field(9, "owned", "message", COIN, always=True),
    Field(10, "coins", "message", COIN, repeated=True),
    Field(11, "names", "string", repeated=True),
    Field(12, "labels", "map"),
    Field(13, "pending", "map", LIST, key="uint64"),
    Field(14, "blobs", "bytes", repeated=True),
    Field(15, "whole", "int32"),
)
ORACLE = Oracle(ALL)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
COINS = st.fixed_dictionaries({"denom": TEXT, "amount": TEXT})
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXT,
        "data": st.binary(max_size=200),
        "flag": st.booleans(),
        "small": st.integers(0, 2**32 - 1),
        "large": st.integers(0, 2**64 - 1),
        "signed": st.integers(-(2**63), 2**63 - 1),
        "kind": st.integers(-(2**31), 2**31 - 1),
        "whole": st.integers(-(2**31), 2**31 - 1),
        "coin": st.none() | COINS | st.just({}),
        "owned": st.none() | COINS,
        "coins": st.lists(COINS, max_size=3),
        "names": st.lists(TEXT, max_size=3),
        "blobs": st.lists(st.binary(max_size=5), max_size=3),
        "labels": st.dictionaries(TEXT, TEXT, max_size=4),
        "pending": st.dictionaries(
            st.integers(0, 2**64 - 1),
            st.fixed_dictionaries({"gateways": st.lists(TEXT, max_size=2)}),
            max_size=3,
        ),
        "far": st.integers(0, 2**64 - 1),
    },
)


def field(number: int, wire: int, rest: str = "") -> bytes:
    return encode_message(Schema("T", Field(1, "t", "uint64")), {"t": number << 3 | wire})[
        1:
    ] + bytes.fromhex(rest)


# ---------------------------------------------------------------------------------------- canonical bytes


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "4a00"),
        (ALL.defaults(), "4a00"),
        ({"text": "é"}, "0a02c3a94a00"),
        ({"large": 300}, "28ac024a00"),
        ({"signed": -1}, "30ffffffffffffffffff014a00"),
        ({"kind": -1}, "38ffffffffffffffffff014a00"),
        ({"coin": {}}, "42004a00"),
        ({"owned": {"amount": "7"}, "coin": None}, "4a03120137"),
        ({"names": ["", "a"]}, "4a005a005a0161"),
        ({"labels": {"b": "", "": "x"}}, "4a0062050a001201786205" + "0a01621200"),
        ({"pending": {10: {}, 9: {"gateways": ["g"]}}}, "4a006a07080912031201676a04080a1200"),
        ({"far": 1, "text": "a"}, "0a01614a00880101"),
    ],
)
def test_bytes_by_hand(values: dict[str, Any], expected: str) -> None:
    assert encode_message(ALL, values).hex() == expected
    assert ORACLE.decode(bytes.fromhex(expected)) == decode_message(ALL, bytes.fromhex(expected))


@settings(deadline=None)
@given(VALUES)
def test_bytes_are_those_of_googles_protobuf(values: dict[str, Any]) -> None:
    data = encode_message(ALL, values)
    assert len(data) == len(ORACLE.encode(values))
    if all(len(values.get(name, ())) < 2 for name in ("labels", "pending")):
        assert data == ORACLE.encode(values)
    found = decode_message(ALL, data)
    assert found == ORACLE.decode(data)
    assert encode_message(ALL, found) == data


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"texts": "a", "other": 1}, "other, texts"),
        ({"text": b"a"}, "All.text is of type bytes: give string"),
        ({"text": "\ud800"}, "All.text cannot be written"),
        ({"data": "a"}, "All.data is of type str"),
        ({"small": 2**32}, "All.small is 4294967296"),
        ({"large": -1}, "All.large is -1"),
        ({"signed": 2**63}, "All.signed"),
        ({"kind": 1.5}, "All.kind is 1.5"),
        ({"coin": "7upokt"}, "All.coin is '7upokt'"),
        ({"names": [1]}, "All.names"),
        ({"labels": [("a", "b")]}, "All.labels is no mapping"),
        ({"labels": {"a": "b", 1: "c"}}, "All.labels is no mapping"),
        ({"labels": {1: "b"}}, "labels.key"),
        ({"labels": {"a": 1}}, "labels.value"),
        ({"pending": {"7": {}}}, "pending.key"),
    ],
)
def test_values_that_do_not_fit_are_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(CodecError, match=named):
        encode_message(ALL, values)


# --------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", {}),
        (field(5, 0, "01") + field(5, 0, "02"), {"large": 2}),  # the last one wins
        (field(8, 2, "030a0161") + field(8, 2, "03120137"), {"coin": {"denom": "a", "amount": "7"}}),
        (field(9, 2, "030a0161"), {"owned": {"denom": "a", "amount": ""}}),
        (field(17, 0, "05") + field(1, 2, "0161"), {"far": 5, "text": "a"}),  # any order
        (field(5, 0, "8100"), {"large": 1}),  # more bytes than needed
        (field(3, 0, "ff01"), {"flag": True}),
        (field(12, 2, "00"), {"labels": {"": ""}}),
        (field(12, 2, "060a0161120162") + field(12, 2, "030a0161"), {"labels": {"a": ""}}),
        (field(13, 2, "020807"), {"pending": {7: {"gateways": []}}}),
        # unknown: varint, 8 bytes, chunk, 4 bytes; inside a message too
        (field(99, 0, "ff01") + field(98, 1, "00" * 8) + field(97, 2, "0161") + field(96, 5, "00" * 4), {}),
        (field(8, 2, "06" + "1a0161" + "0a0162"), {"coin": {"denom": "b", "amount": ""}}),
    ],
)
def test_what_is_read(data: bytes, expected: dict[str, Any]) -> None:
    assert decode_message(ALL, data) == ALL.defaults() | expected == ORACLE.decode(data)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\x80", "cut off"),
        (field(5, 0), "cut off"),
        (field(5, 0, "80" * 10 + "01"), "longer than 64 bits"),
        (field(5, 0, "ff" * 9 + "02"), "longer than 64 bits"),
        (field(4, 0, "8080808010"), "All.small is 4294967296"),
        (field(7, 0, "8080808010"), "All.kind"),
        (field(1, 2, "0561"), "ends within field 1"),
        (field(1, 2, "ff" * 9 + "01"), "ends within field 1"),
        (field(98, 1, "00" * 7), "ends within field 98"),
        (field(96, 5, "00" * 3), "ends within field 96"),
        (field(1, 2, "01ff"), "All.text is not UTF-8"),
        (field(1, 2, "03eda080"), "All.text is not UTF-8"),  # a lone surrogate
        (field(12, 2, "030a01ff"), "labels.key is not UTF-8"),
        (field(8, 2, "030a0561"), "Coin ends within field 1"),  # a length beyond the message it is in
        (field(1, 0, "01"), "All.text has wire type 0"),
        (field(5, 2, "00"), "All.large has wire type 2"),
        (field(5, 1, "00" * 8), "All.large has wire type 1"),
        (field(4, 5, "00" * 4), "All.small has wire type 5"),
        (field(8, 0, "00"), "All.coin has wire type 0"),
        (field(12, 0, "00"), "All.labels has wire type 0"),
        (field(0, 0, "00"), "number 0"),
        (field(2**29, 0, "00"), "number 536870912"),
        (field(99, 3) + field(99, 4), "wire type 3"),
        (field(99, 4), "wire type 4"),
        (field(99, 6), "wire type 6"),
        (field(99, 7), "wire type 7"),
    ],
)
def test_other_bytes_are_refused(data: bytes, named: str) -> None:
    with pytest.raises(CodecError, match=named):
        decode_message(ALL, data)


def decoded(data: bytes, **limits: int) -> dict[str, Any] | None:
    try:
        return decode_message(ALL, data, **limits)
    except CodecError:
        return None


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    found = decoded(data)
    if found is not None:
        assert found == ORACLE.decode(data)
        again = encode_message(ALL, found)
        assert decode_message(ALL, again) == found


@settings(deadline=None)
@given(VALUES, st.data())
def test_messages_gone_wrong(values: dict[str, Any], draw: st.DataObject) -> None:
    """Some bytes changed, cut out or put in: refused, or read as Google reads them."""
    data = bytearray(encode_message(ALL, values))
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(data)))
        data[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=3))
    found = decoded(bytes(data))
    if found is not None:
        assert found == ORACLE.decode(bytes(data))
        assert decode_message(ALL, encode_message(ALL, found)) == found


# ---------------------------------------------------------------------------------------------- bounds


BOMBS = {
    "empty messages": field(10, 2, "00"),
    "empty strings": field(11, 2, "00"),
    "map entries": field(12, 2, "00"),
    "one map entry and another": field(13, 2, "00"),
    "unknown numbers": field(99, 0, "00"),
    "integers of ten bytes": field(5, 0, "80" * 9 + "01"),
    "merged messages": field(8, 2, "00"),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_time_and_memory_are_bounded(bomb: bytes) -> None:
    data = bomb * (4_000_000 // len(bomb))
    assert decoded(bomb * 100) is not None
    start = time.process_time()
    assert decoded(data) is None
    assert time.process_time() - start < 3  # about 0.1 s; without the bound half a minute per 64 MB
    small = bomb * (200_000 // len(bomb))
    tracemalloc.start()
    try:
        assert decoded(small, max_fields=5_000) is None
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_nested_fields_count_too() -> None:
    inner = field(99, 0, "00") * 600
    data = (
        encode_message(ALL, {})
        + field(8, 2)
        + encode_message(Schema("Size", Field(1, "n", "uint64")), {"n": len(inner)})[1:]
        + inner
    )
    assert decoded(data, max_fields=700) is not None
    assert decoded(data, max_fields=500) is None


def test_size_is_bounded() -> None:
    data = encode_message(ALL, {"data": bytes(100)})
    assert decoded(data, max_bytes=len(data)) is not None
    assert decoded(data, max_bytes=len(data) - 1) is None


def test_chunks_are_not_multiplied() -> None:
    """A message within messages is read in place: one copy of the payload, not one per level."""
    payload = bytes(8_000_000)
    outer = Schema("Outer", Field(1, "inner", "message", Schema("Inner", Field(1, "all", "message", ALL))))
    data = encode_message(outer, {"inner": {"all": {"data": payload}}})
    tracemalloc.start()
    try:
        assert decode_message(outer, data)["inner"]["all"]["data"] == payload
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


# --------------------------------------------------------------------------------------------- schemas


@pytest.mark.parametrize(
    "made",
    [
        lambda: Field(0, "a", "string"),
        lambda: Field(2**29, "a", "string"),
        lambda: Field(1, "a", "message"),
        lambda: Field(1, "a", "string", COIN),
        lambda: Field(1, "a", "uint64", repeated=True),
        lambda: Schema("S", Field(1, "a", "string"), Field(1, "b", "string")),
        lambda: Schema("S", Field(1, "a", "string"), Field(2, "a", "string")),
    ],
)
def test_schemas_that_mean_nothing_are_refused(made: Any) -> None:
    with pytest.raises(ValueError, match=r"field a|schema S"):
        made()
