"""Arithmetic on the curve secp256k1: the few functions of libsecp256k1 that signatures here need.

Points are opaque handles of the library (:class:`Point`), scalars 32 bytes, big-endian. Multiplying arbitrary
points takes variable time in the library, as it does in ring-go; that of the generator does not. The
functions may run in several threads at once: every call has its own memory, and the library drops the GIL.

``coincurve`` carries the library; its interface of functions (``_libsecp256k1``) is private, which is why the
project pins coincurve's major version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from testbench_dagster.transports.pocket.errors import RingError

#: Order of the group (SEC 2, 2.4.1).
N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
POINT_BYTES = 33
SIGNATURE_BYTES = 64

#: A ``secp256k1_pubkey *`` of the library: a point of the curve, never infinity. Not to be written to.
Point = Any

_CONTEXT = GLOBAL_CONTEXT.ctx
_COMPRESSED = lib.SECP256K1_EC_COMPRESSED
_NO_POINT = "a scalar is 0 or not below the order of the curve, or a sum of points is infinity"


def point(data: bytes) -> Point | None:
    """Return the point that 33 bytes (compressed SEC 1) stand for, or None."""
    found = ffi.new("secp256k1_pubkey *")
    if len(data) != POINT_BYTES or not lib.secp256k1_ec_pubkey_parse(_CONTEXT, found, data, POINT_BYTES):
        return None
    return found


def compressed(of: Point) -> bytes:
    """Return a point's 33 bytes."""
    out, size = ffi.new("unsigned char[33]"), ffi.new("size_t *", POINT_BYTES)
    lib.secp256k1_ec_pubkey_serialize(_CONTEXT, out, size, of, _COMPRESSED)
    return bytes(ffi.buffer(out))


def from_generator(scalar: bytes) -> Point:
    """Return scalar x G, in constant time. Raises :class:`RingError` for scalars not in 1..N-1."""
    found = ffi.new("secp256k1_pubkey *")
    if len(scalar) != 32 or not lib.secp256k1_ec_pubkey_create(_CONTEXT, found, scalar):
        raise RingError(_NO_POINT)
    return found


def multiply(scalar: bytes, of: Point) -> Point:
    """Return scalar x point. Raises :class:`RingError` for scalars not in 1..N-1."""
    found = ffi.new("secp256k1_pubkey *", of[0])
    if len(scalar) != 32 or not lib.secp256k1_ec_pubkey_tweak_mul(_CONTEXT, found, scalar):
        raise RingError(_NO_POINT)
    return found


def total(points: Sequence[Point]) -> Point:
    """Return the sum of points. Raises :class:`RingError` if it is infinity."""
    found = ffi.new("secp256k1_pubkey *")
    if not lib.secp256k1_ec_pubkey_combine(_CONTEXT, found, points, len(points)):
        raise RingError(_NO_POINT)
    return found


def is_scalar(data: bytes) -> bool:
    """Whether bytes are a scalar in 1..N-1."""
    return len(data) == 32 and bool(lib.secp256k1_ec_seckey_verify(_CONTEXT, data))


def ecdsa_sign(secret: bytes, digest: bytes) -> bytes:
    """Return R and S (64 bytes, low S) over a 32-byte digest, by a nonce of RFC 6979."""
    found, out = ffi.new("secp256k1_ecdsa_signature *"), ffi.new("unsigned char[64]")
    if len(digest) != 32 or not lib.secp256k1_ecdsa_sign(_CONTEXT, found, digest, secret, ffi.NULL, ffi.NULL):
        raise RingError("no ECDSA signature: the digest has not 32 bytes or the key is no scalar")
    lib.secp256k1_ecdsa_signature_serialize_compact(_CONTEXT, out, found)
    return bytes(ffi.buffer(out))


def ecdsa_verify(key: Point, digest: bytes, signature: bytes) -> bool:
    """Whether R and S (64 bytes) sign a 32-byte digest. The library refuses high S."""
    found = ffi.new("secp256k1_ecdsa_signature *")
    return (
        len(signature) == SIGNATURE_BYTES
        and len(digest) == 32
        and bool(lib.secp256k1_ecdsa_signature_parse_compact(_CONTEXT, found, signature))
        and bool(lib.secp256k1_ecdsa_verify(_CONTEXT, found, digest, key))
    )
