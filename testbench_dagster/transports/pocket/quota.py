"""Relays to suppliers of a Pocket network are allowed within their sessions and what these grant."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.quota import FixedQuota, Quota, QuotaDecision
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.transports.pocket.chain.errors import ChainError
from testbench_dagster.transports.pocket.messages import SessionHeader
from testbench_dagster.transports.pocket.sessions import SessionBook

_log = logging.getLogger(__name__)

#: Counts what was spent before: relays to a supplier in a session that the store knows of.
Counted = Callable[[Endpoint, SessionHeader], int]


class SessionQuota:
    """Another quota, and for suppliers of services with sessions what these allow.

    A supplier is refused while it is in no current session or has used up what its sessions grant (by the
    application's stake, ``max_relays`` of the book, and the miner's own word): its relays stay due. Others
    pass. Suppliers are known by ``Endpoint.service`` and ``Endpoint.address``.

    Args:
        inner: what else has to allow a relay; None for nothing.
        books: sessions by service; those the transport uses, so that both count in one place.
        counted: relays of a session that were sent before, asked once per supplier and session.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        inner: Quota | None,
        books: Mapping[str, SessionBook],
        *,
        counted: Counted | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner: Quota = FixedQuota({}) if inner is None else inner
        self._books = dict(books)
        self._counted = counted
        self._sleep = sleep
        self._counting = threading.Lock()

    def take(self, endpoint: Endpoint) -> QuotaDecision:
        """Spend one relay of a session the supplier is in, and of the inner quota; or of neither."""
        book = self._book(endpoint)
        if book is None:
            return self._inner.take(endpoint)
        operator = endpoint.address
        if book.stale() or (self._counted is not None and book.unnoted(operator)):
            return QuotaDecision.UNKNOWN
        if not book.reserve(operator):
            return QuotaDecision.UNKNOWN if book.awaits(operator) else QuotaDecision.REFUSED
        answer = self._inner.take(endpoint)
        if answer not in (QuotaDecision.GRANTED, QuotaDecision.LOW):
            book.release(operator)
        elif book.left(operator) == 0:
            return QuotaDecision.LOW  # others that wait for this supplier's relays learn it from `refused`
        return answer

    def refund(self, endpoint: Endpoint) -> None:
        """Undo the last :meth:`take` for this supplier."""
        book = self._book(endpoint)
        if book is not None:
            book.release(endpoint.address)
        self._inner.refund(endpoint)

    def refused(self, endpoint: Endpoint) -> bool:
        """Whether it is known that the sessions of now allow the supplier nothing more."""
        book = self._book(endpoint)
        if book is not None and not book.stale() and book.left(endpoint.address) == 0:
            return not book.awaits(endpoint.address) or self._inner.refused(endpoint)
        return self._inner.refused(endpoint)

    def claimed(self, endpoint: Endpoint) -> Fault | None:
        """What it is that a supplier says it grants no more, while we would have sent it more."""
        if self._inner.refused(endpoint):
            return self._inner.claimed(endpoint)
        book = self._book(endpoint)
        return Fault.QUOTA if book is not None and book.refuses(endpoint.address) else None

    def refill(self, endpoint: Endpoint) -> None:
        """Ask the chain for the sessions, and what was sent in them before; blocks.

        While no node answers, suppliers are allowed what is known, which may be nothing.
        """
        book = self._book(endpoint)
        if book is not None:
            try:
                book.refresh()
                while book.awaits(endpoint.address):
                    self._sleep(book.pause())
                    book.refresh()
            except ChainError as error:
                _log.warning("sessions of %s are unknown: %s", endpoint.service, error)
            if self._counted is not None:
                with self._counting:
                    for session in book.unnoted(endpoint.address):
                        spent = self._counted(endpoint, session.header)
                        book.note(session.header.session_id, endpoint.address, spent)
        self._inner.refill(endpoint)

    def _book(self, endpoint: Endpoint) -> SessionBook | None:
        return self._books.get(endpoint.service) if endpoint.address else None
