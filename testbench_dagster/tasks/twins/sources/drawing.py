"""A source of random numbers that is a function of a text alone: SHA-256 of the text and a counter."""

from __future__ import annotations

import hashlib
from random import Random
from typing import Any


class HashRandom(Random):
    """``random.Random`` on SHA-256: what it draws follows from ``key`` on every machine and Python.

    The question makers of the starter catalog take a ``Random``. All its methods rest on the two below.
    """

    def __init__(self, key: str) -> None:
        self._key = key.encode("utf-8", "surrogatepass")
        self._count = 0
        super().__init__(0)

    def seed(self, *_: Any, **__: Any) -> None:
        """Does nothing: the key is the seed."""

    def getrandbits(self, k: int, /) -> int:
        """A whole number of ``k`` bits, at most 256.

        Raises:
            ValueError: ``k`` is negative or above 256.
        """
        if not 0 <= k <= 256:
            raise ValueError(f"k is {k}; give 0 to 256 bits")
        block = hashlib.sha256(self._key + b":%d" % self._count).digest()
        self._count += 1
        return int.from_bytes(block, "big") >> (256 - k)

    def random(self) -> float:
        """A number from 0 up to 1, of 53 bits."""
        return self.getrandbits(53) * 2.0**-53
