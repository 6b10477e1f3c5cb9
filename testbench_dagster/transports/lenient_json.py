"""The JSON of a body: read strictly and fast, and once more leniently before anybody is blamed for it.

The second reading accepts what Python's own ``json`` accepts, which is what lm-eval reads answers with, and a
little more: NaN and infinities, lone surrogates, numbers of any size, a byte order mark, UTF-16 and UTF-32,
a declared charset, bytes that are no UTF-8, control characters in texts, a remark behind the end. A text that
is readable strictly is never changed by it. What stores cannot hold is replaced: a lone surrogate by U+FFFD,
a character for a character.

Bodies are hostile: size and depth of what is read leniently are bounded, and all of it takes time in
proportion to the size.
"""

from __future__ import annotations

import codecs
import json
import re
from itertools import accumulate
from typing import Any

import orjson

#: A body beyond this is read strictly or not at all, in bytes.
MAX_LENIENT_BYTES = 16 * 1024 * 1024
#: Levels of nesting in a body that is read leniently: Python counts them with the calls that led here, of
#: which it allows 1,000 in all. Strictly 1,024 are allowed.
MAX_LENIENT_DEPTH = 500
#: Brackets, and quotes, and commas in a body that is read leniently: each costs far more than its byte.
MAX_LENIENT_MARKS = 1_000_000
#: Charsets that a Content-Type may declare, as Python names them: fixed tables and Unicode's own forms, none
#: of the codecs that take more than linear time, or are no charsets.
_CHARSETS = frozenset(
    {
        *(f"iso8859-{part}" for part in (*range(1, 12), 13, 14, 15, 16)),
        *(f"cp{page}" for page in (*range(1250, 1259), 437, 850, 852, 866, 874, 932, 936, 949, 950)),
        *(
            "koi8-r",
            "koi8-u",
            "mac-roman",
            "big5",
            "big5hkscs",
            "euc_jp",
            "euc_kr",
            "gb2312",
            "gbk",
            "gb18030",
        ),
        *("shift_jis", "utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-be", "utf-32-le"),
    }
)
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
#: A text with all its escapes, to its end or that of the body: possessive, so that it never goes back.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
#: Two backslashes, a pair of surrogates, or one that is alone.
_ESCAPES = re.compile(
    r"(?:\\\\)+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_ALONE_CHARS = 6
_DECODER = json.JSONDecoder(strict=False)
#: Arguments of a tool call that are an object: as a text, what they hold is judged by whoever reads it.
_OBJECT_ARGUMENTS = re.compile(r'"arguments"\s*:\s*[{\[]')
#: What may stand behind an answer is a remark: text or markup, but no further JSON and no further event.
_REMARK = re.compile(r"\s*+(?![\[{\"]|data:|event:)")


class Unreadable(ValueError):
    """A body holds no JSON; the text says why, in our words or those of the parser."""


def declared_charset(content_type: str | None) -> str | None:
    """The charset that a Content-Type declares, by Python's name of it; None where UTF-8 says it all.

    Names that are no charset known here count as not declared.
    """
    if content_type is None or ";" not in content_type:
        return None
    found = _CHARSET.search(content_type[:400])
    if found is None:
        return None
    try:
        name = codecs.lookup(found[1]).name
    except LookupError:
        return None
    return name if name in _CHARSETS else None


def read_json(body: bytes, charset: str | None = None, *, halves: bool = False) -> Any:
    """The JSON value in a body; ``charset`` is what :func:`declared_charset` made of its Content-Type.

    ``halves``: lone surrogates stay, because the other half of a character may stand in another body.

    Arguments of a tool call in which a name stands twice are a text, as most servers send them: as an object
    only the last value would be left, and nobody would see that there was another.

    Raises:
        Unreadable: there is none.
    """
    try:
        data = orjson.loads(body)
        return data if b'"arguments"' not in body else _with_double_names(data, body.decode())
    except orjson.JSONDecodeError as error:  # invalid UTF-8 and nesting beyond 1,024 levels included
        strictly = str(error)
    if len(body) > MAX_LENIENT_BYTES:
        raise Unreadable(f"invalid JSON: {strictly}")
    text = _decoded(body, charset).lstrip("\ufeff \t\r\n")
    if not text.startswith(("{", "[")) or _too_much(text):
        raise Unreadable(f"invalid JSON: {strictly}")
    if not halves and ("\\ud" in text or "\\uD" in text):
        text = _ESCAPES.sub(_paired, text)
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        raise Unreadable(f"invalid JSON: {strictly}") from None
    if _REMARK.match(text, end) is None:
        raise Unreadable(f"invalid JSON: {strictly}")
    return _with_double_names(value, text)


class _Double(dict[str, Any]):
    """An object with all its pairs: some name stands in it twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _with_double_names(data: Any, text: str) -> Any:
    """The value of a JSON text; arguments in which a name stands twice as the text that they are."""
    if _OBJECT_ARGUMENTS.search(text) is None:
        return data
    if len(text) > MAX_LENIENT_BYTES or _too_much(text):
        raise Unreadable("arguments of a tool call as an object, in JSON that is too large or too deep")
    told: list[str] = []

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for at, (name, value) in enumerate(pairs):
            if name == "arguments" and isinstance(value, (dict, list)):
                written = _written(value)
                if written is not None:
                    told.append(written)
                    pairs[at] = (name, written)
        found = dict(pairs)
        return found if len(found) == len(pairs) else _Double(pairs)

    try:
        value, _ = json.JSONDecoder(strict=False, object_pairs_hook=read).raw_decode(text)
    except (ValueError, RecursionError):
        raise Unreadable("arguments of a tool call as an object, in JSON that cannot be read") from None
    return value if told else data


def _written(value: Any) -> str | None:
    """The JSON of a value with all the pairs that were read; None where no name stands twice in it."""
    double = False

    def write(one: Any) -> str:
        nonlocal double
        if isinstance(one, dict):
            double = double or isinstance(one, _Double)
            pairs = one.pairs if isinstance(one, _Double) else one.items()
            return "{" + ",".join(f"{json.dumps(name)}:{write(inner)}" for name, inner in pairs) + "}"
        if isinstance(one, list):
            return "[" + ",".join(map(write, one)) + "]"
        return json.dumps(one)

    text = write(value)
    return text if double else None


def _decoded(body: bytes, charset: str | None) -> str:
    """The text of a body: UTF-8 where it is, else by its marks or its charset; never raises."""
    encoding = json.detect_encoding(body[:4])  # by the byte order mark, and by where zeros stand
    if not encoding.startswith("utf-8"):
        charset = encoding
    else:
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return body.decode(charset or "utf-8", "replace")


def _too_much(text: str) -> bool:
    """Whether JSON is nested deeper, or branches more, than is read leniently."""
    opened = text.count("[") + text.count("{")
    if max(opened, text.count('"'), text.count(",")) > MAX_LENIENT_MARKS:
        return True
    if opened <= MAX_LENIENT_DEPTH:
        return False
    brackets = _TEXT.sub(b"", text.encode()).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets)) > MAX_LENIENT_DEPTH


def _paired(escape: re.Match[str]) -> str:
    """The escape as it is, but for a surrogate that is alone: U+FFFD."""
    found = escape[0]
    return "\\ufffd" if len(found) == _ALONE_CHARS and found[1] == "u" else found
