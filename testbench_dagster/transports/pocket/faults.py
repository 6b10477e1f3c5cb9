"""Whose fault a relay miner's answer is: its registered errors, its HTTP status, its signature.

There are two kinds of relay miner. poktroll's ("classic") answers errors with HTTP 200 and an unsigned
``RelayResponse`` that holds codespace and code. pocket-relay-miner ("HA") answers them with an HTTP status
and ``{"error": "..."}``, whose texts tell apart what one status covers. Both may stand behind a web server
that has answers of its own. Codes: poktroll ``pkg/relayer/proxy/errors.go``,
``pkg/relayer/relay_authenticator/errors.go``, ``pkg/crypto/rings/errors.go``; texts: pocket-relay-miner
``relayer/proxy.go`` and ``relayer/validator.go``.

Nothing here is signed, and all of it is the supplier's word. So none of it comes to a fault that is ours:
a doc that those hold up is in no score, which would spare whoever says so at the right moment. What it says
of a state that would hold for all docs (a budget, our signature) is believed as long as it does.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.remedies import PROXY_WANTS_CREDENTIALS
from testbench_dagster.core.text import MAX_ERROR_CHARS, escaped
from testbench_dagster.transports.pocket.errors import ResponseError
from testbench_dagster.transports.pocket.messages import MinerError, SessionHeader
from testbench_dagster.transports.statuses import fault_of_status, status_line

#: Miners and nodes see a block at different moments: so many blocks around the ends of a session excuse.
TOLERANCE_BLOCKS = 1

_PROXY, _AUTHENTICATOR, _RINGS, _SESSION = "relayer_proxy", "relay_authenticator", "rings", "session"
#: Says that the session is over, unknown, or not the supplier's.
_SESSION_CODES = {(_PROXY, 1), (_PROXY, 6), (_AUTHENTICATOR, 1), (_AUTHENTICATOR, 2)}
#: Says that it grants no more relays in the session.
_USED_UP = (_PROXY, 7)
_CODES = {
    _USED_UP: Fault.QUOTA,  # rate limited: the application's stake is used up for this session
    (_PROXY, 10): Fault.SUPPLIER_TIMEOUT,
    (_PROXY, 11): Fault.CLIENT_REQUEST,  # our request is larger than the miner takes
    (_PROXY, 13): Fault.CLIENT_REQUEST,
    (_PROXY, 14): Fault.CREDENTIALS,  # our request could not be read
    (_AUTHENTICATOR, 4): Fault.CREDENTIALS,
    (_RINGS, 1): Fault.CREDENTIALS,  # our signature, or the keys we signed with
    (_RINGS, 2): Fault.CREDENTIALS,
    (_RINGS, 3): Fault.CREDENTIALS,
}
#: Of 4xx those that speak of the request or of the way, whoever says so; others would need a backend's
#: signature for that.
_OF_THE_REQUEST = (PROXY_WANTS_CREDENTIALS, 413, 429)
_REASONS = {
    "empty": Fault.SUPPLIER_PROTOCOL,
    "unmarshal": Fault.SUPPLIER_PROTOCOL,
    "payload": Fault.SUPPLIER_PROTOCOL,
    "miner_error": Fault.SUPPLIER_HTTP,
    "unsigned": Fault.SUPPLIER_SIGNATURE,
    "session_header": Fault.SUPPLIER_SIGNATURE,
    "payload_hash": Fault.SUPPLIER_SIGNATURE,
    "signature": Fault.SUPPLIER_SIGNATURE,
    # Nothing is wrong with the answer, and nothing proves it: the chain lacks what it takes.
    "no_public_key": Fault.NODE,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A fault with its text.

    ``session``: the miner rejects the session, see :func:`session_fault`. ``used_up``: it says that it grants
    no more relays in it.
    """

    fault: Fault
    error: str
    session: bool = False
    used_up: bool = False


def of_miner_error(error: MinerError) -> Verdict:
    """Judge the error of a classic miner."""
    code = (error.codespace, error.code)
    said = error.message or error.description
    text = escaped(f"relay miner: {error.codespace} {error.code}: {said}")
    session = code in _SESSION_CODES or error.codespace == _SESSION
    # all that is left is the supplier's: a service, transport, key or backend that its miner lacks
    return Verdict(_CODES.get(code, Fault.SUPPLIER_HTTP), text, session, used_up=code == _USED_UP)


def of_status(status: int, body: bytes) -> Verdict:
    """Judge an HTTP status other than 200, of an HA miner or of a server in front of any miner."""
    detail = body[: 4 * MAX_ERROR_CHARS].decode("utf-8", "replace").strip()
    text = escaped(status_line(status, body))
    said = detail.lower()
    miner = said.startswith('{"error"')  # not always valid JSON: quotes within are not escaped
    session = False
    used_up = status == 429 and miner and "relay limit" in said
    if used_up:
        fault = Fault.QUOTA
    elif status == 504:
        fault = Fault.SUPPLIER_TIMEOUT
    elif miner and status in (400, 403):
        # what was not about the session was about our request, and about the miner's set-up in one case
        ours = "signature" in said or "basic validation" in said
        session = not ours and "session" in said
        foreign = "not allowed by this relayer" in said
        fault = Fault.SUPPLIER_HTTP if session or foreign else Fault.CREDENTIALS
    elif 400 <= status < 500 and status not in _OF_THE_REQUEST:
        fault = Fault.SUPPLIER_HTTP  # the miner lacks something: no backend has seen the request
    else:
        fault = fault_of_status(status)
    return Verdict(fault, text, session, used_up)


def of_response_error(error: ResponseError) -> Verdict:
    """Judge an answer that failed verification; miner errors are :func:`of_miner_error`'s."""
    return Verdict(_REASONS[error.reason], escaped(str(error)))


def session_fault(header: SessionHeader, sent: int | None, now: int | None) -> Fault:
    """Whose fault it is that a miner rejects a session it should know.

    ``sent`` is the height known when the relay was sent, ``now`` a height asked for after the answer. Around
    the ends of a session, and after it, it is nobody's. Well within, the supplier's miner does not follow the
    chain.
    """
    if sent is None or now is None:
        return Fault.ROLLOVER
    if sent <= header.start_height + TOLERANCE_BLOCKS or now >= header.end_height - TOLERANCE_BLOCKS:
        return Fault.ROLLOVER
    return Fault.SUPPLIER_HTTP
