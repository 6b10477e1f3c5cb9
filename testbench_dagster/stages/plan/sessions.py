"""Who can be reached in the current sessions of a Pocket network, as the store knows them.

What they mean for a supplier is for its transport to say. Sessions and heights are written by whoever asks a
node (:mod:`testbench_dagster.stages.discover.sessions`), so that planning five thousand suppliers asks none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from testbench_dagster.config import Settings
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.plans import DemandOfSupplier, DuePlan, PlanOutlook
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.transports.plug import KnownSession, KnownSessions
from testbench_dagster.transports.registry import transport

#: A height that does not grow for so long, and for so many polls of the nodes, is not believed any more.
SILENCE, SILENT_POLLS = timedelta(minutes=10), 3
_NOTHING = KnownSessions()


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
            supplier: the supplier.
            spent_until: last height of the session in which its relays are used up.
        """
        known = self._known.get(supplier.service, _NOTHING)
        return transport(supplier.transport).waiting(supplier, known, spent_until)

    @cached_property
    def _known(self) -> Mapping[str, KnownSessions]:
        """What is known of each service."""
        return {
            service: KnownSessions(
                self.height(service),
                [KnownSession(row.end_height, row.suppliers) for row in self.by_service.get(service, ())],
                self._silent_since(service),
            )
            for service in self.by_service.keys() | self.chains.keys()
        }

    def _silent_since(self, service: str) -> datetime | None:
        """When the chain of a service told of its last block, if that is too long ago."""
        chain = self.chains.get(service)
        if chain is None or self.heard_since is None or chain.at >= self.heard_since:
            return None
        return chain.at

    def blocks_per_session(self, service: str) -> int | None:
        """Blocks of a session of a service, as its chain says."""
        chain = self.chains.get(service)
        return None if chain is None else chain.blocks_per_session


def spent_until(plan: PlanOutlook | DuePlan | DemandOfSupplier | None) -> int | None:
    """Last height of the session in which a supplier's relays are used up, from its cached plan."""
    return None if plan is None else plan.session_spent_until
