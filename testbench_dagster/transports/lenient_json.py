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

    Raises:
        Unreadable: there is none.
    """
    try:
        return orjson.loads(body)
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
    return value


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
