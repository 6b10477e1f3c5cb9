"""Requests that no link of the board leads to: each is answered with a page or a sentence, none writes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Router

from testbench_dagster.board.app import make_app
from testbench_dagster.board.run import allowed_hosts
from testbench_dagster.board.site import Site
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.board.installations import NOW, Names, filled

#: Longest page that says why there is none.
SENTENCE_BYTES = 6_000
PARAMETERS = {
    "/": ("taxonomy", "node", "model", "service", "group", "q", "after"),
    "/supplier/{}": ("since", "from", "charts"),
    "/supplier/{}/history": ("task", "taxonomy", "node", "since"),
    "/supplier/{}/task/{}": ("kind", "q", "after"),
    "/supplier/{}/task/{}/doc/{}": (),
    "/task/{}": ("model", "after", "docs"),
    "/doc/{}/{}": ("after",),
    "/doc/{}/{}.json": ("after",),
    "/attempt/{}/body": (),
    "/compare": ("a", "b", "task", "kind", "after", "overall"),
    "/changes": ("before", "supplier"),
    "/twins": ("task",),
    "/catalog": ("q", "group", "after"),
    "/catalogue": ("q",),
    "/board.css": (),
    "/{}": (),
    "/{}/{}": (),
    "//{}": (),
}  # fmt: skip
KNOWN = (
    *Names().suppliers, *Names().tasks, *Names().models, "external", "overall", "all tasks", "0", "1", "29",
    "a", "different", "wrong", "failed", "90d", "1y",
)  # fmt: skip
ODD = (
    "", " ", "\0", "a\0b", "\r\nX-Header: 1", "\N{RIGHT-TO-LEFT OVERRIDE}txt.exe", "\u2028", "\ud7ff",
    "\N{GRINNING FACE}" * 50, "x" * 5_000, "9" * 15, "9" * 16, "9" * 4_000, "18446744073709551616", "-1",
    "+1", "1.5", "1e9", "\N{ARABIC-INDIC DIGIT THREE}", "\N{SUPERSCRIPT TWO}", "0x10", "NaN", "Infinity",
    "2026-03-01", "2026-03-01T00:00:00", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00:00Z", "2026-03-01T00:00:00.000001+00:00:01", "2026-W01-1", "../../etc/passwd", "..",
    "/", "a/b", "%", "%25", "%zz", "$gt", "{}", "' OR 1=1 --", "\\", "<script>", "*", "null",
)  # fmt: skip


class Answered:
    """What an application answers to a request that is given as a server gives it."""

    def __init__(self, app: Router, method: str, path: bytes, query: bytes, host: bytes | None) -> None:
        self.status, self.body = 0, b""
        decoded = path.decode("latin-1")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": decoded, "raw_path": path, "query_string": query, "root_path": "",
            "headers": [] if host is None else [(b"host", host)], "server": ("127.0.0.1", 3001),
            "client": ("127.0.0.1", 50_000),
        }  # fmt: skip
        asyncio.run(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with filled(tmp_path_factory.mktemp("odd")) as workspace:
        yield workspace


@pytest.fixture(scope="module")
def app(installation: Workspace) -> Router:
    site = Site(installation)
    site.prepare()
    return make_app(site, hosts=allowed_hosts("127.0.0.1"), clock=lambda: NOW)


def encoded(value: str, how: int) -> bytes:
    """A value as it may stand in an address: encoded as a browser does, wholly, twice, or not at all."""
    raw = value.encode("utf-8", "surrogatepass")
    if how == 0:
        return quote(raw, safe="").encode()
    if how == 1:
        return b"".join(b"%%%02x" % byte for byte in raw)
    if how == 2:
        return quote(quote(raw, safe=""), safe="").encode()
    return re.sub(rb"[?#\s\x00-\x1f\x7f]", b"", raw)


@st.composite
def addresses(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """The path and the parameters of a request, most of which name something that there is."""
    value = st.one_of(st.sampled_from(KNOWN), st.sampled_from(ODD), st.text(max_size=20))
    how = st.sampled_from((0, 0, 0, 1, 2, 3))
    route = draw(st.sampled_from(sorted(PARAMETERS)))
    path = b""
    for number, part in enumerate(route.split("{}")):
        path += part.encode()
        if number < route.count("{}"):
            path += encoded(draw(value), draw(how))
    chosen = draw(st.lists(st.sampled_from((*PARAMETERS[route], "other")), max_size=4))
    query = b"&".join(name.encode() + b"=" + encoded(draw(value), draw(how)) for name in chosen)
    return path, query + draw(st.sampled_from((b"", b"", b"&", b"&=&", b"&after", b"&after=%ff%fe", b"&%")))


def content_of(workspace: Workspace) -> dict[str, bytes]:
    """What lies in an installation's folder, by name; not what SQLite keeps of readers."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).digest()
        for path in sorted(Path(workspace.config.path).parent.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


@given(addresses())
def test_whatever_is_asked_for_is_a_page_or_not_found(app: Router, address: tuple[bytes, bytes]) -> None:
    found = Answered(app, "GET", *address, b"127.0.0.1")
    assert found.status in (200, 400, 404, 414), (address, found.status, found.body[:2_000])
    if found.status != 200:
        assert len(found.body) < SENTENCE_BYTES, (address, found.body)
        assert b"<h1>" in found.body and b"<p>" in found.body


@pytest.mark.slow
@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("route", [route for route, names in PARAMETERS.items() if names])
def test_each_parameter_takes_anything(app: Router, route: str, value: str) -> None:
    names = Names()
    parts = {1: [names.suppliers[0]], 2: [names.suppliers[0], names.tasks[0]]}
    if route.startswith(("/task", "/doc")):
        parts = {1: [names.tasks[0]], 2: [names.tasks[0], "1"]}
    path = route.format(*(quote(part) for part in parts.get(route.count("{}"), ()))).encode()
    given_of = {"a": names.suppliers[0], "b": names.suppliers[3], "task": names.tasks[0]}
    for name in PARAMETERS[route]:
        others = {k: v for k, v in given_of.items() if k in PARAMETERS[route] and k != name}
        query = b"&".join(
            key.encode() + b"=" + encoded(text, 0) for key, text in {**others, name: value}.items()
        )
        found = Answered(app, "GET", path, query, b"127.0.0.1")
        assert found.status in (200, 400, 404, 414), (route, name, found.status)


@pytest.mark.parametrize(
    ("path", "query", "told"),
    [
        ("/", "after=nobody", "after is &#39;nobody&#39;; it should be what a page before this"),
        ("/changes", "before=yesterday", "before is &#39;yesterday&#39;; it should be a time as 2026-"),
        ("/changes", "before=2026-03-01T00:00:00", "it should be a time as 2026-"),
        ("/changes", "before=9999-12-31T23:59:59-23:59", "it should be a time as 2026-"),
        ("/supplier/good@external", "since=1d", "since is &#39;1d&#39;; it should be one of 30d, 90d, 1y"),
        ("/supplier/good@external", "charts=-1", "it should be a whole number of at most 15 digits"),
        ("/supplier/good@external/task/logic", "kind=bad", "it should be one of wrong, right, failed,"),
        ("/supplier/good@external/task/logic", "after=1e3", "it should be a whole number"),
        ("/compare", "a=good@external&b=bad@external&after=x", "it should be what a page before"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_told_by_its_name(app: Router, path: str, query: str, told: str) -> None:
    found = Answered(app, "GET", path.encode(), query.encode(), b"127.0.0.1")
    assert (found.status, told in found.body.decode()) == (400, True), found.body.decode()


def test_an_address_that_is_too_long_is_told(app: Router) -> None:
    for path, query in ((b"/" + b"x" * 20_000, b""), (b"/changes", b"supplier=" + b"%41" * 6_000)):
        found = Answered(app, "GET", path, query, b"127.0.0.1")
        assert (found.status, b"longer than any" in found.body) == (414, True)
        assert len(found.body) < SENTENCE_BYTES


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_other_methods_change_nothing(app: Router, installation: Workspace, method: str) -> None:
    before = content_of(installation)
    for path in (b"/", b"/supplier/good%40external", b"/nothing", b"*", b"http://127.0.0.1/", b""):
        found = Answered(app, method, path, b"", b"127.0.0.1")
        assert found.status in ((200, 404) if method == "HEAD" else (405,)), (method, path)
        assert not found.body if method == "HEAD" else b"nothing can be changed" in found.body
    assert content_of(installation) == before


@pytest.mark.parametrize(
    "host", [None, b"", b"[", b"[::1", b"127.0.0.1:abc", b"a:99999999", b"a b", b"\xff", b"@", b"/", b"#"]
)  # fmt: skip
def test_a_host_that_is_none_is_a_sentence(app: Router, host: bytes | None) -> None:
    found = Answered(app, "GET", b"/", b"", host)
    assert found.status in (200, 400, 421), found.status


def test_nothing_was_written_or_logged_as_a_mistake(
    app: Router, installation: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    before = content_of(installation)
    with caplog.at_level(logging.WARNING):
        for value in ODD:
            for route, names in PARAMETERS.items():
                path = route.replace("{}", quote(value, safe="", errors="surrogatepass")).encode()
                query = b"&".join(name.encode() + b"=" + encoded(value, 0) for name in names)
                assert Answered(app, "GET", path, query, b"127.0.0.1").status in (200, 400, 404, 414), path
    assert not caplog.records
    assert content_of(installation) == before
