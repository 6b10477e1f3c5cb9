"""Reproducible chance: numbers in [0, 1) that depend on what they are drawn for, never on order or time."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


def unit(*parts: object) -> float:
    """A number in [0, 1), evenly spread over different ``parts`` and always the same for equal ones."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    # 53 bits: as many as a float holds, so the division is exact and never rounds up to 1
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 11) / 2**53


def pick(options: Sequence[T], *parts: object) -> T:
    """One of ``options``, chosen by ``parts``."""
    return options[int(unit(*parts) * len(options))]
