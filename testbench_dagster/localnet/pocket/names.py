"""Keys of the simulation: anyone can derive them from a seed and a name, so they protect nothing."""

from __future__ import annotations

import hashlib

from testbench_dagster.transports.pocket.keys import PrivateKey


def private_key_hex(seed: int, name: str) -> str:
    """The private key of a simulated account, as 64 hexadecimal digits."""
    return hashlib.sha256(f"sim:{seed}:{name}".encode()).hexdigest()


def private_key(seed: int, name: str) -> PrivateKey:
    """The private key of a simulated account."""
    return PrivateKey.from_hex(private_key_hex(seed, name), f"simulated key {name!r}")
