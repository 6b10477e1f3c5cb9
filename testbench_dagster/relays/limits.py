"""How many relays one supplier may have in flight, and when it must be left alone for a while.

Plain state machines without clock or loop: the caller passes the time, in seconds of any monotonic clock.
"""

from __future__ import annotations

import random

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt

#: Congestion signals within this time of a halving are echoes of the same congestion, in seconds.
HALVING_INTERVAL_S = 1.0
BACKOFF_BASE_S = 0.5
BACKOFF_CAP_S = 60.0
#: After so many faults without contact in a row the supplier is given up for the run.
GIVE_UP_AFTER = 20


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


def is_congestion(attempt: Attempt) -> bool:
    """Whether an attempt says that the supplier, or the way to it, is overloaded."""
    return attempt.fault.row.slows_supplier or attempt.status == 503


def backoff_s(failures: int, rng: random.Random) -> float:
    """Return the wait after the ``failures``-th failure in a row (from 1): doubling from 0.5 s to 60 s.

    The actual wait is drawn from the upper half, so that relays which failed together do not return together.
    """
    ceiling = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(max(failures, 1) - 1, 30))
    return ceiling * rng.uniform(0.5, 1.0)


class CircuitBreaker:
    """One supplier's rate limiting and losses: how long to wait, whether all must, when to give up."""

    __slots__ = ("_last_loss_at", "_limited", "consecutive_failures", "paused_until")

    def __init__(self) -> None:
        self._limited = 0  # rate-limited answers since the last success
        self._last_loss_at = float("-inf")
        self.consecutive_failures = 0
        self.paused_until = float("-inf")

    def succeeded(self) -> None:
        """Note an answer: rate limiting starts from scratch."""
        self._limited = 0

    def rate_limited(self, now: float, retry_after_s: float | None, rng: random.Random) -> float:
        """Note a rate-limited answer; return how long its relay waits.

        The first one since a success concerns that relay alone. When another follows without a success
        between, the supplier wants nothing at all: all its relays wait.
        """
        self._limited += 1
        if retry_after_s is None:
            wait = backoff_s(self._limited, rng)
        else:
            # a little later than asked, never earlier, and not all at the same instant
            wait = retry_after_s + rng.uniform(0.0, 0.1) * max(retry_after_s, 0.1)
        if self._limited > 1:
            self.paused_until = max(self.paused_until, now + wait)
        return wait

    def record_attempt(self, fault: Fault, started: float, now: float) -> bool:
        """Note any attempt by its start and end; return whether the supplier is to be given up.

        Relays that were in flight together and failed together count once: a supplier that restarts, or
        a quota that runs out, fails them all without being gone.
        """
        if not fault.row.loses_contact:
            self.consecutive_failures = 0
            self._last_loss_at = float("-inf")
        elif started >= self._last_loss_at:
            self.consecutive_failures += 1
            self._last_loss_at = now
        return self.consecutive_failures >= GIVE_UP_AFTER
