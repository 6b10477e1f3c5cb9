"""How many relays may still be sent to whom: the interface a run asks, and fixed numbers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Protocol

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Endpoint


class QuotaDecision(Enum):
    """Answer to the wish to send one relay; the first two spend it."""

    GRANTED = "granted"
    LOW = "low"  # granted, and it is time to call `refill`
    UNKNOWN = "unknown"  # `refill` has to be called first
    REFUSED = "refused"


class Quota(Protocol):
    """What the engine needs to keep within caps."""

    def take(self, endpoint: Endpoint) -> QuotaDecision:
        """Spend one relay to this supplier if that is allowed now."""
        ...

    def refund(self, endpoint: Endpoint) -> None:
        """Undo the last :meth:`take` for this supplier: nothing was sent."""
        ...

    def refused(self, endpoint: Endpoint) -> bool:
        """Whether it is known that nothing more may be sent to this supplier."""
        ...

    def claimed(self, endpoint: Endpoint) -> Fault | None:
        """The fault of a supplier that nothing more may be sent to because it says so; None where we do."""
        ...

    def refill(self, endpoint: Endpoint) -> None:
        """Find out what else may be sent to this supplier; may block, is called in threads."""
        ...


class FixedQuota:
    """So many relays per service; services that are not named are unlimited."""

    def __init__(self, left: Mapping[str, int]) -> None:
        self._left = dict(left)

    def take(self, endpoint: Endpoint) -> QuotaDecision:
        """Spend one relay of the service's."""
        left = self._left.get(endpoint.service)
        if left is None:
            return QuotaDecision.GRANTED
        if left <= 0:
            return QuotaDecision.REFUSED
        self._left[endpoint.service] = left - 1
        return QuotaDecision.GRANTED if left > 1 else QuotaDecision.LOW

    def refund(self, endpoint: Endpoint) -> None:
        """Undo the last :meth:`take`."""
        if endpoint.service in self._left:
            self._left[endpoint.service] += 1

    def refused(self, endpoint: Endpoint) -> bool:
        """Whether the service's relays are used up."""
        return self._left.get(endpoint.service, 1) <= 0

    def claimed(self, endpoint: Endpoint) -> Fault | None:
        """Nothing: the numbers are ours."""
        return None

    def refill(self, endpoint: Endpoint) -> None:
        """Nothing comes after a fixed number."""
