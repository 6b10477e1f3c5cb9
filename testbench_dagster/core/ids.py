"""Deterministic document ids: the same fact always gets the same id, so writing it twice is harmless."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson

#: Made once: `json.dumps` makes one for every call that names options.
_encoded = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=True).encode


#: Of these orjson writes what the encoder does, in a quarter of the time; floats it writes otherwise.
_PLAIN = frozenset({str, int})


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys and no spaces: equal values give equal text."""
    return _encoded(value)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def document_id(kind: str, *parts: Any) -> str:
    """Derive a document id (40 hexadecimal digits) from its kind and identifying parts."""
    named = [kind, *parts]
    if _PLAIN.issuperset(map(type, named)):
        try:
            return hashlib.sha256(orjson.dumps(named)).hexdigest()[:40]
        except orjson.JSONEncodeError:  # half a surrogate pair, a number beyond 64 bits
            pass
    return content_hash(named)[:40]


def attempt_document_id(
    supplier: str, prompt_id: str, round_: int, idx: int, repeat: int, number: int
) -> str:
    """The id of the ``number``-th attempt of a supplier at a call of a prompt in a round."""
    return document_id("attempt", supplier, prompt_id, round_, idx, repeat, number)
