"""Taking our secrets out of what a server sent: keys, secret headers and parameters, the proxy's password.

A server that quotes what it was sent writes it as the form of its answer wants it: in JSON ``/`` and ``"``
get a backslash, and some servers write ``+``, ``&`` and the like as ``\\u002b``; in URLs they are ``%2B``, in
HTML ``&amp;``; dumps have base64, and whole bodies may be UTF-16. Letters and digits stay what they are in
most of these: a secret is looked for by them. Pure functions; a body without a secret costs a few searches.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache

REDACTED = "[redacted]"
_REPLACEMENT = REDACTED.encode()
#: Least beginning of a secret that is looked for where a text breaks off, in bytes.
_LEAST_PART = 6
_CUT_MARK = "…"
#: Where something is escaped by its number, as letters may be.
_LETTERS_ESCAPED = re.compile(rb"\\(?:[uU]00|[xX])")
_LETTERS_ESCAPED_IN_TEXT = re.compile(_LETTERS_ESCAPED.pattern.decode())
#: What no notation escapes.
_SAFE = re.compile(r"[A-Za-z0-9]+")
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_ENTITIES = {
    '"': "quot",
    "&": "amp",
    "<": "lt",
    ">": "gt",
    "'": "apos",
    "/": "sol",
    "+": "plus",
    "=": "equals",
}


def redacted(text: str, secrets: tuple[bytes, ...]) -> str:
    """The text without secrets; of one that was shortened (it ends in ``…``) without a secret's beginning."""
    if not secrets or not _searches(secrets).may_find_in_text(text):
        return text
    cut = text.endswith(_CUT_MARK)
    sent = text.removesuffix(_CUT_MARK).encode("utf-8", "surrogatepass")
    found = redacted_body(sent, secrets, cut=cut)
    if found is sent:
        return text
    return found.decode("utf-8", "surrogatepass") + (_CUT_MARK if cut else "")


def redacted_body(body: bytes, secrets: tuple[bytes, ...], *, cut: bool = False) -> bytes:
    """The body without secrets, the same object where none is in it.

    ``cut``: it breaks off, perhaps within a secret, whose beginning goes as well.
    """
    if not secrets or not (cut or _searches(secrets).may_find_in(body)):
        return body
    for secret in secrets:
        body = _spellings(secret).removed(body)
        if cut:
            body = _without_beginning(body, secret)
    return body


def _without_beginning(body: bytes, secret: bytes) -> bytes:
    for size in range(min(len(secret) - 1, len(body)), _LEAST_PART - 1, -1):
        if body.endswith(secret[:size]):
            return body[:-size] + _REPLACEMENT
    return body


class _Spellings:
    """The ways in which one secret may be written."""

    def __init__(self, secret: bytes) -> None:
        text = secret.decode()
        self._part = _plain_part(text)
        self._usual = _pattern(text, everything=False)
        #: Only for servers that escape even letters: the first one tells.
        self._every = _pattern(text, everything=True)
        self._first = re.compile(rb"(?i:\\[ux](?:00)?%02x)" % ord(text[0])) if text[0].isascii() else None
        part = self._part.decode()
        self._wide = tuple((form, part.encode(form), text.encode(form)) for form in _WIDE)
        whole = len(secret) // 3 * 4  # what follows the secret has no part in these
        packed = base64.b64encode(secret).decode()[:whole]
        self._packed_part = _plain_part(packed)
        self._packed = _pattern(packed, everything=False)
        #: Characters of the shortest of all ways; no notation of a character is shorter than it.
        self.shortest = min(len(text), len(packed))
        #: One of these is in every body that holds the secret, escapes of letters and zeros aside.
        self.parts = (self._part, self._packed_part)

    def removed(self, body: bytes) -> bytes:
        if body.find(self._part) >= 0:
            body = self._changed(body, self._usual)
        if self._first is not None and self._first.search(body):
            body = self._changed(body, self._every)
        if body.find(self._packed_part) >= 0:
            body = self._changed(body, self._packed)
        if body.find(b"\0") >= 0:
            for form, part, whole in self._wide:
                if body.find(part) >= 0:
                    # escaped as narrow bodies are, or within what is no text of this form
                    body = self._in_form(body, form).replace(whole, REDACTED.encode(form))
        return body

    def _in_form(self, body: bytes, form: str) -> bytes:
        try:
            narrow = body.decode(form, "surrogatepass").encode("utf-8", "surrogatepass")
        except UnicodeError:
            return body
        found = self._changed(narrow, self._usual)
        return (
            body if found is narrow else found.decode("utf-8", "surrogatepass").encode(form, "surrogatepass")
        )

    @staticmethod
    def _changed(body: bytes, pattern: re.Pattern[bytes]) -> bytes:
        found, count = pattern.subn(_REPLACEMENT, body)
        return found if count else body


class _Searches:
    """What tells at once that none of some secrets is in a body: so it is with nearly all of them.

    Bodies are searched by ``find``: ``in`` takes bytes for a number first, which costs more than the search.
    """

    __slots__ = ("_least", "_parts", "_words")

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        found = [_spellings(secret) for secret in secrets]
        self._parts = tuple(part for spellings in found for part in spellings.parts)
        self._words = tuple(part.decode() for part in self._parts)
        #: Characters of the shortest text that holds a secret, or the beginning of one and the mark of a cut.
        self._least = min((spellings.shortest for spellings in found), default=0)
        self._least = min(self._least, _LEAST_PART + len(_CUT_MARK))

    def may_find_in(self, body: bytes) -> bool:
        """Whether a body may hold a secret: False is sure."""
        find = body.find
        for part in self._parts:
            if find(part) >= 0:
                return True
        escape = find(b"\\")
        if escape >= 0 and _LETTERS_ESCAPED.search(body, escape):
            return True
        return find(b"\0") >= 0

    def may_find_in_text(self, text: str) -> bool:
        """Whether :func:`redacted` may change a text: False is sure."""
        if len(text) < self._least:  # such as "stop"
            return False
        for word in self._words:
            if word in text:
                return True
        if "\\" in text and _LETTERS_ESCAPED_IN_TEXT.search(text):
            return True
        return "\0" in text or text.endswith(_CUT_MARK)


@lru_cache(maxsize=4096)
def _searches(secrets: tuple[bytes, ...]) -> _Searches:
    return _Searches(secrets)


@lru_cache(maxsize=4096)
def _spellings(secret: bytes) -> _Spellings:
    return _Spellings(secret)


def _plain_part(text: str) -> bytes:
    """The longest part that every notation but wide ones leaves as it is; empty where there is none."""
    return max(_SAFE.findall(text), key=len, default="").encode()


def _pattern(secret: str, *, everything: bool) -> re.Pattern[bytes]:
    """A secret in the usual notations; ``everything``: where letters may be escaped as well."""
    parts = [
        char.encode() if not everything and _SAFE.fullmatch(char) else _notations(char) for char in secret
    ]
    return re.compile(b"".join(re.escape(p) if len(p) == 1 else p for p in parts))


def _notations(char: str) -> bytes:
    """A pattern of one character: as it is, behind backslashes, by its number, in URLs, and by its name."""
    raw, number = char.encode(), ord(char)
    ways = [
        # escaped twice or thrice where JSON stands in JSON; a backslash itself is doubled each time
        rb"\\{1,8}" if char == "\\" else rb"\\{0,7}" + re.escape(raw),
        rb"\\{1,7}(?i:u%04x)" % number,
        b"".join(rb"%%(?:25){0,3}(?i:%02x)" % byte for byte in raw),
        rb"&(?:amp;){0,3}#(?:0{0,6}%d|(?i:x0{0,6}%x));" % (number, number),
    ]
    if number < 0x100:
        ways.append(rb"\\{1,7}(?i:x%02x)" % number)
    if char in _ENTITIES:
        ways.append(rb"&(?:amp;){0,3}%b;" % _ENTITIES[char].encode())
    if char == " ":
        ways.append(rb"\+")
    return b"(?:" + b"|".join(ways) + b")"
