"""The order in which options are shown: drawn per doc and epoch, the same wherever it is computed."""

from __future__ import annotations

import hashlib


def shuffled(seed: str, doc: int | str, n: int) -> list[int]:
    """The options of a doc, by number, in the order in which an epoch with this seed shows them.

    Each option has a number of its own, the SHA-256 of ``seed:choice:doc:option``, and they stand in the
    order of these. So no other doc matters, nor how many are asked. ``doc`` is a doc's id; an example that
    stands before it has ``<id>.<place>``.
    """
    return sorted(range(n), key=lambda option: _number(f"{seed}:choice:{doc}:{option}"))


def _number(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
