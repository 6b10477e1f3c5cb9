"""A supplier's answer counts only if its operator signed it, for this session, with this payload."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.errors import ShannonError
from testbench_dagster.transports.pocket.errors import ResponseError
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.messages import (
    HttpResponse,
    MinerError,
    RelayResponse,
    SessionHeader,
)
from testbench_dagster.transports.pocket.responses import read_response, sign_response, verify_response
from testbench_dagster.transports.pocket.secp256k1 import N

OPERATOR = PrivateKey(hashlib.sha256(b"operator").digest())
OTHER = PrivateKey(hashlib.sha256(b"other").digest())
HEADER = SessionHeader("pokt1app", "text-generation", "ab" * 32, 883_661, 883_680)
HTTP = HttpResponse(200, {"Content-Type": ("application/json",)}, b'{"choices":[]}')


def hashed(response: RelayResponse) -> RelayResponse:
    return replace(response, payload_hash=hashlib.sha256(response.payload).digest())


LEGACY = sign_response(OPERATOR, RelayResponse(HEADER, b"", HTTP.encode()))
SIGNED = sign_response(OPERATOR, hashed(RelayResponse(HEADER, b"", HTTP.encode())))


def reason(
    response: RelayResponse, sent: SessionHeader = HEADER, key: bytes | None = OPERATOR.public_key
) -> str:
    with pytest.raises(ResponseError) as caught:
        verify_response(response, sent, key)
    return caught.value.reason


def test_responses_of_the_vectors(vectors: dict[str, Any]) -> None:
    sent = SessionHeader.from_values(vectors["wire"]["relay_request"]["session_header"])
    found = {}
    for row in vectors["wire"]["relay_response"]:
        response = read_response(bytes.fromhex(row["bytes"]))
        key = bytes.fromhex(row["supplier_pub"]) if "supplier_pub" in row else None
        if row["valid"]:
            assert verify_response(response, sent, key).status == 200
        else:
            found[row["id"]] = reason(response, sent, key)
    assert found == {
        "payload swapped after signing": "payload_hash",
        "unsigned relay miner error (HTTP 200)": "miner_error",
    }


def test_what_the_vectors_hold_is_signed_again_alike(vectors: dict[str, Any]) -> None:
    """RFC 6979 nonces: one key and one message have one signature, Go's too."""
    signed = 0
    for row in vectors["wire"]["relay_response"]:
        if row["valid"]:
            private = next(k["priv"] for k in vectors["keys"] if k["pub"] == row["supplier_pub"])
            response = read_response(bytes.fromhex(row["bytes"]))
            assert sign_response(PrivateKey.from_hex(private), response).encode().hex() == row["bytes"]
            signed += 1
    assert signed == 4


@pytest.mark.parametrize("response", [SIGNED, LEGACY], ids=["hashed", "legacy"])
def test_signed_answers_are_taken(response: RelayResponse) -> None:
    assert verify_response(read_response(response.encode()), HEADER, OPERATOR.public_key) == HTTP


def test_empty_and_garbled_bodies() -> None:
    for data, expected in (
        (b"", "empty"),
        (b"<html>502</html>", "unmarshal"),
        (SIGNED.encode()[:-1], "unmarshal"),
    ):
        with pytest.raises(ResponseError) as caught:
            read_response(data)
        assert caught.value.reason == expected


def test_the_payload_is_compared_with_its_hash() -> None:
    """Go's clients take a swapped payload: only the hash is signed."""
    swapped = replace(SIGNED, payload=replace(HTTP, body=b'{"choices":["other"]}').encode())
    assert swapped.signable_hash() == SIGNED.signable_hash()
    assert reason(swapped) == "payload_hash"
    assert reason(replace(SIGNED, payload_hash=SIGNED.payload_hash[:31])) == "payload_hash"
    assert reason(replace(SIGNED, payload_hash=b"\0" * 32)) == "payload_hash"
    assert reason(hashed(swapped)) == "signature"
    assert reason(replace(SIGNED, payload_hash=b"")) == "signature"
    assert reason(replace(LEGACY, payload=swapped.payload)) == "signature"
    assert reason(hashed(LEGACY)) == "signature"


@pytest.mark.parametrize("field", ["application", "service", "session_id", "start_height", "end_height"])
def test_an_answer_of_another_session_is_refused(field: str) -> None:
    value = getattr(HEADER, field)
    changed: dict[str, Any] = {field: value + 1 if isinstance(value, int) else value + "x"}
    other = replace(HEADER, **changed)
    assert reason(sign_response(OPERATOR, replace(SIGNED, header=other))) == "session_header"
    assert reason(SIGNED, other) == "session_header"


def test_an_answer_without_session_is_refused() -> None:
    assert reason(sign_response(OPERATOR, replace(SIGNED, header=None))) == "session_header"


def test_signatures_of_others_are_refused() -> None:
    assert reason(sign_response(OTHER, SIGNED)) == "signature"
    assert reason(SIGNED, HEADER, OTHER.public_key) == "signature"


def test_the_upper_half_of_s_is_refused() -> None:
    r, s = SIGNED.signature[:32], int.from_bytes(SIGNED.signature[32:], "big")
    high = replace(SIGNED, signature=r + (N - s).to_bytes(32, "big"))
    with pytest.raises(ResponseError, match="upper half") as caught:
        verify_response(high, HEADER, OPERATOR.public_key)
    assert caught.value.reason == "signature"
    assert all(
        int.from_bytes(sign_response(OPERATOR, replace(SIGNED, payload=b"%d" % n)).signature[32:], "big")
        <= N // 2
        for n in range(50)
    )


def test_the_hash_is_hashed_again() -> None:
    once = replace(SIGNED, signature=OPERATOR.ecdsa_sign(SIGNED.signable_hash()))
    assert reason(once) == "signature"
    twice = replace(SIGNED, signature=OPERATOR.ecdsa_sign(hashlib.sha256(SIGNED.signable_hash()).digest()))
    assert twice == SIGNED


@pytest.mark.parametrize(
    "signature", [b"\0" * 64, b"\xff" * 64, SIGNED.signature[:63], SIGNED.signature + b"\0", b"\x30\x44" * 35]
)
def test_malformed_signatures_are_refused(signature: bytes) -> None:
    assert reason(replace(SIGNED, signature=signature)) == "signature"


def test_keys_that_are_missing_or_none() -> None:
    for key in (None, b"", b"\x02" * 32, b"\x05" + OPERATOR.public_key[1:]):
        assert reason(SIGNED, HEADER, key) == "no_public_key"


def test_a_miners_error_comes_first() -> None:
    error = MinerError("relayer_proxy", 7, "rate limited", "over budget")
    unsigned = RelayResponse(HEADER, b"", b"text", error)
    with pytest.raises(ResponseError, match="relayer_proxy 7: over budget") as caught:
        verify_response(unsigned, HEADER, OPERATOR.public_key)
    assert caught.value.reason == "miner_error"
    assert reason(sign_response(OPERATOR, unsigned)) == "miner_error"
    assert reason(replace(unsigned, header=None), key=None) == "miner_error"


def test_the_order_of_checks() -> None:
    wrong = replace(SIGNED, signature=b"", header=None, payload=b"\xff")
    assert reason(wrong, key=None) == "unsigned"
    assert reason(wrong := replace(wrong, signature=b"x"), key=None) == "session_header"
    assert reason(wrong := replace(wrong, header=HEADER), key=None) == "payload_hash"
    assert reason(wrong := hashed(wrong), key=None) == "no_public_key"
    assert reason(wrong) == "signature"
    assert reason(sign_response(OPERATOR, wrong)) == "payload"


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"text", HttpResponse(99).encode(), HttpResponse(600).encode()]
)
def test_signed_payloads_that_are_no_http_response(payload: bytes) -> None:
    assert reason(sign_response(OPERATOR, hashed(replace(SIGNED, payload=payload)))) == "payload"


def test_errors_of_the_backend_are_answers() -> None:
    for status in (400, 429, 500, 599):
        http = HttpResponse(status, {}, b"no")
        response = sign_response(OPERATOR, hashed(replace(SIGNED, payload=http.encode())))
        assert verify_response(response, HEADER, OPERATOR.public_key) == http


@pytest.mark.parametrize("response", [SIGNED, LEGACY], ids=["hashed", "legacy"])
@settings(deadline=None)
@given(st.data())
def test_whatever_is_changed_the_answer_is_the_signed_one_or_refused(
    response: RelayResponse, draw: st.DataObject
) -> None:
    data = bytearray(response.encode())
    bit = draw.draw(st.integers(0, len(data) * 8 - 1))
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = verify_response(read_response(bytes(data)), HEADER, OPERATOR.public_key)
    except ResponseError:
        return
    assert found == HTTP


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_hostile_bytes_raise_nothing_else(data: bytes) -> None:
    with pytest.raises(ShannonError):
        verify_response(read_response(data), HEADER, OPERATOR.public_key)
