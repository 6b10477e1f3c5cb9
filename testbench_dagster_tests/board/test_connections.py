"""Connections to the board: who asks or takes a page slowly is left, everybody else is served."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from testbench_dagster.board.connections import HEAD_BYTES, BoundedConnection
from testbench_dagster.board.run import listen

#: More than fit into the buffers of two sockets.
LARGE = 32_000_000
#: Longer than any connection is kept here, and than a loaded machine needs to end one.
PATIENCE_S = 60.0


class Hasty(BoundedConnection):
    asking_s, taking_s, look_s = 1.0, 1.0, 0.05


async def application(scope: Any, receive: Any, send: Any) -> None:
    """A page for everybody, a large one at ``/large``, and one that takes a while at ``/slow``."""
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * Hasty.asking_s)
    body = b"x" * (LARGE if scope["path"] == "/large" else 4)
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        application, http=Hasty, h11_max_incomplete_event_size=HEAD_BYTES, log_config=None, lifespan="off",
        limit_concurrency=20,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(PATIENCE_S)


def opened(port: int, said: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    connection.sendall(said)
    return connection


def page(port: int, path: str = "/") -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200
    body = response.read()
    connection.close()
    return body


def ended(connection: socket.socket) -> bool:
    """Whether the other side ends it; waits for that."""
    try:
        while connection.recv(65_536):
            pass
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nContent-Le"])
def test_requests_that_do_not_come_hold_nobody_up(port: int, said: bytes) -> None:
    slow = [opened(port, said) for _ in range(25)]
    assert all(ended(connection) for connection in slow)
    assert page(port) == b"xxxx"


def test_a_request_that_comes_byte_by_byte_is_left(port: int) -> None:
    connection = opened(port, b"GET / HTTP/1.1\r\n")
    connection.settimeout(0.02)
    sent = 0
    try:
        while True:
            connection.sendall(b"X-%d: 1\r\n" % sent)
            sent += 1
            try:
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
    except ConnectionError:
        pass
    assert sent * len(b"X-1: 1\r\n") < HEAD_BYTES, "it was left for its slowness, not for its length"


@pytest.mark.slow
def test_a_page_that_nobody_takes_is_dropped(port: int) -> None:
    slow = [opened(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(4)]
    stuck = threading.Event()
    assert not stuck.wait(5 * Hasty.taking_s)
    for connection in slow:
        taken = 0
        try:
            while part := connection.recv(65_536):
                taken += len(part)
        except ConnectionError:
            pass
        assert taken < LARGE
    assert page(port) == b"xxxx"


@pytest.mark.slow
def test_a_page_that_takes_a_while_to_make_is_waited_for(port: int) -> None:
    assert page(port, "/slow") == b"xxxx"


def test_a_connection_may_be_used_again(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    for _ in range(30):
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"xxxx"
    connection.close()


def test_a_head_without_an_end_is_refused(port: int) -> None:
    connection = opened(port, b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * HEAD_BYTES)
    said = b""
    try:
        while part := connection.recv(65_536):
            said += part
    except ConnectionError:
        pass
    assert not said or said.startswith(b"HTTP/1.1 400 ")
