"""An installation whose suppliers answer two tasks and probes, in the words of backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from testbench_dagster.core.registration import Registration
from testbench_dagster.stages.identify.identify import refresh_identity
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.identify.answers import HOUR, NOW, answer, graded, key, stored
from testbench_dagster_tests.stages.score.facts import Facts

LOGIC, UNITS = "starter_logic", "starter_units"
MINUTE = timedelta(minutes=1)
TASKS = [{"name": name, "samples": {"min": 50, "max": 50, "half_width": None}} for name in (LOGIC, UNITS)] + [
    {"name": "identity", "framework": "signatures"}
]
Open = Callable[..., "Town"]


class Town:
    """An installation whose suppliers answer two tasks and probes."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        facts = Facts(workspace)
        self.tasks: dict[str, Registration] = {
            name: facts.registration(name, n_docs=300) for name in (LOGIC, UNITS)
        }

    def probes(self, name: str, backend: str, start: datetime = NOW - 60 * HOUR) -> None:
        answer(self.workspace, name, range(60), backend, start)

    def docs(
        self,
        name: str,
        docs: Sequence[int],
        start: datetime = NOW - 50 * HOUR,
        *,
        right: Callable[[str, int], bool] = lambda task, doc: doc % 5 != 0,
        text: str = "model a",
        tasks: Sequence[str] = (LOGIC, UNITS),
        round_: int = 1,
        scored_at: datetime | None = None,
    ) -> None:
        """Scored docs, one a minute in turn of the tasks; .8 of them right by default."""
        for number, doc in enumerate(docs):
            for task in tasks:
                good = right(task, doc)
                said = f"{text} on {task} {doc}: {'right' if good else 'wrong'}"
                at = start + number * MINUTE
                graded(
                    self.workspace,
                    self.tasks[task],
                    name,
                    doc,
                    float(good),
                    said,
                    at,
                    round_=round_,
                    scored_at=scored_at,
                )

    def groups(self) -> dict[str, list[str]]:
        return {
            name: [m.partition("@")[0] for m in one["members"]]
            for name, one in stored(self.workspace).items()
        }


def merged(place: Town, *names: str) -> str:
    """Groups suppliers that answered alike an hour ago; returns the proxy."""
    for name in names:
        place.probes(name, "a")
        place.docs(name, range(50))
    refresh_identity(place.workspace, now=NOW - 20 * HOUR)
    assert place.groups()[names[0]] == sorted(names)
    proxy: str = stored(place.workspace)[names[0]]["proxy"]
    return proxy.partition("@")[0]


def withheld(place: Town, name: str, docs: Sequence[int], start: datetime) -> None:
    """Docs that a supplier leaves unanswered for good, one every minute, while it answers others."""
    facts = Facts(place.workspace)
    for number, doc in enumerate(docs):
        facts.fail(place.tasks[LOGIC], doc, at=start + number * MINUTE, supplier=key(name))
