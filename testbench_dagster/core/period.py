"""From when to when: what a selection by time holds."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple


class Period(NamedTuple):
    """The time from ``since`` on and before ``until``; None is no bound."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Whether an instant lies in it."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def condition(self, field: str) -> dict[str, Any]:
        """What a document store is asked for by a time; nothing where there is no bound."""
        bounds = {"gte": self.since, "lt": self.until}
        told = {name: bound for name, bound in bounds.items() if bound is not None}
        return {field: told} if told else {}


#: No bound at all.
ALWAYS = Period()
