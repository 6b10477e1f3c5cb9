"""The one way in which httpx is used: by a route, never by proxies of the environment."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

from testbench_dagster.core.relay import Route
from testbench_dagster.transports.tls import tls_context

if TYPE_CHECKING:
    import httpx


class _Quiet(logging.Filter):
    """Keeps httpx from writing our URLs to the log, which it does of every request: they may hold secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.INFO


_quiet = _Quiet()


def keep_urls_out_of_logs() -> None:
    """Before httpx is used: its log tells of no request any more."""
    logging.getLogger("httpx").addFilter(_quiet)  # adding it again changes nothing


def client_by(route: Route, *, tls: bool, **options: Any) -> httpx.AsyncClient:
    """A client that connects by a route, follows no redirect and sets no time limit of its own.

    ``HTTP_PROXY`` and its like are not obeyed, as relays do not obey them. ``tls``: https is asked for.

    Raises:
        CaFileError: the certificates of the route cannot be read.
    """
    import httpx  # 60 ms, and a code location that only defines assets need not pay them

    keep_urls_out_of_logs()
    return httpx.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        timeout=None,  # noqa: S113  whoever asks bounds the exchange as a whole
        proxy=route.proxy,
        # reading all certificates of the system takes 0.1 s; an empty store trusts nobody
        verify=tls_context(route.ca_file) if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        **options,
    )
