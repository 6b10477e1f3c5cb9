"""Headers, parameters, an authority of one's own and proxies: real servers on loopback, and what is kept."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import STRAIGHT, Attempt, Endpoint, Route
from testbench_dagster.core.remedies import remedy_of
from testbench_dagster.stages.relay.writer import attempt_record
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster.transports.discovery import SourceError, fetch
from testbench_dagster.transports.http import HttpClient
from testbench_dagster.transports.models import served_models
from testbench_dagster.transports.path.transport import PathTransport
from testbench_dagster.transports.registry import shown
from testbench_dagster.transports.tls import CaFileError, tls_context
from testbench_dagster_tests.certificates import Certificates, made_in
from testbench_dagster_tests.endpoints import FAST, chat_body, relay

T = TypeVar("T")
SECRET = "s3cret-value-of-ours"
PAGE = {"type": "get", "idx": 0, "path": "/config"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return made_in(tmp_path_factory.mktemp("certificates"))


@dataclass
class Server:
    """Answers every request; remembers connections, request lines and headers."""

    port: int = 0
    connections: int = 0
    lines: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[str, dict[str, str]], tuple[int, bytes, str]] | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in head[1:] if h)}
                await reader.readexactly(int(headers.get("content-length", 0)))
                self.lines.append(head[0])
                self.headers.append(headers)
                status, body, more = (200, chat_body(), "")
                if self.answer is not None:
                    status, body, more = self.answer(head[0], headers)
                writer.write(
                    b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b"
                    % (status, more.encode(), len(body), body)
                )
                await writer.drain()
        writer.close()


@dataclass
class Proxy:
    """An HTTP proxy: tunnels (CONNECT) and requests in absolute form, to wherever it is told."""

    port: int = 0
    lines: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    wants: str | None = None
    refuses: int | None = None
    silent: bool = False
    says: str = ""
    quotes: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in lines[1:] if h)}
            self.lines.append(lines[0])
            self.headers.append(headers)
            if self.silent:
                await asyncio.sleep(30)
            status = self.refuses
            if self.wants is not None and headers.get("proxy-authorization") != self.wants:
                status = 407
            if status is not None:
                quoted = headers.get("proxy-authorization", "") if self.quotes else ""
                body = f"<p>{quoted} hunter2hunter2</p>".encode() if quoted else b""
                writer.write(
                    b"HTTP/1.1 %d No %b\r\n%bContent-Length: %d\r\n\r\n%b"
                    % (status, quoted.encode(), self.says.encode(), len(body), body)
                )
                await writer.drain()
                writer.close()
                return
            method, target, _ = lines[0].split(" ", 2)
            if method == "CONNECT":
                host, _, port = target.rpartition(":")
                upstream = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                authority = target.split("/")[2]
                host, _, port = authority.rpartition(":")
                upstream = await asyncio.open_connection(host.strip("[]"), int(port))
                path = "/" + target.split("/", 3)[3]
                upstream[1].write(head.replace(target.encode(), path.encode(), 1))
            await asyncio.gather(piped(reader, upstream[1]), piped(upstream[0], writer))


async def piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def listening(
    server: Server | Proxy, certificates: Certificates | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[None]:
    context = None
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.server, certificates.key)
    opened = await asyncio.start_server(server.serve, host, 0, ssl=context)
    server.port = opened.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        opened.close()


def run(main: Callable[[], Awaitable[T]]) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(main(), 20)

    return asyncio.run(bounded())


def target(url: str, route: Route = STRAIGHT, **changes: Any) -> Endpoint:
    return replace(Endpoint("a@test", "test", url, "chat", "m", FAST), route=route, **changes)


async def sent(endpoint: Endpoint, times: int = 1) -> Attempt:
    transport = DirectTransport()
    try:
        for n in range(times):
            attempt = await transport.send(endpoint, relay(n))
        return attempt
    finally:
        await transport.close()


# ------------------------------------------------------------------------------------ headers, parameters


def test_headers_and_parameters_are_sent_and_their_values_kept_out_of_the_evidence() -> None:
    def quoting(line: str, headers: dict[str, str]) -> tuple[int, bytes, str]:
        said = f"{line} {headers['x-org']} {headers['api-key']}".encode()
        return 400, b"x" * 280 + said, f"Location: http://x/?{line.split('?')[1]}\r\n"

    server = Server(answer=quoting)
    route = Route(query=(("api-version", "2024-10-21"),), secret_query=(("sig", "a b/c&secret=1"),))
    headers = {"X-Org": SECRET, "api-key": "k3y-of-the-supplier"}

    async def main() -> Attempt:
        async with listening(server):
            url = f"http://127.0.0.1:{server.port}/v1"
            return await sent(target(url, route, headers=headers))

    attempt = run(main)
    assert server.lines == [
        "POST /v1/chat/completions?api-version=2024-10-21&sig=a+b/c%26secret%3D1 HTTP/1.1"
    ]
    assert server.headers[0]["x-org"] == SECRET
    kept = f"{attempt} {attempt.body.decode()}"
    for secret in (SECRET, "k3y-of-the-supplier", "secret=1", "secret%3D1", "k3y-of"):
        assert secret not in kept
    assert attempt.evidence["path"] == "/chat/completions"
    assert "a+b" not in repr(target("http://h/v1", route, headers=headers)) + kept


def test_an_error_text_cut_within_a_secret_keeps_no_part_of_it() -> None:
    for pad in range(240, 300):
        body = b"x" * pad + SECRET.encode()
        server = Server(answer=lambda line, headers, body=body: (400, body, ""))

        async def main(server: Server = server) -> Attempt:
            async with listening(server):
                return await sent(target(f"http://127.0.0.1:{server.port}", headers={"X-Org": SECRET}))

        if pad % 7 == 0:
            assert "s3cr" not in (run(main).error or "")


def test_words_of_a_header_that_is_no_credential_are_left_in_answers() -> None:
    server = Server(answer=lambda line, headers: (200, chat_body("an evaluation of benchmarks"), ""))

    async def main() -> Attempt:
        async with listening(server):
            headers = {"X-Title": "public evaluation of benchmarks", "Authorization": "Bearer abcdefgh12"}
            return await sent(target(f"http://127.0.0.1:{server.port}", headers=headers))

    assert run(main).text == "an evaluation of benchmarks"


def test_the_list_of_models_is_asked_for_in_the_same_way(certificates: Certificates) -> None:
    listed = json.dumps({"data": [{"id": "m"}, {"id": SECRET}]}).encode()
    server, proxy = Server(answer=lambda line, headers: (200, listed, "")), Proxy()

    async def main() -> list[str] | None:
        async with listening(server, certificates), listening(proxy):
            route = Route((("v", "1"),), (), proxy.url, str(certificates.ca))
            endpoint = target(f"https://127.0.0.1:{server.port}/v1", route, headers={"api-key": SECRET})
            http = HttpClient()
            try:
                return await served_models(http, endpoint)
            finally:
                await http.close()

    assert run(main) == ["m", "[redacted]"]
    assert server.lines == ["GET /v1/models?v=1 HTTP/1.1"]
    assert proxy.lines == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"]


# ------------------------------------------------------------------------------------------- certificates


def test_an_authority_of_its_own(certificates: Certificates) -> None:
    server = Server()

    async def main() -> tuple[Attempt, Attempt]:
        async with listening(server, certificates):
            url = f"https://localhost:{server.port}/v1"
            trusted = target(url, Route(ca_file=str(certificates.ca)))
            return await sent(trusted, times=3), await sent(target(url))

    good, bad = run(main)
    assert (good.fault, good.text) == (Fault.OK, "fine")
    assert (len(server.lines), server.connections) == (3, 1)  # kept alive
    assert bad.fault is Fault.TRANSPORT
    assert bad.error is not None and bad.error.startswith("TLS failed") and "VERIFY_FAILED" in bad.error
    assert "tls.ca_file" in remedy_of(bad) and "is it running" not in remedy_of(bad)


def test_tls_where_none_is_spoken() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        await writer.drain()
        await reader.read(10)
        writer.close()

    async def main() -> Attempt:
        opened = await asyncio.start_server(plain, "127.0.0.1", 0)
        async with opened:
            return await sent(target(f"https://127.0.0.1:{opened.sockets[0].getsockname()[1]}"))

    attempt = run(main)
    assert (attempt.error or "").startswith("TLS failed") and "https" in remedy_of(attempt)


def test_a_certificate_for_another_host(certificates: Certificates) -> None:
    server = Server()

    async def main() -> Attempt:
        async with listening(server, certificates, "0.0.0.0"):
            route = Route(ca_file=str(certificates.ca))
            return await sent(target(f"https://127.0.0.2:{server.port}", route))

    attempt = run(main)
    if "TLS failed" not in (attempt.error or ""):
        pytest.skip("127.0.0.2 leads nowhere on this system")
    assert "another host" in remedy_of(attempt)


def test_files_that_hold_no_authority_are_named(tmp_path: Path, certificates: Certificates) -> None:
    with pytest.raises(CaFileError, match=r"cannot read .*none\.pem: No such file"):
        tls_context(str(tmp_path / "none.pem"))
    (tmp_path / "empty.pem").write_text("no certificate")
    with pytest.raises(CaFileError, match=r"empty\.pem holds no certificate in PEM"):
        tls_context(str(tmp_path / "empty.pem"))
    with pytest.raises(CaFileError, match="cannot read"):
        tls_context(str(tmp_path))
    assert tls_context(str(certificates.ca)) is tls_context(str(certificates.ca))
    assert tls_context(str(certificates.ca)) is not tls_context(None)


# ------------------------------------------------------------------------------------------------ proxies


def test_through_a_proxy_by_tunnel_and_in_absolute_form(certificates: Certificates) -> None:
    server, plain, proxy = Server(), Server(), Proxy()
    proxy.wants = "Basic " + base64.b64encode(b"me:p@ss w0rd!").decode()

    async def main() -> list[Attempt]:
        async with listening(server, certificates), listening(plain), listening(proxy):
            through = f"http://me:p%40ss%20w0rd!@127.0.0.1:{proxy.port}"
            route = Route(proxy=through, ca_file=str(certificates.ca))
            over_tls = target(f"https://127.0.0.1:{server.port}/v1", route)
            without = target(f"http://127.0.0.1:{plain.port}/v1", replace(route, query=(("a", "b"),)))
            return [await sent(over_tls, times=2), await sent(without, times=2)]

    assert [attempt.fault for attempt in run(main)] == [Fault.OK, Fault.OK]
    url = f"http://127.0.0.1:{plain.port}/v1/chat/completions?a=b"
    assert proxy.lines == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1", f"POST {url} HTTP/1.1"]
    assert len(server.lines) == len(plain.lines) == 2  # connections are kept through it
    assert all("proxy-authorization" not in headers for headers in server.headers)


def test_a_password_that_a_server_quotes_is_not_kept() -> None:
    proxy = Proxy()
    credentials = base64.b64encode(b"me:hunter2hunter2").decode()
    server = Server(
        answer=lambda line, headers: (
            400,
            f"{headers.get('proxy-authorization')} hunter2hunter2".encode(),
            "",
        )
    )

    async def main() -> Attempt:
        async with listening(server), listening(proxy):
            route = Route(proxy=f"http://me:hunter2hunter2@127.0.0.1:{proxy.port}")
            return await sent(target(f"http://127.0.0.1:{server.port}", route))

    attempt = run(main)
    assert attempt.status == 400
    assert "hunter2" not in f"{attempt}{attempt.body!r}" and credentials not in f"{attempt}{attempt.body!r}"


def test_what_goes_wrong_with_a_proxy_is_not_the_suppliers(certificates: Certificates) -> None:
    proxy = Proxy()

    async def main() -> list[Attempt]:
        found = []
        async with listening(proxy):
            endpoint = target("https://127.0.0.1:9/v1", Route(proxy=proxy.url))
            for status, said in (
                (403, ""),
                (502, ""),
                (503, "X-Squid-Error: ERR_TOO_BIG 0\r\n"),
                (504, "Proxy-Status: p.example; error=proxy_internal_error\r\n"),
                (503, "X-Squid-Error: ERR_CONNECT_FAIL 111\r\n"),
                (502, "Proxy-Status: one, p.example; error=dns_error; rcode=NXDOMAIN\r\n"),
            ):
                proxy.refuses, proxy.says = status, said
                found.append(await sent(endpoint))
            proxy.refuses, proxy.silent = None, True
            limits = replace(FAST, connect_s=0.2)
            found.append(await sent(replace(endpoint, limits=limits)))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            gone = f"http://127.0.0.1:{probe.getsockname()[1]}"
            found.append(await sent(target("https://127.0.0.1:9", Route(proxy=gone))))
            found.append(await sent(target("http://127.0.0.1:9", Route(proxy=gone))))
        return found

    attempts = run(main)
    assert [attempt.fault for attempt in attempts] == [
        *[Fault.GATEWAY] * 4,
        *[Fault.TRANSPORT] * 3,
        *[Fault.GATEWAY] * 2,
    ]
    assert "the proxy answers HTTP 403" in (attempts[0].error or "")
    assert all("proxy" in remedy_of(attempt) for attempt in (*attempts[:6], *attempts[7:]))
    assert all(not attempt.fault.blames_supplier for attempt in attempts)


@pytest.mark.parametrize("tunnel", [True, False])
@pytest.mark.parametrize("page", [True, False])
@pytest.mark.parametrize("opened", [DirectTransport, PathTransport])
def test_a_proxy_that_wants_credentials_is_our_own_to_mend(
    opened: type[DirectTransport] | type[PathTransport], tunnel: bool, page: bool
) -> None:
    password = "hunter2hunter2"
    proxy = Proxy(wants="Basic " + base64.b64encode(b"me:another").decode(), quotes=True)

    asked = replace(relay(), request=PAGE) if page else relay()

    async def main() -> Attempt:
        async with listening(proxy):
            route = Route(proxy=f"http://me:{password}@127.0.0.1:{proxy.port}")
            url = "https://supplier.test/v1" if tunnel else "http://supplier.test/v1"
            endpoint = target(url, route, address="pokt1supplier")
            transport = opened()
            try:
                return await transport.send(endpoint, asked)
            finally:
                await transport.close()

    attempt = run(main)
    assert (attempt.fault, attempt.status) == (Fault.CREDENTIALS, 407)
    assert attempt.fault.owner.ours and not attempt.fault.blames_supplier
    assert (attempt.error or "").startswith("the proxy answers HTTP 407")
    assert "proxy_env" in remedy_of(attempt) and "api_key_env" not in remedy_of(attempt)
    kept = f"{attempt}{attempt.body!r}"
    assert password not in kept and base64.b64encode(f"me:{password}".encode()).decode() not in kept
    # what is stored shows it, whoever sent it
    stored = attempt_record(asked, 1, attempt)
    assert shown(stored, asked.request, "chat", attempt.error).faults == {Fault.CREDENTIALS}


def test_connections_are_kept_apart_by_proxy_and_authority(
    certificates: Certificates, tmp_path: Path
) -> None:
    server, one, other = Server(), Proxy(), Proxy()
    again = tmp_path / "the same authority.pem"
    again.write_bytes(certificates.ca.read_bytes())

    async def main() -> list[Fault]:
        async with listening(server, certificates), listening(one), listening(other):
            url, ca = f"https://127.0.0.1:{server.port}", str(certificates.ca)
            routes = [
                Route(ca_file=ca),
                Route(ca_file=str(again)),
                Route(proxy=one.url, ca_file=ca),
                Route(proxy=other.url, ca_file=ca),
            ]
            endpoints = [target(url, route) for route in routes]
            transport = DirectTransport()
            try:
                return [(await transport.send(e, relay(n))).fault for n in range(2) for e in endpoints]
            finally:
                await transport.close()

    assert set(run(main)) == {Fault.OK}
    assert (server.connections, len(server.lines)) == (4, 8)
    assert (len(one.lines), len(other.lines)) == (1, 1)


def test_private_addresses_of_untrusted_suppliers_are_refused_through_a_proxy_too() -> None:
    server, proxy = Server(), Proxy()

    async def main() -> list[Attempt]:
        async with listening(server), listening(proxy):
            route = Route(proxy=proxy.url)
            urls = [
                f"http://127.0.0.1:{server.port}",
                "https://[::1]:9",
                "http://10.0.0.1",
                "http://localhost",
            ]
            return [await sent(target(url, route, private_allowed=False)) for url in urls]

    attempts = run(main)
    assert {attempt.fault for attempt in attempts} == {Fault.CLIENT_REQUEST}
    assert all("not connected" in (attempt.error or "") for attempt in attempts)
    assert proxy.lines == [] and server.lines == []


def test_a_proxy_in_a_private_network_serves_untrusted_suppliers_that_are_public() -> None:
    proxy = Proxy(refuses=502)

    async def main() -> Attempt:
        async with listening(proxy):
            return await sent(target("https://8.8.8.8", Route(proxy=proxy.url), private_allowed=False))

    assert run(main).fault is Fault.GATEWAY
    assert proxy.lines == ["CONNECT 8.8.8.8:443 HTTP/1.1"]


def test_ipv6_by_a_tunnel_and_straight(certificates: Certificates) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    server, plain, proxy = Server(), Server(), Proxy()

    async def main() -> list[Attempt]:
        try:
            async with (
                listening(server, certificates, "::1"),
                listening(plain, host="::1"),
                listening(proxy),
            ):
                route = Route(proxy=proxy.url, ca_file=str(certificates.ca))
                over_tls = f"https://[::1]:{server.port}"
                return [
                    await sent(target(over_tls, route)),
                    await sent(target(over_tls, replace(route, proxy=None))),
                    await sent(target(f"http://[::1]:{plain.port}", route)),
                ]
        except OSError:
            pytest.skip("no IPv6 on loopback")

    assert [attempt.fault for attempt in run(main)] == [Fault.OK] * 3
    assert proxy.lines == [
        f"CONNECT [::1]:{server.port} HTTP/1.1",
        f"POST http://[::1]:{plain.port}/chat/completions HTTP/1.1",
    ]


def test_nobody_obeys_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    server, proxy = Server(answer=lambda line, headers: (200, b"{}", "")), Proxy()

    async def main() -> tuple[int, bytes]:
        async with listening(server), listening(proxy):
            for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            url = f"http://localhost:{server.port}/list"
            await sent(target(url))
            found = await fetch(url, {}, 5)
            assert proxy.lines == []
            assert await fetch(url, {}, 5, route=Route(proxy=proxy.url)) == found
            return found

    assert run(main)[0] == 200
    assert len(proxy.lines) == 1


def test_what_lists_suppliers_is_asked_by_a_route_too(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server, proxy = Server(answer=lambda line, headers: (200, b"{}", "")), Proxy()

    async def main() -> None:
        async with listening(server, certificates), listening(proxy):
            url = f"https://localhost:{server.port}/list?a=1"
            route = Route((("b", "2"),), (("c", SECRET),), proxy.url, str(certificates.ca))
            assert (await fetch(url, {}, 5, route=route))[0] == 200
            with pytest.raises(SourceError, match=r"tls\.ca_file"):
                await fetch(url, {}, 5)
            proxy.refuses = 407
            with pytest.raises(SourceError, match=r"through the proxy: 407.*proxy_env") as caught:
                await fetch(url, {}, 5, route=route)
            assert SECRET not in str(caught.value)
            proxy.quotes = True
            secretly = replace(route, proxy=f"http://me:{SECRET}@127.0.0.1:{proxy.port}")
            for where in (url, "http://localhost/list"):
                with pytest.raises(SourceError, match=r"407.*proxy_env") as caught:
                    await fetch(where, {}, 5, route=secretly)
                credentials = base64.b64encode(f"me:{SECRET}".encode()).decode()
                assert SECRET not in str(caught.value) and credentials not in str(caught.value)

    run(main)
    assert server.lines == [f"GET /list?a=1&b=2&c={SECRET} HTTP/1.1"]
    assert SECRET not in caplog.text


def test_a_redirect_is_named_escaped_and_bounded() -> None:
    there = "https://elsewhere.example/v2/chat/completions"
    server = Server(answer=lambda line, headers: (308, b"", f"Location: {there}\r\n"))

    async def main() -> Attempt:
        async with listening(server):
            return await sent(target(f"http://127.0.0.1:{server.port}"))

    remedy = remedy_of(run(main))
    assert "base_url is wrong" in remedy and "write base_url: https://elsewhere.example/v2" in remedy
    there = "/x" + "\x1b[31m" + "y" * 5000
    attempt = run(main)
    assert "base_url is wrong" in remedy_of(attempt)
    assert remedy_of(attempt).isprintable() and len(remedy_of(attempt)) < 400
