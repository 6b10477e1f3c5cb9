"""What PATH gateways list and how they are set up, from a server on loopback that says what it is told."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.config import ServiceConfig
from testbench_dagster.core.bech32 import encode
from testbench_dagster.transports import discovery
from testbench_dagster.transports.discovery import Entry, Listing, SourceError
from testbench_dagster.transports.path.gateways import (
    GatewayReport,
    GatewaySettings,
    Readiness,
    ReadySource,
    check_gateway,
)

A, B, C, APP = (encode("pokt", bytes([n]) * 20) for n in (1, 2, 3, 4))
TOKEN = "tok-9876543210"


class Gateway:
    """Serves ``/ready/llm`` and ``/config``, and notes what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, bytes]] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.delay_s = 0.0
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.asked.append(self.path)
                owner.headers = {name.lower(): value for name, value in self.headers.items()}
                time.sleep(owner.delay_s)
                status, body = owner.pages.get(self.path, (404, b"404 page not found"))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/config")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def ready(self, endpoints: Any, status: int = 200, **info: Any) -> None:
        found = {"ready": True, "endpoint_count": 1, "has_session": True, "endpoints": endpoints, **info}
        body = json.dumps({"ready": status == 200, "services": {"llm": found}}).encode()
        self.pages["/ready/llm?detailed=true"] = (status, body)

    def config(self, **changes: Any) -> None:
        service = {"id": "llm", "type": "passthrough", "rpc_types": ["rest"], **changes.pop("service", {})}
        told = {"gateway_mode": "centralized", "services": [service], **changes}
        self.pages["/config"] = (200, json.dumps(told).encode())


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    yield server
    server.stop()


def service(gateway: Gateway, *, gateway_keys: dict[str, Any] | None = None, **keys: Any) -> ServiceConfig:
    block = {"url": gateway.url, **(gateway_keys or {})}
    return ServiceConfig(transport="path", model="llama", gateway=block, **keys)


def listed(supplier: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "address": f"{supplier}-https://m.example.com",
        "supplier_address": supplier,
        "url": "https://m.example.com",
        "is_fallback": False,
        "rpc_types": ["rest"],
    }
    return {**plain, **changes}


def read(config: ServiceConfig, seconds: float = 5.0) -> Listing:
    return ReadySource("llm", config).read(time.monotonic() + seconds)


def refusal(config: ServiceConfig, seconds: float = 5.0) -> str:
    with pytest.raises(SourceError) as caught:
        read(config, seconds)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- listings


def test_suppliers_are_listed_once_and_reached_through_the_gateway(gateway: Gateway) -> None:
    gateway.ready(
        [
            listed(A),
            listed(B, url="http://b.example.com:8080/x"),
            listed(A, url="https://second.example.com"),
            listed("fallback-1", is_fallback=True),
        ]
    )
    listing = read(service(gateway, api="completions", gateway_keys={"rpc_type": "json_rpc"}))
    assert all(isinstance(entry, Entry) for entry in listing.entries)
    assert [e.config.key for e in listing.entries] == [f"{A}@llm", f"{B}@llm"]
    entry = listing.entries[0]
    assert (entry.transport, entry.rpc_type, entry.host) == ("path", 3, "m.example.com:443")
    assert (entry.config.base_url, entry.config.api, entry.config.model) == (
        gateway.url,
        "completions",
        "llama",
    )
    assert listing.entries[1].host == "b.example.com:8080"
    assert listing.height is None and listing.problems == {}
    assert gateway.asked == ["/ready/llm?detailed=true"]  # beside /v1
    assert read(service(gateway)).entries[0].rpc_type is None


def test_heights_of_the_service_are_not_pockets(gateway: Gateway) -> None:
    gateway.ready([listed(A)], perceived_block_height=21_000_000, median_block_height=20_999_999)
    assert read(service(gateway)).height is None


def test_only_those_wanted(gateway: Gateway) -> None:
    gateway.ready([listed(A), listed(B), listed(C)])
    listing = read(service(gateway, only=[C, A]))
    assert [e.config.address for e in listing.entries] == [A, C]


def test_not_ready_is_no_reason_to_forget_anyone(gateway: Gateway) -> None:
    gateway.ready([listed(A)], status=503, ready=False, endpoint_count=0)
    assert [e.config.address for e in read(service(gateway)).entries] == [A]


def test_what_cannot_be_used_is_told(gateway: Gateway) -> None:
    gateway.ready(
        [
            7,
            listed("pokt1nonsense"),
            listed(None),
            listed(A, url="ftp://x"),
            listed(B, url=["x"]),
            listed(C, url="http://h:99999999/"),
        ]
    )
    listing = read(service(gateway))
    assert [(e.config.address, e.host) for e in listing.entries] == [(A, None), (B, None), (C, None)]
    assert list(listing.problems) == [f"service:llm: endpoints[{n}]" for n in (0, 1, 2)]
    assert "'pokt1nonsense' is no address" in listing.problems["service:llm: endpoints[1]"]
    gateway.ready([listed("\x1b[31m" * 1000)] * 500 + [listed(A)])
    problems = read(service(gateway)).problems
    assert len(problems) == 100
    assert all(text.isprintable() and len(text) < 200 for text in problems.values())


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ((404, b"404 page not found"), "answers HTTP 404"),
        ((302, b""), "redirects are not followed"),
        ((200, b"<html>"), "gives no valid JSON"),
        ((200, b"[" * 5000), "gives no valid JSON"),
        ((200, b"[]"), "does not tell of llm"),
        ((200, b'{"services": []}'), "does not tell of llm"),
        ((200, b'{"services": {"llm": 1}}'), "does not tell of llm"),
        ((200, b'{"services": {"llm": {"has_session": true, "endpoints": {"a": 1}}}}'), "another form"),
        ((503, b'{"services": {"llm": {"has_session": false}}}'), "has no session for llm; configure"),
        ((200, b'{"services": {"llm": {"has_session": true}}}'), "lists no endpoint for llm"),
        (
            (503, b'{"services": {"llm": {"error": "getAppAddrFromHTTPReq: no HTTP headers supplied"}}}'),
            "delegated mode list nobody",
        ),
    ],
)
def test_no_listing(gateway: Gateway, page: tuple[int, bytes], said: str) -> None:
    gateway.pages["/ready/llm?detailed=true"] = page
    assert said in refusal(service(gateway))
    assert len(gateway.asked) == 1


def test_time_and_size_are_bounded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway.ready([listed(A)])
    gateway.delay_s = 0.5
    assert "no complete answer within" in refusal(service(gateway), seconds=0.1)
    gateway.delay_s = 0.0
    monkeypatch.setattr(discovery, "MAX_BYTES", 100)
    monkeypatch.setattr("testbench_dagster.transports.path.gateways.MAX_BYTES", 100)
    assert "more than" in refusal(service(gateway))


def test_nobody_there() -> None:
    server = Gateway()
    server.stop()
    assert "is not reachable" in refusal(service(server))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "services",
                    "llm",
                    "has_session",
                    "endpoints",
                    "error",
                    "url",
                    "is_fallback",
                    "id",
                    "supplier_address",
                    "retry_config",
                    "max_retries",
                    "hedge_delay",
                    "gateway_mode",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(JSON, st.integers(0, 2))
def test_hostile_answers_are_only_refused(told: Any, depth: int) -> None:
    if depth == 2:
        told = {"has_session": True, "endpoints": [told]}
    if depth:
        told = {"services": {"llm": told}}
    config = ServiceConfig(transport="path", model="m", gateway={"url": "http://h/v1"})
    try:
        listing = ReadySource("llm", config).listing(Readiness.from_answer(told, "llm"))
    except SourceError as error:
        said = [str(error)]
    else:
        said = [*listing.problems.values()]
    found, expected = GatewaySettings.from_answer(told, "llm").judge(config.gateway, "llm")
    assert all(text.isprintable() for text in [*said, *found, *expected])


# ------------------------------------------------------------------------------------------------ checks


def test_a_gateway_that_is_set_up_well(gateway: Gateway) -> None:
    gateway.ready([listed(A), listed(A, url="https://x.example.com"), listed(B), 7])
    gateway.config(service={"retry_config": {"enabled": False, "max_retries": 3}})
    report = check_gateway("llm", service(gateway, gateway_keys={"rpc_type": "rest"}))
    assert report == GatewayReport(
        reachable=True, knows_service=True, suppliers=2, delegated=False, retries=0, hedges=None
    )


def test_a_gateway_that_hides_its_configuration(gateway: Gateway) -> None:
    gateway.ready([listed(A)])
    report = check_gateway("llm", service(gateway))
    assert report == GatewayReport(reachable=True, knows_service=True, suppliers=1)


def test_an_unreachable_gateway_is_a_problem() -> None:
    server = Gateway()
    server.stop()
    report = check_gateway("llm", service(server))
    assert not report.reachable and report.knows_service is None
    (problem,) = report.problems
    assert problem.startswith("is not reachable")


@pytest.mark.parametrize(
    ("told", "keys", "kind", "said"),
    [
        ({"services": [{"id": "eth"}]}, {}, "problems", "not configured for llm, but for eth"),
        ({"gateway_mode": "delegated"}, {}, "problems", "set app_address"),
        ({}, {"app_address": APP}, "warnings", "ignores app_address"),
        ({}, {"rpc_type": "json_rpc"}, "problems", "rpc_type json_rpc is not allowed"),
        ({"load_testing_mode": True}, {}, "problems", "load testing"),
        ({"service": {"retry_config": {"enabled": True, "max_retries": 2}}}, {}, "warnings", "up to 2 times"),
        ({"service": {"retry_config": {"hedge_delay": "500ms"}}}, {}, "warnings", "it hedges"),
        ({"service": {"fallback": {"enabled": True}}}, {}, "warnings", "fallbacks"),
    ],
)
def test_what_keeps_scores_away_or_distorts_them(
    gateway: Gateway, told: dict[str, Any], keys: dict[str, Any], kind: str, said: str
) -> None:
    gateway.ready([listed(A)])
    gateway.config(**told)
    report = check_gateway("llm", service(gateway, gateway_keys=keys))
    (text,) = getattr(report, kind)
    assert said in text
    assert getattr(report, "warnings" if kind == "problems" else "problems") == ()


def test_hedging_is_known_where_it_is_told(gateway: Gateway) -> None:
    gateway.ready([listed(A)])
    for delay, hedges in (("0s", False), (0, False), ("500ms", True), (5 * 10**8, True)):
        gateway.config(service={"retry_config": {"hedge_delay": delay}})
        assert check_gateway("llm", service(gateway)).hedges is hedges


def test_a_service_without_sessions(gateway: Gateway) -> None:
    gateway.ready(None, status=503, has_session=False, error="ZERO owned apps found for service")
    gateway.config()
    report = check_gateway("llm", service(gateway))
    (problem,) = report.problems
    assert "no session for llm (ZERO owned apps found for service)" in problem


def test_delegated_gateways_list_nobody_and_need_not(gateway: Gateway) -> None:
    gateway.ready(None, status=503, has_session=False, error="no HTTP headers supplied")
    gateway.config(gateway_mode="delegated")
    keys = {"app_address": APP}
    (problem,) = check_gateway("llm", service(gateway, gateway_keys=keys)).problems
    assert "in delegated mode" in problem and "discover: sessions" in problem
    chain = {"nodes": {"rest": ["http://127.0.0.1:1"]}, "discover": "staked"}
    assert check_gateway("llm", service(gateway, gateway_keys=keys, **chain)).problems == ()


# ------------------------------------------------------------------------------------------------ secrets


def test_the_token_is_sent_and_never_told(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    config = service(gateway, gateway_keys={"token_env": "GW_TOKEN"})
    monkeypatch.delenv("GW_TOKEN", raising=False)
    assert "GW_TOKEN" in refusal(config) and gateway.asked == []
    monkeypatch.setenv("GW_TOKEN", "line\nbreak")
    assert "GW_TOKEN" in refusal(config)
    monkeypatch.setenv("GW_TOKEN", TOKEN)
    gateway.ready(None, status=503, has_session=False, error=f"Authorization: Bearer {TOKEN}")
    gateway.config(services=[{"id": f"for {TOKEN}"}])
    assert TOKEN not in refusal(config)
    assert gateway.headers["authorization"] == f"Bearer {TOKEN}"
    report = check_gateway("llm", config)
    assert TOKEN not in repr(report) and "[redacted]" in repr(report)
    gateway.ready([listed(TOKEN)])
    gateway.config()
    assert TOKEN not in repr(read(config))


def test_its_pages_are_asked_for_with_what_the_service_configures(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = service(
        gateway,
        gateway_keys={"token_env": "GW_TOKEN"},
        key_header="X-Token",
        headers={"X-Org": "ORG"},
        query={"tenant": "t"},
        query_env={"sig": "SIG"},
    )
    monkeypatch.setenv("GW_TOKEN", TOKEN)
    monkeypatch.setenv("ORG", "org-of-ours-1")
    monkeypatch.delenv("SIG", raising=False)
    assert "query_env: sig names SIG, which is not set" in refusal(config)
    assert "SIG" in check_gateway("llm", config).problems[0] and gateway.asked == []
    monkeypatch.setenv("SIG", "s3cret-value")
    gateway.ready([listed(A)])
    page = gateway.pages.pop("/ready/llm?detailed=true")
    gateway.pages["/ready/llm?detailed=true&tenant=t&sig=s3cret-value"] = page
    assert [entry.config.address for entry in read(config).entries] == [A]
    assert (gateway.headers["x-token"], gateway.headers["x-org"]) == (TOKEN, "org-of-ours-1")
    assert "authorization" not in gateway.headers
    assert check_gateway("llm", config).suppliers == 1
    gateway.pages.clear()
    assert "s3cret" not in refusal(config) and "HTTP 404" in refusal(config)
