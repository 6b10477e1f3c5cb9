"""The curve's functions at their edges: scalars, lengths, and the form of signatures coincurve verifies."""

from __future__ import annotations

import hashlib

import coincurve
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.transports.pocket import secp256k1
from testbench_dagster.transports.pocket.errors import RingError
from testbench_dagster.transports.pocket.secp256k1 import N

SCALARS = st.integers(1, N - 1).map(lambda number: number.to_bytes(32, "big"))
DIGESTS = st.binary(min_size=32, max_size=32)
G = secp256k1.from_generator((1).to_bytes(32, "big"))
NO_SCALARS = (bytes(32), N.to_bytes(32, "big"), b"\xff" * 32, b"", b"\1", b"\1" * 31, b"\1" * 33)


@pytest.mark.parametrize("scalar", NO_SCALARS)
def test_what_is_no_scalar_of_32_bytes_is_refused(scalar: bytes) -> None:
    """coincurve itself pads short scalars, and hands shorter ones than 32 bytes to the library."""
    assert not secp256k1.is_scalar(scalar)
    with pytest.raises(RingError, match="a scalar is 0"):
        secp256k1.from_generator(scalar)
    with pytest.raises(RingError, match="a scalar is 0"):
        secp256k1.multiply(scalar, G)


@given(SCALARS, SCALARS)
def test_sums_and_multiples_agree(one: bytes, other: bytes) -> None:
    total = (int.from_bytes(one, "big") + int.from_bytes(other, "big")) % N
    left, right = secp256k1.from_generator(one), secp256k1.multiply(other, G)
    if total:
        expected = secp256k1.from_generator(total.to_bytes(32, "big"))
        assert secp256k1.compressed(secp256k1.add(left, right)) == secp256k1.compressed(expected)


@given(SCALARS)
def test_a_sum_that_is_infinity_is_refused(scalar: bytes) -> None:
    negative = (N - int.from_bytes(scalar, "big")).to_bytes(32, "big")
    with pytest.raises(RingError, match="infinity"):
        secp256k1.add(secp256k1.from_generator(scalar), secp256k1.from_generator(negative))


@given(SCALARS, DIGESTS)
def test_signatures_are_those_of_coincurve_in_another_form(scalar: bytes, digest: bytes) -> None:
    key = coincurve.PrivateKey(scalar)
    signature = secp256k1.ecdsa_sign(key, digest)
    assert secp256k1._der(signature) == key.sign(digest, hasher=None)
    assert secp256k1.ecdsa_verify(key.public_key, digest, signature)
    assert not secp256k1.ecdsa_verify(key.public_key, hashlib.sha256(digest).digest(), signature)
    high = signature[:32] + (N - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    assert not secp256k1.ecdsa_verify(key.public_key, digest, high)


@given(st.binary(min_size=64, max_size=64) | st.sampled_from((bytes(64), b"\xff" * 64, bytes(63) + b"\1")))
def test_numbers_nobody_signed_with_are_refused(signature: bytes) -> None:
    assert not secp256k1.ecdsa_verify(G, bytes(32), signature)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_signatures_have_64_bytes(length: int) -> None:
    assert not secp256k1.ecdsa_verify(G, bytes(32), b"\1" * length)
    with pytest.raises(RingError, match=r"the digest has 31 bytes, not 32"):
        secp256k1.ecdsa_sign(coincurve.PrivateKey(b"\1" * 32), bytes(31))


def test_numbers_with_leading_zeros_are_shortened_as_der_wants_it() -> None:
    """One of 256 numbers begins with a zero byte, one of two with the bit that DER reads as a sign."""
    key = coincurve.PrivateKey(b"\1" * 32)
    digests = [hashlib.sha256(b"%d" % number).digest() for number in range(1500)]
    signatures = [secp256k1.ecdsa_sign(key, digest) for digest in digests]
    assert {bool(s[at]) for s in signatures for at in (0, 32)} == {True, False}
    assert all(map(secp256k1.ecdsa_verify, [key.public_key] * len(digests), digests, signatures))
