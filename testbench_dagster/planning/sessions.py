"""Who can be reached in the current sessions of a Pocket network, as the store knows them.

A supplier on a Pocket network is sent relays only while a session of one of our applications contains it, and
in each session no more than its stake covers. Outside of that it waits: nothing is wrong with it, and what it
is due stays due. Sessions and heights are written by whoever asks a node (:mod:`..network.pocket`), so that
planning five thousand suppliers asks none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from testbench_dagster.network.roster import Supplier
from testbench_dagster.stores.documents import Document, DocumentStore
from testbench_dagster.stores.documents.collections import HEIGHTS, SESSIONS


@dataclass(frozen=True)
class Sessions:
    """The newest known session of each application, and the newest known height, by service."""

    by_service: Mapping[str, tuple[Document, ...]]
    chains: Mapping[str, Document]

    @classmethod
    def read(cls, documents: DocumentStore) -> Sessions:
        """Read them: a row per application and one per service."""
        by_service: dict[str, list[Document]] = {}
        for row in documents.find(SESSIONS):
            by_service.setdefault(row["service"], []).append(row)
        return cls(
            {service: tuple(rows) for service, rows in by_service.items()},
            {row["_id"]: row for row in documents.find(HEIGHTS)},
        )

    def height(self, service: str) -> int | None:
        """Newest known block height of a service."""
        chain = self.chains.get(service)
        return None if chain is None else chain["height"]

    def waiting(self, supplier: Supplier, spent_until: int | None = None) -> str | None:
        """Why a supplier cannot be sent relays now, None if it can.

        Args:
            supplier: the supplier. Native relays need a session; a gateway has applications of its own, and
                what is known of these is all there is to go by.
            spent_until: last height of the session in which its relays are used up.
        """
        if supplier.transport == "direct":
            return None
        height = self.height(supplier.service)
        current = [
            session
            for session in self.by_service.get(supplier.service, ())
            if height is None or session["end_height"] >= height
        ]
        if not current and supplier.transport == "path":
            return None
        if not current:
            return "no current session of the service's applications is known; is a node reachable?"
        until = min(session["end_height"] for session in current)
        if not any(supplier.address in session["suppliers"] for session in current):
            return f"in no session of our applications; the next begins at block {until + 1}"
        if spent_until is not None and (height is None or height <= spent_until):
            return f"its relays of this session are used up; the next begins at block {spent_until + 1}"
        return None

    def blocks_per_session(self, service: str) -> int | None:
        """Blocks of a session of a service, as its chain says."""
        chain = self.chains.get(service)
        return None if chain is None else chain.get("blocks_per_session")


def spent_until(plan: Document | None) -> int | None:
    """Last height of the session in which a supplier's relays are used up, from its kept plan."""
    return None if plan is None else plan.get("session_spent_until")

