"""Text from outside, made safe to show."""

from __future__ import annotations

#: Longest ``error`` text, in characters.
MAX_ERROR_CHARS = 300


def escaped(text: str, limit: int = MAX_ERROR_CHARS) -> str:
    """Bound foreign text and escape its control and other unprintable characters, for logs and pages."""
    head = text[:limit]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head)
    return head if len(text) <= limit and len(head) <= limit else head[: limit - 1] + "…"
