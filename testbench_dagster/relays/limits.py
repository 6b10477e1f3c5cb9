"""How many relays one supplier may have in flight.

A plain state machine without clock or loop: the caller passes the time, in seconds of any monotonic clock.
"""

from __future__ import annotations

#: Congestion signals within this time of a halving are echoes of the same congestion, in seconds.
HALVING_INTERVAL_S = 1.0


class AdaptiveLimit:
    """Additive increase, multiplicative decrease: one more per ``value`` successes, half on congestion.

    ``value`` starts at ``start`` and stays within 1 and ``ceiling``.
    """

    __slots__ = ("_halved_at", "_successes", "ceiling", "value")

    def __init__(self, ceiling: int, start: int = 2) -> None:
        self.ceiling = max(1, ceiling)
        self.value = min(max(1, start), self.ceiling)
        self._successes = 0
        self._halved_at = float("-inf")

    def succeeded(self) -> None:
        """Count an answer."""
        self._successes += 1
        if self._successes >= self.value:
            self._successes = 0
            self.value = min(self.value + 1, self.ceiling)

    def congested(self, now: float) -> None:
        """Halve, unless that was done within the last second."""
        self._successes = 0
        if now - self._halved_at >= HALVING_INTERVAL_S:
            self._halved_at = now
            self.value = max(1, self.value // 2)
