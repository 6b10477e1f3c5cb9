"""GET relays: what is sent, what is made of the answer, and that all bounds hold for them too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.transports import http
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.http import TRUNCATED_EVIDENCE_BYTES
from testbench_dagster.transports.payload import RequestError, build_payload, page_path, service_root
from testbench_dagster_tests.endpoints import FAST, endpoint, relay

PAGE: dict[str, Any] = {"type": "get", "idx": 0, "path": "/pokt/config"}
CONFIG = {"b": [1, {"z": None, "a": "é"}], "a": 1.5}


class Pages:
    """Serves ``/<behaviour>/pokt/config``; keeps the requests as they came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        pages = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                pages.seen.append((self.command, self.path, dict(self.headers)))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, body = pages.answer(self.path.split("/")[1])
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/ok/pokt/config")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # who takes no more has hung up
                    self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, behaviour: str) -> tuple[int, bytes]:
        if behaviour.isdecimal():
            return int(behaviour), b"no such page"
        if behaviour == "slow":
            time.sleep(4.0)
        bodies = {
            "text": b"<html>welcome</html>",
            "list": b"[1]",
            "error": b'{"error": "nothing here"}',
            "deep": b'{"a": ' * 400 + b"1" + b"}" * 400,
            "large": json.dumps({"a": "x" * 3_000_000}).encode(),
        }
        return 200, bodies.get(behaviour, json.dumps(CONFIG).encode())

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def pages() -> Iterator[Pages]:
    server = Pages()
    yield server
    server.stop()


def page_relay(path: str = "/pokt/config") -> Relay:
    made = relay()
    made.request = {**PAGE, "path": path}
    return made


def send(*relays: tuple[Endpoint, Relay]) -> list[Attempt]:
    async def main() -> list[Attempt]:
        transport = DirectTransport()
        try:
            return [await transport.send(target, sent) for target, sent in relays]
        finally:
            await transport.close()

    return asyncio.run(main())


def test_a_page_is_asked_for_by_plain_get(pages: Pages) -> None:
    target = endpoint(f"{pages.url}/ok/v1", Authorization="Bearer sk-secret-123")
    first, posted, again = send((target, page_relay()), (target, relay()), (target, page_relay()))
    assert (first.fault, first.status, posted.fault) == (Fault.OK, 200, Fault.SUPPLIER_PROTOCOL)
    assert first.text == again.text == orjson.dumps(CONFIG, option=orjson.OPT_SORT_KEYS).decode()
    assert first.body == json.dumps(CONFIG).encode() and first.evidence["path"] == "/pokt/config"
    assert [(method, path) for method, path, _ in pages.seen] == [
        ("GET", "/ok/pokt/config"),
        ("POST", "/ok/v1/chat/completions"),
        ("GET", "/ok/pokt/config"),
    ]
    headers = pages.seen[0][2]
    assert headers["Authorization"] == "Bearer sk-secret-123"
    assert not headers.keys() & {"Content-Type", "Content-Length"}


@pytest.mark.parametrize(
    ("behaviour", "fault"),
    [
        ("401", Fault.CLIENT_REQUEST),
        ("404", Fault.CLIENT_REQUEST),
        ("501", Fault.CLIENT_REQUEST),
        ("405", Fault.CLIENT_REQUEST),
        ("429", Fault.RATE_LIMITED),
        ("500", Fault.SUPPLIER_HTTP),
        ("503", Fault.UNAVAILABLE),
        ("302", Fault.SUPPLIER_HTTP),
        ("text", Fault.SUPPLIER_PROTOCOL),
        ("list", Fault.SUPPLIER_PROTOCOL),
        ("error", Fault.SUPPLIER_PROTOCOL),
        ("deep", Fault.SUPPLIER_PROTOCOL),
    ],
)
def test_who_is_to_blame(pages: Pages, behaviour: str, fault: Fault) -> None:
    (attempt,) = send((endpoint(f"{pages.url}/{behaviour}/v1"), page_relay()))
    assert attempt.fault is fault and attempt.error and attempt.text is None
    assert len(pages.seen) == 1, "no redirect is followed"


def test_501_counts_against_the_supplier_where_it_should_answer() -> None:
    request = {"type": "generate_until", "idx": 0, "messages": [], "generation": {}}
    assert parse_answer(request, "chat", 501, b"").fault is Fault.SUPPLIER_HTTP


def test_pages_have_their_own_bound_and_the_blame_is_ours(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = endpoint(f"{pages.url}/large/v1")
    assert FAST.max_response_mb < 3
    (attempt,) = send((target, page_relay()))
    assert attempt.fault is Fault.OK and attempt.body_bytes > 3_000_000
    monkeypatch.setattr(http, "MAX_PAGE_MB", 2.0)
    (attempt,) = send((target, page_relay()))
    assert attempt.fault is Fault.CLIENT_REQUEST and attempt.body_truncated
    assert len(attempt.body) == TRUNCATED_EVIDENCE_BYTES


def test_deadlines_hold(pages: Pages) -> None:
    limits = replace(FAST, first_byte_s=0.5)
    (attempt,) = send((endpoint(f"{pages.url}/slow/v1", limits), page_relay()))
    assert attempt.fault is Fault.SUPPLIER_TIMEOUT and attempt.latency_ms < 3500


@pytest.mark.parametrize("path", ["pokt", "/", "/a b", "/a/../b", "//host/x", "/x?y=1", "/x\r\nHost: y", 7])
def test_only_plain_paths_are_asked_for(pages: Pages, path: Any) -> None:
    with pytest.raises(RequestError, match="plain absolute path"):
        page_path({**PAGE, "path": path})
    (attempt,) = send((endpoint(f"{pages.url}/ok/v1"), page_relay(path)))
    assert attempt.fault is Fault.INTERNAL and not pages.seen


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("https://h/v1", "https://h"),
        ("https://h:1/a/v1/", "https://h:1/a"),
        ("https://h/api/v2", "https://h/api"),
        ("https://h", "https://h"),
        ("https://h/vault", "https://h/vault"),
        ("https://h/v1/engine", "https://h/v1/engine"),
    ],
)
def test_pages_lie_beside_the_api(base_url: str, root: str) -> None:
    assert service_root(base_url) == root


def test_a_page_has_no_payload() -> None:
    with pytest.raises(RequestError, match="no JSON body"):
        build_payload(PAGE, "chat", "m")


values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4).filter(lambda key: key != "error"), values, max_size=5))
def test_equal_pages_give_equal_text(page: dict[str, Any]) -> None:
    """However they are spaced, ordered and escaped."""
    turned = dict(reversed(page.items()))
    one = parse_answer(PAGE, "chat", 200, json.dumps(page, indent=1).encode())
    two = parse_answer(PAGE, "completions", 200, json.dumps(turned, ensure_ascii=False).encode())
    assert one.fault is Fault.OK and one == two


@given(st.integers(100, 599), st.binary(max_size=40))
def test_nothing_makes_parsing_raise(status: int, body: bytes) -> None:
    parse_answer(PAGE, "chat", status, body)
