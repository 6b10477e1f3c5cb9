"""Relays through a PATH gateway, which signs them and has to be believed who answered.

One supplier is named per relay (``Target-Suppliers``). The gateway's answer counts only where its headers
name that supplier and no other; what it did wrong itself is never counted against a supplier. The first row
that fits decides (behaviour of PATH at 5ff2e27e, July 2026; "tried" is ``X-Suppliers-Tried``, "named" is
``X-Supplier-Address``):

======================================================================  ======================================
What came                                                               Fault
======================================================================  ======================================
the gateway was not reached, broke off, spoke no HTTP, was too slow     ``gateway``
another supplier, or several, are named                                 ``gateway``
a supplier was tried that was not asked for: whose answer is it?        ``gateway``
429, from whomever                                                      ``rate_limited``
407: a proxy on the way wants credentials                               ``credentials``
2xx, nobody named                                                       ``gateway``, never scored
nobody named or tried: it has no endpoint of the supplier               ``rollover``
nobody named or tried: anything else (400 without service, 404, 5xx)    ``gateway``
nobody named, the supplier tried, in the gateway's words: a timeout     ``supplier_timeout``
nobody named, the supplier tried, in the gateway's words: other         ``gateway``
401, 403: the gateway's signature or credentials were refused           ``rollover`` if the text speaks of a
                                                                        session, else ``gateway``
504                                                                     ``supplier_timeout``
anything else, the supplier named, or tried with an error               as sent directly
======================================================================  ======================================

PATH names the supplier only of answers it takes for good. Of an error it passes on status and body as the
supplier gave them and tells only whom it tried, hence the rows of the supplier tried. Of a supplier that was
silent, unreachable or signed wrongly it passes on nothing: HTTP 200 with an empty body. What became of such a
relay cannot be told, so it is the gateway's. "No endpoint" is what PATH says of a supplier that is in no
current session of its applications, which passes; that the supplier staked no endpoint of the wanted type, or
is on PATH's blacklist, looks the same.

A gateway that hedges or retries asks twice what is paid once. Where it did, the attempt's evidence says
``hedged``, and the log says so once per service.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint, Relay, SessionRef
from testbench_dagster.core.remedies import PROXY_WANTS_CREDENTIALS
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.http import TooLarge
from testbench_dagster.transports.outcome import answer_in, attempt_from, broken
from testbench_dagster.transports.payload import RequestError, service_root
from testbench_dagster.transports.plain import PlainExchange, PlainHttp
from testbench_dagster.transports.plug import SessionLookup
from testbench_dagster.transports.readings import PLAINLY, Reading
from testbench_dagster.transports.redaction import redacted

#: Header of the application a gateway in delegated mode is to use; the one of an endpoint's headers that is
#: no secret.
APP_HEADER = "App-Address"
#: PATH's names of the types endpoints are staked with.
RPC_NAMES: Mapping[int, str] = {3: "json_rpc", 4: "rest", 5: "comet_bft"}

_MAX_VALUE_CHARS = 200
_MAX_LIST_CHARS = 4096
_MAX_TRIED = 16  # PATH lists up to 10
_READ = frozenset(
    (
        "x-supplier-address",
        "x-suppliers-tried",
        "x-retry-count",
        "x-hedge-result",
        "x-session-id",
        "x-app-address",
    )
)
#: What X-Hedge-Result says where no second request was made; the first two words say that hedging is on.
_NOT_HEDGED = ("primary_only", "no_hedge", "none", "")
_JUDGED_BYTES = 4096
# PATH's own words, in the bodies it makes itself
_OWN_WORDS = re.compile(rb'no-op qos service error|error sending relay for service|^\s*\{\s*"jsonrpc"')
_TIMEOUT = re.compile(rb"timeout waiting for endpoint response|context deadline exceeded")
_NO_ENDPOINT = re.compile(rb"no valid endpoints available|no endpoints (?:available|could be selected)")

_log = logging.getLogger(__name__)


def gateway_headers(endpoint: Endpoint) -> dict[str, str]:
    """What a PATH gateway is told beside the request, secrets left out.

    ``Target-Service-Id`` and ``Target-Suppliers`` from ``service`` and ``address`` of the endpoint,
    ``RPC-Type`` from its ``rpc_type`` (None leaves the choice to the gateway), ``App-Address`` from its
    ``headers``.

    Raises:
        RequestError: the address cannot be that of one supplier, or PATH has no name for the type.
    """
    if not (endpoint.address.isascii() and endpoint.address.isalnum()):
        raise RequestError(
            f"address {escaped(endpoint.address, 80)!r} of {endpoint.supplier} names no supplier; "
            "refresh the roster"
        )
    headers = {"Target-Service-Id": endpoint.service, "Target-Suppliers": endpoint.address}
    if endpoint.rpc_type is not None:
        name = RPC_NAMES.get(endpoint.rpc_type)
        if name is None:
            raise RequestError(
                f"rpc_type {endpoint.rpc_type} of {endpoint.supplier} is none a gateway relays over HTTP; "
                "use rest or json_rpc"
            )
        headers["RPC-Type"] = name
    app = {name.lower(): value for name, value in endpoint.headers.items()}.get(APP_HEADER.lower())
    return headers if app is None else {**headers, APP_HEADER: app}


@dataclass(frozen=True, slots=True)
class GatewayHeaders:
    """What the headers of a gateway's answer say; empty where they say nothing.

    ``supplier`` answered (several: separated by commas), ``tried`` were asked, ``retries`` times another
    request was made after the first, ``hedge`` is how a race between two of them ended.
    """

    supplier: str = ""
    tried: tuple[str, ...] = ()
    retries: int | None = None
    hedge: str = ""
    session_id: str = ""
    app: str = ""

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], secrets: tuple[bytes, ...] = ()) -> GatewayHeaders:
        """Read the headers, bounded and without secrets that the gateway quotes."""
        found: dict[str, list[str]] = {}
        for header, said in headers.items():
            name = header.lower()
            if name in _READ and said and said not in found.get(name, ()):
                found.setdefault(name, []).append(said)

        def value(name: str, limit: int = _MAX_VALUE_CHARS) -> str:
            # a header may come twice: the second value must not go unseen
            return escaped(redacted(",".join(found.get(name, ())).strip(), secrets), limit)

        tried = dict.fromkeys(part.strip() for part in value("x-suppliers-tried", _MAX_LIST_CHARS).split(","))
        retries = value("x-retry-count")
        return cls(
            supplier=value("x-supplier-address"),
            tried=tuple(part for part in tried if part)[:_MAX_TRIED],
            retries=int(retries) if retries.isdecimal() and len(retries) < 10 else None,
            hedge=value("x-hedge-result").lower(),
            session_id=value("x-session-id"),
            app=value("x-app-address"),
        )

    @classmethod
    def from_evidence(cls, said: Mapping[str, Any]) -> GatewayHeaders:
        """What :meth:`evidence` wrote, read back; whatever it did not write counts as not said."""
        tried, retries = said.get("suppliers_tried"), said.get("retry_count")
        return cls(
            supplier=str(said.get("supplier", "")),
            tried=tuple(str(name) for name in tried) if isinstance(tried, list) else (),
            retries=retries if isinstance(retries, int) else None,
            hedge=str(said.get("hedge_result", "")),
            session_id=str(said.get("session_id", "")),
            app=str(said.get("app", "")),
        )

    @property
    def hedged(self) -> bool:
        """Whether the gateway made more than one request, or may have."""
        return bool(self.retries) or self.hedge not in _NOT_HEDGED or len(self.tried) > 1

    def others(self, address: str) -> tuple[str, ...]:
        """Who was tried beside ``address``."""
        return tuple(tried for tried in self.tried if tried != address)

    def evidence(self) -> dict[str, Any]:
        """What it says, for the record of the attempt."""
        said = {
            "supplier": self.supplier,
            "suppliers_tried": list(self.tried),
            "retry_count": self.retries,
            "hedge_result": self.hedge,
            "session_id": self.session_id,
            "app": self.app,
        }
        return {name: value for name, value in said.items() if value not in ("", [], None)}


class _Addressing:
    """To the gateway, which is told the supplier; what it passes on begins with the prefix of the service."""

    def root(self, endpoint: Endpoint, *, page: bool) -> str:
        return endpoint.base_url.rstrip("/")

    def prefix(self, endpoint: Endpoint, *, page: bool) -> str:
        return service_root(endpoint.prefix) if page else endpoint.prefix.rstrip("/")

    def headers(self, endpoint: Endpoint) -> tuple[Mapping[str, str], Mapping[str, str]]:
        secret = {name: v for name, v in endpoint.headers.items() if name.lower() != APP_HEADER.lower()}
        return gateway_headers(endpoint), secret


class PathTransport:
    """Sends relays through PATH gateways (a :class:`~testbench_dagster.core.relay.Transport`).

    Its connections belong to the event loop of the first :meth:`send`. A gateway tells a session's id but not
    its heights; with ``sessions`` those are looked up, and attempts then carry their session.
    """

    def __init__(self, sessions: SessionLookup | None = None) -> None:
        self._http = PlainHttp(_Addressing())
        self._sessions = sessions
        self._warned: set[tuple[str, str]] = set()

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send once and classify. Only cancellation of the calling task is raised."""
        exchange = await self._http.ask(endpoint, relay.request, relay.watch)
        secrets = exchange.secrets
        said = GatewayHeaders.from_headers(exchange.headers, secrets)

        def judged(status: int, body: bytes, charset: str | None) -> Answer:
            reading = Reading(charset=charset, generation=endpoint.generation, tags=True)
            return judge(said, endpoint, relay.request, status, body, reading)

        answer, body = answer_in(exchange, secrets, judged, lambda: _broken(exchange, said, endpoint))
        if exchange.status is not None:
            self._note(exchange.evidence, said, endpoint)
        session = self._session(endpoint, said)
        return attempt_from(exchange, answer, exchange.evidence, secrets, session=session, searched=body)

    async def close(self) -> None:
        """Close the connections; a later send would open new ones."""
        await self._http.close()

    def _note(self, evidence: dict[str, Any], said: GatewayHeaders, endpoint: Endpoint) -> None:
        """Put what the gateway says into the evidence, and warn of what it should not do."""
        evidence["gateway"] = {"requested": endpoint.address, **said.evidence()}
        if said.hedged:
            evidence["hedged"] = True
            self._warn(
                endpoint.service,
                "asked twice",
                "its gateway retried or hedged a relay (%s): answers are paid twice, latencies are not the "
                "supplier's, and failures stay unseen; switch hedge_delay and retries off for this service",
                said,
            )
        elif said.hedge not in ("", "none"):
            self._warn(
                endpoint.service,
                "hedging",
                "its gateway hedges relays that take long (%s); set hedge_delay to 0 for this service",
                said,
            )

    def _warn(self, service: str, kind: str, text: str, said: GatewayHeaders) -> None:
        if (service, kind) not in self._warned:
            self._warned.add((service, kind))
            _log.warning(f"service %s: {text}", service, said.evidence())

    def _session(self, endpoint: Endpoint, said: GatewayHeaders) -> SessionRef | None:
        if self._sessions is None or not (said.session_id and said.app):
            return None
        session = self._sessions(endpoint.service, said.session_id)
        return session if session is not None and session.app == said.app else None


def judge(
    said: GatewayHeaders,
    endpoint: Endpoint,
    request: Mapping[str, Any],
    status: int,
    body: bytes,
    reading: Reading = PLAINLY,
) -> Answer:
    """Classify a gateway's complete answer by the table above; parses only what the supplier answered."""
    address = endpoint.address
    doubt = _doubt(said, address)
    if doubt is not None:
        return _gateway(doubt, status, body)
    if status in (PROXY_WANTS_CREDENTIALS, 429):  # of the way there
        return parse_answer(request, endpoint.api, status, body, **reading)
    named = said.supplier == address
    if not named:
        if 200 <= status < 300:
            tried = f" (tried: {', '.join(said.tried)})" if said.tried else ""
            return _gateway(f"the gateway does not say who answered{tried}", status, body)
        if not said.tried:
            absent = _NO_ENDPOINT.search(body[:_JUDGED_BYTES]) is not None
            why = "the gateway has no endpoint of the supplier now" if absent else "the gateway failed"
            return _gateway(why, status, body, Fault.ROLLOVER if absent else Fault.GATEWAY)
        if _OWN_WORDS.search(body[:_JUDGED_BYTES]):
            late = _TIMEOUT.search(body[:_JUDGED_BYTES]) is not None
            why = "the gateway says the supplier timed out" if late else "the relay failed in the gateway"
            return _gateway(why, status, body, Fault.SUPPLIER_TIMEOUT if late else Fault.GATEWAY)
    if status in (401, 403):
        edge = b"session" in body[:_JUDGED_BYTES].lower()
        fault = Fault.ROLLOVER if edge else Fault.GATEWAY
        return _gateway("the supplier refused the gateway's relay", status, body, fault)
    answer = parse_answer(request, endpoint.api, status, body, **reading)
    return replace(answer, fault=Fault.SUPPLIER_TIMEOUT) if status == 504 else answer


def _doubt(said: GatewayHeaders, address: str) -> str | None:
    """Why it is not certain that the supplier, and nobody else, was asked; None if nothing speaks against."""
    if said.supplier and said.supplier != address:
        return f"answered by {said.supplier} instead of {address}"
    others = said.others(address)
    if others:
        return f"the gateway tried {', '.join(others)} too, so it is not certain that {address} answered"
    return None


def _gateway(why: str, status: int, body: bytes, fault: Fault = Fault.GATEWAY) -> Answer:
    """An answer that says nothing of the supplier, with what the gateway said."""
    said = body[:1200].decode("utf-8", "replace").strip()
    return Answer(fault, error=escaped(f"{why}: HTTP {status}{f': {said}' if said else ' without a body'}"))


def _broken(exchange: PlainExchange, said: GatewayHeaders, endpoint: Endpoint) -> Answer:
    """Whose fault a broken exchange is: it was with the gateway, so hardly anything is the supplier's."""
    answer = broken(exchange, page=exchange.page)
    doubt = _doubt(said, endpoint.address)
    too_large = isinstance(exchange.error, TooLarge)
    ours = not too_large and answer.fault.owner.ours
    theirs = too_large and doubt is None and said.supplier != ""
    if not (ours or theirs):
        answer = replace(answer, fault=Fault.GATEWAY)
    return answer if doubt is None else replace(answer, error=escaped(f"{doubt}: {answer.error}"))
