"""Google's own protobuf, from the same schemas: what our codec is compared with. It comes with Dagster.

Its order of map entries is another one than Go's, so bytes are comparable where maps have one entry at most.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from testbench_dagster.transports.pocket.protobuf import Field, Schema

_TYPES = {
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    "bytes": descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "uint32": descriptor_pb2.FieldDescriptorProto.TYPE_UINT32,
    "uint64": descriptor_pb2.FieldDescriptorProto.TYPE_UINT64,
    "int32": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "enum": descriptor_pb2.FieldDescriptorProto.TYPE_INT32,
    "int64": descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    "message": descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
    "map": descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
}


class Oracle:
    """Encodes and decodes values of one schema by google.protobuf."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        file = descriptor_pb2.FileDescriptorProto(name=f"{schema.name}.proto", package="o", syntax="proto3")
        self._names: set[str] = set()
        self._declare(file, schema)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self._class = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"o.{schema.name}"))

    def _declare(self, file: Any, schema: Schema) -> None:
        if schema.name in self._names:
            return
        self._names.add(schema.name)
        message = file.message_type.add(name=schema.name)
        for field in schema.fields:
            made = message.field.add(name=field.name, number=field.number, type=_TYPES[field.kind])
            many = field.repeated or field.entry is not None
            made.label = made.LABEL_REPEATED if many else made.LABEL_OPTIONAL
            if field.entry is not None:
                name = "".join(word.capitalize() for word in field.name.split("_")) + "Entry"
                entry = message.nested_type.add(name=name)
                entry.options.map_entry = True
                made.type_name = f".o.{schema.name}.{name}"
                for part in field.entry.fields:
                    inner = entry.field.add(name=part.name, number=part.number, type=_TYPES[part.kind])
                    inner.label = inner.LABEL_OPTIONAL
                    if part.message is not None:
                        inner.type_name = f".o.{part.message.name}"
            elif field.message is not None:
                made.type_name = f".o.{field.message.name}"
            if field.message is not None:
                self._declare(file, field.message)

    def encode(self, values: dict[str, Any]) -> bytes:
        message = self._class()
        _fill(message, self.schema, values)
        data: bytes = message.SerializeToString(deterministic=True)
        return data

    def decode(self, data: bytes) -> dict[str, Any] | None:
        message = self._class()
        try:
            message.ParseFromString(data)
        except DecodeError:
            return None
        return _values(message, self.schema)


def _fill(message: Any, schema: Schema, values: dict[str, Any]) -> None:
    for field in schema.fields:
        value = values.get(field.name)
        if field.entry is not None:
            for key, item in (value or {}).items():
                if field.message is None:
                    getattr(message, field.name)[key] = item
                else:
                    _fill(getattr(message, field.name)[key], field.message, item)
        elif field.repeated:
            for item in value or ():
                if field.message is None:
                    getattr(message, field.name).append(item)
                else:
                    _fill(getattr(message, field.name).add(), field.message, item)
        elif field.message is not None:
            if value is not None or field.always:
                getattr(message, field.name).SetInParent()
                _fill(getattr(message, field.name), field.message, value or {})
        elif value is not None:
            setattr(message, field.name, value)


def _values(message: Any, schema: Schema) -> dict[str, Any]:
    return {field.name: _value(message, field) for field in schema.fields}


def _value(message: Any, field: Field) -> Any:
    value, inner = getattr(message, field.name), field.message
    if field.entry is not None:
        return {key: value[key] if inner is None else _values(value[key], inner) for key in value}
    if field.repeated:
        return [item if inner is None else _values(item, inner) for item in value]
    if inner is None:
        return value
    return _values(value, inner) if field.always or message.HasField(field.name) else None
