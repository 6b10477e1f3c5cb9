"""What files for other tools share: names of files, and JSON of whatever text.

Models and keys of suppliers, which anybody may choose, reach names of files here. A name that comes out is
one part of a path, short and printable, and none of those that stand for a folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

#: Most bytes of a name: files have 255 in all, and dates, endings and ids come beside it.
MAX_NAME_BYTES = 100
_DIGEST = 16
#: What lm-eval takes out of the names of models, each run of it for two underscores.
_SEPARATORS = re.compile(r'["<>:/|\\?*\[\]]+')
#: What making a sample of odd data may raise: it costs that sample, and none beside it.
ODD_DATA = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def file_name(text: str) -> str:
    """A text as part of a file's name, as lm-eval writes it where that is safe.

    What no file can be called is replaced or cut, with the beginning of a SHA-256 of the whole behind it, so
    that two texts do not become one name.
    """
    usual = _SEPARATORS.sub("__", text)
    made = "".join(letter if letter.isprintable() else "_" for letter in usual).strip()
    if made.startswith((".", "~", "-")):  # a hidden file, a folder above, a home, an option
        made = f"_{made}"
    short = made.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    if short == usual and short:
        return short
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{short.rstrip()}_{digest}" if short else digest


def as_json(value: Any) -> bytes:
    """JSON that any reader takes: half a surrogate pair is written out as its escape, in words."""
    try:
        return orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):  # such a half, a number beyond 64 bits, nesting
        return json.dumps(_readable(value), ensure_ascii=False, default=str).encode("utf-8")


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {str(_readable(name)): _readable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_readable(one) for one in value]
    return value
