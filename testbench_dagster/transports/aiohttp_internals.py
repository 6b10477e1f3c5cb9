"""The parts of aiohttp used here that it does not publish: all of them, and no other module has more.

An exchange takes a connection from aiohttp's connector and reads the answer from its protocol, as
``ClientSession`` does, without the session. Each minor version may change how, hence the pin on one in
``pyproject.toml``. Before it is raised, ``testbench_dagster_tests/transports/test_aiohttp_internals.py`` says
what changed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from functools import cached_property
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from aiohttp.tracing import Trace
from yarl import URL

__all__ = [
    "Connection",
    "HttpProcessingError",
    "ResponseHandler",
    "address",
    "connect",
    "connect_seen",
    "expect_raw_answer",
    "read_head",
]


class _Address(aiohttp.ClientRequest):
    """Where to connect to. It stays the same, so what connections are told apart by is put together once."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


def address(
    method: str, url: URL, *, context: ssl.SSLContext | None = None, proxy: URL | None = None
) -> aiohttp.ClientRequest:
    """Return what tells a connector where to connect to: a request that is never sent itself.

    ``context`` is how TLS servers are checked, None for the connector's own way. ``proxy`` may hold user name
    and password. The connector keeps connections apart by both.
    """
    if context is None and proxy is None:
        return _Address(method, url, loop=asyncio.get_running_loop())
    bare = None if proxy is None else proxy.with_user(None)
    user = None if proxy is None else proxy.user
    return _Address(
        method,
        url,
        loop=asyncio.get_running_loop(),
        ssl=True if context is None else context,
        proxy=bare,
        proxy_auth=None
        if proxy is None or user is None
        else aiohttp.BasicAuth(user, proxy.password or "", "utf-8"),
    )


def connect(
    connector: aiohttp.TCPConnector, where: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout
) -> Coroutine[Any, Any, Connection]:
    """Return the wait for a connection, new or from the pool, to be released or closed by who asked."""
    return connector.connect(where, [], timeout)


async def connect_seen(
    connector: aiohttp.TCPConnector, where: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout
) -> tuple[Connection, bool]:
    """The same as :func:`connect`, and whether the connection is one from the pool."""
    reused: list[bool] = []

    async def note(*_: object) -> None:
        reused.append(True)

    tracing = aiohttp.TraceConfig()
    tracing.on_connection_reuseconn.append(note)
    tracing.freeze()
    # its session is only handed on to those who listen
    trace = Trace(cast(aiohttp.ClientSession, None), tracing, SimpleNamespace())
    return await connector.connect(where, [trace], timeout), bool(reused)


def expect_raw_answer(protocol: ResponseHandler) -> None:
    """Get ready to parse one answer, whose body is not decompressed and may end with the connection."""
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)


def read_head(
    protocol: ResponseHandler,
) -> Coroutine[Any, Any, tuple[RawResponseMessage, aiohttp.StreamReader]]:
    """Return the wait for the next answer's status and headers, and the stream its body comes by."""
    return protocol.read()
