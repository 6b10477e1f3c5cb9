"""What can be wrong with a simulated supplier on Pocket, and when it is.

``KINDS`` names every fault with what a client sees. Rules draw by supplier, relay and attempt, never by order
or time, so that runs can be repeated; heights and counts may bound them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from testbench_dagster.localnet.chance import unit

#: Instead of serving: the relay is not accepted.
REFUSALS = {
    "down": "closes the connection without an answer",
    "reset": "resets the connection",
    "html": "a proxy's web page with HTTP 502 instead of an answer",
    "html200": "a proxy's web page with HTTP 200 instead of an answer",
    "rate_limited": "classic: relayer_proxy 7; ha: HTTP 429",
    "expired": "claims that the session is over; classic: relay_authenticator 1; ha: HTTP 403",
    "not_in_session": "claims not to be in the session; classic: relay_authenticator 2; ha: HTTP 403",
    "not_reachable": "classic: relayer_proxy 9; ha: HTTP 503",
}
#: The relay is accepted, and its answer goes wrong on the way.
TRANSPORT = {
    "slow_headers": "`seconds` until the answer begins",
    "slow_body": "`seconds` from the first to the last byte of the answer",
    "hang": "never answers",
    "timeout": "classic: relayer_proxy 10; ha: HTTP 504",
    "internal": "classic: relayer_proxy 5; ha: HTTP 502",
    "empty": "HTTP 200 without a body",
    "truncated": "the answer's protobuf breaks off in the middle",
    "gzip": "the whole answer is compressed, with Content-Encoding",
    "stream_cut": "ha, streams: the connection breaks in the middle; otherwise as reset",
    "unterminated": "ha, streams: no separator after the last part",
}
#: The backend's answer is another one.
BACKEND = {
    "backend_4xx": "the backend answers HTTP 404, signed",
    "backend_5xx": "the backend answers HTTP 500; classic: signed; ha: HTTP 500, unsigned",
    "oversized": "the backend's body has `megabytes` more, signed",
}
#: The answer's envelope is wrong, or unusual.
ENVELOPE = {
    "unsigned": "no signature",
    "bad_signature": "one bit of the signature is wrong",
    "high_s": "the signature's S is in the upper half",
    "wrong_signer": "signed by another key",
    "swapped_payload": "another payload under the hash that was signed",
    "no_payload_hash": "signed without payload hash, as before v0.1.25: valid",
    "wrong_header": "the session header names another session, signed",
    "foreign_session": "the session header is another application's, signed",
    "replay": "an earlier answer once more, of another session if there was one",
}
#: Wrong on the chain: switched on and off, never drawn.
CHAIN = {
    "null_pubkey": "the operator's account shows no public key",
    "tls": "the staked URL says https, where no TLS is spoken",
}
KINDS = {**REFUSALS, **TRANSPORT, **BACKEND, **ENVELOPE, **CHAIN}


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One fault of a supplier: with probability ``rate``, within heights, for some of its relays.

    ``after`` relays are spared first; at most ``times`` relays get it. Raises ValueError for what cannot be.
    """

    kind: str
    rate: float = 1.0
    from_height: int | None = None
    until_height: int | None = None
    after: int = 0
    times: int | None = None
    seconds: float = 1.0
    megabytes: float = 16.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is no fault; choose from: {', '.join(KINDS)}")
        if not 0.0 <= self.rate <= 1.0:
            raise ValueError(f"rate {self.rate} is no share from 0 to 1")
        if self.seconds < 0 or not 0 <= self.megabytes <= 256 or self.after < 0:
            raise ValueError("seconds and after must not be negative, megabytes must be from 0 to 256")
        bounded = self.from_height, self.until_height, self.times
        if self.kind in CHAIN and (self.rate != 1.0 or self.after or any(b is not None for b in bounded)):
            raise ValueError(f"{self.kind} is on or off: give neither rate nor schedule")


@dataclass
class Faults:
    """The rules of one supplier; the first that fires is the fault of a relay."""

    seed: int
    name: str
    rules: list[FaultRule] = field(default_factory=list)
    _seen: dict[int, int] = field(default_factory=dict, repr=False)
    _fired: dict[int, int] = field(default_factory=dict, repr=False)

    def set(self, rules: Sequence[FaultRule]) -> None:
        """These rules and no others; counted anew, unless they only go on from those there were."""
        if list(rules[: len(self.rules)]) != self.rules:
            self._seen.clear()
            self._fired.clear()
        self.rules = list(rules)

    def pick(self, relay: str, attempt: int, height: int) -> FaultRule | None:
        """The fault of the ``attempt``-th sending (from 0) of a relay, given by its hash; None for none."""
        for place, rule in enumerate(self.rules):
            if rule.kind in CHAIN:
                continue
            if rule.from_height is not None and height < rule.from_height:
                continue
            if rule.until_height is not None and height > rule.until_height:
                continue
            seen = self._seen.get(place, 0)
            self._seen[place] = seen + 1
            fired = self._fired.get(place, 0)
            if seen < rule.after or (rule.times is not None and fired >= rule.times):
                continue
            if unit(self.seed, self.name, "pocket", rule.kind, relay, attempt) < rule.rate:
                self._fired[place] = fired + 1
                return rule
        return None

    def has(self, kind: str) -> bool:
        """Whether there is a rule of this kind."""
        return any(rule.kind == kind for rule in self.rules)

    def describe(self) -> list[dict[str, Any]]:
        """The rules as they were given, and how often each fired."""
        return [
            {"kind": r.kind, "rate": r.rate, "fired": self._fired.get(place, 0)}
            for place, r in enumerate(self.rules)
        ]
