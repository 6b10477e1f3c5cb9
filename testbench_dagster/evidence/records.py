"""Stored documents as lines of a bundle, and back: nothing is lost, nothing from a bundle is believed.

Times are ISO 8601 in UTC, to the millisecond as the stores keep them. An attempt's raw answer is
``body_base64``. Values that JSON lacks are written ``{"$bytes": base64}``, ``{"$time": iso}``; an object with
a key that begins with ``$`` is ``{"$object": [[key, value], …]}``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.evidence.layout import BundleError
from testbench_dagster.stores.documents import Collection, Document
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES

_NUMBER = (int, float)
#: Fields that have to be there, with their types; declared fields besides may be null or missing.
_NEEDED: dict[str, dict[str, type | tuple[type, ...]]] = {
    PROMPTS.name: {
        "_id": str, "task": str, "task_hash": str, "epoch": int, "api": str, "position": int, "doc_id": int,
        "doc_hash": str, "calls": int, "repeats": int, "requests": list,
    },
    ATTEMPTS.name: {
        "_id": str, "supplier": str, "service": str, "task": str, "task_hash": str, "epoch": int,
        "round": int, "prompt_id": str, "position": int, "doc_id": int, "idx": int, "repeat": int,
        "attempt": int, "fault": str, "owner": str, "finished_at": datetime, "latency_ms": _NUMBER,
        "body": bytes, "evidence": dict,
    },
    SCORES.name: {
        "_id": str, "supplier": str, "task": str, "task_hash": str, "epoch": int, "round": int,
        "position": int, "doc_id": int, "filter": str, "answer_id": str, "answered_at": datetime,
        "scorer_version": str, "metrics": dict, "attempt_ids": list, "prompt_id": str,
    },
}  # fmt: skip
_TIMES = {PROMPTS.name: ("created_at",), ATTEMPTS.name: ("started_at",), SCORES.name: ("scored_at",)}
_INT64 = 1 << 63


def record_of(collection: Collection, document: Mapping[str, Any]) -> dict[str, Any]:
    """The line of a document."""
    record: dict[str, Any] = {}
    for name, value in sorted(document.items()):
        if isinstance(value, datetime):
            record[name] = iso(value)
        elif collection is ATTEMPTS and name == "body":
            body = bytes(value)
            record["body_base64"] = base64.b64encode(body).decode()
            record["body_sha256"] = hashlib.sha256(body).hexdigest()
        else:
            record[name] = plain(value)
    return record


def document_of(collection: Collection, record: Mapping[str, Any], where: str) -> Document:
    """The document of a line.

    Raises:
        BundleError: a field is missing or of a wrong type; the message begins with ``where``.
    """
    document: Document = {}
    times = {name for name, kind in collection.fields.items() if kind is datetime} | {
        *_TIMES[collection.name]
    }
    for name, value in record.items():
        if name in times and isinstance(value, str):
            document[name] = moment(value, f"{where}.{name}")
        elif collection is ATTEMPTS and name == "body_base64":
            document["body"] = _decoded(value, f"{where}.{name}")
        elif name != "body_sha256":
            document[name] = restored(value, f"{where}.{name}")
    for name, kind in _NEEDED[collection.name].items():
        _check(document.get(name), kind, f"{where}.{name}")
    for name, kind in collection.fields.items():
        if document.setdefault(name, None) is not None:
            _check(document[name], _NUMBER if kind is float else kind, f"{where}.{name}")
    return document


def plain(value: Any) -> Any:
    """A stored value as JSON."""
    if isinstance(value, datetime):
        return {"$time": iso(value)}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, Mapping):
        if any(str(key).startswith("$") for key in value):
            return {"$object": [[str(key), plain(item)] for key, item in value.items()]}
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def restored(value: Any, where: str) -> Any:
    """A JSON value as it was stored.

    Raises:
        BundleError: an unknown tag, or a number that stores cannot hold.
    """
    if isinstance(value, list):
        return [restored(item, where) for item in value]
    if isinstance(value, dict):
        tag = next((key for key in value if key.startswith("$")), None)
        if tag is None:
            return {key: restored(item, f"{where}.{key}") for key, item in value.items()}
        if len(value) == 1 and tag == "$time":
            return moment(value[tag], where)
        if len(value) == 1 and tag == "$bytes":
            return _decoded(value[tag], where)
        pairs = value[tag] if len(value) == 1 and tag == "$object" else None
        if isinstance(pairs, list) and all(
            isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) for p in pairs
        ):
            return {key: restored(item, where) for key, item in pairs}
        raise BundleError(f"{where}: {tag[:40]!r} is no known way to write a value")
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        raise BundleError(f"{where} is a number larger than any that is stored")
    return value


def iso(value: datetime) -> str:
    """A time as text."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds")


def moment(value: Any, where: str) -> datetime:
    """A time from text."""
    try:
        found = datetime.fromisoformat(value)
    except (ValueError, TypeError):
        raise BundleError(f"{where} is no time in ISO 8601") from None
    if found.tzinfo is None:
        raise BundleError(f"{where} has no time zone")
    return found.astimezone(UTC)


def _decoded(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise BundleError(f"{where} is no base64") from None


def _check(value: Any, kind: type | tuple[type, ...], where: str) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(k.__name__ for k in kinds)
        raise BundleError(f"{where} is {type(value).__name__}, not {wanted}")
