"""What both document stores agree on before a byte is written: value types, filters, limits, BSON codec.

Everything that could make one store accept what the other refuses is decided here: the types of declared
fields, times, nesting and size limits, and the meaning of a filter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.wording import counted
from testbench_dagster.stores.documents.contract import (
    OPERATORS,
    Collection,
    Document,
    Group,
    Minutely,
    Where,
)

CODEC: CodecOptions[Document] = CodecOptions(
    tz_aware=True, tzinfo=UTC, uuid_representation=UuidRepresentation.STANDARD
)
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024
"""Largest encoded document; MongoDB's own limit."""
MAX_DEPTH = 100
"""Deepest nesting of a document; MongoDB's own limit."""
MAX_IN_VALUES = 200_000
"""Longest ``in`` list: with ids of 40 characters it still fits one 16 MB MongoDB command."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_LEAVES = frozenset({str, int, float, bool, bytes, type(None)})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")
_TYPES = frozenset({str, int, float, bool, datetime})


@dataclass(frozen=True)
class Term:
    """One condition of a filter; ``operand`` is normalised (a tuple of distinct values for ``in``)."""

    field: str
    op: str
    operand: Any


def check_collection(collection: Collection) -> None:
    """Raise :class:`StoreError` unless both stores can hold the collection as it is declared.

    Names are lower-case identifiers: SQLite ignores case and this package's own columns start with ``_``.
    """
    for name in (collection.name, *collection.fields):
        if not _NAME.fullmatch(name):
            raise StoreError(f"{collection.name}: {name!r} must be a lower-case identifier")
    for name, kind in collection.fields.items():
        if kind not in _TYPES:
            raise StoreError(f"{collection.name}.{name}: {kind!r} is no scalar type a field may have")
    for key in (*collection.indexes, *collection.unique):
        collection.check_declared(key)


def plain_indexes(collection: Collection) -> list[tuple[str, ...]]:
    """The declared indexes that no unique index over the same fields serves already."""
    return [key for key in dict.fromkeys(collection.indexes) if key not in collection.unique]


def serving_index(collection: Collection, terms: Sequence[Term]) -> tuple[str, ...] | None:
    """The declared index that serves a filter best, None for no index.

    That of ids, where they are asked for. Else that which the most of its first fields are asked for of, each
    by its values and the last one perhaps by a range; of several as good the one that is declared first.
    """
    values = {term.field for term in terms if term.op == "eq" or (term.op == "in" and _is_exact(term))}
    ranges = {term.field for term in terms if term.op in ("gt", "gte", "lt", "lte")}
    if "_id" in values:
        return ("_id",)
    best: tuple[str, ...] | None = None
    most = 0
    for key in (*collection.unique, *plain_indexes(collection)):
        n = next((place for place, name in enumerate(key) if name not in values), len(key))
        n += n < len(key) and key[n] in ranges
        if n > most:
            best, most = key, n
    return best


def _is_exact(term: Term) -> bool:
    """Whether an ``in`` lists values that an index finds: some, and no null."""
    return bool(term.operand) and None not in term.operand


#: How the names of declared indexes begin.
INDEX_NAMES = ("index_", "unique_")


def index_name(key: Sequence[str], *, unique: bool) -> str:
    """Name of the index over these fields; the same declaration always gives the same name."""
    return ("unique_" if unique else "index_") + "__".join(key)


def told_index(collection: Collection, key: Sequence[str], documents: int) -> str:
    """That an index is being built, and over how much."""
    return f"{collection.name}: indexing {counted(documents, 'document')} by {', '.join(key)}"


def field_type(collection: Collection, name: str) -> type:
    """Return the declared type of a field; ``_id`` is a string."""
    return str if name == "_id" else collection.fields[name]


def milliseconds(moment: datetime) -> int:
    """Whole milliseconds since 1970 of an aware datetime, rounded down."""
    return (moment - _EPOCH) // _MILLISECOND


def from_milliseconds(value: int) -> datetime:
    """The UTC datetime of :func:`milliseconds`."""
    return _EPOCH + timedelta(milliseconds=value)


def normalise(collection: Collection, name: str, value: Any) -> Any:
    """Return ``value`` as exactly the declared type of the field (or None).

    Subclasses lose their class (enums, numpy floats), an int becomes a float where a float is declared, and
    a datetime becomes UTC with whole milliseconds. Raises :class:`StoreError` naming collection, field and
    value when it is of another type, a naive datetime, a non-finite float or an int beyond 64 bits: SQLite
    and MongoDB would compare or sum those differently.
    """
    if value is None:
        return None
    kind = field_type(collection, name)
    if kind is str and isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is datetime and isinstance(value, datetime):
        return _utc(f"{collection.name}.{name}", value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if kind is int and isinstance(value, int):
            if _INT64_MIN <= value <= _INT64_MAX:
                return int(value)
            raise StoreError(f"{collection.name}.{name}: {value!r} does not fit 64 bits")
        if kind is float:
            return _finite(collection, name, value)
    raise StoreError(
        f"{collection.name}.{name}: {_shown(value)} is {type(value).__name__}, but the field is declared "
        f"{kind.__name__}; give a {kind.__name__} or None"
    )


def prepare(collection: Collection, document: Mapping[str, Any]) -> Document:
    """Return the document with its declared fields normalised, ready for :func:`encode`.

    Raises :class:`StoreError` when ``_id`` is not a non-empty string, a declared field has the wrong type, a
    datetime anywhere is naive, a top-level name starts with ``$`` (MongoDB would read it as an operator), or
    the nesting is deeper than :data:`MAX_DEPTH`.
    """
    id_ = document.get("_id")
    if not isinstance(id_, str) or not id_:
        raise StoreError(f"{collection.name}: _id must be a non-empty string, not {_shown(id_)}")
    prepared = dict(document)
    _check_values(f"{collection.name}[{id_}]", prepared, 1)
    for name in prepared:
        if name[:1] == "$":
            raise StoreError(f"{collection.name}[{id_}]: the name {name!r} may not start with '$'")
    for name, kind in (("_id", str), *collection.fields.items()):
        value = prepared.get(name)
        # most are what they have to be
        if value is None or ((kind is str or kind is bool) and type(value) is kind):
            continue
        prepared[name] = normalise(collection, name, value)
    return prepared


def encode(collection: Collection, prepared: Document) -> bytes:
    """Encode a prepared document as BSON; :class:`StoreError` when it cannot be encoded or is too large."""
    try:
        body = bson.encode(prepared, codec_options=CODEC)
    except (bson.errors.BSONError, OverflowError, TypeError, ValueError) as error:
        raise StoreError(f"{collection.name}[{prepared['_id']}] cannot be stored: {error}") from error
    if len(body) > MAX_DOCUMENT_BYTES:
        raise StoreError(
            f"{collection.name}[{prepared['_id']}] takes {counted(len(body), 'byte', ',')}; a document "
            f"may take at most {MAX_DOCUMENT_BYTES:,}: split it or cut what it holds"
        )
    return body


def decode(body: bytes) -> Document:
    """Decode a BSON body; datetimes come back aware, in UTC."""
    return bson.decode(body, codec_options=CODEC)


def prepare_changes(collection: Collection, changes: Mapping[str, Any]) -> Document:
    """Normalise the changes of a claim.

    Raises :class:`StoreError` when there are none, when they would change ``_id``, or when a name is one that
    MongoDB reads as a path or an operator.
    """
    if not changes:
        raise StoreError(f"{collection.name}: a claim without changes would claim nothing")
    for name in changes:
        if name == "_id" or not name or name[0] == "$" or "." in name or "\0" in name:
            raise StoreError(f"{collection.name}: a claim may not set {name!r}")
    prepared = dict(changes)
    _check_values(f"{collection.name} (changes)", prepared, 1)
    for name in collection.fields:
        if name in prepared:
            prepared[name] = normalise(collection, name, prepared[name])
    return prepared


def terms(collection: Collection, where: Where | None) -> list[Term]:
    """Read a filter; see :mod:`.contract` for its language.

    Raises :class:`UndeclaredField` for undeclared fields, and :class:`StoreError` for unknown operators,
    operands of the wrong type, None where an order is asked for, and ``in`` lists that are too long.
    """
    where = where or {}
    collection.check_declared(where)
    found: list[Term] = []
    for name, condition in where.items():
        if not isinstance(condition, Mapping):
            found.append(Term(name, "eq", normalise(collection, name, condition)))
            continue
        if not condition:
            raise StoreError(f"{collection.name}.{name}: the filter names no operator")
        found.extend(_term(collection, name, op, operand) for op, operand in condition.items())
    return found


def check_sort(collection: Collection, sort: Sequence[tuple[str, int]]) -> None:
    """Raise unless every sort key is a declared field with direction 1 or -1, named once."""
    names = [name for name, _ in sort]
    collection.check_declared(names)
    if len(set(names)) != len(names):
        raise StoreError(f"{collection.name}: the sort names a field twice: {names}")
    for name, direction in sort:
        if direction not in (1, -1):
            raise StoreError(f"{collection.name}.{name}: sort direction {direction!r} must be 1 or -1")


def check_limit(collection: Collection, limit: int | None) -> None:
    """Raise unless the limit is None or a whole number from 0."""
    if limit is not None and limit < 0:
        raise StoreError(f"{collection.name}: limit {limit!r} must be 0 or more")


#: Milliseconds of an hour and of a minute, of which stores count times.
HOUR_MS, MINUTE_MS = 3_600_000, 60_000


def check_group(collection: Collection, group: Group) -> None:
    """Raise unless every field is declared, the summed ones are numbers and the hourly ones times."""
    collection.check_declared([*group.by, *group.min, *group.max, *group.sum])
    for name in group.hourly:
        if name not in group.by or field_type(collection, name) is not datetime:
            raise StoreError(f"{collection.name}.{name}: only times in `by` can be hourly")
    for name in group.sum:
        if field_type(collection, name) not in (int, float):
            raise StoreError(f"{collection.name}.{name}: only int and float fields can be summed")


def check_minutely(collection: Collection, minutely: Minutely) -> None:
    """Raise unless the fields are declared, the time is one, and what is told apart are texts."""
    collection.check_declared([minutely.by, minutely.time, minutely.field])
    if field_type(collection, minutely.time) is not datetime:
        raise StoreError(f"{collection.name}.{minutely.time}: only times have minutes")
    if field_type(collection, minutely.field) is not str:
        raise StoreError(f"{collection.name}.{minutely.field}: only texts are told apart by minutes")


def check_purge(collection: Collection, where: Where) -> None:
    """Raise :class:`StoreError` when a purge names no condition."""
    if not where:
        raise StoreError(f"{collection.name}: purge needs a filter; it never empties a whole collection")


def _term(collection: Collection, name: str, op: str, operand: Any) -> Term:
    if op not in OPERATORS:
        raise StoreError(
            f"{collection.name}.{name}: unknown operator {op!r}; use one of {', '.join(sorted(OPERATORS))}"
        )
    if op == "in":
        if isinstance(operand, (str, bytes, Mapping)) or not isinstance(operand, Iterable):
            raise StoreError(f"{collection.name}.{name}: 'in' takes a list or set, not {_shown(operand)}")
        values = tuple(dict.fromkeys(normalise(collection, name, value) for value in operand))
        if len(values) > MAX_IN_VALUES:
            raise StoreError(
                f"{collection.name}.{name}: 'in' holds {len(values):,} values, more than "
                f"{MAX_IN_VALUES:,}; ask in several parts"
            )
        return Term(name, op, values)
    value = normalise(collection, name, operand)
    if value is None and op not in ("eq", "ne"):
        raise StoreError(f"{collection.name}.{name}: {op!r} needs a value; None has no order")
    return Term(name, op, value)


def _finite(collection: Collection, name: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise StoreError(
            f"{collection.name}.{name}: {value!r} is not a finite number; use None in a declared field"
        )
    return number


def _utc(what: str, moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise StoreError(f"{what}: {moment!r} has no time zone; use an aware datetime such as now(UTC)")
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _check_values(what: str, value: Any, depth: int) -> None:
    """Refuse naive datetimes (BSON would take them for UTC), non-string names and runaway nesting."""
    if depth > MAX_DEPTH:
        raise StoreError(f"{what}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise StoreError(f"{what}: the name {name!r} is not a string")
        children: Iterable[Any] = value.values()
    else:
        children = value
    for child in children:
        if type(child) in _LEAVES:
            continue
        if isinstance(child, (Mapping, list, tuple)):
            _check_values(what, child, depth + 1)
        elif isinstance(child, datetime):
            _utc(what, child)


def _shown(value: Any) -> str:
    """A value for an error message, cut to 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
