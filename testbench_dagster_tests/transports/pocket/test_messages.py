"""The envelopes of a relay byte for byte, and what is hashed of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.transports.pocket import messages
from testbench_dagster.transports.pocket.errors import CodecError
from testbench_dagster.transports.pocket.messages import (
    HttpRequest,
    HttpResponse,
    MinerError,
    RelayRequest,
    RelayResponse,
    RpcType,
    SessionHeader,
)
from testbench_dagster.transports.pocket.protobuf import Schema
from testbench_dagster_tests.transports.pocket.oracle import Oracle

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BYTES = st.binary(max_size=60)
HEIGHTS = st.integers(-(2**63), 2**63 - 1)
HEADERS = st.builds(SessionHeader, TEXT, TEXT, TEXT, HEIGHTS, HEIGHTS)
ERRORS = st.builds(MinerError, TEXT, st.integers(0, 2**32 - 1), TEXT, TEXT)
FIELDS = st.dictionaries(TEXT, st.lists(TEXT, max_size=3).map(tuple), max_size=3)
MESSAGES: dict[Any, st.SearchStrategy[Any]] = {
    SessionHeader: HEADERS,
    MinerError: ERRORS,
    RelayRequest: st.builds(RelayRequest, HEADERS, TEXT, BYTES, BYTES),
    RelayResponse: st.builds(
        RelayResponse, st.none() | HEADERS, BYTES, BYTES, st.none() | ERRORS, st.just(b"") | BYTES
    ),
    HttpRequest: st.builds(HttpRequest, TEXT, TEXT, FIELDS, BYTES),
    HttpResponse: st.builds(HttpResponse, st.integers(0, 2**32 - 1), FIELDS, BYTES),
}
SCHEMAS: dict[Any, Schema] = {
    SessionHeader: messages.SESSION_HEADER,
    MinerError: messages._MINER_ERROR,
    RelayRequest: messages._REQUEST,
    RelayResponse: messages._RESPONSE,
    HttpRequest: messages._HTTP_REQUEST,
    HttpResponse: messages._HTTP_RESPONSE,
}
ORACLES = {kind: Oracle(schema) for kind, schema in SCHEMAS.items()}

HEADER = SessionHeader("app", "svc", "id", 1, 20)


def test_the_relay_request_of_the_vectors(vectors: dict[str, Any]) -> None:
    row = vectors["wire"]["relay_request"]
    header = SessionHeader.from_values(row["session_header"])
    assert header.encode().hex() == row["session_header_bytes"]
    asked = row["payload_http"]
    inner = HttpRequest(asked["method"], asked["url"], asked["header"], asked["body"].encode())
    assert inner.encode().hex() == row["payload_bytes"]
    unsigned = RelayRequest(header, row["supplier_operator_address"], inner.encode())
    assert unsigned.signable_hash().hex() == row["signable_sha256"]
    sent = RelayRequest.decode(bytes.fromhex(row["relay_request_bytes"]))
    assert replace(unsigned, signature=sent.signature) == sent
    assert sent.encode().hex() == row["relay_request_bytes"]
    assert sent.signable_hash().hex() == row["signable_sha256"]


def test_the_relay_responses_of_the_vectors(vectors: dict[str, Any]) -> None:
    rows = vectors["wire"]["relay_response"]
    assert len(rows) == 6
    for row in rows:
        found = RelayResponse.decode(bytes.fromhex(row["bytes"]))
        assert found.encode().hex() == row["bytes"], row["id"]
        if row["valid"]:
            assert found.signature.hex() == row["signature"]
            assert found.payload_hash.hex() == row["payload_hash"]
            assert found.signable_hash().hex() == row["signable_sha256"]
            assert HttpResponse.decode(found.payload).status == 200
        if "relay_miner_error" in row:
            assert found.error is not None
            assert found.error.values() == row["relay_miner_error"]


def test_bytes_by_hand() -> None:
    """meta and a set session header are there though empty; what is absent or a default is not."""
    nobody = SessionHeader("", "", "", 0, 0)
    assert RelayRequest(nobody, "", b"").encode().hex() == "0a020a00"
    assert RelayResponse(None, b"", b"").encode().hex() == "0a00"
    assert RelayResponse(nobody, b"", b"").encode().hex() == "0a020a00"
    assert RelayResponse(None, b"", b"", MinerError("", 0, "", "")).encode().hex() == "0a001a00"
    assert HEADER.encode().hex() == "0a036170701203737663" + "1a02696420012814"
    header_a = "1208" + "0a0141" + "1203" + "0a0141"
    header_b = "120e" + "0a0142" + "1209" + "0a0142" + "120131" + "120132"
    inner = HttpRequest("GET", "/", {"B": ["1", "2"], "A": []}, b"x")
    assert inner.encode().hex() == "0a03474554" + header_a + header_b + "1a012f" + "220178"


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(deadline=None)
@given(st.data())
def test_what_is_written_is_read(kind: Any, draw: st.DataObject) -> None:
    message = draw.draw(MESSAGES[kind])
    data = message.encode()
    assert kind.decode(data) == message
    assert ORACLES[kind].decode(data) is not None
    assert messages.decode_message(SCHEMAS[kind], data) == ORACLES[kind].decode(data)


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(deadline=None)
@given(st.data())
def test_hostile_bytes_raise_codec_errors_only(kind: Any, draw: st.DataObject) -> None:
    data = bytearray(draw.draw(MESSAGES[kind]).encode())
    for _ in range(draw.draw(st.integers(0, 4))):
        at = draw.draw(st.integers(0, len(data)))
        data[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    for given_bytes in (bytes(data), draw.draw(st.binary(max_size=100))):
        try:
            found = kind.decode(given_bytes)
        except CodecError:
            continue
        assert kind.decode(found.encode()) == found


def test_what_a_request_signs() -> None:
    request = RelayRequest(HEADER, "supplier", b"payload")
    assert request.signable_hash() == hashlib.sha256(request.encode()).digest()
    assert replace(request, signature=b"s").signable_hash() == request.signable_hash()
    others = (
        replace(request, supplier="other"),
        replace(request, payload=b"other"),
        replace(request, header=replace(HEADER, end_height=21)),
    )
    assert len({request.signable_hash(), *(other.signable_hash() for other in others)}) == 4


def test_what_a_response_signs() -> None:
    """The payload, or its hash where there is one; never the signature."""
    legacy = RelayResponse(HEADER, b"", b"payload")
    hashed = replace(legacy, payload_hash=b"h" * 32)
    assert legacy.signable_hash() == hashlib.sha256(legacy.encode()).digest()
    assert hashed.signable_hash() == hashlib.sha256(replace(hashed, payload=b"").encode()).digest()
    for response in (legacy, hashed):
        assert replace(response, signature=b"s").signable_hash() == response.signable_hash()
        other = replace(response, payload=b"other")
        assert (other.signable_hash() == response.signable_hash()) == bool(response.payload_hash)
        error = replace(response, error=MinerError("c", 1, "d", "m"))
        assert error.signable_hash() != response.signable_hash()


def test_a_request_without_session_header_is_refused() -> None:
    with pytest.raises(CodecError, match="no session header"):
        RelayRequest.decode(RelayResponse(None, b"s", b"p").encode())


def test_unknown_fields_are_not_hashed() -> None:
    """Go drops them before it hashes."""
    response = RelayResponse(HEADER, b"s", b"p")
    assert RelayResponse.decode(response.encode() + bytes.fromhex("7a0178")) == response


def test_contents_stay_out_of_reprs() -> None:
    secret = "prompt text"
    inner = HttpRequest("POST", "/v1", {"Authorization": [secret]}, secret.encode())
    request = RelayRequest(HEADER, "supplier", inner.encode(), secret.encode())
    response = RelayResponse(HEADER, secret.encode(), inner.encode(), None, secret.encode())
    http = HttpResponse(200, {"a": [secret]}, secret.encode())
    for message in (inner, request, response, http):
        assert secret not in repr(message)


def test_rpc_types() -> None:
    assert [(t.name, int(t)) for t in RpcType] == [
        ("GRPC", 1),
        ("WEBSOCKET", 2),
        ("JSON_RPC", 3),
        ("REST", 4),
        ("COMET_BFT", 5),
    ]
