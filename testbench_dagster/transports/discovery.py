"""How any transport finds suppliers: sources that are read within bounds, and what they list.

A source is not ours: what it lists is validated by the transport that reads it, and what cannot be used is
told, never raised.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from testbench_dagster.config import SupplierConfig
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.relay import DEFAULT_TRANSPORT, STRAIGHT, Route, TransportName
from testbench_dagster.core.remedies import PROXY_CREDENTIALS, PROXY_WANTS_CREDENTIALS
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.clients import client_by
from testbench_dagster.transports.redaction import redacted
from testbench_dagster.transports.tls import CaFileError

if TYPE_CHECKING:
    from testbench_dagster.transports.pocket.chain.types import Session

#: Largest document that is read, in bytes.
MAX_BYTES = 32 * 1024 * 1024
#: Longest base URL taken from a source, in characters.
MAX_URL_CHARS = 2048
_AT_ONCE = 16  # sources read at a time


class SourceError(TestbenchError):
    """A source could not be read, or what it gave is of no use."""


@dataclass(frozen=True)
class Entry:
    """A usable entry of any source: the supplier, and what a Pocket network tells of it.

    ``rpc_type`` is the type its endpoint was staked with, ``stake_upokt`` its stake in uPOKT, ``host``
    (``name:port``) the machine it shares with every other supplier of the same host, ``owner`` the address
    that owns the stake, ``public_key`` its operator's (33 bytes in hexadecimal). None where nothing tells.
    """

    config: SupplierConfig
    transport: TransportName = DEFAULT_TRANSPORT
    rpc_type: int | None = None
    stake_upokt: int | None = None
    host: str | None = None
    owner: str | None = None
    public_key: str | None = None


@dataclass(frozen=True)
class ChainReading:
    """What the chain tells of a service: its height, the current sessions of its applications, their length.

    ``blocks_per_session`` is None where it is not known.
    """

    service: str
    height: int
    sessions: tuple[Session, ...] = ()
    blocks_per_session: int | None = None


@dataclass(frozen=True)
class Listing:
    """What a source lists: usable entries, and the block height it told, if any.

    ``broken`` are keys of suppliers that it lists and that cannot be used: what is known of them stays as it
    was. ``problems`` says why, by supplier key where that much is readable, ``warnings`` what works but
    should not stay so. ``chain`` is what a service's chain told on the way.
    """

    entries: Sequence[Entry]
    height: int | None = None
    broken: frozenset[str] = frozenset()
    problems: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    chain: ChainReading | None = None

    @property
    def heights(self) -> Mapping[str, int]:
        """The height it told, by the services it holds for: those of its chain, or of all it lists."""
        if self.height is None:
            return {}
        if self.chain is not None:
            return {self.chain.service: self.height}
        return dict.fromkeys((entry.config.service for entry in self.entries), self.height)


class Source(Protocol):
    """Where a listing comes from."""

    def read(self, deadline: float) -> Listing:
        """Read it before ``deadline`` (``time.monotonic()`` seconds).

        Raises:
            SourceError: it cannot be read in time, or what it gives is of no use.
        """
        ...


def read_sources(sources: Mapping[str, Source], deadline_s: float) -> dict[str, Listing | SourceError]:
    """Read all sources at once within ``deadline_s`` seconds; what went wrong stands in a listing's place."""
    if not sources:
        return {}
    deadline = time.monotonic() + deadline_s

    def read(source: Source) -> Listing | SourceError:
        try:
            return source.read(deadline)
        except SourceError as error:
            return error

    pool = ThreadPoolExecutor(min(_AT_ONCE, len(sources)), thread_name_prefix="supplier-source")
    try:
        reading = {label: pool.submit(read, source) for label, source in sources.items()}
        done, _ = wait(reading.values(), timeout=max(0.0, deadline - time.monotonic()))
    finally:
        pool.shutdown(
            wait=False, cancel_futures=True
        )  # a file system or resolver may hang longer than we wait
    late = SourceError(f"was not read within {deadline_s:g} s; lower timeout_s of the other sources")
    return {label: task.result() if task in done else late for label, task in reading.items()}


def bearer(token_env: str | None) -> dict[str, str]:
    """The header with the token that the variable holds; empty without a variable.

    Raises:
        SourceError: the variable holds nothing a header can carry.
    """
    if token_env is None:
        return {}
    token = os.environ.get(token_env)
    if not token or not (token.isascii() and token.isprintable()):
        raise SourceError(f"token_env names {token_env}, which holds no usable token; export it")
    return {"Authorization": f"Bearer {token}"}


async def fetch(
    url: str,
    headers: Mapping[str, str],
    seconds: float,
    *,
    statuses: Sequence[int] = (200,),
    route: Route = STRAIGHT,
) -> tuple[int, bytes]:
    """Get a JSON document: status, and at most one byte more than :data:`MAX_BYTES` of it.

    Redirects are not followed, and compression is refused. ``route`` is how the server is connected to.

    Raises:
        TimeoutError: the whole exchange took longer than ``seconds``.
        SourceError: it is not reachable, or answers with a status other than ``statuses``; the text never
            quotes a parameter or a header.
    """
    import httpx  # 60 ms, and a code location that only defines assets need not pay them

    headers = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
    body = bytearray()
    try:
        where = httpx.URL(url).copy_merge_params([*route.query, *route.secret_query])
        # of the whole exchange: httpx's own timeouts start anew with every byte
        async with (
            asyncio.timeout(seconds),
            client_by(route, tls=where.scheme == "https") as client,
            client.stream("GET", where, headers=headers) as response,
        ):
            status = response.status_code
            if status not in statuses:
                where_to = "; redirects are not followed, write the final address"
                remedy = where_to if response.is_redirect else "; check url and token_env"
                if status == PROXY_WANTS_CREDENTIALS:
                    remedy = f"; {PROXY_CREDENTIALS}"
                raise SourceError(f"answers HTTP {status}{remedy}")
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding != "identity":
                raise SourceError(
                    f"answers compressed ({escaped(encoding, 40)}), which was not asked for; "
                    "have it answer plainly"
                )
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_BYTES:
                    break
    except CaFileError as error:
        raise SourceError(f"cannot be asked: tls.ca_file: {error}") from None
    except httpx.ProxyError as error:
        from testbench_dagster.transports.prepared import secrets_of  # with aiohttp: 0.2 s

        reason = escaped(redacted(str(error), secrets_of({}, route)))
        wanted = reason.startswith(str(PROXY_WANTS_CREDENTIALS))  # httpx keeps the status in the text alone
        remedy = PROXY_CREDENTIALS if wanted else "correct proxy or proxy_env"
        raise SourceError(f"is not reached through the proxy: {reason}; {remedy}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = escaped(str(error)) or type(error).__name__
        unknown = "CERTIFICATE_VERIFY" in reason
        remedy = "name its authority in tls.ca_file" if unknown else "start it, or correct url"
        raise SourceError(f"is not reachable: {reason}; {remedy}") from None
    return status, bytes(body)
