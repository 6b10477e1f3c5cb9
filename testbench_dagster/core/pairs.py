"""Docs in pairs: which of the two is the public question, and in which order pairs are asked.

Of a task in pairs the docs 2k and 2k + 1 are the pair k. One of them asks a question that everybody can
read, the other a fresh one of the same kind. Which is which is drawn by the epoch's seed, so it is known to
whoever has the seed, and to nobody from ids, places or requests.
"""

from __future__ import annotations

import hashlib

#: Pairs of which one half each is asked before the other halves are.
BLOCK = 8


def pair_of(doc_id: int) -> int:
    """The pair that a doc is a half of."""
    return doc_id // 2


def is_public(seed: str, doc_id: int) -> bool:
    """Whether a doc is the public half of its pair in the epoch with this seed.

    By the lowest bit of the first byte of the SHA-256 of ``seed:public:pair``.
    """
    return doc_id % 2 == hashlib.sha256(f"{seed}:public:{pair_of(doc_id)}".encode()).digest()[0] % 2


def paired_order(seed: str, n_docs: int) -> list[int]:
    """The docs of an epoch of a task in pairs, in the order of asking.

    Pairs stand in the order of the SHA-256 of ``seed:pair``, and are asked in blocks of :data:`BLOCK`, the
    last of up to twice as many less one: first a half of each, which is drawn, then the others. These stand
    in an order of their own, but those whose first half stood in the first part of the block in the first
    part too: so at least half a block lies between the halves of a pair (where there are pairs enough), and
    of the first n docs at most a block's number lack their other half.
    """
    pairs = sorted(range(n_docs // 2), key=lambda pair: _digest(f"{seed}:{pair}"))
    n_blocks = max(1, len(pairs) // BLOCK)
    order: list[int] = []
    for block in range(n_blocks):
        last = block == n_blocks - 1
        members = pairs[block * BLOCK : len(pairs) if last else (block + 1) * BLOCK]
        middle = (len(members) + 1) // 2
        others = [
            pair
            for part in (members[:middle], members[middle:])
            for pair in sorted(part, key=lambda pair: _digest(f"{seed}:second:{pair}"))
        ]
        order += [2 * pair + _first(seed, pair) for pair in members]
        order += [2 * pair + 1 - _first(seed, pair) for pair in others]
    return order + list(range(n_docs // 2 * 2, n_docs))


def _first(seed: str, pair: int) -> int:
    """Which half of a pair is asked first; another draw than which one is public."""
    return _digest(f"{seed}:first:{pair}")[0] % 2


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
