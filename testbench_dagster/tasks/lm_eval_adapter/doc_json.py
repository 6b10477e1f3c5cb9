"""Docs as JSON text and back, with the values that JSON has no form for: dates, bytes, decimals, images, …

Such a value is an object with one name, ``testbench:<kind>``: ``{"testbench:date": "2024-02-29"}``. Prompts
and scorers get back what the data set gave, of the same type. A doc without such values is the text that
:func:`json.dumps` makes of it; an object of a doc that looks like one of these is put into
``{"testbench:object": …}``, so that it comes back as it was.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from io import BytesIO
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import datasets
import numpy as np
import pandas as pd

_PREFIX = "testbench:"
_OBJECT = f"{_PREFIX}object"
_INTEGER = f"{_PREFIX}integer"
_INT64 = range(-(2**63), 2**63)
#: Deepest nesting of a doc: what JSON decoders of all processes read without running out of stack.
MAX_DEPTH = 500


def dump_doc(doc: Any) -> str:
    """A doc as ASCII JSON text.

    Raises:
        ValueError: it holds a value of a type that no text stands for, or is nested too deeply.
    """
    try:
        text = json.dumps(doc, ensure_ascii=True)
    except TypeError:
        text = ""
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    if not text or _PREFIX in text:
        text = json.dumps(tagged(doc), ensure_ascii=True)
    return text


def load_doc(text: str) -> Any:
    """The doc of :func:`dump_doc`."""
    loaded = json.loads(text)
    return untagged(loaded) if _PREFIX in text else loaded


def tagged(value: Any, *, for_bson: bool = False) -> Any:
    """A value as JSON can hold it; ``for_bson`` also what BSON cannot: integers beyond 64 bits.

    Raises:
        ValueError: see :func:`dump_doc`.
    """
    return _tagged(value, for_bson, 0)


def untagged(value: Any) -> Any:
    """The value of :func:`tagged`; a kind that is not known stays as it is."""
    if isinstance(value, list):
        return [untagged(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, inner),) = value.items()
        if name == _OBJECT and isinstance(inner, dict):
            return {key: untagged(one) for key, one in inner.items()}
        if isinstance(name, str) and (read := _READERS.get(name)) is not None:
            return read(inner)
    return {key: untagged(one) for key, one in value.items()}


def _tagged(value: Any, for_bson: bool, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        return {_INTEGER: str(int(value))} if for_bson and value not in _INT64 else value
    if isinstance(value, Mapping):
        plain = {_key(key): _tagged(one, for_bson, depth + 1) for key, one in value.items()}
        looks_tagged = len(plain) == 1 and next(iter(plain)).startswith(_PREFIX)
        return {_OBJECT: plain} if looks_tagged else plain
    if isinstance(value, (list, tuple)):
        return [_tagged(one, for_bson, depth + 1) for one in value]
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    if _is_image(value):
        return _write_image(_pixels(value))
    raise ValueError(f"a {type(value).__module__}.{type(value).__qualname__} has no form in JSON")


def _key(key: Any) -> str:
    """The name that :func:`json.dumps` makes of a key."""
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int, float)):
        return str(next(iter(json.loads(json.dumps({key: 0})))))
    raise ValueError(f"{key!r:.100} is no name that an object of JSON may have")


# -- one kind after the other ---------------------------------------------------------------------------


def _tag(kind: str, inner: Any) -> dict[str, Any]:
    return {f"{_PREFIX}{kind}": inner}


def _write_datetime(value: datetime) -> Any:
    zone = getattr(value.tzinfo, "key", None) or getattr(value.tzinfo, "zone", None)
    if zone is None:  # none, or so far from UTC
        return _tag("datetime", value.isoformat())
    return _tag("datetime", [value.replace(tzinfo=None).isoformat(), str(zone), value.fold])


def _read_datetime(inner: Any) -> datetime:
    if isinstance(inner, str):
        return datetime.fromisoformat(inner)
    wall, zone, fold = inner
    return datetime.fromisoformat(wall).replace(tzinfo=ZoneInfo(zone), fold=fold)


def _write_timestamp(value: pd.Timestamp) -> Any:
    zone = value.tzinfo
    name = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if zone is not None and name is None:
        offset = value.utcoffset() or timedelta()
        name = "UTC" if zone == UTC else offset.total_seconds()
    return _tag("timestamp", [value.value, value.unit, name])


def _read_timestamp(inner: Any) -> pd.Timestamp:
    nanoseconds, unit, zone = inner
    found = pd.Timestamp(nanoseconds, unit="ns").as_unit(unit)
    if zone is None:
        return found
    tz = timezone(timedelta(seconds=zone)) if isinstance(zone, (int, float)) else ZoneInfo(zone)
    return found.tz_localize("UTC").tz_convert(tz)


def _write_numpy(value: np.generic | np.ndarray[Any, Any]) -> Any:
    if value.dtype.hasobject:
        raise ValueError("a numpy array of Python objects has no form in JSON")
    shape = list(value.shape) if isinstance(value, np.ndarray) else None
    # of a scalar numpy makes an array of no dimension
    data = np.ascontiguousarray(value).tobytes()
    return _tag("numpy", [value.dtype.str, shape, base64.b64encode(data).decode()])


def _read_numpy(inner: Any) -> Any:
    dtype, shape, text = inner
    flat = np.frombuffer(base64.b64decode(text), dtype=np.dtype(dtype))
    return flat[0] if shape is None else flat.reshape(shape).copy()


# -- images ---------------------------------------------------------------------------------------------


class StoredImage:
    """An image as the file that holds it: its bytes, what the data set calls it, and the mode it wants."""

    def __init__(self, data: bytes, path: str | None, mode: str | None = None) -> None:
        self.data, self.path, self.mode = data, path, mode

    def open(self) -> Any:
        """The image as `datasets` gives it; where it cannot be decoded, bytes and path by name."""
        try:
            return datasets.Image(mode=self.mode).decode_example({"bytes": self.data, "path": None})
        except Exception:  # Pillow is not installed, or does not know the format
            return {"bytes": self.data, "path": self.path}


def _write_image(value: StoredImage) -> Any:
    return _tag("image", [base64.b64encode(value.data).decode(), value.path, value.mode])


def _read_image(inner: Any) -> Any:
    text, path, mode = inner
    return StoredImage(base64.b64decode(text), path, mode).open()


def _is_image(value: Any) -> bool:
    return any(kind.__module__ == "PIL.Image" and kind.__name__ == "Image" for kind in type(value).__mro__)


def _pixels(value: Any) -> StoredImage:
    """An image that a task made, in a format that loses no pixel."""
    written = BytesIO()
    as_png = value.mode in ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
    value.save(written, format="PNG" if as_png else "TIFF")
    return StoredImage(written.getvalue(), None)


# -- the kinds ------------------------------------------------------------------------------------------

_Writer = Callable[[Any], Any]
#: Classes before those they are made from: a pandas timestamp is a datetime, a datetime is a date.
_WRITERS: tuple[tuple[type, _Writer], ...] = (
    (pd.Timestamp, _write_timestamp),
    (pd.Timedelta, lambda value: _tag("duration", [value.value, value.unit])),
    (datetime, _write_datetime),
    (date, lambda value: _tag("date", value.isoformat())),
    (time, lambda value: _tag("time", value.isoformat())),
    (timedelta, lambda value: _tag("timedelta", [value.days, value.seconds, value.microseconds])),
    (bytes, lambda value: _tag("bytes", base64.b64encode(value).decode())),
    (Decimal, lambda value: _tag("decimal", str(value))),
    (UUID, lambda value: _tag("uuid", str(value))),
    (np.generic, _write_numpy),
    (np.ndarray, _write_numpy),
    (StoredImage, _write_image),
)
_READERS: Mapping[str, Callable[[Any], Any]] = {
    _INTEGER: int,
    f"{_PREFIX}datetime": _read_datetime,
    f"{_PREFIX}timestamp": _read_timestamp,
    f"{_PREFIX}duration": lambda inner: pd.Timedelta(inner[0], unit="ns").as_unit(inner[1]),
    f"{_PREFIX}date": date.fromisoformat,
    f"{_PREFIX}time": time.fromisoformat,
    f"{_PREFIX}timedelta": lambda inner: timedelta(*inner),
    f"{_PREFIX}bytes": base64.b64decode,
    f"{_PREFIX}decimal": Decimal,
    f"{_PREFIX}uuid": UUID,
    f"{_PREFIX}numpy": _read_numpy,
    f"{_PREFIX}image": _read_image,
}
