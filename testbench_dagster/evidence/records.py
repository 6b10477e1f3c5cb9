"""Records as lines of a bundle, and back: nothing is lost, nothing from a bundle is believed.

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
from typing import Any, TypeVar

from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.declaring import Part, Record
from testbench_dagster.evidence.layout import BundleError

_INT64 = 1 << 63
R = TypeVar("R", bound=Record)
P = TypeVar("P", bound=Part)


def line_of(record: Record) -> dict[str, Any]:
    """The line of a record."""
    line: dict[str, Any] = {}
    for name, value in sorted(record.to_document().items()):
        if isinstance(value, datetime):
            line[name] = iso(value)
        elif name == "body" and isinstance(record, AttemptRecord):
            line["body_base64"] = base64.b64encode(record.body).decode()
            line["body_sha256"] = hashlib.sha256(record.body).hexdigest()
        else:
            line[name] = plain(value)
    return line


def record_of(of: type[R], line: Mapping[str, Any], where: str) -> R:
    """The record of a line.

    Raises:
        BundleError: a field is missing or of a wrong type; the message begins with ``where``.
    """
    document: dict[str, Any] = {}
    times = {field.name for field in of.fields if field.scalar is datetime}
    for name, value in line.items():
        if name in times and isinstance(value, str):
            document[name] = moment(value, f"{where}.{name}")
        elif name == "body_base64" and of is AttemptRecord:
            document["body"] = _decoded(value, f"{where}.{name}")
        elif name != "body_sha256":
            document[name] = restored(value, f"{where}.{name}")
    return checked(of, document, where)


def checked(of: type[P], document: Mapping[str, Any], where: str) -> P:
    """The record of a document of unknown origin.

    Raises:
        BundleError: a field is missing or of a wrong type; the message begins with ``where``.
    """
    for field in of.fields:
        value = document.get(field.name)
        if value is None:
            if field.needed and not field.nullable:
                _check(value, field.types, f"{where}.{field.name}")
            continue
        _check(value, field.types, f"{where}.{field.name}")
        if field.part is not None:
            for place, item in field.parts(value):
                _check(item, (dict,), f"{where}.{field.name}{place}")
                checked(field.part, item, f"{where}.{field.name}{place}")
    return of.from_document(document)


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


def _check(value: Any, kinds: tuple[type, ...], where: str) -> None:
    if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        wanted = " or ".join(k.__name__ for k in kinds)
        raise BundleError(f"{where} is {type(value).__name__}, not {wanted}")
