"""How an answer begins: the short text of an attempt by which suppliers are compared without their bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Characters of an answer kept beside it; identity evidence compares 20 of them, signatures all.
ANSWER_PREFIX_CHARS = 64
#: What is looked at first: nearly always enough, and an answer may have megabytes.
_HEAD_CHARS = 4 * ANSWER_PREFIX_CHARS


def answer_prefix(text: str) -> str:
    """First :data:`ANSWER_PREFIX_CHARS` characters of ``text`` once every run of white space is one space.

    White space at both ends is dropped, so the prefix of a text of white space alone is empty.
    """
    # what the head of a text collapses to is a prefix of what all of it collapses to
    collapsed = " ".join(text[:_HEAD_CHARS].split())
    if len(collapsed) < ANSWER_PREFIX_CHARS and len(text) > _HEAD_CHARS:
        collapsed = " ".join(text.split())
    return collapsed[:ANSWER_PREFIX_CHARS]


def is_deterministic(request: Mapping[str, Any]) -> bool:
    """Whether a stored request asks for text at temperature 0 (which is what none given means)."""
    if request.get("type") != "generate_until":
        return False
    return bool((request.get("generation") or {}).get("temperature", 0) == 0)
