"""Relays of one Pocket service: its keys and rings, and its sessions kept current while relays are sent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NoReturn, TypeVar

from testbench_dagster.core.errors import ShannonError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.pocket.chain.errors import ChainError
from testbench_dagster.transports.pocket.chain.types import Chain, Session
from testbench_dagster.transports.pocket.errors import RingError
from testbench_dagster.transports.pocket.keys import PrivateKey
from testbench_dagster.transports.pocket.replays import Replays
from testbench_dagster.transports.pocket.rings import RingSigner
from testbench_dagster.transports.pocket.routes import Routes
from testbench_dagster.transports.pocket.sessions import SessionBook

#: A public key that the chain lacks, or that did not fit an answer, is asked for again after so long.
KEY_AGAIN_S = 30.0
#: An application that no relay can be signed for is left alone for so long: others may do.
SIGNER_AGAIN_S = 30.0

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class ShannonService:
    """What relays of one service need: the chain, its sessions, and the keys to sign with.

    ``keys`` has per application (its address) the key and, if the key is a gateway's that the application
    delegates to, the gateway's address. ``ring``: ``full`` signs for all that may sign for the application,
    ``self`` for the application alone (and the gateway whose key it is). ``stream`` asks for event streams
    even where the endpoint does not say so. ``rpc_types``: which of several endpoints of a supplier comes
    first. ``replays`` remembers what was answered.
    """

    name: str
    client: Chain
    book: SessionBook
    keys: Mapping[str, tuple[PrivateKey, str | None]]
    ring: Literal["full", "self"] = "full"
    stream: bool = False
    rpc_types: tuple[str, ...] = ("rest", "json_rpc")
    replays: Replays = field(default_factory=Replays)


def ring_signer(service: ShannonService, session: Session) -> RingSigner:
    """Return the signer of a session's relays; asks the chain for public keys, which blocks.

    Members whose public key the chain does not know are left out: miners check that members may sign, not
    that all who may are there.

    Raises:
        ChainError: no node answers.
        ShannonError: there is no key for the application, it is another's, or the application does not
            delegate to its gateway any more.
    """
    app, end = session.header.application, session.header.end_height
    if app not in service.keys:
        raise RingError(f"application {app}: no key is configured for it")
    key, gateway = service.keys[app]
    signer = app if gateway is None else gateway
    if key.address != signer:
        raise RingError(f"application {app}: the key is that of {key.address}, not of {signer}")
    gateways = session.application.ring_addresses(end)
    if gateway is not None and gateway not in gateways:
        raise RingError(f"application {app} does not delegate to gateway {gateway}; delegate to it")
    others = [a for a in gateways if service.ring == "full" or a == gateway]
    ring = []
    for address in (app, *others):
        public = key.public_key if address == signer else service.client.public_key(address)
        if public is not None:
            ring.append(public)
    if len(ring) == 1:
        ring *= 2  # a ring has two members at least; twice the same is what Go's gateways do
    return RingSigner(key, ring)


def _written(key: PrivateKey) -> tuple[bytes, bytes]:
    digits = key.secret().hex().encode()
    return digits, digits.upper()


class Unready(Exception):
    """No relay can be sent now."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(text)
        self.fault = fault


class ServiceContext:
    """One service while relays are sent: its sessions kept current, signers and public keys at hand."""

    def __init__(self, service: ShannonService) -> None:
        self.book = service.book
        self.stream = service.stream
        self.replays = service.replays
        self.routes = Routes(service.rpc_types)
        self._service = service
        self._signers: dict[tuple[str, int], RingSigner] = {}
        self._keys: dict[str, bytes] = {}
        self._keys_again: dict[str, float] = {}  # by operator: when to ask again
        self._flights: dict[object, asyncio.Task[Any]] = {}
        self._watcher: asyncio.Task[None] | None = None

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What the keys look like in text: no answer is kept with one of them in it. Never kept itself."""
        return tuple(form for key, _ in self._service.keys.values() for form in _written(key))

    def watch(self) -> None:
        """See that the sessions are kept current."""
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """End what runs; calls that are in threads come to their end there."""
        tasks = [*self._flights.values()]
        if self._watcher is not None:
            tasks.append(self._watcher)
            self._watcher = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def prepared(self, operator: str) -> tuple[Session, RingSigner, bytes]:
        """Take a relay to a supplier: its session, signer, and the supplier's public key.

        Raises :class:`Unready`; the relay then counts nowhere.
        """
        for _ in range(1 + len(self.book.apps)):
            session = self.book.take(operator)
            if session is None:
                session = await self._awaited(operator)
            header = session.header
            signer = self._signers.get((header.application, header.end_height))
            key = self._keys.get(operator)
            if signer is not None and key is not None:
                return session, signer, key
            done = False
            try:
                signer = signer or await self._signer(session)
                key = key or await self._key(operator)
                done = self.book.is_current(header.session_id)
            except ChainError as exc:
                raise Unready(Fault.NODE, escaped(str(exc))) from None
            except ShannonError as exc:  # another application may do
                self.book.block_session(header.session_id, SIGNER_AGAIN_S, escaped(str(exc)))
                continue
            finally:
                if not done:
                    self.book.give_back(header.session_id, operator)
            if done:
                return session, signer, key
        raise Unready(Fault.ROLLOVER, "sessions end faster than they can be prepared for")

    async def _awaited(self, operator: str) -> Session:
        """Take a relay once the sessions are known; raises :class:`Unready` if there is none."""
        if self.book.stale():
            try:
                await self.refreshed()
            except ChainError as exc:
                raise Unready(Fault.NODE, escaped(str(exc))) from None
            session = self.book.take(operator)
            if session is not None:
                return session
        failure = self.book.failure
        if failure is not None:
            raise Unready(Fault.NODE, escaped(failure))
        blocked = self.book.blocked(operator)
        if blocked is not None:
            raise Unready(Fault.INTERNAL, blocked)
        if self.book.in_session(operator):
            raise Unready(Fault.BUDGET, "no relay is left for the supplier in this session")
        problems = "; ".join(self.book.problems.values())
        raise Unready(
            Fault.ROLLOVER,
            escaped("the supplier is in no current session" + (f" ({problems})" if problems else "")),
        )

    async def refreshed(self) -> None:
        """Ask the chain for height and sessions. Raises :class:`ChainError`."""
        await self._once("refresh", partial(self.book.refresh, fresh=True))

    async def other_key(self, operator: str, known: bytes) -> bytes | None:
        """Ask the chain once more for a supplier's public key: another one than is known, or None."""
        now = time.monotonic()
        if now < self._keys_again.get(operator, now):
            return None
        self._keys_again[operator] = now + KEY_AGAIN_S
        try:
            fresh = await self._once(
                ("key", operator), partial(self._service.client.public_key, operator, fresh=True)
            )
        except ChainError:
            return None
        if fresh is None or fresh == known:
            return None
        self._keys[operator] = fresh
        return fresh

    async def _key(self, operator: str) -> bytes:
        """The supplier's public key: without it no answer proves anything, so nothing is asked."""
        now = time.monotonic()
        key = None
        if now >= self._keys_again.get(operator, now):
            key = await self._once(("key", operator), partial(self._service.client.public_key, operator))
        if key is None:
            self._keys_again.setdefault(operator, now + KEY_AGAIN_S)
            self.book.block_supplier(operator, KEY_AGAIN_S)
            raise Unready(
                Fault.NODE,
                f"the chain has no public key of {operator}, so its answers cannot be verified; it has one "
                "once that account has signed a transaction",
            )
        self._keys_again.pop(operator, None)
        self._keys[operator] = key
        return key

    async def _signer(self, session: Session) -> RingSigner:
        app, end = session.header.application, session.header.end_height
        signer = await self._once(("signer", app, end), partial(ring_signer, self._service, session))
        for known in [k for k in self._signers if k[0] == app and k[1] < end]:
            del self._signers[known]
        self._signers[app, end] = signer
        return signer

    async def _once(self, name: object, call: Callable[[], _T]) -> _T:
        """Run a blocking call in a thread, one for all who want the same."""
        task: asyncio.Task[_T] | None = self._flights.get(name)
        if task is None:
            task = asyncio.get_running_loop().create_task(asyncio.to_thread(call))
            self._flights[name] = task
            task.add_done_callback(partial(self._landed, name))
        return await asyncio.shield(task)

    def _landed(self, name: object, task: asyncio.Task[Any]) -> None:
        self._flights.pop(name, None)
        if not task.cancelled():
            task.exception()  # those who wait are told; if none does, it is nobody's business

    async def _watch(self) -> NoReturn:
        """Keep height and sessions current; trouble is told once, and when it is over."""
        troubled = False
        while True:
            await asyncio.sleep(self.book.poll_in())
            try:
                await self.refreshed()
            except ChainError as exc:
                if not troubled:
                    _log.warning("sessions of %s are not refreshed: %s", self._service.name, exc)
                troubled = True
            except Exception:
                _log.exception("refreshing sessions of %s", self._service.name)
            else:
                if troubled:
                    _log.info("sessions of %s are refreshed again", self._service.name)
                troubled = False
