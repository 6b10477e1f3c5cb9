"""What happened to every relay that reached a simulated relay miner."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

#: Outcome of a relay that is not finished.
IN_FLIGHT = "in_flight"


@dataclass(slots=True)
class Relay:
    """One relay. ``accepted``: the miner found it valid and gave it to the backend, so that it counts.

    ``request_hash`` is what its ring signed, ``request_sha256`` is of the bytes as posted, both in
    hexadecimal. ``cost`` is in upokt, 0 for what is not paid. ``outcome`` is ``ok``, the fault that was
    simulated, ``backend_<status>``, ``timeout``, ``broken`` or ``cancelled``; of relays that are not
    accepted, why not. ``height`` is as the miner saw it.
    """

    seq: int
    at: datetime
    supplier: str
    app: str
    service: str
    session_id: str
    session_start: int
    session_end: int
    height: int
    host: str
    flavour: str
    request_hash: str
    request_sha256: str
    accepted: bool = False
    outcome: str = IN_FLIGHT
    cost: float = 0.0
    streamed: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"at": self.at.isoformat()}


@dataclass
class Ledger:
    """All relays, in the order in which they came in; numbers start at 1."""

    relays: list[Relay] = field(default_factory=list)

    def open(self, **values: Any) -> Relay:
        """A relay came in."""
        relay = Relay(seq=len(self.relays) + 1, at=datetime.now(UTC), **values)
        self.relays.append(relay)
        return relay

    def since(self, seq: int, *, accepted: bool) -> list[dict[str, Any]]:
        """Relays after a number: those accepted, or those refused."""
        return [relay.to_json() for relay in self.relays[seq:] if relay.accepted == accepted]

    def counts(self) -> dict[str, dict[str, Any]]:
        """Per supplier: relays accepted and refused, by outcome, and what they cost."""
        table: dict[str, dict[str, Any]] = {}
        for relay in self.relays:
            mine = table.setdefault(
                relay.supplier, {"accepted": Counter(), "refused": Counter(), "cost": 0.0}
            )
            mine["accepted" if relay.accepted else "refused"][relay.outcome] += 1
            mine["cost"] += relay.cost
        return table
