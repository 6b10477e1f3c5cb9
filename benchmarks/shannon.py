"""What do signed relays on Pocket cost: signing requests, verifying rings and suppliers' answers?

    python benchmarks/shannon.py [--seconds 2]

One process, one core, CPU seconds, nothing but this package. Signing is what a relay adds to a direct one
before it is sent, verifying the answer what it adds afterwards; verifying rings is the relay miner's work,
and the simulator's. Target: 4,000 signatures per second with a ring of two.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable

from testbench_dagster.relays.shannon.keys import PrivateKey
from testbench_dagster.relays.shannon.messages import (
    HttpRequest,
    HttpResponse,
    RelayRequest,
    RelayResponse,
    SessionHeader,
)
from testbench_dagster.relays.shannon.responses import read_response, sign_response, verify_response
from testbench_dagster.relays.shannon.rings import RingSigner, verify_ring

SIGN_TARGET = 4_000
LOT = 200
PROMPT = "Step by step: what is half of the sum of 17 and 25?\n" * 60
ANSWER = "Step by step: 17 plus 25 is 42, and half of that is 21.\n" * 6 + "#### 21"


def keys(count: int) -> list[PrivateKey]:
    """Return keys anyone can make: of the benchmark only."""
    return [PrivateKey(hashlib.sha256(b"benchmark %d" % number).digest()) for number in range(count)]


def rate(work: Callable[[int], object], seconds: float) -> float:
    """Calls per CPU second: the best of ten lots at least, as others share the machine."""
    best, spent = float("inf"), 0.0
    lots = 0
    while lots < 10 or spent < seconds:
        start = time.process_time()
        for number in range(LOT):
            work(number)
        took = time.process_time() - start
        best, spent, lots = min(best, took), spent + took, lots + 1
    return LOT / best


def rings(seconds: float) -> dict[str, tuple[float, float]]:
    """Signatures and verifications per CPU second, by kind of ring; every signature made is verified once."""
    members = keys(5)
    kinds = {f"{n}": [key.public_key for key in members[:n]] for n in (2, 3, 5)}
    kinds["2, the app twice"] = [members[0].public_key] * 2
    digests = [hashlib.sha256(b"relay %d" % number).digest() for number in range(LOT)]
    found = {}
    for name, ring in kinds.items():
        signer = RingSigner(members[0], ring)
        signatures = [signer.sign(digest) for digest in digests]
        if not all(map(verify_ring, digests, signatures)):
            raise SystemExit(f"ring of {name}: a signature was refused")
        found[name] = (
            rate(lambda n, signer=signer: signer.sign(digests[n]), seconds),  # type: ignore[misc]
            rate(lambda n, made=signatures: verify_ring(digests[n], made[n]), seconds),  # type: ignore[misc]
        )
    return found


def relay(seconds: float) -> dict[str, float]:
    """Microseconds of CPU that one relay spends on its envelope, part by part."""
    app, operator = keys(2)
    header = SessionHeader(app.address, "text-generation", "ab" * 32, 883_661, 883_680)
    signer = RingSigner(app, [app.public_key] * 2)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": PROMPT}]}).encode()
    json_type = {"Content-Type": ["application/json"]}
    inner = HttpRequest("POST", "https://supplier.example/v1/chat/completions", json_type, body)
    payload = HttpResponse(200, json_type, json.dumps({"choices": [{"text": ANSWER}]}).encode()).encode()
    response = RelayResponse(header, b"", payload, payload_hash=hashlib.sha256(payload).digest())
    answer = sign_response(operator, response).encode()

    def request(_: int) -> bytes:
        unsigned = RelayRequest(header, operator.address, inner.encode())
        signature = signer.sign(unsigned.signable_hash())
        return RelayRequest(header, operator.address, unsigned.payload, signature).encode()

    def read(_: int) -> object:
        return verify_response(read_response(answer), header, operator.public_key)

    return {
        "request built and signed (the app twice)": 1e6 / rate(request, seconds),
        "answer read and verified": 1e6 / rate(read, seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU seconds per figure (default 2)")
    seconds = parser.parse_args().seconds
    print(f"{'members of the ring':<46}{'sign/s':>10}{'verify/s':>10}")
    measured = rings(seconds)
    for name, (sign, verify) in measured.items():
        print(f"{name:<46}{sign:>10,.0f}{verify:>10,.0f}")
    print(f"\n{'one relay':<46}{'CPU us':>10}")
    for name, cost in relay(seconds).items():
        print(f"{name:<46}{cost:>10,.0f}")
    sign = measured["2"][0]
    verdict = "met" if sign >= SIGN_TARGET else "MISSED"
    print(f"\nsignatures per core-second, ring of two: {sign:,.0f} (target {SIGN_TARGET:,} {verdict})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
