"""What the two APIs of a node (``rest``, ``abci``) have in common: what to send, and what replies say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit, urlunsplit

import orjson

from testbench_dagster.core.remedies import PROXY_CREDENTIALS, PROXY_WANTS_CREDENTIALS
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.pocket.chain.errors import NodeFault
from testbench_dagster.transports.pocket.chain.queries import Query
from testbench_dagster.transports.pocket.chain.transfer import Outcome, Reply, Request


@dataclass(frozen=True, slots=True)
class Answer:
    """A query's answer as nested dicts with the proto's names, and the height it is of (None: not told)."""

    value: Any
    height: int | None


@dataclass(frozen=True, slots=True)
class Tip:
    """What a node says of itself: newest block, whether it still catches up, chain id ("": not told)."""

    height: int
    catching_up: bool
    chain: str


class NodeApi(Protocol):
    """How to talk to a node."""

    name: str
    url: str

    def status_requests(self) -> Sequence[Request]:
        """Return the requests that together tell the node's state; the first must be answered."""
        ...

    def read_status(self, outcomes: Sequence[Outcome]) -> Tip:
        """Read the replies to them. Raises :class:`NodeFault` or :class:`BadAnswer`."""
        ...

    def request(self, query: Query) -> Request:
        """Return the request for a query."""
        ...

    def read(self, query: Query, reply: Reply) -> Answer:
        """Read the reply to it.

        Raises:
            NotFound: the chain says there is no such thing.
            SessionUnavailable: the chain says there is no such session.
            NodeFault: the node has trouble.
            BadAnswer: what it says breaks the protocol.
        """
        ...


def joined(base: str, path: str, params: Sequence[tuple[str, str]] = ()) -> str:
    """Return a node's URL with a path, and parameters added to those it has."""
    parts = urlsplit(base)
    query = "&".join(p for p in (parts.query, urlencode(params)) if p)
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") + path, query, ""))


def parsed(reply: Reply) -> Any:
    """Return the JSON of a reply with status 200. Raises :class:`NodeFault` for anything else."""
    if reply.status != 200:
        raise by_status(reply)
    try:
        return orjson.loads(reply.body)
    except orjson.JSONDecodeError as error:
        raise NodeFault(f"answers cut off or invalid JSON: {escaped(str(error))}") from None


def by_status(reply: Reply) -> NodeFault:
    """Return what is wrong with a reply by its status alone."""
    where = "; redirects are not followed, give the final URL" if reply.location else ""
    if reply.status == PROXY_WANTS_CREDENTIALS:
        where = f"; {PROXY_CREDENTIALS}"
    return NodeFault(f"answers HTTP {reply.status}{where}")
