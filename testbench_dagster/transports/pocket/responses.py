"""What a supplier's answer proves: the checks between the bytes received and the backend's HTTP response.

Order and rules of poktroll's ``pkg/relayer`` and shannon-sdk's ``relay.go`` and ``types/relay.go``, and two
that Go's clients leave out: the payload is compared with its signed hash, and the session header with the
one sent. Otherwise any payload could be put under a signature, and an answer of another session.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket import secp256k1
from testbench_dagster.transports.pocket.errors import CodecError, ResponseError
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.messages import HttpResponse, RelayResponse, SessionHeader


def read_response(data: bytes) -> RelayResponse:
    """Read an answer's bytes. Raises :class:`ResponseError` (``empty``, ``unmarshal``)."""
    if not data:
        raise ResponseError("empty", "the answer has no body")
    try:
        return RelayResponse.decode(data)
    except CodecError as error:
        raise ResponseError("unmarshal", f"the answer is no RelayResponse: {error}") from None


def verify_response(response: RelayResponse, sent: SessionHeader, operator_key: bytes | None) -> HttpResponse:
    """Return the backend's HTTP response, once the operator's signature of it has been verified.

    ``sent`` is the session header of the request, ``operator_key`` the supplier's public key from the chain
    (33 bytes; None if the chain has none). The response may be an HTTP error of the backend. Raises
    :class:`ResponseError`, in this order of checks: ``miner_error``, ``unsigned``, ``session_header``,
    ``payload_hash``, ``no_public_key``, ``signature``, ``payload``.
    """
    if response.error is not None:
        error = response.error
        text = error.message or error.description
        raise ResponseError("miner_error", f"relay miner: {error.codespace} {error.code}: {text}")
    if not response.signature:
        raise ResponseError("unsigned", "the answer is not signed")
    if response.header != sent:
        raise ResponseError(
            "session_header", f"the answer is for {response.header}, the request was for {sent}"
        )
    _check_payload_hash(response)
    if operator_key is None:
        raise ResponseError("no_public_key", "the chain has no public key of the supplier's operator yet")
    _check_signature(response, operator_key)
    try:
        http = HttpResponse.decode(response.payload)
    except CodecError as error:
        raise ResponseError("payload", f"the signed payload is no HTTP response: {error}") from None
    if not 100 <= http.status <= 599:
        raise ResponseError("payload", f"the signed payload has HTTP status {http.status}")
    return http


def sign_response(key: PrivateKey, response: RelayResponse) -> RelayResponse:
    """Return the response signed as relay miners do; its ``payload_hash`` stays as it is."""
    return replace(response, signature=key.ecdsa_sign(_digest(response)))


def _check_payload_hash(response: RelayResponse) -> None:
    """Compare payload and hash; answers of before poktroll v0.1.25 have none and sign the payload."""
    given = response.payload_hash
    if given and given != hashlib.sha256(response.payload).digest():
        raise ResponseError("payload_hash", "the payload is not the one whose hash was signed")


def _check_signature(response: RelayResponse, operator_key: bytes) -> None:
    key = secp256k1.point(operator_key)
    if key is None:
        raise ResponseError("no_public_key", "the chain's public key of the operator is no secp256k1 key")
    if not secp256k1.ecdsa_verify(key, _digest(response), response.signature):
        raise ResponseError(
            "signature", f"the signature is not that of the supplier's operator{_why(response)}"
        )


def _digest(response: RelayResponse) -> bytes:
    """Hash once more what is a hash already: cosmos-sdk's secp256k1 keys sign SHA-256 of what they get."""
    return hashlib.sha256(response.signable_hash()).digest()


def _why(response: RelayResponse) -> str:
    signature = response.signature
    if len(signature) != secp256k1.SIGNATURE_BYTES:
        return f" (it has {counted(len(signature), 'byte')}, not {secp256k1.SIGNATURE_BYTES})"
    if int.from_bytes(signature[32:], "big") > secp256k1.N // 2:
        return " (its S is in the upper half, which cosmos-sdk refuses)"
    return ""
