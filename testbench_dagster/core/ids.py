"""Deterministic document ids: the same fact always gets the same id, so writing it twice is harmless."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> str:
    """Serialise to JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=True)


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def document_id(kind: str, *parts: Any) -> str:
    """Derive a document id (40 hexadecimal digits) from its kind and identifying parts."""
    return content_hash([kind, *parts])[:40]
