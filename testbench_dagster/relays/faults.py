"""The closed fault taxonomy: what can happen to a relay, and who answers for it.

Only faults owned by the supplier count against it; those of the network, of the protocol around it and our
own are kept and shown, never scored.
"""

from __future__ import annotations

from enum import StrEnum


class Owner(StrEnum):
    """Who is answerable for a fault."""

    NONE = "none"
    SUPPLIER = "supplier"
    NETWORK = "network"
    CLIENT = "client"
    GATEWAY = "gateway"
    SESSION = "session"
    BUDGET = "budget"
    NODE = "node"
    INTERNAL = "internal"


class Fault(StrEnum):
    """Outcome of one attempt; stored by name."""

    OK = "ok"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    SUPPLIER_HTTP = "supplier_http"
    SUPPLIER_TIMEOUT = "supplier_timeout"
    SUPPLIER_PROTOCOL = "supplier_protocol"
    SUPPLIER_REFUSED = "supplier_refused"
    SUPPLIER_SIGNATURE = "supplier_signature"
    RATE_LIMITED = "rate_limited"
    TRANSPORT = "transport"
    CLIENT_REQUEST = "client_request"
    GATEWAY = "gateway"
    ROLLOVER = "rollover"
    BUDGET = "budget"
    NODE = "node"
    INTERNAL = "internal"

    @property
    def owner(self) -> Owner:
        """Who answers for it."""
        return _OWNERS[self]

    @property
    def answered(self) -> bool:
        """Whether the attempt brought an answer that is scored."""
        return self in (Fault.OK, Fault.TRUNCATED)

    @property
    def settled(self) -> bool:
        """Whether the question is closed for this round: answered, or failed by the supplier's fault."""
        return self.answered or self.owner is Owner.SUPPLIER

    @property
    def retried(self) -> bool:
        """Whether a further attempt may help and does not excuse the supplier."""
        return self in _RETRIED


_OWNERS = {
    Fault.OK: Owner.NONE,
    Fault.TRUNCATED: Owner.NONE,
    Fault.EMPTY: Owner.SUPPLIER,
    Fault.SUPPLIER_HTTP: Owner.SUPPLIER,
    Fault.SUPPLIER_TIMEOUT: Owner.SUPPLIER,
    Fault.SUPPLIER_PROTOCOL: Owner.SUPPLIER,
    Fault.SUPPLIER_REFUSED: Owner.SUPPLIER,
    Fault.SUPPLIER_SIGNATURE: Owner.SUPPLIER,
    Fault.RATE_LIMITED: Owner.NETWORK,
    Fault.TRANSPORT: Owner.NETWORK,
    Fault.CLIENT_REQUEST: Owner.CLIENT,
    Fault.GATEWAY: Owner.GATEWAY,
    Fault.ROLLOVER: Owner.SESSION,
    Fault.BUDGET: Owner.BUDGET,
    Fault.NODE: Owner.NODE,
    Fault.INTERNAL: Owner.INTERNAL,
}

_RETRIED = frozenset({Fault.RATE_LIMITED, Fault.TRANSPORT, Fault.GATEWAY, Fault.ROLLOVER, Fault.NODE})

#: Names of the faults that count against the supplier, for queries on the stored ``fault`` field.
SUPPLIER_FAULTS = tuple(f.value for f in Fault if f.owner is Owner.SUPPLIER)
