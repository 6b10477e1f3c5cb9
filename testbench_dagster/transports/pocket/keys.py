"""Keys and addresses on Pocket: private keys that do not show themselves, public keys, bech32 addresses.

An address is bech32 of RIPEMD-160(SHA-256(compressed public key)), as in every chain on cosmos-sdk
(``crypto/keys/secp256k1``).
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NoReturn

from testbench_dagster.core import bech32
from testbench_dagster.core.errors import KeyMaterialError
from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket import secp256k1
from testbench_dagster.transports.pocket.ripemd160 import ripemd160

#: Longest key file that is read, in bytes: 64 digits, and room for white space.
_MAX_FILE = 1024
#: What everyone may derive the placeholder's private key from (poktroll ``pkg/crypto/rings/client.go``).
_PLACEHOLDER_SEED = b"placeholder_ring_key_for_apps_without_gateways"


class PrivateKey:
    """A secp256k1 private key. Neither printing, pickling, copying nor ``vars`` gives it away.

    ``public_key`` is the compressed one (33 bytes), ``address`` the ``pokt1...`` it belongs to: a wrong key
    is no error anywhere but another address, so compare that with the expected one. Two keys are never
    equal, only identical: compare addresses.
    """

    __slots__ = ("__key", "address", "public_key")

    def __init__(self, secret: bytes, what: str = "private key") -> None:
        """Take 32 bytes; raises :class:`KeyMaterialError`, naming ``what``, unless they are in 1..N-1."""
        if not secp256k1.is_scalar(secret):
            raise KeyMaterialError(f"{what} is no secp256k1 private key: give 32 bytes within its range")
        self.__key = secp256k1.SigningKey(bytes(secret))
        self.public_key = secp256k1.compressed(self.__key.public_key)
        self.address = address_of(self.public_key)

    @classmethod
    def from_hex(cls, text: str, what: str = "private key") -> PrivateKey:
        """Read 64 hexadecimal digits; errors name ``what`` and never the value."""
        text = text.strip()
        secret = b""
        if len(text) == 64 and text.isascii() and text.isalnum():
            try:
                secret = bytes.fromhex(text)
            except ValueError:
                secret = b""
        if not secret:
            raise KeyMaterialError(
                f"{what} has {counted(len(text), 'character')}, or others than 0-9 and a-f: give the "
                "private key as "
                "exactly 64 hexadecimal digits (pocketd keys export NAME --unsafe --unarmored-hex)"
            )
        return cls(secret, what)

    @classmethod
    def from_env(cls, name: str) -> PrivateKey:
        """Read 64 hexadecimal digits from an environment variable."""
        text = os.environ.get(name, "")
        if not text.strip():
            raise KeyMaterialError(
                f"environment variable {name} is not set: put the private key's hex into it"
            )
        return cls.from_hex(text, f"environment variable {name}")

    @classmethod
    def from_file(cls, path: str | Path) -> PrivateKey:
        """Read 64 hexadecimal digits from a file that only its owner may read."""
        try:
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                mode = os.fstat(file.fileno()).st_mode
                content = file.read(_MAX_FILE + 1) if stat.S_ISREG(mode) else b""
        except OSError as error:
            raise KeyMaterialError(f"key file {path} cannot be read: {error.strerror}") from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyMaterialError(
                f"key file {path} has mode {stat.S_IMODE(mode):04o}, so others may reach it: chmod 600 {path}"
            )
        if not stat.S_ISREG(mode) or len(content) > _MAX_FILE or not content.isascii():
            raise KeyMaterialError(f"key file {path} is no text file of 64 hexadecimal digits")
        return cls.from_hex(content.decode("ascii"), f"key file {path}")

    def secret(self) -> bytes:
        """Return the key itself, for arithmetic: not to be kept, shown or stored."""
        return self.__key.secret

    def ecdsa_sign(self, digest: bytes) -> bytes:
        """Return R and S (64 bytes, low S) over a 32-byte digest."""
        return secp256k1.ecdsa_sign(self.__key, digest)

    def __repr__(self) -> str:
        return f"PrivateKey({self.address})"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(f"the private key of {self.address} is not to be pickled or copied")


def address_of(public_key: bytes, hrp: str = bech32.HRP) -> str:
    """Return the address of a compressed public key. Raises :class:`KeyMaterialError` if it is none."""
    if secp256k1.point(public_key) is None:
        raise KeyMaterialError(
            f"no secp256k1 public key has {counted(len(public_key), 'byte')}: give the 33 bytes of a "
            "compressed one"
        )
    return bech32.encode(hrp, ripemd160(hashlib.sha256(public_key).digest()))


def _placeholder() -> PrivateKey:
    """Return the key of the member that fills the ring of an application without gateways."""
    seed = int.from_bytes(hashlib.sha256(_PLACEHOLDER_SEED).digest(), "big")
    return PrivateKey((seed % (secp256k1.N - 1) + 1).to_bytes(32, "big"), "placeholder key")


#: Verifiers take this key as a member of every ring whose application delegates to no gateway. Its private
#: key is public knowledge: such an application's stake can be charged by anyone.
PLACEHOLDER_PUBLIC_KEY = _placeholder().public_key
