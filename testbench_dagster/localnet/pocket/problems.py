"""Why a relay miner serves a relay not: names, codes and texts of both flavours."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a relay is not served: classic's registered error, and ha's HTTP status."""

    outcome: str
    codespace: str
    code: int
    description: str
    status: int
    message: str = ""

    def saying(self, message: str) -> Problem:
        """The same with particulars."""
        return replace(self, message=message)


_SESSION = "invalid session in relayer request"
UNMARSHAL = Problem("unmarshal", "relayer_proxy", 14, "failed to unmarshal relay request", 400)
TOO_LARGE = Problem("too_large", "relayer_proxy", 13, "request limit exceeded", 413)
UNKNOWN_SERVICE = Problem("unknown_service", "relayer_proxy", 3, "service not handled by relayer proxy", 404)
NOT_REACHABLE = Problem("not_reachable", "relayer_proxy", 9, "supplier(s) not reachable", 503)
NO_BACKEND = Problem("no_backend", "relayer_proxy", 4, "no backend for the RPC type", 503)
IMPLAUSIBLE = Problem("implausible", "relay_authenticator", 1, _SESSION, 400)
EXPIRED = Problem("expired", "relay_authenticator", 1, _SESSION, 403)
NO_APP = Problem("no_app", "undefined", 1, "internal", 403)
BAD_RING = Problem("ring_malformed", "rings", 2, "invalid relay request", 403)
BAD_SIGNATURE = Problem("ring_signature", "rings", 3, "invalid relay request signature", 403)
OTHER_SESSION = Problem("session_mismatch", "relay_authenticator", 1, _SESSION, 403)
NOT_IN_SESSION = Problem(
    "not_in_session", "relay_authenticator", 2, "supplier does not belong to session", 403
)
RATE_LIMITED = Problem("rate_limited", "relayer_proxy", 7, "offchain rate limit hit by relayer proxy", 429)
INTERNAL = Problem("internal", "relayer_proxy", 5, "internal error", 502)
TIMEOUT = Problem("timeout", "relayer_proxy", 10, "relay request to the backend timed out", 504)

#: What a refusing fault says.
CLAIMED = {
    "rate_limited": RATE_LIMITED.saying("session relay limit reached"),
    "expired": EXPIRED.saying("session expired (simulated claim)"),
    "not_in_session": NOT_IN_SESSION.saying("simulated claim"),
    "not_reachable": NOT_REACHABLE.saying("simulated"),
    "timeout": TIMEOUT.saying("simulated"),
    "internal": INTERNAL.saying("simulated"),
}


class ProblemError(Exception):
    """A relay is not served."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.outcome)
        self.problem = problem
