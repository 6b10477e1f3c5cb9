"""What a supplier says it serves is read within bounds, whatever it sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from testbench_dagster.core.relay import Endpoint
from testbench_dagster.transports.http import HttpClient
from testbench_dagster.transports.models import claimed_context, served_models


@contextmanager
def supplier(
    status: int, body: bytes, headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A loopback server that answers every GET so; yields its base URL and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers['Authorization']}")
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()


def listed(base_url: str) -> list[str] | None:
    target = Endpoint("a@x", "x", base_url, "chat", "m", headers={"Authorization": "Bearer k"})

    async def ask() -> list[str] | None:
        http = HttpClient()
        try:
            return await served_models(http, target)
        finally:
            await http.close()

    return asyncio.run(ask())


def test_names_are_escaped_and_bounded_and_the_key_is_sent() -> None:
    body = json.dumps({"data": [{"id": "good"}, {"id": "bad\n\x1b[31m" + "x" * 500}]}).encode()
    with supplier(200, body) as (base_url, asked):
        names = listed(base_url)
    assert asked == ["/v1/models Bearer k"]
    assert names is not None
    assert names[0] == "good"
    assert names[1].isprintable()
    assert len(names[1]) <= 80


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"data": [{"id": "m"}]}'),
        (302, b""),
        (200, b"not json"),
        (200, b"[" * 20_000),
        (200, b'{"models": []}'),
        (200, b'{"data": ["m"]}'),
        (200, json.dumps({"data": [{"id": "m" * (1 << 20)}]}).encode()),
    ],
)
def test_an_unusable_list_is_none(status: int, body: bytes) -> None:
    with supplier(status, body, {"Location": "/v1/elsewhere"}) as (base_url, asked):
        assert listed(base_url) is None
    assert len(asked) == 1  # and no redirect was followed


def test_an_unreachable_supplier_is_none() -> None:
    with supplier(200, b"") as (base_url, _asked):
        pass
    assert listed(base_url) is None


def claimed(base_url: str) -> int | None:
    async def ask() -> int | None:
        http = HttpClient()
        try:
            return await claimed_context(http, Endpoint("a@x", "x", base_url, "chat", "m"))
        finally:
            await http.close()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        ([{"id": "m", "max_model_len": 8192}], 8192),  # vLLM, SGLang
        ([{"id": "m", "context_length": 128000, "top_provider": {"context_length": 32000}}], 32000),
        ([{"id": "m", "context_window": 131072}], 131072),  # Groq
        ([{"id": "m", "max_context_length": "32768"}], 32768),
        ([{"id": "m", "meta": {"n_ctx": 4096, "n_ctx_train": 131072}}], 4096),  # llama.cpp
        ([{"id": "m", "meta": {"n_ctx_train": 131072}}], None),
        ([{"id": "other", "max_model_len": 8192}], 8192),  # the only one, by another name
        ([{"id": "other", "max_model_len": 1024}, {"id": "m", "max_model_len": 8192}], 8192),
        ([{"id": "other", "max_model_len": 1024}, {"id": "third", "max_model_len": 8192}], None),
        ([{"id": "m", "max_model_len": 1e15}], None),
        ([{"id": "m", "max_model_len": -5}], None),
        ([{"id": "m", "max_model_len": True, "meta": [1], "top_provider": "x"}], None),
        ([{"id": "m"}], None),
        (["m", 5], None),
        ({"m": {}}, None),
        ([], None),
    ],
)
def test_how_long_a_context_it_lists(data: object, tokens: int | None) -> None:
    with supplier(200, json.dumps({"data": data}).encode()) as (base_url, _):
        assert claimed(base_url) == tokens


def test_who_lists_nothing_claims_no_context() -> None:
    for status, body in ((404, b"{}"), (200, b"<html>"), (200, b"[]"), (500, b"")):
        with supplier(status, body) as (base_url, _):
            assert claimed(base_url) is None
