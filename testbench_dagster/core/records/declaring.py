"""Declares records: classes of stored documents, of values inside them, of parts of them, and of counts."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter, itemgetter
from typing import Any, ClassVar, Generic, Self, TypeVar, dataclass_transform

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.collection import Collection, Group

FACT, VIEW, ROSTER, COORDINATION = "fact", "view", "roster", "coordination"
"""Kinds of collections: facts are never changed once written, views are made anew from facts, the roster says
whom and how to ask, and what coordinates processes lives as long as these."""

ID = "_id"
"""Name of a document's id in the stores; on records it is ``id``."""

_META = "stored"
_SCALARS = (str, int, float, bool, datetime)
T = TypeVar("T")


@dataclass(frozen=True)
class _Declared:
    """What a field of a record says besides its type."""

    meaning: str
    queryable: bool = False
    exported: bool = True
    sparse: bool = False
    bulky: bool = False
    decode: Callable[[Any], Any] | None = None


def key(meaning: str) -> Any:
    """The document's id."""
    return dataclasses.field(metadata={_META: _Declared(meaning, queryable=True)})


def queryable(meaning: str, *, default: Any = dataclasses.MISSING, sparse: bool = False) -> Any:
    """A scalar that filters, sorts, groups and views of the collection may name; ``sparse`` as of others."""
    declared = _Declared(meaning, queryable=True, sparse=sparse)
    return dataclasses.field(default=default, metadata={_META: declared})


def content(
    meaning: str,
    *,
    default: Any = dataclasses.MISSING,
    exported: bool = True,
    sparse: bool = False,
    bulky: bool = False,
    decode: Callable[[Any], Any] | None = None,
) -> Any:
    """A field that is read with the whole document only.

    ``exported``: it is a column of its parquet file. ``sparse``: it is left out of documents where it has its
    default. ``bulky``: it may be most of a document, and is not read for views that lack it. ``decode`` is
    given the stored value, whatever it is, and returns an equal one, for fields whose type has no decoding of
    its own.
    """
    declared = _Declared(meaning, exported=exported, sparse=sparse, bulky=bulky, decode=decode)
    return dataclasses.field(default=default, metadata={_META: declared})


@dataclass(frozen=True)
class StoredField:
    """One field of a record as it is stored.

    ``name`` is that in documents, ``attribute`` that on records. ``scalar`` is the type of a single value,
    None for what is nested or of any type; ``types`` are the classes its stored values have, empty for any,
    and ``part`` is the class of the values in it, if it has one.
    ``decode`` and ``encode`` turn stored values into records and back, None where they are the same.
    """

    name: str
    attribute: str
    meaning: str
    hint: Any
    scalar: type | None
    types: tuple[type, ...]
    part: type[Part] | None
    nullable: bool
    needed: bool
    default: Any
    queryable: bool
    exported: bool
    sparse: bool
    bulky: bool
    decode: Callable[[Any], Any] | None
    encode: Callable[[Any], Any] | None

    def parts(self, value: Any) -> Iterator[tuple[str, Any]]:
        """The stored values of the class ``part`` in a stored value, each with its place in it."""
        if isinstance(value, list):
            yield from ((f"[{number}]", item) for number, item in enumerate(value))
        elif _not_null(self.hint)[0] is self.part:
            yield "", value
        else:
            yield from ((f".{name}", item) for name, item in value.items())


@dataclass_transform(kw_only_default=True, frozen_default=True)
def _unchanging(cls: type[T]) -> type[T]:
    """Make a class a data class with slots whose attributes the type checker keeps from being set.

    At run time nothing does: to make a frozen one of forty fields takes three times as long, and every relay
    makes one.
    """
    return dataclass(slots=True, kw_only=True)(cls)


@_unchanging
class Part:
    """A value inside a document. ``extra`` holds what is stored in it besides the declared fields."""

    extra: Mapping[str, Any] | None = None

    fields: ClassVar[tuple[StoredField, ...]]
    codec: ClassVar[Codec]

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The record of a stored document.

        Raises:
            StoreError: a field that every such document has, and that is never null, is missing.
        """
        return cls(**cls.codec.attributes(document))

    def to_document(self) -> dict[str, Any]:
        """The document as it is stored."""
        return self.codec.document(self)


class Codec:
    """Turns the documents of one class into attributes of its records, and back."""

    def __init__(self, where: str, fields: Sequence[StoredField]) -> None:
        self._where = where
        self._fields = fields
        self._names = [field.name for field in fields]
        self._attributes = [field.attribute for field in fields]
        self._of_document = taker(self._names)
        self._of_record = taker(self._attributes, attrgetter)
        self._coded = [field for field in fields if field.decode is not None or field.encode is not None]
        self._sparse = [field for field in fields if field.sparse]

    def attributes(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of the record of a document."""
        try:
            values: Sequence[Any] = self._of_document(document)
        except KeyError:
            values = [self.value(field, document) for field in self._fields]
            made = dict(zip(self._attributes, values, strict=True))
            made["extra"] = self._extra(document)
        else:
            made = dict(zip(self._attributes, values, strict=True))
            if len(document) > len(made):
                made["extra"] = self._extra(document)
        for field in self._coded:
            if field.decode is not None and made[field.attribute] is not None:
                made[field.attribute] = field.decode(made[field.attribute])
        return made

    def document(self, record: Part) -> dict[str, Any]:
        """The document of a record."""
        made = dict(zip(self._names, self._of_record(record), strict=True))
        for field in self._coded:
            if field.encode is not None and made[field.name] is not None:
                made[field.name] = field.encode(made[field.name])
        for field in self._sparse:
            if made[field.name] == field.default:
                del made[field.name]
        return made if record.extra is None else {**made, **record.extra}

    def value(self, field: StoredField, document: Mapping[str, Any]) -> Any:
        """The stored value of a field, or what stands for it where it is missing."""
        if field.name in document:
            return document[field.name]
        if field.nullable:  # null and missing are the same to the stores
            return None if field.needed else field.default
        if field.needed:
            named = f"{self._where}[{document[ID]}]" if ID in document else self._where
            raise StoreError(
                f"{named} lacks {field.name}, which every such document has: it is damaged, or was written "
                "by another program; restore or delete it"
            )
        return field.default

    def _extra(self, document: Mapping[str, Any]) -> dict[str, Any] | None:
        return {name: value for name, value in document.items() if name not in self._names} or None


@_unchanging
class Record(Part):
    """A document of a collection."""

    collection: ClassVar[Collection]
    one_per: ClassVar[str]
    collection_kind: ClassVar[str]
    shard_key: ClassVar[tuple[str, ...]]


R = TypeVar("R", bound=Record)
P = TypeVar("P", bound=Part)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key, queryable, content))
def nested(cls: type[P]) -> type[P]:
    """Make a class the type of values inside documents."""
    return _made(cls, cls.__name__)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(key, queryable, content))
def record(
    name: str,
    *,
    one_per: str,
    kind: str,
    indexes: tuple[tuple[str, ...], ...] = (),
    unique: tuple[tuple[str, ...], ...] = (),
    shard_key: tuple[str, ...] = (),
) -> Callable[[type[R]], type[R]]:
    """Make a class the record of a collection; ``indexes`` and ``unique`` list keys of queryable fields.

    ``shard_key`` is what a sharded MongoDB spreads its documents by; without one they stay on one shard.
    Documents with one id must agree in it, since a shard sees to the ids of its own documents alone.
    """

    def decorate(cls: type[R]) -> type[R]:
        made = _made(cls, name)
        if made.fields[0].name != ID or any(field.name == ID for field in made.fields[1:]):
            raise TypeError(f"{cls.__name__}: its first field, and no other, must be `id: str = key(...)`")
        declared: dict[str, type] = {}
        for field in made.fields[1:]:
            if field.queryable:
                if field.scalar is None:
                    raise TypeError(f"{cls.__name__}.{field.attribute}: only scalars are queryable")
                declared[field.name] = field.scalar
        made.collection = Collection(name, declared, indexes, unique)
        made.collection.check_declared([n for listed in (*indexes, *unique) for n in listed])
        made.collection.check_declared(shard_key)
        if any(not set(shard_key) <= {*key} for key in unique):
            raise TypeError(f"{cls.__name__}: its unique keys must contain its shard key")
        made.one_per, made.collection_kind, made.shard_key = one_per, kind, shard_key
        return made

    return decorate


@dataclass(frozen=True)
class Shape(Generic[T]):
    """How values of a class are read from a collection.

    ``names`` are the queryable fields that are enough, None where the document is needed, but for the fields
    in ``without``.
    """

    record: type[Record]
    names: tuple[str, ...] | None
    without: tuple[str, ...]
    from_document: Callable[[Mapping[str, Any]], T]
    from_row: Callable[[Sequence[Any]], T]


@dataclass(frozen=True)
class CountShape(Generic[T]):
    """How rows of a count are read from a collection."""

    record: type[Record]
    group: Group
    from_row: Callable[[Mapping[str, Any]], T]


_SHAPES: dict[type, Shape[Any]] = {}
_COUNTS: dict[type, CountShape[Any]] = {}


def view(of: type[Record]) -> Callable[[type[T]], type[T]]:
    """Make a named tuple a part of a record: its fields are some of the record's, of the same types.

    Raises:
        TypeError: a field is none of the record's, or of another type.
    """

    def decorate(cls: type[T]) -> type[T]:
        known = {field.attribute: field for field in of.fields}
        hints = typing.get_type_hints(cls)
        for name, hint in hints.items():
            if name not in known:
                raise TypeError(f"{cls.__name__}.{name} is no field of {of.__name__}")
            if hint != known[name].hint:
                raise TypeError(f"{cls.__name__}.{name} is {hint}, in {of.__name__} {known[name].hint}")
        fields = [known[name] for name in hints]
        make: Callable[[Sequence[Any]], T] = cls._make  # type: ignore[attr-defined]
        names = tuple(field.name for field in fields)
        narrow = all(field.queryable for field in fields)
        defaults = [
            (place, field.default)
            for place, field in enumerate(fields)
            if not field.nullable and not field.needed
        ]
        from_row = _with_defaults(make, defaults) if defaults else make
        # where a bulky value stands may be told beside it: who reads one is given all the rest
        bulky = any(field.bulky for field in fields)
        unread = (field.name for field in of.fields if field.name not in names and field.name != ID)
        without = () if bulky else tuple(unread)
        read = _reader(of, fields, make)
        _SHAPES[cls] = Shape(of, names if narrow else None, without, read, from_row)
        return cls

    return decorate


def counted(of: type[Record], *, hourly: Sequence[str] = ()) -> Callable[[type[T]], type[T]]:
    """Make a named tuple a row of a count of a collection.

    Its fields are queryable ones to count by, ``n`` for how many, and least, greatest or summed values of
    others as ``min_…``, ``max_…`` and ``sum_…``. Times that are ``hourly`` are those of hours.

    Raises:
        TypeError: a field is none of these, or of another type than in the record.
    """

    def decorate(cls: type[T]) -> type[T]:
        known = {field.attribute: field for field in of.fields if field.queryable}
        chosen: dict[str, list[str]] = {"by": [], "min": [], "max": [], "sum": []}
        for name, hint in typing.get_type_hints(cls).items():
            function, _, rest = name.partition("_")
            if name in known:
                function, rest = "by", name
            elif name == "n" and hint is int:
                continue
            if function not in chosen or rest not in known:
                raise TypeError(f"{cls.__name__}.{name} is nothing that can be counted of {of.__name__}")
            if _not_null(hint)[0] != _not_null(known[rest].hint)[0]:
                raise TypeError(f"{cls.__name__}.{name} is {hint}, in {of.__name__} {known[rest].hint}")
            chosen[function].append(known[rest].name)
        group = Group(**{function: tuple(names) for function, names in chosen.items()}, hourly=tuple(hourly))
        rename = {"id": ID, "n": "count"}
        take = taker([rename.get(name, name) for name in cls._fields])  # type: ignore[attr-defined]
        make: Callable[[Sequence[Any]], T] = cls._make  # type: ignore[attr-defined]
        _COUNTS[cls] = CountShape(of, group, lambda row: make(take(row)))
        return cls

    return decorate


def _with_defaults(
    make: Callable[[Sequence[Any]], T], defaults: Sequence[tuple[int, Any]]
) -> Callable[[Sequence[Any]], T]:
    """Make values of rows in which null stands for a field that older documents lack."""

    def from_row(row: Sequence[Any]) -> T:
        for place, default in defaults:
            if row[place] is None:
                row = (*row[:place], default, *row[place + 1 :])
        return make(row)

    return from_row


def shape_of(cls: type[T]) -> Shape[T]:
    """How values of a record class or view are read."""
    found = _SHAPES.get(cls)
    if found is None:
        if not issubclass(cls, Record):
            raise TypeError(f"{cls.__name__} is neither a record nor a view of one; decorate it with @view")
        found = _SHAPES[cls] = Shape(cls, None, (), cls.from_document, cls.from_document)  # type: ignore[arg-type]
    return found


def count_of(cls: type[T]) -> CountShape[T]:
    """How rows of a count are read."""
    try:
        return _COUNTS[cls]
    except KeyError:
        raise TypeError(f"{cls.__name__} is no count of a collection; decorate it with @counted") from None


def stored_changes(cls: type[Record], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of some attributes of a record, as they are stored.

    Raises:
        TypeError: the record has no such attribute.
    """
    known = {field.attribute: field for field in cls.fields}
    made = {}
    for name, value in changes.items():
        if name not in known:
            raise TypeError(f"{cls.__name__} has no field {name!r}")
        field = known[name]
        made[field.name] = value if field.encode is None or value is None else field.encode(value)
    return made


def _made(cls: type[P], where: str) -> type[P]:
    made = _unchanging(cls)
    hints = typing.get_type_hints(made)
    fields = tuple(
        _stored_field(made, field, hints[field.name])
        for field in dataclasses.fields(made)
        if field.name != "extra"
    )
    made.fields, made.codec = fields, Codec(where, fields)
    return made


def _stored_field(cls: type, field: dataclasses.Field[Any], hint: Any) -> StoredField:
    declared = field.metadata.get(_META)
    if declared is None:
        raise TypeError(f"{cls.__name__}.{field.name}: declare it with key, queryable or content")
    plain, nullable = _not_null(hint)
    if typing.get_origin(plain) is typing.Literal:
        scalar: type | None = type(typing.get_args(plain)[0])
    else:
        scalar = plain if plain in _SCALARS else None
    decode, encode = _codec(plain)
    return StoredField(
        name=ID if field.name == "id" and issubclass(cls, Record) else field.name,
        attribute=field.name,
        meaning=declared.meaning,
        hint=hint,
        scalar=scalar,
        types=_classes(plain),
        part=_part(plain),
        nullable=nullable,
        needed=field.default is dataclasses.MISSING,
        default=field.default,
        queryable=declared.queryable,
        exported=declared.exported,
        sparse=declared.sparse,
        bulky=declared.bulky,
        decode=declared.decode or decode,
        encode=encode,
    )


def _not_null(hint: Any) -> tuple[Any, bool]:
    """A type without null, and whether null was one of its values."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        rest = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(rest) < len(typing.get_args(hint)):
            return typing.Union[tuple(rest)], True  # noqa: UP007
    return hint, hint is Any


def _classes(hint: Any) -> tuple[type, ...]:
    """The classes that stored values of a type have; empty for any."""
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return (type(typing.get_args(hint)[0]),)
    if origin in (types.UnionType, typing.Union):
        return tuple(kind for arg in typing.get_args(hint) for kind in _classes(arg))
    if hint is Any:
        return ()
    if hint is float:
        return (int, float)
    kind = origin or hint
    if issubclass(kind, Mapping) or issubclass(kind, Part):
        return (dict,)
    return (list,) if issubclass(kind, Sequence) and kind not in (str, bytes) else (kind,)


def _part(hint: Any) -> type[Part] | None:
    if isinstance(hint, type) and issubclass(hint, Part):
        return hint
    return next((part for arg in typing.get_args(hint) if (part := _part(arg)) is not None), None)


def _codec(hint: Any) -> tuple[Callable[[Any], Any] | None, Callable[[Any], Any] | None]:
    """How stored values of a type become records and back; None where they stay as they are."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, type) and issubclass(hint, Part):
        return hint.from_document, hint.to_document
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        decode, encode = _codec(args[0])
        if decode is None or encode is None:
            return tuple, list
        return (lambda values: tuple(map(decode, values)), lambda values: list(map(encode, values)))
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(args) == 2:
        decode, encode = _codec(args[1])
        if decode is not None and encode is not None:
            return (
                lambda found: {name: decode(value) for name, value in found.items()},
                lambda found: {name: encode(value) for name, value in found.items()},
            )
    return None, None


def taker(names: Sequence[str], getter: Any = itemgetter) -> Callable[[Any], tuple[Any, ...]]:
    """What takes the values of some names out of something, always as a tuple."""
    take = getter(*names)
    return take if len(names) > 1 else lambda found: (take(found),)


def _reader(
    of: type[Record], fields: Sequence[StoredField], make: Callable[[Sequence[Any]], T]
) -> Callable[[Mapping[str, Any]], T]:
    take = taker([field.name for field in fields])
    coded = [(place, field.decode) for place, field in enumerate(fields) if field.decode is not None]
    required = [field.name for field in fields if field.needed and not field.nullable]
    fills = [(field.name, None if field.needed else field.default) for field in fields]

    def read(document: Mapping[str, Any]) -> T:
        try:
            values: Sequence[Any] = take(document)
        except KeyError:
            if all(name in document for name in required):
                values = [document.get(name, fill) for name, fill in fills]
            else:
                values = [of.codec.value(field, document) for field in fields]
        if coded:
            made = list(values)
            for place, decode in coded:
                if made[place] is not None:
                    made[place] = decode(made[place])
            values = made
        return make(values)

    return read
