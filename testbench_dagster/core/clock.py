"""Dates that lie ahead: written while a clock was ahead that has been set back since."""

from __future__ import annotations

from datetime import datetime, timedelta

#: Dates further ahead are those of a wrong clock. Clocks of machines that share a store have to agree to
#: within seconds; minutes let pass what took its time to begin, and clocks that are a little worse.
SKEW = timedelta(minutes=5)


def is_ahead(at: datetime | None, now: datetime) -> bool:
    """Whether a date that should be one of the past lies ahead of ``now`` by more than clocks differ."""
    return at is not None and at > now + SKEW
