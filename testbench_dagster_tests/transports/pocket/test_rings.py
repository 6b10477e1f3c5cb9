"""Ring signatures: Go's verdicts, a second implementation, our own on 1,500 of ours, and what is refused."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.transports.pocket import rings, secp256k1
from testbench_dagster.transports.pocket.errors import RingError
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.rings import (
    RingSigner,
    hash_to_curve,
    hash_to_scalar,
    ring_members,
    verify_ring,
)
from testbench_dagster_tests.transports.pocket import reference

KEYS = [PrivateKey(hashlib.sha256(b"ring test %d" % n).digest()) for n in range(5)]
PUBLIC = [key.public_key for key in KEYS]
DIGEST = hashlib.sha256(b"a relay").digest()
SIGNATURE = RingSigner(KEYS[1], PUBLIC[:3]).sign(DIGEST)
ACCEPTED = 1_500


# ------------------------------------------------------------------------------------------- vectors


def test_hashes_of_the_vectors(vectors: dict[str, Any]) -> None:
    rows = vectors["hash_to_scalar"]
    assert sum(row["short_reduction"] for row in rows) >= 4
    for row in rows:
        data = bytes.fromhex(row["in"])
        assert f"{hash_to_scalar(data):064x}" == row["go_decred"]
        assert f"{hash_to_scalar(data, left_align=False):064x}" == row["go_eth"]
    for row in vectors["hash_to_curve"]:
        key = PrivateKey.from_hex(row["priv"])
        assert key.public_key.hex() == row["pub"]
        found = hash_to_curve(key.public_key)
        assert secp256k1.compressed(found).hex() == row["point"]
        assert secp256k1.compressed(secp256k1.multiply(key.secret(), found)).hex() == row["key_image"]


def test_signatures_of_the_vectors(vectors: dict[str, Any]) -> None:
    rows = vectors["signatures"]
    assert len(rows) == 43
    for row in rows:
        digest, signature = bytes.fromhex(row["msg"]), bytes.fromhex(row["sig"])
        assert verify_ring(digest, signature) == row["accepts"]["go_decred"], row["id"]
        assert verify_ring(digest, signature, left_align=False) == row["accepts"]["go_eth"], row["id"]
        members = tuple(bytes.fromhex(member) for member in row["ring"])
        if row["accepts"]["python"]:
            assert ring_members(signature) == members
            again = RingSigner(PrivateKey.from_hex(row["priv"]), members).sign(digest)
            assert verify_ring(digest, again)
            assert again[36:69] == signature[36:69], "one key has one image"


def test_without_the_left_align_the_vectors_fail(vectors: dict[str, Any]) -> None:
    """The negative control: signatures the network takes, and one without the quirk refuses."""
    lost = [
        row["id"]
        for row in vectors["signatures"]
        if row["accepts"]["go_decred"]
        and not verify_ring(bytes.fromhex(row["msg"]), bytes.fromhex(row["sig"]), left_align=False)
    ]
    assert lost == [f"go-decred/short challenge {n}" for n in range(3)]


def test_the_relay_request_of_the_vectors_is_signed(vectors: dict[str, Any]) -> None:
    from testbench_dagster.transports.pocket.messages import RelayRequest

    request = RelayRequest.decode(bytes.fromhex(vectors["wire"]["relay_request"]["relay_request_bytes"]))
    assert verify_ring(request.signable_hash(), request.signature)


def test_a_signature_seen_on_mainnet(vectors: dict[str, Any]) -> None:
    row = vectors["mainnet_signature_layout_only"]
    assert len(ring_members(bytes.fromhex(row["sig"]))) == 2


# ----------------------------------------------------------------------------- the second implementation


@pytest.mark.parametrize(("size", "own"), [(2, 0), (2, 1), (3, 1)])
def test_both_implementations_accept_each_other(size: int, own: int) -> None:
    secret = int.from_bytes(KEYS[own].secret(), "big")
    theirs = reference.Signer(secret, PUBLIC[:size], random.Random(size)).sign(DIGEST)
    assert verify_ring(DIGEST, theirs)
    ours = RingSigner(KEYS[own], PUBLIC[:size]).sign(DIGEST)
    assert reference.verify(DIGEST, ours)
    assert ours[:4] + ours[36:69] == theirs[:4] + theirs[36:69]


def test_the_app_twice_is_a_ring() -> None:
    ours = RingSigner(KEYS[0], PUBLIC[:1] * 2).sign(DIGEST)
    assert reference.verify(DIGEST, ours) and verify_ring(DIGEST, ours)
    assert ring_members(ours) == (PUBLIC[0], PUBLIC[0])


def test_short_challenges_of_others_are_accepted_only_left_aligned() -> None:
    """What ring-go's default backend signs in about one of 128 rings of two."""
    secret = int.from_bytes(KEYS[0].secret(), "big")
    signer = reference.Signer(secret, PUBLIC[:2], random.Random(273))  # the first seed with such a challenge
    signature = signer.sign(DIGEST)
    assert signer.short
    assert verify_ring(DIGEST, signature)
    assert not verify_ring(DIGEST, signature, left_align=False)


# ------------------------------------------------------------------------------------- acceptance run


def signed() -> Iterator[tuple[tuple[bytes, ...], bytes, bytes]]:
    """Ring, digest and signature: every member of rings of 2..5 signs, one after the other."""
    signers = [RingSigner(KEYS[own], PUBLIC[:size]) for size in range(2, 6) for own in range(size)]
    assert len(signers) == 2 + 3 + 4 + 5
    for number in range(ACCEPTED):
        signer, digest = signers[number % len(signers)], hashlib.sha256(b"%d" % number).digest()
        yield signer.ring, digest, signer.sign(digest)


@pytest.mark.slow
def test_all_our_signatures_are_accepted_by_both_rules() -> None:
    for ring, digest, signature in signed():
        assert ring_members(signature) == ring
        assert verify_ring(digest, signature)
        assert verify_ring(digest, signature, left_align=False)


def test_without_resampling_some_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same run as signed by one who takes short challenges as they are: 1.4 % are lost on average."""
    with monkeypatch.context() as patched:
        patched.setattr(rings, "_SHORT", 0)
        made = [(digest, signature) for _, digest, signature in signed()]
    refused = [(digest, signature) for digest, signature in made if not verify_ring(digest, signature)]
    assert 3 <= len(refused) <= 60
    assert all(verify_ring(digest, signature, left_align=False) for digest, signature in refused)


# ------------------------------------------------------------------------------------------ properties


@settings(deadline=None)
@given(st.integers(0, len(SIGNATURE) * 8 - 1))
def test_one_wrong_bit_is_noticed(bit: int) -> None:
    wrong = bytearray(SIGNATURE)
    wrong[bit // 8] ^= 1 << bit % 8
    assert verify_ring(DIGEST, SIGNATURE)
    assert not verify_ring(DIGEST, bytes(wrong))


@settings(deadline=None)
@given(st.integers(0, 255))
def test_another_digest_is_noticed(bit: int) -> None:
    wrong = bytearray(DIGEST)
    wrong[bit // 8] ^= 1 << bit % 8
    assert not verify_ring(bytes(wrong), SIGNATURE)


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(0, 3))
def test_any_bytes_are_no_signature(data: bytes, count: int) -> None:
    shaped = count.to_bytes(4, "big") + data[: 65 + 65 * count].ljust(65 + 65 * count, b"\1")
    for signature in (data, shaped):
        assert not verify_ring(DIGEST, signature)


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(2, 5), st.data())
def test_any_digest_is_signed(digest: bytes, size: int, draw: st.DataObject) -> None:
    ring = [PUBLIC[draw.draw(st.integers(0, 4))] for _ in range(size)]  # members may recur
    own = draw.draw(st.integers(0, size - 1))
    key = KEYS[PUBLIC.index(ring[own])]
    signer = RingSigner(key, ring)
    one, other = signer.sign(digest), signer.sign(digest)
    assert verify_ring(digest, one) and verify_ring(digest, other)
    assert one != other, "nonces are drawn anew"
    assert one[36:69] == other[36:69]


def test_signing_and_verifying_in_threads() -> None:
    signer = RingSigner(KEYS[0], PUBLIC[:2])
    digests = [hashlib.sha256(b"%d" % n).digest() for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        signatures = list(pool.map(signer.sign, digests))
        assert all(pool.map(verify_ring, digests, signatures))
    assert len(set(signatures)) == 200


# ------------------------------------------------------------------------------------------- refusals


def with_count(count: int) -> bytes:
    return count.to_bytes(4, "big") + SIGNATURE[4 : 69 + 65 * count]


N = secp256k1.N.to_bytes(32, "big")
NO_POINT = b"\x02" + bytes(31) + b"\x05"


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(b"", id="empty"),
        pytest.param(SIGNATURE[:-1], id="a byte short"),
        pytest.param(SIGNATURE + b"\0", id="a byte long"),
        pytest.param(with_count(0), id="count 0"),
        pytest.param(with_count(1), id="count 1"),
        pytest.param(with_count(2), id="count 2"),
        pytest.param((65).to_bytes(4, "big") + SIGNATURE[4:69] + SIGNATURE[69:134] * 65, id="65 keys"),
        pytest.param(b"\xff" * 4 + SIGNATURE[4:], id="largest count"),
        pytest.param(SIGNATURE[:4] + bytes(32) + SIGNATURE[36:], id="challenge 0"),
        pytest.param(SIGNATURE[:4] + N + SIGNATURE[36:], id="challenge N"),
        pytest.param(SIGNATURE[:36] + NO_POINT + SIGNATURE[69:], id="image no point"),
        pytest.param(SIGNATURE[:36] + bytes(33) + SIGNATURE[69:], id="image of zeros"),
        pytest.param(SIGNATURE[:69] + bytes(32) + SIGNATURE[101:], id="scalar 0"),
        pytest.param(SIGNATURE[:69] + N + SIGNATURE[101:], id="scalar N"),
        pytest.param(SIGNATURE[:101] + NO_POINT + SIGNATURE[134:], id="key no point"),
        pytest.param(SIGNATURE[:101] + b"\4" + SIGNATURE[102:], id="key of unknown kind"),
    ],
)
def test_malformed_signatures_are_refused(signature: bytes) -> None:
    assert verify_ring(DIGEST, SIGNATURE)
    assert not verify_ring(DIGEST, signature)


def test_scalars_have_one_encoding() -> None:
    """s + N would fit into 32 bytes for small s: taken, one signature had two forms."""
    signer = reference.Signer(int.from_bytes(KEYS[0].secret(), "big"), PUBLIC[:2], Small(3))
    signature = signer.sign(DIGEST)
    assert int.from_bytes(signature[134:166], "big") == 7
    assert verify_ring(DIGEST, signature)
    doubled = signature[:134] + (7 + secp256k1.N).to_bytes(32, "big") + signature[166:]
    assert not verify_ring(DIGEST, doubled)


class Small(random.Random):
    """Draws a small scalar for the second member."""

    drawn = 0

    def randrange(self, *args: Any, **kwargs: Any) -> int:
        self.drawn += 1
        return 7 if self.drawn == 2 else super().randrange(*args, **kwargs)


@pytest.mark.parametrize("digest", [b"", DIGEST[:-1], DIGEST + b"\0"])
def test_digests_have_32_bytes(digest: bytes) -> None:
    assert not verify_ring(digest, SIGNATURE)
    with pytest.raises(RingError, match=f"digest has {len(digest)} bytes"):
        RingSigner(KEYS[0], PUBLIC[:2]).sign(digest)


@pytest.mark.parametrize(
    ("ring", "named"),
    [
        ([], "0 members"),
        (PUBLIC[:1], "1 member:"),
        (PUBLIC[:1] * 65, "65 members"),
        (PUBLIC[1:], f"key of {KEYS[0].address} is not in the ring"),
        ([PUBLIC[0], NO_POINT], "33 bytes is no"),
        ([PUBLIC[0], b"\x04" + bytes(64)], "65 bytes is no"),
        ([PUBLIC[0], KEYS[1].secret()], "32 bytes is no"),
    ],
)
def test_rings_that_cannot_be_signed_for(ring: list[bytes], named: str) -> None:
    with pytest.raises(RingError, match=named) as caught:
        RingSigner(KEYS[0], ring)
    assert KEYS[1].secret().hex() not in str(caught.value)


@pytest.mark.parametrize("signature", [b"", SIGNATURE[:-1], SIGNATURE[:101] + NO_POINT + SIGNATURE[134:]])
def test_members_of_malformed_signatures(signature: bytes) -> None:
    with pytest.raises(RingError):
        ring_members(signature)


def test_a_ring_of_64_is_the_largest() -> None:
    ring = PUBLIC[:2] * 32
    assert verify_ring(DIGEST, RingSigner(KEYS[1], ring).sign(DIGEST))
