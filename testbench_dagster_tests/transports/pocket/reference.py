"""The ring signature once more, in whole numbers and from its formulas: slow, and shares no code with ours.

Signs like ring-go's default backend: with short challenges, shifted to the left. Points are (x, y) or None.
"""

from __future__ import annotations

import hashlib
import random

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
Point = tuple[int, int] | None


def add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(scalar: int, point: Point) -> Point:
    found: Point = None
    while scalar:
        if scalar & 1:
            found = add(found, point)
        point = add(point, point)
        scalar >>= 1
    return found


def encoded(point: Point) -> bytes:
    assert point is not None
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32, "big")


def lifted(data: bytes) -> Point:
    x = int.from_bytes(data[1:], "big")
    y = pow(x**3 + 7, (P + 1) // 4, P)
    if x >= P or y * y % P != (x**3 + 7) % P:
        return None
    return x, y if y & 1 == data[0] & 1 else P - y


def hashed(public_key: bytes) -> Point:
    digest = hashlib.sha3_256(public_key).digest()
    while (found := lifted(b"\x02" + digest)) is None:
        digest = hashlib.sha3_256(digest).digest()
    return found


def reduced(data: bytes) -> int:
    return int.from_bytes(hashlib.sha3_512(data).digest(), "big") % N


def shifted(value: int) -> int:
    """A challenge as go-dleq's default backend holds it."""
    octets = value.to_bytes(32, "big").lstrip(b"\0")
    return int.from_bytes(octets.ljust(32, b"\0"), "big") % N


class Signer:
    """``short`` counts the challenges below 2^248 of all signatures so far."""

    def __init__(self, secret: int, ring: list[bytes], rng: random.Random) -> None:
        self.secret, self.ring, self.rng = secret, ring, rng
        self.own = ring.index(encoded(times(secret, G)))
        self.hashed = [hashed(member) for member in ring]
        self.public = [lifted(member) for member in ring]
        self.image = times(secret, self.hashed[self.own])
        self.short = 0

    def challenge(self, digest: bytes, left: Point, right: Point) -> int:
        value = reduced(digest + encoded(left) + encoded(right))
        self.short += value < 2**248
        return shifted(value)

    def sign(self, digest: bytes) -> bytes:
        count = len(self.ring)
        challenges, scalars = [0] * count, [self.rng.randrange(1, N) for _ in self.ring]
        nonce, at = scalars[self.own], self.own
        left, right = times(nonce, G), times(nonce, self.hashed[at])
        for _ in range(count):
            at = (at + 1) % count
            c = challenges[at] = self.challenge(digest, left, right)
            left = add(times(scalars[at], G), times(c, self.public[at]))
            right = add(times(scalars[at], self.hashed[at]), times(c, self.image))
        scalars[at] = (nonce - challenges[at] * self.secret) % N
        members = b"".join(s.to_bytes(32, "big") + m for s, m in zip(scalars, self.ring, strict=True))
        return count.to_bytes(4, "big") + challenges[0].to_bytes(32, "big") + encoded(self.image) + members


def verify(digest: bytes, signature: bytes) -> bool:
    first = challenge = int.from_bytes(signature[4:36], "big")
    image = lifted(signature[36:69])
    for at in range(69, len(signature), 65):
        scalar, member = int.from_bytes(signature[at : at + 32], "big"), signature[at + 32 : at + 65]
        left = add(times(scalar, G), times(challenge, lifted(member)))
        right = add(times(scalar, hashed(member)), times(challenge, image))
        challenge = shifted(reduced(digest + encoded(left) + encoded(right)))
    return challenge == first
