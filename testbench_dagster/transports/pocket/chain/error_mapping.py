"""What a chain says when it refuses a query, told apart by gRPC code and text, the same for both APIs."""

from __future__ import annotations

from testbench_dagster.core.text import escaped
from testbench_dagster.transports.pocket.chain.errors import (
    ChainError,
    NodeFault,
    NotFound,
    PastUnknown,
    SessionReason,
    SessionUnavailable,
)
from testbench_dagster.transports.pocket.chain.queries import GET_SESSION, Query

#: gRPC status codes (grpc.io/docs/guides/status-codes) that mean something here.
INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, INTERNAL = 3, 5, 12, 13

#: ``get_session`` answers all of these as Internal. Texts of poktroll's ``session_hydrator.go``, and of the
#: errors they wrap (``session/types/errors.go``).
_SESSION_TEXTS: tuple[tuple[str, SessionReason], ...] = (
    ("ahead of the last committed block height", "height_ahead"),
    ("could not find app with address", "app_not_found"),
    ("application for session not found", "app_not_found"),
    ("not staked for service", "app_not_staked"),
    ("not staked for requested service", "app_not_staked"),
    ("could not find suppliers for service", "no_suppliers"),
    ("no suppliers not found for session", "no_suppliers"),  # sic
    ("is not active for session", "app_inactive"),
    ("application is not active", "app_inactive"),
    ("error during session hydration", "other"),
)
#: What nodes say that have no such query, or no state of the height any more (Cosmos SDK ``baseapp``, IAVL).
_PAST_TEXTS = (
    "unknown query path",
    "unknown service",
    "unknown method",
    "failed to load state at height",
    "version does not exist",
    "version mismatch",
    "pruned",
)
_REMEDIES: dict[SessionReason, str] = {
    "app_not_found": "stake the application, or correct its address under apps",
    "app_not_staked": "stake it for this service, or configure another application",
    "no_suppliers": "nobody is staked for the service; correct its name, or wait for suppliers",
    "app_inactive": "it is unstaking; stake it again, or configure another application",
    "height_ahead": "the node will have the block shortly; ask again",
    "other": "ask the node's operator",
}


def session_unavailable(reason: SessionReason, query: Query, text: str) -> SessionUnavailable:
    """Return the error that there is no such session, with what to do about it."""
    return SessionUnavailable(reason, f"no {query.what.removeprefix('the ')}: {text}; {_REMEDIES[reason]}")


def past_unknown(query: Query, text: str) -> PastUnknown:
    """Return the error that a node cannot tell what held then."""
    return PastUnknown(f"{query.what} is not told ({text}); name a node that keeps history")


def refused(query: Query, code: int, text: str) -> ChainError:
    """Return what a refusal means: an answer of the chain, or (:class:`NodeFault`) trouble of this node."""
    told = escaped(text.strip())
    if query.of_the_past:
        lacking = code == UNIMPLEMENTED or (code == NOT_FOUND and told.lower() in ("", "not found"))
        if lacking or any(said in text.lower() for said in _PAST_TEXTS):
            return past_unknown(query, told)
    if code == NOT_FOUND and told.lower() not in ("", "not found"):  # that alone is said of unknown paths
        return NotFound(f"the chain has no {query.what.removeprefix('the ')} ({told}); correct the name")
    if query.method == GET_SESSION and code != INVALID_ARGUMENT:
        for said, reason in _SESSION_TEXTS:
            if said in text:
                return session_unavailable(reason, query, told)
    return NodeFault(f"refuses it with code {code}: {told}")
