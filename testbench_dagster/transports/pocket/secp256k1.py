"""Arithmetic on the curve secp256k1: the few functions of libsecp256k1 that signatures here need.

Points are coincurve's public keys (:class:`Point`), never infinity; scalars are 32 bytes, big-endian.
Multiplying arbitrary points takes variable time in the library, as it does in ring-go; that of the generator
does not. The functions may run in several threads at once: every call has its own memory, and the library
drops the GIL.

``coincurve`` carries the library; nothing but what its package lists in ``__all__`` is used. Some of its
methods pad a short scalar, others read beyond it: lengths are looked at here, before it sees them. Its
``PublicKey.add`` would be one call for s G + P, but costs a quarter more than s G and a sum (27 us, 22 us).
"""

from __future__ import annotations

from coincurve import PrivateKey as SigningKey
from coincurve import PublicKey as Point

from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket.errors import RingError

__all__ = [
    "POINT_BYTES",
    "SIGNATURE_BYTES",
    "N",
    "Point",
    "SigningKey",
    "add",
    "compressed",
    "ecdsa_sign",
    "ecdsa_verify",
    "from_generator",
    "is_scalar",
    "multiply",
    "point",
]

#: Order of the group (SEC 2, 2.4.1).
N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
POINT_BYTES = 33
SIGNATURE_BYTES = 64

_NO_POINT = "a scalar is 0 or not below the order of the curve, or a sum of points is infinity"


def point(data: bytes) -> Point | None:
    """Return the point that 33 bytes (compressed SEC 1) stand for, or None."""
    if len(data) != POINT_BYTES:
        return None
    try:
        return Point(data)
    except ValueError:
        return None


def compressed(of: Point) -> bytes:
    """Return a point's 33 bytes."""
    return of.format()


def from_generator(scalar: bytes) -> Point:
    """Return scalar x G, in constant time. Raises :class:`RingError` for scalars not in 1..N-1."""
    try:
        if len(scalar) == 32:
            return Point.from_valid_secret(scalar)
    except ValueError:
        pass
    raise RingError(_NO_POINT)


def multiply(scalar: bytes, of: Point) -> Point:
    """Return scalar x point. Raises :class:`RingError` for scalars not in 1..N-1."""
    try:
        if len(scalar) == 32:
            return of.multiply(scalar)
    except ValueError:
        pass
    raise RingError(_NO_POINT)


def add(one: Point, other: Point) -> Point:
    """Return the sum of two points. Raises :class:`RingError` if it is infinity."""
    try:
        return Point.combine_keys([one, other])
    except ValueError:
        raise RingError(_NO_POINT) from None


def is_scalar(data: bytes) -> bool:
    """Whether bytes are a scalar in 1..N-1."""
    return len(data) == 32 and 0 < int.from_bytes(data, "big") < N


def ecdsa_sign(key: SigningKey, digest: bytes) -> bytes:
    """Return R and S (64 bytes, low S) over a 32-byte digest, by a nonce of RFC 6979."""
    if len(digest) != 32:
        raise RingError(f"no ECDSA signature: the digest has {counted(len(digest), 'byte')}, not 32")
    # the recoverable form is R, S and one byte more; the other one would have to be taken out of DER
    return key.sign_recoverable(digest, hasher=None)[:SIGNATURE_BYTES]


def ecdsa_verify(key: Point, digest: bytes, signature: bytes) -> bool:
    """Whether R and S (64 bytes) sign a 32-byte digest. The library refuses high S."""
    if len(signature) != SIGNATURE_BYTES or len(digest) != 32:
        return False
    try:
        return key.verify(_der(signature), digest, hasher=None)
    except ValueError:
        return False


def _der(signature: bytes) -> bytes:
    """Return R and S as the DER sequence of two integers (SEC 1, C.8), the form coincurve verifies."""
    numbers = b""
    for number in (signature[:32], signature[32:]):
        digits = number.lstrip(b"\0")
        if not digits or digits[0] >= 0x80:  # the first bit is a sign, and 0 has one digit
            digits = b"\0" + digits
        numbers += bytes((2, len(digits))) + digits
    return bytes((0x30, len(numbers))) + numbers
