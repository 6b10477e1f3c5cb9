"""A protobuf codec for the few messages a relay needs, from declared schemas, in canonical bytes.

A ``Schema`` lists the ``Field``\\ s of a message; values are plain dicts by the fields' proto names, as JSON
of the same message has them::

    COIN = Schema("Coin", Field(1, "denom", "string"), Field(2, "amount", "string"))
    APP = Schema("Application", Field(1, "address", "string"), Field(2, "stake", "message", COIN),
                 Field(4, "gateways", "string", repeated=True))
    data = encode_message(APP, {"address": "pokt1...", "stake": {"denom": "upokt", "amount": "7"}})
    decode_message(APP, data)["stake"]["amount"]

Decoded dicts hold every field: ``""``, ``b""``, ``0``, ``False`` for absent scalars, ``None`` for an absent
message (all defaults instead if ``always``), ``[]`` and ``{}`` for absent repeated fields and maps. Encoding
leaves out absent fields and defaults, and takes dicts in which fields are missing.

Bytes are those of Go's generated code (gogoproto, ``Marshal`` with deterministic maps), which relay miners
hash again: ascending field numbers, defaults of proto3 omitted, a message that is set emitted though empty,
map entries sorted by key with key and value always there. Decoding takes what Go takes (fields in any order,
the last of a scalar given twice, messages given twice merged, unknown fields skipped) but for groups,
integers out of their range and strings that are not UTF-8: those are refused.

Input may be hostile. Decoding raises nothing but :class:`CodecError`, descends only as deep as the schema
(which cannot hold itself), copies no sub-message, and stops after ``max_fields`` fields.
Wire format: protobuf.dev/programming-guides/encoding.

``google.protobuf`` (which Dagster brings; 6.33 with upb) was tried in its place, on these messages with the
same bytes, maps included, and four times the speed: 12 us instead of 52 for an answer and its hash, of some
700 for a whole relay. It has no bound but the length, though: 8 MB of empty header values, which this codec
refuses after 20,000 fields and 13 ms, become four million objects and 147 MB, for each answer in flight. It
also cuts integers that are out of range, keeps unknown fields and writes them again, and so takes messages,
or hashes them, otherwise than miners do (81 of 20,000 damaged ones). Counting fields first costs what it
saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket.errors import CodecError

Kind = Literal["string", "bytes", "bool", "uint32", "uint64", "int32", "int64", "enum", "message", "map"]
Values = Mapping[str, Any]

#: Fields read from one message with all that is in it, before it is refused: about 0.1 s of work.
MAX_FIELDS = 100_000
MAX_BYTES = 64 * 1024 * 1024

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_RANGES = {
    "bool": (0, 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "enum": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
_DEFAULTS: dict[str, Any] = {"string": "", "bytes": b"", "bool": False, "message": None}


class Schema:
    """A message type: its name (for errors) and fields. Raises ``ValueError`` if two share number or name."""

    __slots__ = ("by_number", "fields", "name", "names")

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields = tuple(sorted(fields, key=lambda f: f.number))
        self.by_number = {f.number: f for f in fields}
        self.names = frozenset(f.name for f in fields)
        if not len(self.by_number) == len(self.names) == len(fields):
            raise ValueError(f"schema {name}: two fields share a number or a name")

    def __repr__(self) -> str:
        return f"Schema({self.name!r}, {len(self.fields)} fields)"

    def defaults(self) -> dict[str, Any]:
        """Return the values of a message without bytes."""
        return {f.name: f.default() for f in self.fields}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: ``number`` and ``name`` as in the .proto file, its ``kind``.

    ``message`` is the schema of kind "message", or of a map's values (then keys are of kind ``key``; without
    it values are strings). ``always`` marks messages Go holds by value (gogoproto ``nullable = false``): they
    are emitted even if absent. Only strings, bytes and messages can be ``repeated``.
    """

    number: int
    name: str
    kind: Kind
    message: Schema | None = None
    repeated: bool = False
    always: bool = False
    key: Literal["string", "uint64", "int64"] = "string"
    entry: Schema | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.number < 2**29:
            raise ValueError(f"field {self.name}: number {self.number} is not in 1..2^29-1")
        if (self.kind == "message" and self.message is None) or (
            self.message is not None and self.kind not in ("message", "map")
        ):
            raise ValueError(f"field {self.name}: kind {self.kind} and its message schema do not fit")
        if self.repeated and self.kind not in ("string", "bytes", "message"):
            raise ValueError(f"field {self.name}: repeated {self.kind} is not supported")
        if self.kind == "map":
            value = Field(2, "value", "message" if self.message else "string", self.message, always=True)
            object.__setattr__(self, "entry", Schema(self.name, Field(1, "key", self.key), value))

    def default(self) -> Any:
        """Return the value of the field in a message without it."""
        if self.repeated:
            return []
        if self.kind == "map":
            return {}
        if self.always and self.message is not None:
            return self.message.defaults()
        return _DEFAULTS.get(self.kind, 0)


# ---------------------------------------------------------------------------------------- encoding


def encode_message(schema: Schema, values: Values) -> bytes:
    """Return the canonical bytes of a message. Raises :class:`CodecError` for values that do not fit."""
    if not values.keys() <= schema.names:
        strange = sorted(str(name) for name in values.keys() - schema.names)
        raise CodecError(
            f"{schema.name} has no field {', '.join(strange)}: give {', '.join(sorted(schema.names))}"
        )
    parts: list[bytes] = []
    for each in schema.fields:
        value = values.get(each.name)
        if each.repeated:
            for item in value or ():
                _put(parts, schema, each, item)
        elif each.entry is not None:
            for key, item in _sorted_entries(schema, each, value or {}):
                pair: list[bytes] = []
                _put(pair, each.entry, each.entry.fields[0], key)
                _put(pair, each.entry, each.entry.fields[1], item)
                _put_bytes(parts, each.number, b"".join(pair))
        elif each.always:
            _put(parts, schema, each, {} if value is None else value)
        elif value is not None and (each.kind == "message" or value):
            _put(parts, schema, each, value)
    return b"".join(parts)


def _put(parts: list[bytes], schema: Schema, field: Field, value: Any) -> None:
    """Append tag and value of one field, be the value its default or not."""
    kind = field.kind
    if kind in _RANGES:
        low, high = _RANGES[kind]
        if not isinstance(value, int) or not low <= value <= high:
            raise CodecError(
                f"{schema.name}.{field.name} is {value!r:.80}: give a whole number in {low}..{high}"
            )
        parts.append(_varint(field.number << 3 | _VARINT))
        parts.append(_varint(value & (2**64 - 1)))
        return
    if field.message is not None:  # of the kind "message", as Field checks
        if not isinstance(value, Mapping):
            raise CodecError(f"{schema.name}.{field.name} is {value!r:.80}: give a mapping of its fields")
        data = encode_message(field.message, value)
    elif kind == "string" and isinstance(value, str):
        try:
            data = value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise CodecError(
                f"{schema.name}.{field.name} cannot be written as UTF-8: {error.reason}"
            ) from None
    elif kind == "bytes" and isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
    else:
        raise CodecError(f"{schema.name}.{field.name} is of type {type(value).__name__}: give {kind}")
    _put_bytes(parts, field.number, data)


def _sorted_entries(schema: Schema, field: Field, value: Any) -> list[tuple[Any, Any]]:
    try:
        return sorted(value.items())
    except (AttributeError, TypeError):
        raise CodecError(f"{schema.name}.{field.name} is no mapping with keys of kind {field.key}") from None


def _put_bytes(parts: list[bytes], number: int, data: bytes) -> None:
    parts += (_varint(number << 3 | _LENGTH), _varint(len(data)), data)


_ONE_BYTE = tuple(bytes([n]) for n in range(128))


def _varint(value: int) -> bytes:
    if value < 128:
        return _ONE_BYTE[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---------------------------------------------------------------------------------------- decoding


def decode_message(
    schema: Schema, data: bytes, *, max_fields: int = MAX_FIELDS, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Return the values of a message, every field of the schema among them.

    Raises :class:`CodecError`, and nothing else, for whatever bytes are no such message or exceed a bound.
    """
    if len(data) > max_bytes:
        raise CodecError(f"{schema.name} has {counted(len(data), 'byte')}, more than the allowed {max_bytes}")
    return _Reader(bytes(data), max_fields).message(schema, 0, len(data), schema.defaults())


class _Reader:
    """One pass over a buffer; sub-messages are read in place."""

    __slots__ = ("data", "left")

    def __init__(self, data: bytes, max_fields: int) -> None:
        self.data = data
        self.left = max_fields

    def message(self, schema: Schema, at: int, end: int, into: dict[str, Any]) -> dict[str, Any]:
        """Merge the fields between two offsets into values."""
        by_number = schema.by_number
        while at < end:
            self.left -= 1
            if self.left < 0:
                raise CodecError(f"{schema.name} has too many fields")
            tag, at = self.varint(schema, at, end)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 2**29:
                raise CodecError(f"{schema.name} has a field of number {number}")
            field = by_number.get(number)
            if wire == _VARINT:
                value, at = self.varint(schema, at, end)
                if field is not None:
                    into[field.name] = _integer(schema, field, value)
            elif wire == _LENGTH:
                size, at = self.varint(schema, at, end)
                stop = at + size
                if stop > end:
                    raise CodecError(f"{schema.name} ends within field {number}")
                if field is not None:
                    self.chunk(schema, field, at, stop, into)
                at = stop
            elif wire in (_FIXED32, _FIXED64):
                at += 4 if wire == _FIXED32 else 8
                if at > end:
                    raise CodecError(f"{schema.name} ends within field {number}")
                if field is not None:
                    raise CodecError(
                        f"{schema.name}.{field.name} has wire type {wire}, not that of {field.kind}"
                    )
            else:
                raise CodecError(f"{schema.name}, field {number}: wire type {wire} is not supported")
        return into

    def varint(self, schema: Schema, at: int, end: int) -> tuple[int, int]:
        """Read an integer of up to 64 bits in up to ten bytes; return it and the offset after it."""
        data = self.data
        value = shift = 0
        while at < end and shift < 70:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if value >> 64:
                    break
                return value, at
            shift += 7
        raise CodecError(f"{schema.name} has an integer that is cut off or longer than 64 bits")

    def chunk(self, schema: Schema, field: Field, at: int, stop: int, into: dict[str, Any]) -> None:
        """Set, or append to, a field that has a length."""
        name, kind, inner = field.name, field.kind, field.message
        value: Any
        if kind == "bytes":
            value = self.data[at:stop]
        elif kind == "string":
            try:
                value = self.data[at:stop].decode("utf-8")
            except UnicodeDecodeError as error:
                raise CodecError(f"{schema.name}.{name} is not UTF-8: {error.reason}") from None
        elif kind == "message" and inner is not None:
            old = None if field.repeated else into[name]
            value = self.message(inner, at, stop, inner.defaults() if old is None else old)
        elif field.entry is not None:
            pair = self.message(field.entry, at, stop, field.entry.defaults())
            into[name][pair["key"]] = pair["value"]
            return
        else:
            raise CodecError(f"{schema.name}.{name} has wire type {_LENGTH}, not that of {kind}")
        if field.repeated:
            into[name].append(value)
        else:
            into[name] = value


def _integer(schema: Schema, field: Field, value: int) -> int | bool:
    """Return a varint as the field's kind has it."""
    kind = field.kind
    if kind == "bool":
        return value != 0
    if kind not in _RANGES:
        raise CodecError(f"{schema.name}.{field.name} has wire type {_VARINT}, not that of {kind}")
    if kind in ("int64", "int32", "enum") and value >> 63:
        value -= 2**64
    low, high = _RANGES[kind]
    if not low <= value <= high:
        raise CodecError(f"{schema.name}.{field.name} is {value}, out of range for {kind}")
    return value
