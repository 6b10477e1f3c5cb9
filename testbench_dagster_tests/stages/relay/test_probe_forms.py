"""What `testbench check` finds out about the form a supplier takes requests in, over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.relay import probe
from testbench_dagster.stages.relay.probe import ProbeResult, probe_suppliers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.endpoints import chat_body

Body = dict[str, Any]
Refusal = Callable[[Body], str | None]


class Supplier:
    """A supplier on loopback that refuses what ``refusal`` names; ``answer`` is what it says otherwise."""

    def __init__(self, refusal: Refusal, answer: bytes = chat_body("OK"), status: int = 400) -> None:
        self.refusal = refusal
        self.answer = answer
        self.status = status
        self.asked: list[Body] = []
        self.headers: list[tuple[str, dict[str, str]]] = []
        self.redirect: str | None = None

    @contextmanager
    def serving(self) -> Iterator[str]:
        supplier = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(404, b"{}")

            def do_CONNECT(self) -> None:
                self._say(supplier.status, b"")

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                supplier.asked.append(body)
                supplier.headers.append((self.path, dict(self.headers)))
                if supplier.redirect is not None:
                    self._say(307, b"")
                    return
                error = supplier.refusal(body)
                self._say(
                    200 if error is None else supplier.status,
                    supplier.answer if error is None else error.encode(),
                )

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                if supplier.redirect is not None:
                    self.send_header("Location", supplier.redirect)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            server.server_close()


def nothing(body: Body) -> str | None:
    return None


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ProbeResult]:
    """Probe one supplier, as `testbench check` does."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "TESTBENCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def check(supplier: Supplier, more: dict[str, Any] | None = None, **keys: Any) -> ProbeResult:
        with supplier.serving() as url:
            path = configured(tmp_path, url, more, **keys)
            with Workspace(load_config(path)) as workspace:
                (result,) = asyncio.run(probe_suppliers(workspace, active_suppliers(workspace)))
        return result

    return check


def configured(folder: Path, url: str, more: dict[str, Any] | None = None, **keys: Any) -> Path:
    own = {"address": "a", "base_url": url, "model": "m", **keys}
    settings = {"suppliers": [own], "tasks": [{"name": "starter_logic", "samples": 4}], **(more or {})}
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def pasted(told: ProbeResult) -> dict[str, Any]:
    """The block that is printed, as YAML reads it."""
    block: dict[str, Any] = yaml.safe_load(told.paste)["generation"]
    return block


def wants_completion_tokens(body: Body) -> str | None:
    if "max_tokens" in body:
        return "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    return "temperature: only 1 is supported" if body.get("temperature", 1) != 1 else None


def no_seed(body: Body) -> str | None:
    return (
        json.dumps({"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs"}]}) if "seed" in body else None
    )


def no_empty_stop(body: Body) -> str | None:
    return "'stop' is too short" if body.get("stop") == [] else None


def two_stops(body: Body) -> str | None:
    return "bad request" if len(body.get("stop") or []) > 2 else None


@pytest.mark.parametrize(
    ("refusal", "status", "wanted"),
    [
        (wants_completion_tokens, 400, {"token_field": "max_completion_tokens", "temperature": "omit"}),
        (no_seed, 422, {"seed": "omit"}),
        (no_empty_stop, 400, {"stop": 4}),
        (two_stops, 400, {"stop": 2}),
    ],
)
def test_the_block_to_paste_is_found_and_mends_it(
    checked: Callable[..., ProbeResult], refusal: Refusal, status: int, wanted: dict[str, Any]
) -> None:
    supplier = Supplier(refusal, status=status)
    told = checked(supplier)
    assert not told.ok and not told.warning and "refuses how it is asked" in told.detail
    assert {k: v for k, v in pasted(told).items() if k in wanted} == wanted
    assert len(supplier.asked) <= 8
    mended = checked(Supplier(refusal, status=status), generation=pasted(told))
    assert mended.ok


def test_a_supplier_that_takes_everything_is_asked_twice(checked: Callable[..., ProbeResult]) -> None:
    supplier = Supplier(nothing)
    assert checked(supplier).ok
    assert [len(body["stop"]) for body in supplier.asked] == [0, 4]


def test_the_settings_there_are_stay_in_the_block(checked: Callable[..., ProbeResult]) -> None:
    told = checked(Supplier(no_seed), generation={"budget": 7, "extra_body": {"top_k": 1}})
    assert pasted(told) == {"budget": 7, "seed": "omit", "extra_body": {"top_k": 1}}


def test_where_no_form_is_taken_the_refusal_is_told(checked: Callable[..., ProbeResult]) -> None:
    supplier = Supplier(lambda body: "no such tenant")
    told = checked(supplier)
    assert not told.ok and "no such tenant" in told.detail and "other forms were tried" in told.detail
    assert len(supplier.asked) <= 8


def test_what_is_no_refusal_of_the_form_is_asked_once(checked: Callable[..., ProbeResult]) -> None:
    supplier = Supplier(lambda body: "who are you?", status=401)
    assert "credentials, HTTP 401" in checked(supplier).detail
    assert len(supplier.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_who_says_no_for_a_moment_is_asked_again(
    status: int, checked: Callable[..., ProbeResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_WAIT_S", 0.01)
    supplier = Supplier(lambda body: "later" if len(supplier.asked) < 3 else nothing(body), status=status)
    assert checked(supplier).ok
    for_good = Supplier(lambda body: "later", status=status)
    assert f"HTTP {status}" in checked(for_good).detail
    assert len(for_good.asked) == 3


def test_a_missing_version_of_the_api_is_named(checked: Callable[..., ProbeResult]) -> None:
    supplier = Supplier(lambda body: "Missing required query parameter: api-version")
    assert "query: {api-version: '...'}" in checked(supplier).detail


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_content": "hm " * 9},
        {"content": "", "reasoning": "hm " * 9},
        {"content": "<think>Let me see, the user wants"},
    ],
)
def test_a_model_that_reasons_beyond_the_limit_is_one_finding(
    checked: Callable[..., ProbeResult], message: dict[str, Any]
) -> None:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "length"}]}
    told = checked(Supplier(nothing, json.dumps(body).encode()))
    assert told.warning and not told.ok and "reasons first" in told.detail
    assert pasted(told) == {"budget": 16384}
    assert pasted(checked(Supplier(nothing, json.dumps(body).encode()), generation={"budget": 16384})) == {
        "budget": 32768
    }


def test_headers_and_parameters_are_those_of_relays(
    checked: Callable[..., ProbeResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "k3y-of-the-supplier")
    supplier = Supplier(nothing)
    service = {"transport": "direct", "key_header": "api-key", "query": {"api-version": "2024-10-21"}}
    told = checked(supplier, {"services": {"azure": service}}, service="azure", api_key_env="KEY")
    assert told.ok
    (path, headers), _ = supplier.headers
    assert path == "/v1/chat/completions?api-version=2024-10-21"
    assert headers["api-key"] == "k3y-of-the-supplier" and "Authorization" not in headers


def test_a_redirect_names_where_it_leads(checked: Callable[..., ProbeResult]) -> None:
    supplier = Supplier(nothing)
    supplier.redirect = "https://right.example/v1/chat/completions"
    told = checked(supplier)
    assert "base_url is wrong" in told.detail
    assert "write base_url: https://right.example/v1" in told.detail


def test_questions_count_under_the_budget(checked: Callable[..., ProbeResult]) -> None:
    supplier = Supplier(no_seed)
    told = checked(supplier, {"budget": {"relays_per_day": 1}})
    assert len(supplier.asked) == 1 and "client_request" in told.detail
    none = Supplier(nothing)
    assert "not asked: the budget is used up" in checked(none, {"budget": {"relays_per_day": 0}}).detail
    assert none.asked == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_credentials_is_what_has_to_be_mended(
    scheme: str, checked: Callable[..., ProbeResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Supplier(lambda body: "<p>me:hunter2hunter2</p>", status=407)
    with proxy.serving() as url:
        monkeypatch.setenv("OUR_PROXY", url.replace("//", "//me:hunter2hunter2@").removesuffix("/v1"))
        keys = {"base_url": f"{scheme}://supplier.test/v1", "proxy_env": "OUR_PROXY"}
        told = checked(Supplier(nothing), **keys)
    assert "credentials, HTTP 407 (the proxy answers HTTP 407" in told.detail
    assert told.detail.endswith("in the variable that proxy_env names")
    assert "hunter2" not in told.detail and len(proxy.asked) == (scheme == "http")  # no other form is tried


@pytest.mark.slow
def test_the_command_prints_the_block_on_a_line_of_its_own(tmp_path: Path) -> None:
    with Supplier(no_seed).serving() as url:
        done = CliRunner().invoke(cli, ["-c", str(configured(tmp_path, url)), "check"])
    lines = done.stdout.splitlines()
    (place,) = [n for n, line in enumerate(lines) if " supplier a@external: " in line]
    assert lines[place].startswith("FAIL") and "put under supplier a of suppliers" in lines[place]
    assert lines[place + 1] == "        generation: {seed: omit}"
