"""What is kept of a signed answer so that anybody can verify it later, without keeping the answer twice.

An attempt stores the backend's answer as its body. The envelope around it, as received, is stored in pieces:
for each signed part the bytes before the backend's, the number of the backend's, and the bytes after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbench_dagster.transports.pocket.errors import CodecError, ResponseError
from testbench_dagster.transports.pocket.messages import HttpResponse, SessionHeader
from testbench_dagster.transports.pocket.responses import read_response, verify_response


def envelope_of(parts: Sequence[bytes], answers: Sequence[HttpResponse]) -> list[list[Any]]:
    """Return the pieces of signed parts around the bodies found in them."""
    pieces: list[list[Any]] = []
    for part, answer in zip(parts, answers, strict=True):
        at = part.find(answer.body)  # it lies in there as it is
        pieces.append([part[:at], len(answer.body), part[at + len(answer.body) :]])
    return pieces


def parts_of(body: bytes, evidence: Mapping[str, Any]) -> list[bytes]:
    """Return the signed parts as received, from an attempt's body and evidence.

    Raises :class:`ResponseError` if they do not fit together, or if there is no envelope.
    """
    envelope = evidence.get("envelope")
    pieces = envelope.get("parts") if isinstance(envelope, Mapping) else None
    parts: list[bytes] = []
    at = 0
    if isinstance(pieces, Sequence):
        for piece in pieces:
            try:
                before, length, after = piece
                parts.append(b"%b%b%b" % (bytes(before), body[at : at + length], bytes(after)))
                at += int(length)
            except (TypeError, ValueError):
                raise ResponseError("unmarshal", "a piece of the envelope is malformed") from None
            if length < 0 or at > len(body):
                raise ResponseError("unmarshal", "the envelope is not that of this answer")
    if not parts:
        raise ResponseError("unsigned", "no envelope of the answer was kept")
    if at != len(body):
        raise ResponseError("unmarshal", "the envelope is not that of this answer")
    return parts


def verify_evidence(body: bytes, evidence: Mapping[str, Any]) -> None:
    """Verify again what an attempt with a signed answer rests on: ``body`` is its answer as stored.

    Whether ``public_key`` is the supplier's is for the chain to say. Raises :class:`ResponseError` if a part
    is not signed by that key, for the session that was asked in, or holds another answer.
    """
    try:
        key = bytes.fromhex(evidence["public_key"])
        header = SessionHeader.decode(bytes(evidence["session_header"]))
    except (KeyError, TypeError, ValueError) as error:  # CodecError is a ValueError
        field = error.args[0] if isinstance(error, KeyError) else "public_key or session_header"
        raise ResponseError("unmarshal", f"evidence lacks {field}, or it is malformed") from None
    found = []
    for part in parts_of(body, evidence):
        try:
            found.append(verify_response(read_response(part), header, key).body)
        except CodecError as error:
            raise ResponseError("unmarshal", str(error)) from None
    if b"".join(found) != body:
        raise ResponseError("payload", "what was signed is another answer")
