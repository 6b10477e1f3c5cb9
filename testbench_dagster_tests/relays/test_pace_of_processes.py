"""Two processes at one pace, counted at a supplier that answers 429 to whoever is faster.

The pace is exact: no span of a minute (here of some seconds) holds more than it allows, wherever it begins
and whatever has to be sent again, and nearly all that it allows is used.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise

import pytest

from testbench_dagster.coordination.pace import DayLedger, PaceLedger
from testbench_dagster.core.pace import Pace, estimated_tokens
from testbench_dagster.relays.pace import Pacing
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster_tests.endpoints import chat_body, endpoint
from testbench_dagster_tests.relays.quick import run_relays
from testbench_dagster_tests.relays.test_engine import Sink, some
from testbench_dagster_tests.stores.conftest import target
from testbench_dagster_tests.stores.workers import Target, race

__all__ = ["target"]

pytestmark = pytest.mark.slow(minutes=2)

MINUTE_S, PER_MINUTE, EACH = 6.0, 30, 40
#: Tokens that a relay of these tests is taken for before it is sent.
TOKENS = estimated_tokens(some(1)[0].request)


class FreeTier:
    """A supplier that answers at most so many requests within any minute (of six seconds), the others 429.

    ``tokens``: what its answers say they took. Of so many that it admits it answers one with 503: ``fails``.
    """

    def __init__(self, most: int = PER_MINUTE, tokens: int | None = None, fails: int | None = None) -> None:
        self.arrived: list[float] = []
        self.refused = 0
        self.answered = 0
        self._most = most
        self._tokens = tokens
        self._fails = fails
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()

    def admits(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self.arrived.append(now)
            while self._recent and self._recent[0] <= now - MINUTE_S:
                self._recent.popleft()
            if len(self._recent) >= self._most:
                self.refused += 1
                return False
            self._recent.append(now)
            return True

    def answer(self) -> tuple[int, bytes]:
        """Status and body for one more request."""
        if not self.admits():
            return 429, b'{"error": {"code": 429}}'
        with self._lock:
            self.answered += 1
            if self._fails is not None and self.answered % self._fails == 0:
                return 503, b"{}"
        answer = json.loads(chat_body())
        if self._tokens is not None:
            answer["usage"] = {"prompt_tokens": self._tokens - 1, "completion_tokens": 1}
        return 200, json.dumps(answer).encode()

    def used(self, *, at_once: bool = False) -> float:
        """The part of what was allowed that arrived, until the last.

        ``at_once``: all that may go do so at once, and then none until there is room again.
        """
        until = self.arrived[-1]
        if at_once:  # until the last time that they do
            until = [at for before, at in pairwise(self.arrived) if at - before > MINUTE_S / 4][-1]
        allowed = self._most * (until - self.arrived[0]) / MINUTE_S
        return sum(at < until for at in self.arrived) / allowed

    def most_in_a_minute(self) -> int:
        """The most requests that any span of a minute holds."""
        return max(sum(start <= at <= start + MINUTE_S for at in self.arrived) for start in self.arrived)

    @contextmanager
    def serving(self) -> Iterator[str]:
        tier = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = tier.answer()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            server.server_close()


def relay(
    number: int, store: Target, url: str, bounds: dict[str, int] | None, each: int = EACH
) -> tuple[int, int]:
    """What one process does: relays sent, and answered."""
    documents = store.open()
    pacing = Pacing(PaceLedger(documents, minute_s=MINUTE_S), DayLedger(documents))
    name = f"s{number}@test"
    asked = endpoint(url, supplier=name)
    asked = replace(asked, limits=replace(asked.limits, retries=5))
    if bounds is not None:
        asked = replace(asked, pace=Pace("account:key", **bounds))
    try:
        report = run_relays(
            [(asked, some(each, name))], Sink(), open_transport=DirectTransport, pacing=pacing
        )
    finally:
        pacing.close()
        documents.close()
    return report.total.sent, report.total.answered


def test_two_processes_share_a_pace_and_never_see_429(target):
    tier = FreeTier(fails=5)
    with tier.serving() as url:
        outcomes = race(relay, target, url, {"requests_per_minute": PER_MINUTE}, processes=2)
    assert sum(sent for sent, _ in outcomes) == len(tier.arrived)
    assert [answered for _, answered in outcomes] == [EACH] * 2
    assert tier.refused == 0
    assert tier.most_in_a_minute() <= PER_MINUTE
    assert tier.used() >= 0.9


@pytest.mark.parametrize("comes_to", [TOKENS, TOKENS - 4])
def test_two_processes_share_a_pace_of_tokens(target, comes_to):
    most, minutes = 60, 3
    tier = FreeTier(most, comes_to)
    bounds = {"tokens_per_minute": most * comes_to}
    with tier.serving() as url:
        outcomes = race(relay, target, url, bounds, most * minutes // 2, processes=2)
    assert outcomes == [(most * minutes // 2,) * 2] * 2
    assert tier.refused == 0
    assert tier.most_in_a_minute() <= most
    assert tier.used(at_once=True) >= 0.9


def test_two_processes_share_the_requests_of_a_day(target):
    day = 120
    tier = FreeTier(day * 10)
    with tier.serving() as url:
        outcomes = race(relay, target, url, {"requests_per_day": day}, day, processes=2)
    assert 0.9 * day <= len(tier.arrived) == sum(sent for sent, _ in outcomes) <= day


def test_two_processes_share_all_three(target):
    day, most = 60, PER_MINUTE
    bounds = {"requests_per_minute": most, "tokens_per_minute": most * TOKENS, "requests_per_day": day}
    tier = FreeTier(most, TOKENS)
    with tier.serving() as url:
        race(relay, target, url, bounds, day, processes=2)
    assert tier.refused == 0
    assert tier.most_in_a_minute() <= most
    assert 0.9 * day <= len(tier.arrived) <= day
    assert tier.used() >= 0.9


def test_without_a_pace_the_same_supplier_refuses(tmp_path):
    tier = FreeTier()
    with tier.serving() as url:
        race(relay, Target(str(tmp_path / "home")), url, None, processes=2)
    assert tier.refused > 0
