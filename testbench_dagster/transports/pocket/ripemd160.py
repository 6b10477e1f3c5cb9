"""RIPEMD-160, for Python builds whose OpenSSL has it switched off (FIPS images do).

Dobbertin, Bosselaers and Preneel, "RIPEMD-160: a strengthened version of RIPEMD" (1996), appendix A.
"""

from __future__ import annotations

import hashlib

_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_CONSTANTS = (
    (0x00000000, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E),
    (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0x00000000),
)
_RHO = (7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8)
_SHIFTS = (
    (11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8),
    (12, 13, 11, 15, 6, 9, 9, 7, 12, 15, 11, 13, 7, 8, 7, 7),
    (13, 15, 14, 11, 7, 7, 6, 8, 13, 14, 13, 12, 5, 5, 6, 9),
    (14, 11, 12, 14, 8, 6, 5, 5, 15, 12, 15, 14, 9, 9, 8, 6),
    (15, 12, 13, 13, 9, 5, 8, 6, 14, 11, 12, 11, 8, 6, 5, 5),
)
_MASK = 0xFFFFFFFF


def _orders() -> tuple[list[list[int]], list[list[int]]]:
    """Which word each step of the two lines takes: round for round the last order, permuted by rho."""
    left, right = [list(range(16))], [[(9 * i + 5) % 16 for i in range(16)]]
    for line in (left, right):
        for _ in range(4):
            line.append([_RHO[i] for i in line[-1]])
    return left, right


_ORDERS = _orders()


def ripemd160(data: bytes) -> bytes:
    """Return the 20-byte digest: OpenSSL's where it may be had."""
    try:
        return hashlib.new("ripemd160", data).digest()
    except ValueError:
        return pure_ripemd160(data)


def pure_ripemd160(data: bytes) -> bytes:
    """Return the 20-byte digest, computed here; for short inputs."""
    padded = data + b"\x80" + bytes(-(len(data) + 9) % 64) + (8 * len(data)).to_bytes(8, "little")
    state = list(_START)
    for at in range(0, len(padded), 64):
        words = [int.from_bytes(padded[i : i + 4], "little") for i in range(at, at + 64, 4)]
        left, right = (_line(state, words, side) for side in (0, 1))
        state = [(state[(i + 1) % 5] + left[(i + 2) % 5] + right[(i + 3) % 5]) & _MASK for i in range(5)]
    return b"".join(word.to_bytes(4, "little") for word in state)


def _line(state: list[int], words: list[int], side: int) -> list[int]:
    """Run one of the two lines over a block."""
    a, b, c, d, e = state
    for turn in range(5):
        function = 4 - turn if side else turn
        for word in _ORDERS[side][turn]:
            mixed = (a + _mix(function, b, c, d) + words[word] + _CONSTANTS[side][turn]) & _MASK
            a, e, d, c, b = e, d, _turn(c, 10), b, (_turn(mixed, _SHIFTS[turn][word]) + e) & _MASK
    return [a, b, c, d, e]


def _turn(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & _MASK


def _mix(function: int, x: int, y: int, z: int) -> int:
    """Return the n-th of the five bitwise functions."""
    if function == 0:
        return x ^ y ^ z
    if function == 1:
        return x & y | ~x & z
    if function == 2:
        return (x | ~y) ^ z
    if function == 3:
        return x & z | y & ~z
    return x ^ (y | ~z)
