"""The parts of aiohttp used here that it does not publish: all of them, and no other module has more.

An exchange takes a connection from aiohttp's connector and reads the answer from its protocol, as
``ClientSession`` does, without the session. Each minor version may change how, hence the pin on one in
``pyproject.toml``. Before it is raised, ``testbench_dagster_tests/transports/test_aiohttp_internals.py`` says
what changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

__all__ = [
    "Connection",
    "HttpProcessingError",
    "ResponseHandler",
    "address",
    "connect",
    "expect_raw_answer",
    "read_head",
]


def address(method: str, url: URL) -> aiohttp.ClientRequest:
    """Return what tells a connector where to connect to: a request that is never sent itself."""
    return aiohttp.ClientRequest(method, url, loop=asyncio.get_running_loop())


def connect(
    connector: aiohttp.TCPConnector, where: aiohttp.ClientRequest, timeout: aiohttp.ClientTimeout
) -> Coroutine[Any, Any, Connection]:
    """Return the wait for a connection, new or from the pool, to be released or closed by who asked."""
    return connector.connect(where, [], timeout)


def expect_raw_answer(protocol: ResponseHandler) -> None:
    """Get ready to parse one answer, whose body is not decompressed and may end with the connection."""
    protocol.set_response_params(read_until_eof=True, auto_decompress=False)


def read_head(
    protocol: ResponseHandler,
) -> Coroutine[Any, Any, tuple[RawResponseMessage, aiohttp.StreamReader]]:
    """Return the wait for the next answer's status and headers, and the stream its body comes by."""
    return protocol.read()
