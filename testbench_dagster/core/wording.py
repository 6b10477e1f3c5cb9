"""Small matters of English in what people are told."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """``1 task``, ``2 tasks``: a number of things whose plural ends in s."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
