"""Keys lead to the addresses others derive, are refused when unsafe, and show themselves nowhere."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.errors import KeyMaterialError
from testbench_dagster.transports.pocket import ripemd160
from testbench_dagster.transports.pocket.keys import PLACEHOLDER_PUBLIC_KEY, PrivateKey, address_of
from testbench_dagster.transports.pocket.rings import RingSigner
from testbench_dagster.transports.pocket.secp256k1 import N

# pocket-relay-miner, examples/relay-signing/README.md
EXAMPLE = "2d00ef074d9b51e46886dc9a1df11e7b986611d0f336bdcf1f0adce3e037ec0a"
EXAMPLE_PUBLIC = "0397896e9b106df70124a856861cc9be52fac9980e2c7a118a36c19d0198692cc5"
EXAMPLE_ADDRESS = "pokt1mrqt5f7qh8uxs27cjm9t7v9e74a9vvdnq5jva4"


def hexed(number: int) -> str:
    return f"{number:064x}"


# ----------------------------------------------------------------------------------------- addresses


def test_the_published_example() -> None:
    key = PrivateKey.from_hex(EXAMPLE)
    assert (key.public_key.hex(), key.address) == (EXAMPLE_PUBLIC, EXAMPLE_ADDRESS)
    assert address_of(key.public_key) == EXAMPLE_ADDRESS
    assert address_of(key.public_key, "poktvaloper").startswith("poktvaloper1")


def test_keys_of_the_vectors(vectors: dict[str, Any]) -> None:
    for row in vectors["keys"]:
        key = PrivateKey.from_hex(row["priv"])
        assert (key.public_key.hex(), key.address) == (row["pub"], row["address"])
    placeholder = vectors["placeholder_ring_member"]
    assert PLACEHOLDER_PUBLIC_KEY.hex() == placeholder["pub"]
    digest = ripemd160.ripemd160(hashlib.sha256(PLACEHOLDER_PUBLIC_KEY).digest())
    assert digest.hex().upper() == placeholder["go_address_string"]
    sighted = vectors["mainnet_signature_layout_only"]
    first = bytes.fromhex(sighted["sig"])[69 + 32 : 69 + 65]
    assert address_of(first) == sighted["session_header_application"]


@pytest.mark.parametrize("digest", [ripemd160.ripemd160, ripemd160.pure_ripemd160])
@pytest.mark.parametrize(
    ("data", "expected"),
    [  # appendix B of the RIPEMD-160 paper
        (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
        (b"a", "0bdc9d2d256b3ee9daae347be6f4dc835a467ffe"),
        (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        (b"message digest", "5d0689ef49d2fae572b881b123a85ffa21595f36"),
        (b"abcdefghijklmnopqrstuvwxyz", "f71c27109c692c1b56bbdceb5b9d2865b3708dbc"),
        (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
    ],
)
def test_ripemd160(digest: Any, data: bytes, expected: str) -> None:
    assert digest(data).hex() == expected


def test_ripemd160_without_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, data: bytes = b"") -> None:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", refuse)
    assert PrivateKey.from_hex(EXAMPLE).address == EXAMPLE_ADDRESS


@pytest.mark.parametrize(
    "public_key",
    [
        b"",
        bytes(33),
        bytes.fromhex(EXAMPLE_PUBLIC)[:32],
        b"\x04" + bytes.fromhex(EXAMPLE_PUBLIC)[1:],
        b"\x02" + bytes(31) + b"\x05",  # no point has this x
        bytes.fromhex(EXAMPLE),  # a private key by mistake
    ],
)
def test_other_than_public_keys_have_no_address(public_key: bytes) -> None:
    with pytest.raises(KeyMaterialError, match=f"{len(public_key)} bytes") as caught:
        address_of(public_key)
    assert EXAMPLE not in str(caught.value)


# --------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "text",
    [
        "",
        EXAMPLE[:-1],
        EXAMPLE + "0",
        "0x" + EXAMPLE,
        "0x" + EXAMPLE[2:],
        EXAMPLE[:-1] + "g",
        EXAMPLE[:-2] + " 0",
        EXAMPLE[:-1] + "\u0660",
        hexed(0),
        hexed(N),
        hexed(N + 1),
        "f" * 64,
    ],
)
def test_other_than_private_keys_are_refused(text: str) -> None:
    with pytest.raises(KeyMaterialError, match="APP_KEY") as caught:
        PrivateKey.from_hex(text, "APP_KEY")
    seen = "".join(traceback.format_exception(caught.value))
    assert EXAMPLE[8:40] not in seen and (len(text) < 64 or text not in seen)


def test_the_range_is_whole() -> None:
    assert PrivateKey.from_hex(hexed(1)).public_key.hex()[2:18] == "79be667ef9dcbbac"
    assert PrivateKey.from_hex(f" {hexed(N - 1).upper()}\n").public_key[0] == 3


def test_keys_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_KEY", EXAMPLE)
    assert PrivateKey.from_env("APP_KEY").address == EXAMPLE_ADDRESS
    for wrong in ("", "  ", EXAMPLE[:-2]):
        monkeypatch.setenv("APP_KEY", wrong)
        with pytest.raises(KeyMaterialError, match="environment variable APP_KEY"):
            PrivateKey.from_env("APP_KEY")
    monkeypatch.delenv("APP_KEY")
    with pytest.raises(KeyMaterialError, match="APP_KEY is not set"):
        PrivateKey.from_env("APP_KEY")


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o700])
def test_keys_from_a_file_of_ones_own(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "app.key"
    path.write_text(EXAMPLE + "\n", "ascii")
    path.chmod(mode)
    assert PrivateKey.from_file(path).address == EXAMPLE_ADDRESS


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o610, 0o601])
def test_files_open_to_others_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "app.key"
    path.write_text(EXAMPLE, "ascii")
    path.chmod(mode)
    with pytest.raises(KeyMaterialError) as caught:
        PrivateKey.from_file(path)
    assert f"key file {path} has mode {mode:04o}" in str(caught.value)
    assert f"chmod 600 {path}" in str(caught.value)
    assert EXAMPLE not in str(caught.value)


def test_other_than_key_files_are_refused(tmp_path: Path) -> None:
    folder, pipe, long, binary, short = (
        tmp_path / name for name in ("folder", "pipe", "long", "bin", "short")
    )
    folder.mkdir(mode=0o700)
    os.mkfifo(pipe, 0o600)
    long.write_bytes(b" " * 1024 + EXAMPLE.encode())
    binary.write_bytes(bytes.fromhex(EXAMPLE))
    short.write_bytes(EXAMPLE[:-1].encode())
    for path in (long, binary, short):
        path.chmod(0o600)
    for path in (folder, pipe, long, binary, short, tmp_path / "absent"):
        with pytest.raises(KeyMaterialError, match=f"key file {path}") as caught:
            PrivateKey.from_file(path)
        assert EXAMPLE[:20] not in "".join(traceback.format_exception(caught.value))


# ------------------------------------------------------------------------------------------- secrecy


def forms(secret: bytes) -> tuple[str, ...]:
    """How a key may look in a text: hex, decimal, bytes as Python prints them."""
    return secret.hex(), secret.hex().upper(), str(int.from_bytes(secret, "big")), repr(secret)[2:-1]


@pytest.mark.parametrize("holder", ["key", "signer"])
def test_keys_show_themselves_nowhere(holder: str, caplog: pytest.LogCaptureFixture) -> None:
    key = PrivateKey.from_hex(EXAMPLE)
    held: Any = key if holder == "key" else RingSigner(key, [key.public_key] * 2)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("a test").debug("%s %r", held, held)
    shown = [caplog.text, repr(held), str(held), f"{held}", repr([held]), repr({"held": held})]
    for refused in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            refused(held)
        shown.append("".join(traceback.format_exception(caught.value)))
    with pytest.raises(TypeError, match="__dict__"):
        vars(held)
    if holder == "key":
        assert EXAMPLE_ADDRESS in shown[1]
    else:
        with pytest.raises(ValueError, match="digest") as caught_too:
            held.sign(b"")
        shown.append("".join(traceback.format_exception(caught_too.value)))
    for text in shown:
        assert not any(form in text for form in forms(key.secret()))


def test_keys_are_not_compared() -> None:
    assert PrivateKey.from_hex(EXAMPLE) != PrivateKey.from_hex(EXAMPLE)


@settings(deadline=None)
@given(st.integers(1, N - 1))
def test_every_number_in_range_is_a_key(number: int) -> None:
    key = PrivateKey(number.to_bytes(32, "big"))
    assert key.secret() == number.to_bytes(32, "big")
    assert address_of(key.public_key) == key.address
