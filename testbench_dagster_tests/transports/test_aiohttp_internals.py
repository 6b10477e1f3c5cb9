"""Canary: the private parts of aiohttp are as this package uses them. Run it before the pin is raised."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import inspect

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from testbench_dagster_tests.upstream import gone, otherwise_called, says

MODULE = "testbench_dagster.transports.aiohttp_internals"
QUESTION = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\nquestion"
BODY = gzip.compress(b"answer")


def test_all_names_are_there() -> None:
    assert gone(MODULE, "aiohttp") == []


def test_a_missing_name_is_told_with_the_place_to_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("aiohttp.http_exceptions.HttpProcessingError")
    (sentence,) = gone(MODULE, "aiohttp")
    assert sentence == (
        f"aiohttp {aiohttp.__version__}: aiohttp.http_exceptions has no HttpProcessingError any more; "
        f"mend {MODULE.replace('.', '/')}.py"
    )


def test_they_are_called_as_we_do() -> None:
    ours = importlib.import_module(MODULE)
    changed = [
        otherwise_called(aiohttp.ClientRequest, "GET", URL("http://host/"), loop=None),
        otherwise_called(aiohttp.TCPConnector.connect, None, None, [], None),
        otherwise_called(
            ours.ResponseHandler.set_response_params, None, read_until_eof=True, auto_decompress=False
        ),
        otherwise_called(ours.ResponseHandler.read, None),
        otherwise_called(ours.ResponseHandler.set_exception, None, TimeoutError()),
    ]
    assert [says("aiohttp", what, MODULE) for what in changed if what] == []
    for wait in (aiohttp.TCPConnector.connect, ours.ResponseHandler.read):
        assert inspect.iscoroutinefunction(wait), says("aiohttp", f"{wait} is no coroutine function", MODULE)


async def answer(request: web.Request) -> web.Response:
    assert await request.read() == b"question"
    return web.Response(status=418, body=BODY, headers={"Content-Encoding": "gzip", "X-Said": "so"})


async def exchanged(times: int) -> list[tuple[int, str, bytes, int]]:
    """Status, a header, the raw body and the connection of answers of a loopback server, in their order."""
    ours = importlib.import_module(MODULE)
    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    connector = aiohttp.TCPConnector(limit=0)
    found = []
    try:
        where = ours.address("POST", URL(f"http://{host}:{port}/"))
        for _ in range(times):
            connection = await ours.connect(connector, where, aiohttp.ClientTimeout(connect=5))
            ours.expect_raw_answer(connection.protocol)
            connection.protocol.transport.write(QUESTION)
            head, content = await ours.read_head(connection.protocol)
            body = await content.read()
            found.append((head.code, head.headers["X-Said"], body, id(connection.protocol)))
            connection.release()
    finally:
        await connector.close()
        await runner.cleanup()
    return found


def test_an_exchange_over_loopback_brings_the_raw_body_and_keeps_the_connection() -> None:
    one, other = asyncio.run(exchanged(2))
    assert one[:3] == (418, "so", BODY), says("aiohttp", f"an answer arrives as {one[:3]}", MODULE)
    assert one[3] == other[3], says("aiohttp", "a released connection is not used again", MODULE)


async def ended_from_outside() -> BaseException | None:
    """What a wait for an answer ends with when the protocol is given an exception, as deadlines do."""
    ours = importlib.import_module(MODULE)
    held: list[
        asyncio.StreamWriter
    ] = []  # from Python 3.13 on a writer that nobody holds closes its connection
    silent = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    connector = aiohttp.TCPConnector(limit=0)
    try:
        where = ours.address("POST", URL(f"http://127.0.0.1:{port}/"))
        connection = await ours.connect(connector, where, aiohttp.ClientTimeout(connect=5))
        ours.expect_raw_answer(connection.protocol)
        asyncio.get_running_loop().call_later(0.05, connection.protocol.set_exception, TimeoutError())
        try:
            await asyncio.wait_for(ours.read_head(connection.protocol), 5)
        except Exception as error:
            return error
        finally:
            connection.close()
    finally:
        await connector.close()
        for writer in held:
            writer.close()
        silent.close()
    return None


def test_a_wait_ends_with_the_exception_its_protocol_is_given() -> None:
    error = asyncio.run(ended_from_outside())
    assert type(error) is TimeoutError, says("aiohttp", f"a wait that is ended ends with {error!r}", MODULE)
