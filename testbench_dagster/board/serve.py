"""The feeds over HTTP: ``/metrics``, ``/feed.json``, ``/leaderboard.html``, ``/healthz`` and nothing else.

Reads only, answers GET and HEAD, and nothing of a request is ever repeated or used beyond its path. One
thread makes boards, at most one at a time and none while the last is younger than ``cache_s``; requests
wait for it. It carries no authentication and no TLS: it listens on the loopback interface unless told
otherwise, and a proxy in front is the place for both.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from testbench_dagster.board.published import POLICY, render_page
from testbench_dagster.ranking.entry import Board
from testbench_dagster.ranking.feeds import PROMETHEUS_TYPE, render_json, render_prometheus

_LOG = logging.getLogger(__name__)
_REQUEST_S = 10.0  # a client that says nothing for so long is left
_AT_ONCE = 64  # requests answered at once; further ones are told to come back

_FORMS: dict[str, tuple[str, Callable[[Board], str]]] = {
    "/metrics": (PROMETHEUS_TYPE, render_prometheus),
    "/feed.json": ("application/json", render_json),
    "/leaderboard.html": ("text/html; charset=utf-8", render_page),
}


class Feed:
    """Boards made when asked for and kept for ``cache_s`` seconds, each form rendered once.

    Where a board cannot be made the error is told to every request until the next try, ``cache_s`` later:
    an old board is not shown as a new one.
    """

    def __init__(self, make: Callable[[], Board], cache_s: float) -> None:
        self._make = make
        self._cache_s = cache_s
        # one thread: the stores keep a connection for every thread that ever used them
        self._worker = ThreadPoolExecutor(1, "feed")
        self._texts: dict[str, bytes] = {}
        self._board: Board | None = None
        self._tried_at = -float("inf")

    def body(self, path: str) -> bytes | None:
        """What one of the paths shows now; None where no board can be made."""
        return self._worker.submit(self._rendered, path).result()

    def healthy(self) -> bool:
        """Whether a board can be made now (or was within ``cache_s``)."""
        return self._worker.submit(self._current).result() is not None

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(cancel_futures=True)

    def _current(self) -> Board | None:
        if time.monotonic() - self._tried_at >= self._cache_s:
            self._texts.clear()
            self._board = None
            try:
                self._board = self._make()
            except Exception:
                _LOG.exception("the leaderboard cannot be made")
            self._tried_at = time.monotonic()
        return self._board

    def _rendered(self, path: str) -> bytes | None:
        board = self._current()
        if board is None:
            return None
        if path not in self._texts:
            self._texts[path] = _FORMS[path][1](board).encode("utf-8", "replace")
        return self._texts[path]


class FeedServer(ThreadingHTTPServer):
    """An HTTP server of one :class:`Feed`; ``serve_forever`` until ``shutdown``.

    Raises:
        OSError: the port cannot be listened on.
    """

    daemon_threads = True

    def __init__(self, host: str, port: int, feed: Feed) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)
        self.feed = feed
        self.slots = threading.BoundedSemaphore(_AT_ONCE)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left early is no news; anything else is logged."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            _LOG.exception("a request failed")


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_S
    server: FeedServer
    server_version = "testbench"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one of the paths."""
        if not self.server.slots.acquire(blocking=False):
            self._answer(503, "text/plain", b"busy\n")
            return
        try:
            self._respond()
        finally:
            self.server.slots.release()

    do_HEAD = do_GET

    def _respond(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/healthz":
            fine = self.server.feed.healthy()
            self._answer(200 if fine else 503, "application/json", json.dumps({"ok": fine}).encode() + b"\n")
        elif path not in _FORMS:
            self._answer(404, "text/plain", f"there are {', '.join(_FORMS)} and /healthz\n".encode())
        elif (body := self.server.feed.body(path)) is None:
            self._answer(503, "text/plain", b"the leaderboard cannot be made; the server's log says why\n")
        else:
            self._answer(200, _FORMS[path][0], body)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests: scrapes come every few seconds."""
