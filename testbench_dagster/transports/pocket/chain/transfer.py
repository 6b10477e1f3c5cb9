"""HTTP exchanges with nodes: bounded in time from first to last byte and in size, never redirected.

All run in one event loop in a thread of their own. That way a blocking caller has a bound for the whole
exchange (httpx's own timeouts start anew with every byte), connections are kept, and several nodes can be
asked at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from testbench_dagster.core.relay import STRAIGHT, Route
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.clients import client_by
from testbench_dagster.transports.pocket.chain.errors import ChainError, NodeFault
from testbench_dagster.transports.tls import CaFileError

if TYPE_CHECKING:
    import httpx

#: Largest answer that is read, in bytes.
MAX_BYTES = 32 * 1024 * 1024
#: How long others are waited for once one node has answered a question put to all, in seconds.
STRAGGLER_S = 1.0
_KEEP_ALIVE_S = 60.0
_THREAD = "chain-client"
_HEIGHT_HEADERS = ("grpc-metadata-x-cosmos-block-height", "x-cosmos-block-height")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, and of which height the answer is to be (None: of the newest).

    The URL may hold credentials, so it is in no text.
    """

    url: str = field(repr=False)
    body: bytes | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: status, body, and the height the answer is of, where the node tells it."""

    status: int
    body: bytes
    height: int | None = None
    location: bool = False


Outcome = Reply | NodeFault


class Transfer:
    """Sends requests; made of nothing until the first, thread-safe, closed once."""

    def __init__(self, timeout_s: float, route: Route = STRAIGHT) -> None:
        self._timeout_s = timeout_s
        self._route = route
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        #: By whether certificates are needed. The loop's own.
        self._clients: dict[bool, httpx.AsyncClient] = {}

    def fetch(self, request: Request) -> Reply:
        """Exchange one request. Raises :class:`NodeFault` if there is no complete answer in time."""
        outcome = self._run(self._outcome(request))
        if isinstance(outcome, NodeFault):
            raise outcome
        return outcome

    def gather(
        self, asked: Sequence[Sequence[Request]], *, patient: bool
    ) -> list[tuple[Outcome, ...] | None]:
        """Exchange the requests to several nodes at once, outcomes in the same order.

        None stands for a node that answered neither soon after the first nor in time; with ``patient`` all
        are waited for as long as the time limit allows.
        """
        return self._run(self._gather(asked, patient))

    def close(self) -> None:
        """End all exchanges; later ones raise :class:`ChainError`."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        with suppress(RuntimeError):  # a second close
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(timeout=5.0)

    # ------------------------------------------------------------------------------------ the thread

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        with self._lock:  # so that nothing is handed to a loop that has ended
            if self._closed:
                coroutine.close()
                raise ChainError("the chain client is closed; make a new one")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._started())
        try:
            return future.result()
        except CancelledError:
            raise ChainError("the chain client was closed while it was asked") from None
        except BaseException:
            future.cancel()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._serve, name=_THREAD, daemon=True)
            self._thread.start()
        return self._loop

    def _serve(self) -> None:
        loop = self._loop
        if loop is None:
            raise RuntimeError("the thread of the chain's client has no event loop to run")
        asyncio.set_event_loop(loop)
        loop.run_forever()
        try:
            loop.run_until_complete(asyncio.sleep(0))  # lets what was handed over last become a task
            for task in (tasks := asyncio.all_tasks(loop)):
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for client in self._clients.values():
                loop.run_until_complete(client.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    # -------------------------------------------------------------------------------------- exchanges

    async def _gather(
        self, asked: Sequence[Sequence[Request]], patient: bool
    ) -> list[tuple[Outcome, ...] | None]:
        tasks = [asyncio.ensure_future(self._all(requests)) for requests in asked]
        pending = set(tasks)
        while pending:
            answered = any(t.done() and _is_good(t.result()[0]) for t in tasks)
            wait_s = STRAGGLER_S if answered and not patient else None
            done, pending = await asyncio.wait(pending, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        return [None if task.cancelled() else task.result() for task in tasks]

    async def _all(self, requests: Sequence[Request]) -> tuple[Outcome, ...]:
        return tuple(await asyncio.gather(*map(self._outcome, requests)))

    async def _outcome(self, request: Request) -> Outcome:
        import httpx

        try:
            async with asyncio.timeout(self._timeout_s):
                try:
                    return await self._exchange(request)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    # most likely a kept connection that the node had just closed; all we ask is reading
                    return await self._exchange(request)
        except TimeoutError:
            return NodeFault(f"gave no complete answer within {self._timeout_s:g} s")
        except httpx.InvalidURL:
            return NodeFault("cannot be asked: its URL is not valid")
        except CaFileError as error:
            return NodeFault(f"cannot be asked: tls.ca_file: {error}")
        except httpx.HTTPError as error:
            reason = escaped(str(error)) or type(error).__name__
            unknown = "CERTIFICATE_VERIFY" in reason
            remedy = " (name its authority in tls.ca_file of the service)" if unknown else ""
            return NodeFault(f"is not reachable: {reason}{remedy}")
        except NodeFault as fault:
            return fault

    async def _exchange(self, request: Request) -> Reply:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if request.height is not None:
            headers[_HEIGHT_HEADERS[-1]] = str(request.height)
        method = "GET" if request.body is None else "POST"
        body = bytearray()
        async with self._client(request.url).stream(
            method, request.url, headers=headers, content=request.body
        ) as response:
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding != "identity":
                raise NodeFault(f"answers compressed ({escaped(encoding, 40)}), which was not asked for")
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_BYTES:
                    raise NodeFault(f"answers more than {MAX_BYTES // 2**20} MB")
        return Reply(response.status_code, bytes(body), _height(response.headers), response.is_redirect)

    def _client(self, url: str) -> httpx.AsyncClient:
        tls = urlsplit(url).scheme == "https"
        client = self._clients.get(tls)
        if client is None:
            import httpx  # 60 ms, and a code location that only defines assets need not pay them

            limits = httpx.Limits(keepalive_expiry=_KEEP_ALIVE_S)
            # _outcome ends every exchange as a whole
            client = self._clients[tls] = client_by(self._route, tls=tls, limits=limits)
        return client


def _is_good(outcome: Outcome) -> bool:
    return isinstance(outcome, Reply) and outcome.status == 200


def _height(headers: httpx.Headers) -> int | None:
    for name in _HEIGHT_HEADERS:
        text = headers.get(name, "")
        if text.isascii() and text.isdecimal() and len(text) <= 18:
            return int(text) or None
    return None
