"""Which errors of a metric say that the service it asks is not there."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator, Mapping
from socket import gaierror

from testbench_dagster.core.errors import ScorerUnavailable

#: Of HTTP clients that a metric may use: what they raise where no answer came.
_OF_CLIENTS: Mapping[str, frozenset[str]] = {
    "aiohttp": frozenset({"ClientConnectionError", "ClientPayloadError"}),
    "anthropic": frozenset({"APIConnectionError"}),
    "grpc": frozenset({"RpcError"}),
    "httpcore": frozenset({"NetworkError", "ProtocolError", "TimeoutException"}),
    "httpx": frozenset({"NetworkError", "RemoteProtocolError", "ProxyError", "TimeoutException"}),
    "openai": frozenset({"APIConnectionError"}),
    "requests": frozenset({"ChunkedEncodingError", "ConnectionError", "Timeout"}),
    "urllib3": frozenset({"MaxRetryError", "ProtocolError", "TimeoutError"}),
}
_BUSY = frozenset({408, 425, 429})  # and everything from 500 on


def is_outage(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that a service cannot be reached or is busy."""
    return any(_says_so(one) for one in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _says_so(error: BaseException) -> bool:
    if isinstance(error, (ScorerUnavailable, ConnectionError, TimeoutError, gaierror)):
        return True
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _BUSY
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, OSError)
    return any(
        kind.__name__ in _OF_CLIENTS.get(kind.__module__.partition(".")[0], frozenset())
        for kind in type(error).__mro__
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of a client carries; None where it is none."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code
    if type(error).__module__.partition(".")[0] not in _OF_CLIENTS:
        return None
    response = getattr(error, "response", None)
    for found in (getattr(response, "status_code", None), getattr(error, "status", None)):
        if isinstance(found, int):
            return found
    return None
