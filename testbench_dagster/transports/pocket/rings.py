"""Linkable ring signatures as ring-go makes them, by which an application's relays are signed on Pocket.

A signature proves that one of the ring's members (the application, the gateways it delegates to) signed,
without saying which. Scheme: "Linkable Spontaneous Anonymous Group Signature for Ad Hoc Groups" (Liu, Wei,
Wong 2004) in Adam Back's form, over secp256k1, as coded in pokt-network/ring-go (``ring.go``,
``serialize.go``) and pokt-network/go-dleq (``secp256k1/``). With Hp hashing a public key to a point, and
challenge(L, R) = H(digest, L, R) as a scalar::

    image I = x Hp(P_j)                    of the signer j, whose private key is x
    c_(j+1) = challenge(u G, u Hp(P_j))    for a random u
    c_(k+1) = challenge(s_k G + c_k P_k, s_k Hp(P_k) + c_k I)    for the other members, s_k random
    s_j     = u - c_j x                    which closes the ring

On the wire: members' count (4 bytes), c_0, I, then s_i and P_i of every member; big-endian throughout.

go-dleq holds a challenge below 2^248 shifted to the left, by as many bytes as it is short: those zero bytes
are lost in its default backend (``ScalarFromBytes``), which relay miners and the chain run; the cgo backend
has no such quirk. Verifying follows the default backend. Signing avoids such challenges (1 of 256) by
drawing another nonce, so that both backends accept every signature made here.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn

from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket import secp256k1
from testbench_dagster.transports.pocket.errors import RingError
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.secp256k1 import (
    POINT_BYTES,
    N,
    Point,
    add,
    compressed,
    from_generator,
    multiply,
)

#: Members a ring may have. Applications on mainnet can delegate to seven gateways.
MAX_MEMBERS = 64
DIGEST_BYTES = 32
_SCALAR_BYTES = 32
_HEAD_BYTES = 4 + _SCALAR_BYTES + POINT_BYTES
_MEMBER_BYTES = _SCALAR_BYTES + POINT_BYTES
_SHORT = 1 << 248
_HASH_TRIES = 128


def hash_to_scalar(data: bytes, *, left_align: bool = True) -> int:
    """Return SHA3-512 of data modulo N; below 2^248 shifted left as go-dleq does, unless told otherwise."""
    value = int.from_bytes(hashlib.sha3_512(data).digest(), "big") % N
    if value < _SHORT and left_align:
        value = (value << 8 * (_SCALAR_BYTES - (value.bit_length() + 7) // 8)) % N
    return value


def hash_to_curve(public_key: bytes) -> Point:
    """Return the point a compressed public key hashes to: by SHA3-256, again until it is the x of a point.

    Of the two points with that x it is the one whose y is even. Raises :class:`RingError` after 128 tries,
    which has a chance of 2^-128.
    """
    digest = public_key
    for _ in range(_HASH_TRIES):
        digest = hashlib.sha3_256(digest).digest()
        found = secp256k1.point(b"\x02" + digest)
        if found is not None:
            return found
    raise RingError("public key hashes to no point")


@lru_cache(maxsize=1024)
def _member(public_key: bytes) -> tuple[Point, Point]:
    """Return the points of a member: its key's, and the one its key hashes to."""
    found = secp256k1.point(public_key)
    if found is None:
        raise RingError(
            f"a member of {counted(len(public_key), 'byte')} is no secp256k1 public key: give the 33 of a "
            "compressed one"
        )
    return found, hash_to_curve(public_key)


class RingSigner:
    """Signs for a ring with the key of one of its members; holds what all signatures have in common.

    Independent of sessions: one signer serves as long as key and ring stay the same. May be used by several
    threads. Shows and pickles no key, as :class:`PrivateKey`.
    """

    __slots__ = ("__secret", "_image", "_image_bytes", "_own", "_points", "ring")

    def __init__(self, key: PrivateKey, ring: Sequence[bytes]) -> None:
        """Prepare. Raises :class:`RingError` unless there are 2..64 public keys, the signer's among them."""
        self.ring = tuple(bytes(member) for member in ring)
        if not 2 <= len(self.ring) <= MAX_MEMBERS:
            raise RingError(
                f"ring has {counted(len(self.ring), 'member')}: give 2..{MAX_MEMBERS} (the app twice if "
                "alone)"
            )
        if key.public_key not in self.ring:
            raise RingError(f"key of {key.address} is not in the ring: give its public key as a member")
        self._own = self.ring.index(key.public_key)
        self._points = tuple(_member(public_key) for public_key in self.ring)
        self.__secret = int.from_bytes(key.secret(), "big")
        self._image = multiply(key.secret(), self._points[self._own][1])
        self._image_bytes = compressed(self._image)

    def sign(self, digest: bytes) -> bytes:
        """Return the signature over 32 bytes. Raises :class:`RingError` if they are not."""
        if len(digest) != DIGEST_BYTES:
            raise RingError(f"digest has {counted(len(digest), 'byte')}: give {DIGEST_BYTES}")
        count, own, secret = len(self.ring), self._own, self.__secret
        challenges, scalars = [0] * count, [0] * count
        nonce, challenge = self._open(digest)
        for step in range(1, count):
            at = (own + step) % count
            challenges[at] = challenge
            scalars[at], challenge = self._pass(digest, at, challenge)
        challenges[own] = challenge
        scalars[own] = (nonce - challenge * secret) % N
        parts = [count.to_bytes(4, "big"), _bytes(challenges[0]), self._image_bytes]
        for scalar, member in zip(scalars, self.ring, strict=True):
            parts += (_bytes(scalar), member)
        return b"".join(parts)

    def _open(self, digest: bytes) -> tuple[int, int]:
        """Return the secret nonce, and the challenge to the member after the signer."""
        hashed = self._points[self._own][1]
        while True:
            nonce = _random()
            scalar = _bytes(nonce)
            left, right = from_generator(scalar), multiply(scalar, hashed)
            challenge = _challenge(digest, left, right, left_align=False)
            if challenge >= _SHORT:
                return nonce, challenge

    def _pass(self, digest: bytes, at: int, challenge: int) -> tuple[int, int]:
        """Return another member's scalar, and the challenge to the one after it."""
        if self.ring[at] == self.ring[self._own]:
            # ours as well (an app alone is in its ring twice): knowing x, both sums are one multiple, s + c x
            nonce, following = self._open(digest)
            return (nonce - challenge * self.__secret) % N, following
        public, hashed = self._points[at]
        given = _bytes(challenge)
        challenged, linked = multiply(given, public), multiply(given, self._image)
        while True:
            number = _random()
            scalar = _bytes(number)
            left = add(from_generator(scalar), challenged)
            right = add(multiply(scalar, hashed), linked)
            following = _challenge(digest, left, right, left_align=False)
            if following >= _SHORT:
                return number, following

    def __repr__(self) -> str:
        return f"RingSigner(member {self._own} of {len(self.ring)})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a ring signer holds a private key: it is not to be pickled or copied")


def ring_members(signature: bytes) -> tuple[bytes, ...]:
    """Return the public keys a signature names, unverified. Raises :class:`RingError` if it is malformed."""
    count = int.from_bytes(signature[:4], "big")
    if not 2 <= count <= MAX_MEMBERS or len(signature) != _HEAD_BYTES + count * _MEMBER_BYTES:
        raise RingError(
            f"no ring signature of 2..{MAX_MEMBERS} members has {counted(len(signature), 'byte')}"
        )
    ends = range(_HEAD_BYTES + _MEMBER_BYTES, len(signature) + 1, _MEMBER_BYTES)
    members = tuple(signature[end - POINT_BYTES : end] for end in ends)
    for public_key in members:
        _member(public_key)
    return members


def verify_ring(digest: bytes, signature: bytes, *, left_align: bool = True) -> bool:
    """Whether one of the members a signature names signed these 32 bytes; False for anything malformed.

    Whether they are the application's ring is for the caller to compare. Scalars have one encoding only, in
    1..N-1. ``left_align=False`` is the rule of go-dleq's other backend, as a negative control.
    """
    try:
        members = ring_members(signature)
        image = secp256k1.point(signature[4 + _SCALAR_BYTES : _HEAD_BYTES])
        first = challenge = signature[4 : 4 + _SCALAR_BYTES]
        if len(digest) != DIGEST_BYTES or image is None:
            return False
        for at, public_key in enumerate(members):
            public, hashed = _member(public_key)
            start = _HEAD_BYTES + at * _MEMBER_BYTES
            scalar = signature[start : start + _SCALAR_BYTES]
            left = add(from_generator(scalar), multiply(challenge, public))
            right = add(multiply(scalar, hashed), multiply(challenge, image))
            challenge = _bytes(_challenge(digest, left, right, left_align=left_align))
    except RingError:
        return False
    return challenge == first


def _challenge(digest: bytes, left: Point, right: Point, *, left_align: bool) -> int:
    return hash_to_scalar(digest + compressed(left) + compressed(right), left_align=left_align)


def _random() -> int:
    """Return a scalar in 1..N-1 nobody can guess."""
    return secrets.randbelow(N - 1) + 1


def _bytes(scalar: int) -> bytes:
    return scalar.to_bytes(_SCALAR_BYTES, "big")
