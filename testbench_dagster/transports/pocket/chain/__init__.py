"""What the Pocket chain says: heights, parameters, applications, sessions, suppliers, public keys.

:class:`ChainClient` asks nodes by REST, or by CometBFT's RPC (``abci_query``), and remembers answers for as
long as they stay true. Answers of nodes are not trusted: see ``reading`` for what is checked, ``nodes`` for
who is asked, ``transfer`` for the bounds of an exchange.

Belongs here: asking nodes, checking what they say, and remembering it. Does not: what a session allows, and
storing any of it.
"""

from testbench_dagster.transports.pocket.chain.client import ChainClient
from testbench_dagster.transports.pocket.chain.errors import (
    BadAnswer,
    ChainError,
    NodeUnavailable,
    NotFound,
    PastUnknown,
    SessionReason,
    SessionUnavailable,
)
from testbench_dagster.transports.pocket.chain.types import (
    UNLIMITED,
    Application,
    ChainSupplier,
    NodeReport,
    NodeStatus,
    ServiceInfo,
    Session,
    SessionTerms,
    SharedParams,
    SupplierEndpoint,
    relay_cost,
    session_budget_relays,
    session_budget_upokt,
)

__all__ = [
    "UNLIMITED",
    "Application",
    "BadAnswer",
    "ChainClient",
    "ChainError",
    "ChainSupplier",
    "NodeReport",
    "NodeStatus",
    "NodeUnavailable",
    "NotFound",
    "PastUnknown",
    "ServiceInfo",
    "Session",
    "SessionReason",
    "SessionTerms",
    "SessionUnavailable",
    "SharedParams",
    "SupplierEndpoint",
    "relay_cost",
    "session_budget_relays",
    "session_budget_upokt",
]
