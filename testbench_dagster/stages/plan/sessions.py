"""Who can be reached in the current sessions of a Pocket network, as the store knows them.

A supplier on a Pocket network is sent relays only while a session of one of our applications contains it, and
in each session no more than its stake covers. Outside of that it waits: nothing is wrong with it, and what it
is due stays due. Sessions and heights are written by whoever asks a node (:mod:`..network.pocket`), so that
planning five thousand suppliers asks none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from testbench_dagster.config import Settings
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.plans import DuePlan, PlanOutlook
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: A height that does not grow for so long, and for so many polls of the nodes, is not believed any more.
SILENCE, SILENT_POLLS = timedelta(minutes=10), 3


def heard_since(settings: Settings, now: datetime) -> datetime | None:
    """The instant since which a chain must have told of a new block; None where nobody polls the nodes."""
    polls = settings.automation.new_suppliers
    if not polls.enabled:
        return None
    return now - max(SILENCE, SILENT_POLLS * timedelta(seconds=polls.every_s))


@dataclass(frozen=True)
class Sessions:
    """The newest known session of each application, and the newest known height, by service.

    Chains without a new block after ``heard_since`` stand still, or no node tells of them; None for as long
    as it may be.
    """

    by_service: Mapping[str, tuple[SessionRecord, ...]]
    chains: Mapping[str, HeightRecord]
    heard_since: datetime | None = None

    @classmethod
    def read(cls, workspace: Workspace, now: datetime) -> Sessions:
        """Read them as of an instant: a row per application and one per service."""
        documents = workspace.documents
        by_service: dict[str, list[SessionRecord]] = {}
        for row in typed.find(documents, SessionRecord):
            by_service.setdefault(row.service, []).append(row)
        return cls(
            {service: tuple(rows) for service, rows in by_service.items()},
            {chain.id: chain for chain in typed.find(documents, HeightRecord)},
            heard_since(workspace.config.settings, now),
        )

    def height(self, service: str) -> int | None:
        """Newest known block height of a service."""
        chain = self.chains.get(service)
        return None if chain is None else chain.height

    def waiting(self, supplier: Supplier, spent_until: int | None = None) -> str | None:
        """Why a supplier cannot be sent relays now, None if it can.

        Args:
            supplier: the supplier. Native relays need a session; a gateway has applications of its own, and
                what is known of these is all there is to go by.
            spent_until: last height of the session in which its relays are used up.
        """
        if supplier.transport == "direct":
            return None
        silent = self._silent_since(supplier.service)
        if silent is not None:
            # a gateway knows its sessions better than we do
            return None if supplier.transport == "path" else f"the chain told of no block since {silent}"
        height = self.height(supplier.service)
        current = [
            session
            for session in self.by_service.get(supplier.service, ())
            if height is None or session.end_height >= height
        ]
        if not current and supplier.transport == "path":
            return None
        if not current:
            return "no current session of the service's applications is known; is a node reachable?"
        until = min(session.end_height for session in current)
        ends = [session.end_height for session in current if supplier.address in session.suppliers]
        if not ends:
            return f"in no session of our applications; the next begins at block {until + 1}"
        # of a later one than there are: another chain's, such as a test network's that began anew
        if spent_until is not None and (height is None or height <= spent_until) and spent_until <= max(ends):
            return f"its relays of this session are used up; the next begins at block {spent_until + 1}"
        return None

    def _silent_since(self, service: str) -> str | None:
        """When the chain of a service told of its last block, if that is too long ago."""
        chain = self.chains.get(service)
        if chain is None or self.heard_since is None or chain.at >= self.heard_since:
            return None
        return f"{chain.at:%Y-%m-%d %H:%M}; is a node reachable?"

    def blocks_per_session(self, service: str) -> int | None:
        """Blocks of a session of a service, as its chain says."""
        chain = self.chains.get(service)
        return None if chain is None else chain.blocks_per_session


def spent_until(plan: PlanOutlook | DuePlan | None) -> int | None:
    """Last height of the session in which a supplier's relays are used up, from its kept plan."""
    return None if plan is None else plan.session_spent_until
