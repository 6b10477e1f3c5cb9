"""Evidence of signed answers: rebuilt exactly as received, verified again, and refused when touched."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.evidence.records import plain, restored
from testbench_dagster.transports.pocket.errors import ResponseError
from testbench_dagster.transports.pocket.evidence import envelope_of, parts_of, verify_evidence
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.messages import HttpResponse, RelayResponse, SessionHeader
from testbench_dagster.transports.pocket.responses import read_response, sign_response, verify_response

KEY = PrivateKey(b"\x05" * 32)
HEADER = SessionHeader("pokt1app", "svc", "ab" * 32, 101, 120)


def signed(body: bytes, *, hashed: bool = True, status: int = 200) -> bytes:
    payload = HttpResponse(status, {"Content-Type": ["application/json"]}, body).encode()
    digest = hashlib.sha256(payload).digest() if hashed else b""
    return sign_response(KEY, RelayResponse(HEADER, b"", payload, payload_hash=digest)).encode()


def kept(bodies: list[bytes], **options: Any) -> tuple[bytes, list[bytes], dict[str, Any]]:
    """The body that is stored, the parts as received, and the evidence of them."""
    parts = [signed(body, **options) for body in bodies]
    answers = [verify_response(read_response(part), HEADER, KEY.public_key) for part in parts]
    evidence = {
        "public_key": KEY.public_key.hex(),
        "session_header": HEADER.encode(),
        "envelope": {"parts": envelope_of(parts, answers)},
    }
    return b"".join(bodies), parts, evidence


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.booleans())
def test_parts_come_back_as_they_were(bodies: list[bytes], hashed: bool):
    body, parts, evidence = kept(bodies, hashed=hashed)
    assert parts_of(body, evidence) == parts
    verify_evidence(body, evidence)


def test_the_body_is_not_kept_twice():
    body, _, evidence = kept([b"x" * 10_000])
    ((before, length, after),) = evidence["envelope"]["parts"]
    assert length == len(body) and len(before) + len(after) < 400


def test_it_survives_the_store_and_a_bundle():
    body, parts, evidence = kept([b'{"a": 1}', b"", b"data: x\n\n"])
    stored = bson.decode(bson.encode({"body": body, "evidence": evidence}))
    assert parts_of(stored["body"], stored["evidence"]) == parts
    verify_evidence(stored["body"], stored["evidence"])
    unpacked = restored(plain(stored["evidence"]), "evidence")
    verify_evidence(body, unpacked)


@pytest.mark.parametrize("where", ["body", "before", "after"])
def test_no_byte_can_be_changed(where: str):
    body, _, evidence = kept([b'{"choices": [1, 2, 3]}', b"and more of it"])
    before, _, after = evidence["envelope"]["parts"][0]
    for place in range(len({"body": body, "before": before, "after": after}[where])):
        changed, touched = bytearray(body), copy.deepcopy(evidence)
        if where == "body":
            changed[place] ^= 1
        else:
            piece = touched["envelope"]["parts"][0]
            data = bytearray(piece[0 if where == "before" else 2])
            data[place] ^= 1
            piece[0 if where == "before" else 2] = bytes(data)
        with pytest.raises(ResponseError):
            verify_evidence(bytes(changed), touched)


def test_another_key_or_session_does_not_verify():
    body, _, evidence = kept([b"{}"])
    with pytest.raises(ResponseError) as caught:
        verify_evidence(body, {**evidence, "public_key": PrivateKey(b"\x06" * 32).public_key.hex()})
    assert caught.value.reason == "signature"
    other = SessionHeader("pokt1app", "svc", "cd" * 32, 101, 120)
    with pytest.raises(ResponseError) as caught:
        verify_evidence(body, {**evidence, "session_header": other.encode()})
    assert caught.value.reason == "session_header"


def test_parts_cannot_be_dropped_added_or_exchanged():
    body, _, evidence = kept([b"one ", b"two ", b"three"])
    parts = evidence["envelope"]["parts"]
    for changed in (parts[:2], [*parts, parts[0]], [parts[1], parts[0], parts[2]], []):
        with pytest.raises(ResponseError):
            verify_evidence(body, {**evidence, "envelope": {"parts": changed}})


@pytest.mark.parametrize(
    "changes",
    [
        {"envelope": None},
        {"envelope": {}},
        {"envelope": {"parts": 3}},
        {"envelope": {"parts": [3]}},
        {"envelope": {"parts": [[b"", -1, b""]]}},
        {"envelope": {"parts": [[b"", 10**9, b""]]}},
        {"envelope": {"parts": [["", 2, ""]]}},
        {"envelope": {"parts": [[b"", "2", b""]]}},
        {"public_key": "zz"},
        {"public_key": None},
        {"session_header": b"\xff"},
        {"session_header": "text"},
    ],
)
def test_malformed_evidence_is_an_error_of_its_own(changes: dict[str, Any]):
    body, _, evidence = kept([b"{}"])
    with pytest.raises(ResponseError):
        verify_evidence(body, {**evidence, **changes})
    for name in changes:
        with pytest.raises(ResponseError):
            verify_evidence(body, {k: v for k, v in evidence.items() if k != name})


def test_a_body_that_repeats_itself_in_its_envelope_is_found_quickly():
    """The search for the body in its part must not be quadratic for answers made to make it so."""
    body = b"a" * 1_000_000 + b"b"
    _, parts, evidence = kept([body])
    assert parts_of(body, evidence) == parts
