"""What a miner signs: the suppliers behind it, envelopes around their answers, and parts of streams."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from testbench_dagster.localnet.pocket.chain import Chain
from testbench_dagster.localnet.pocket.faults import Faults
from testbench_dagster.localnet.pocket.names import private_key
from testbench_dagster.localnet.supplier import Reply, Supplier
from testbench_dagster.transports.pocket import secp256k1
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.messages import HttpResponse, RelayRequest, RelayResponse, RpcType
from testbench_dagster.transports.pocket.responses import sign_response

# a part of a stream: whatever is reached first
_BATCH_S = 0.1
_BATCH_BYTES = 100_000
_BATCH_LINES = 100


@dataclass
class Served:
    """A supplier behind a miner: its key, what answers for it, and what is wrong with it.

    ``rpc_types`` are those its operator configured a backend for, which may differ from those staked;
    ``budget`` is its own limit of relays per session, None for what the application's stake allows.
    """

    name: str
    key: PrivateKey
    service: str
    backend: Supplier
    faults: Faults
    rpc_types: tuple[RpcType, ...] = (RpcType.REST,)
    budget: int | None = None
    sent: Counter[str] = field(default_factory=Counter, repr=False)
    kept: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def operator(self) -> str:
        """Its address."""
        return self.key.address

    def earlier(self, session_id: str) -> bytes | None:
        """An answer given before, of another session if there is one."""
        others = [answer for session, answer in self.kept.items() if session != session_id]
        return others[0] if others else self.kept.get(session_id)


def seal(chain: Chain, relay: RelayRequest, served: Served, http: HttpResponse, kind: str) -> bytes:
    """The signed envelope around a response, or what the fault makes of it."""
    if kind == "replay" and (kept := served.earlier(relay.header.session_id)) is not None:
        return kept
    header = relay.header
    if kind == "wrong_header":
        header = replace(header, session_id=hashlib.sha256(header.session_id.encode()).hexdigest())
    if kind == "foreign_session":
        other = private_key(chain.seed, "another application").address
        header = replace(header, application=other)
    payload = http.encode()
    hashed = b"" if kind == "no_payload_hash" else hashlib.sha256(payload).digest()
    plain = RelayResponse(header, b"", payload, None, hashed)
    key = private_key(chain.seed, "an impostor") if kind == "wrong_signer" else served.key
    signed = sign_response(key, plain)
    signature = signed.signature
    if kind == "unsigned":
        signed = plain
    elif kind == "bad_signature":
        signed = replace(signed, signature=bytes([signature[0] ^ 1]) + signature[1:])
    elif kind == "high_s":
        high = secp256k1.N - int.from_bytes(signature[32:], "big")
        signed = replace(signed, signature=signature[:32] + high.to_bytes(32, "big"))
    elif kind == "swapped_payload":
        forged = replace(http, body=http.body.replace(b'"content":"', b'"content":"forged ') + b" ")
        signed = replace(signed, payload=forged.encode())
    answer = signed.encode()
    if not kind:
        served.kept.setdefault(relay.header.session_id, answer)
    return answer


async def batches(reply: Reply) -> AsyncIterator[bytes]:
    """The events of a stream, gathered for some time, bytes or lines, as pocket-relay-miner does."""
    batch = bytearray()
    lines, since = 0, time.monotonic()
    async for event in reply.paced():
        batch += event
        lines += event.count(b"\n")
        if time.monotonic() - since >= _BATCH_S or len(batch) >= _BATCH_BYTES or lines >= _BATCH_LINES:
            yield bytes(batch)
            batch.clear()
            lines, since = 0, time.monotonic()
    if batch:
        yield bytes(batch)
