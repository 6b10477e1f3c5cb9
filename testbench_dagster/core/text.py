"""Text from outside, made safe to show."""

from __future__ import annotations

import re

#: Longest ``error`` text, in characters.
MAX_ERROR_CHARS = 300
#: The folders of an absolute path: what stands before its last part.
_FOLDERS = re.compile(r"(?<![^\s'\"(=,;])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"]+[/\\])*(?=[^\s/\\'\"])")


def escaped(text: str, limit: int = MAX_ERROR_CHARS) -> str:
    """Bound foreign text and escape its control and other unprintable characters, for logs and pages."""
    if len(text) <= limit and text.isprintable():
        return text
    head = text[:limit]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head)
    return head if len(text) <= limit and len(head) <= limit else head[: limit - 1] + "…"


def readable(value: object, limit: int = 200) -> str:
    """Text in one line as people read it: cut, invisible and direction-changing characters replaced.

    Not escaped for markup: templates do that.
    """
    shown = str(value)
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def without_folders(text: str) -> str:
    """The text with absolute paths cut to their last part: how a machine is laid out is nobody's business."""
    return _FOLDERS.sub("…/", text)
