"""The HTTP server of the feeds: its paths, nothing else, one board at a time."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from testbench_dagster.board.published import POLICY
from testbench_dagster.board.serve import Feed, FeedServer
from testbench_dagster.ranking.entry import Board
from testbench_dagster_tests.ranking.boards import board

BOARD = board(["one", "two"], ["gsm8k"], ["general"])


@contextmanager
def serving(make: Callable[[], Board], cache_s: float = 60) -> Iterator[int]:
    feed = Feed(make, cache_s)
    server = FeedServer("127.0.0.1", 0, feed)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        feed.close()


def ask(port: int, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


@pytest.fixture
def port() -> Iterator[int]:
    with serving(lambda: BOARD) as port:
        yield port


def test_each_path_shows_its_form(port: int) -> None:
    status, headers, body = ask(port, "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    names = {family.name for family in text_string_to_metric_families(body.decode())}
    assert "testbench_supplier_score_lower_bound" in names
    status, headers, body = ask(port, "/feed.json?x=1")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert {s["supplier"] for s in json.loads(body)["suppliers"]} == {"one@external", "two@external"}
    status, headers, body = ask(port, "/leaderboard.html")
    assert status == 200 and body.startswith(b"<!doctype html>")
    assert headers["Content-Security-Policy"] == POLICY
    assert ask(port, "/healthz")[::2] == (200, b'{"ok": true}\n')


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/<script>", "*"])
def test_there_is_nothing_else(port: int, path: str) -> None:
    status, headers, body = ask(port, path)
    assert status == 404
    assert headers["Content-Type"] == "text/plain"
    assert b"script" not in body and b"passwd" not in body, "nothing of the request comes back"


def test_only_reading_is_allowed(port: int) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(port, "/metrics", method)[0] == 501
    status, headers, body = ask(port, "/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(ask(port, "/metrics")[2])


def test_a_board_is_made_once_for_all_requests_of_its_time() -> None:
    made: list[float] = []

    def make() -> Board:
        made.append(time.monotonic())
        time.sleep(0.1)
        return BOARD

    with serving(make) as port, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ask(port, "/metrics")[0], range(32)))
        assert set(answers) == {200}
        assert ask(port, "/feed.json")[0] == 200
        assert len(made) == 1
    with serving(make, cache_s=0) as port:
        for _ in range(2):
            assert ask(port, "/metrics")[0] == 200
    assert len(made) == 3


def test_a_failing_store_is_said_and_got_over(caplog: pytest.LogCaptureFixture) -> None:
    broken = [True]

    def make() -> Board:
        if broken[0]:
            raise OSError("secret detail")
        return BOARD

    with serving(make, cache_s=0) as port:
        for path in ("/metrics", "/healthz"):
            status, _, body = ask(port, path)
            assert status == 503 and b"secret" not in body
        broken[0] = False
        assert ask(port, "/metrics")[0] == 200
        broken[0] = True
        assert ask(port, "/metrics")[0] == 503, "an old board is not shown as a new one"
    assert "secret detail" in caplog.text


def test_a_client_that_leaves_disturbs_nobody(port: int) -> None:
    import socket

    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"GET /leaderboard.html HTTP/1.0\r\n\r\n")
    assert ask(port, "/healthz")[0] == 200
