"""What the alert webhook is told of tasks: that one is set aside, once for each reason, or prepared again.

What was found waits in the sensor's cursor until the webhook took it, so that an outage of the webhook hides
nothing, not even what is over by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from testbench_dagster.core.records.set_aside import SetAsideRecord
from testbench_dagster.stages.sample.catalogue import stale_tasks
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Alerts that wait at most: while there are as many nothing more is looked for, which bounds the cursor.
_MOST_WAITING = 100
_MOST_REASONS = 20  # of a task that are kept: one may hold a time, and be another at each try


@dataclass
class TaskAlerts:
    """What was found of tasks set aside.

    ``found``: by task that is set aside the digests of its reasons, each of which is told once.
    ``waiting``: alerts that the webhook has not taken yet, oldest first.
    """

    found: dict[str, list[str]] = field(default_factory=dict)
    waiting: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_cursor(cls, kept: Mapping[str, Any]) -> TaskAlerts:
        """What the last tick left; of none, nothing was found yet."""
        return cls(dict(kept.get("found", {})), list(kept.get("waiting", ())))

    def to_cursor(self) -> dict[str, Any]:
        """Plain JSON values for :meth:`from_cursor`."""
        return {"found": self.found, "waiting": self.waiting}

    def look(self, workspace: Workspace, now: datetime) -> None:
        """Find what is new as of ``now`` among the configured tasks; it is put with what waits."""
        aside = {one.id: one for one in typed.find(workspace.documents, SetAsideRecord)}
        if not aside and not self.found:
            return
        specs = {spec.name: spec for spec in workspace.specs}
        for name in [name for name in self.found if name not in specs]:
            del self.found[name]
        for name in specs:
            if len(self.waiting) >= _MOST_WAITING:
                return
            one = aside.get(name)
            known = self.found.get(name, [])
            if one is not None and (digest := _digest(one.reason)) not in known:
                self.found[name] = [*known, digest][-_MOST_REASONS:]
                self.waiting.append(_set_aside(one))
        over = [specs[name] for name in self.found if name not in aside]
        # one whose data can be loaded again may lack its prompts still: it is told when it has all
        lacking = {spec.name for spec in stale_tasks(workspace, over)} if over else set()
        for spec in over:
            if spec.name not in lacking and len(self.waiting) < _MOST_WAITING:
                del self.found[spec.name]
                self.waiting.append(_prepared_again(spec.name, now))


def _digest(reason: str) -> str:
    return hashlib.sha256(reason.encode()).hexdigest()[:16]


def _set_aside(one: SetAsideRecord) -> dict[str, Any]:
    """What is told of a task set aside; ``text`` alone is what chat services show."""
    since = one.since.astimezone(UTC)
    return {
        "text": f"testbench: task {one.id} is set aside since {since:%Y-%m-%d %H:%M} UTC: {one.reason}",
        "task": one.id,
        "reason": one.reason,
        "at": since.isoformat(),
    }


def _prepared_again(task: str, now: datetime) -> dict[str, Any]:
    return {
        "text": f"testbench: task {task} is prepared again and no longer set aside",
        "task": task,
        "reason": None,
        "at": now.isoformat(),
    }
