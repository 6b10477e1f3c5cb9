"""Suppliers of the simulated network evaluated by the product run after run, and what is true of them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from testbench_dagster.api import Testbench
from testbench_dagster.core.window import Window
from testbench_dagster.localnet.answers import is_right
from testbench_dagster.localnet.personas import SERVICE, Backend, Persona
from testbench_dagster.localnet.questions import Known
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.supplier import Supplier
from testbench_dagster.localnet.withholding import Withholding
from testbench_dagster.stages.relay.relay import RelayReport
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.tasks.signatures.simulated import evaluated, installed, prepared, served

TASK = "starter_units"
#: 72 hours become thirty seconds, so that each run is a new occasion.
OCCASIONS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.2, 0.5)
#: So that a fault of the product ends a test. How many runs it takes depends on the machine: what is minutes
#: in real time is milliseconds by this clock, so a busy one leaves suppliers earlier in each run.
MOST_RUNS = 40
#: The same where a busy machine must leave nobody: an hour, with which all that a run waits for grows, too.
PATIENT = {"occasions_minutes": [0.005 * number for number in range(100)] + [60.0]}
#: Deadlines are for those that never answer; a busy machine keeps all others.
LIMITS = {"connect_s": 20, "first_byte_s": 20, "idle_s": 20, "total_s": 20, "max_response_mb": 0.2}


def persona(name: str, *rules: Withholding, accuracy: float = 0.6, **more: Any) -> Persona:
    """A supplier with a model of its own: nobody answers like it."""
    model = Backend(f"model-of-{name}", accuracy, latency_ms=more.pop("latency_ms", 1.0))
    return Persona(name, model, withholds=rules, **more)


def key(name: str) -> str:
    """Partition key of a simulated supplier."""
    return f"{name}@{SERVICE}"


@cache
def docs_of(task: str) -> list[dict[str, Any]]:
    """The docs of a starter task, by doc id."""
    return list(read_docs(task, "test"))


@dataclass
class Played:
    """An installation over a simulated network; ``notes`` are what its runs said at the terminal."""

    testbench: Testbench
    workspace: Workspace
    net: Localnet
    docs: Mapping[str, int]
    notes: list[str] = field(default_factory=list)
    _truth: dict[tuple[str, str], float] = field(default_factory=dict)

    def run(self, **options: Any) -> Any:
        """One ``testbench run``."""
        return self.testbench.run(on_note=self.notes.append, **options)

    def prepare(self) -> None:
        """What comes before anything is asked: the roster and the catalog."""
        prepared(self.workspace)

    def evaluate(self) -> RelayReport:
        """What relays and scores in such a run, without Dagster around it."""
        return evaluated(self.workspace)

    def rows(
        self, later: timedelta = timedelta(0), suppliers: Sequence[str] | None = None
    ) -> dict[tuple[str, str], Window]:
        """The primary rows by supplier and task, as the stored facts say some time from now."""
        keys = None if suppliers is None else [key(name) for name in suppliers]
        found = windows(self.workspace, suppliers=keys, now=datetime.now(UTC) + later)
        return {(row.address, row.task): row for row in found if row.primary}

    def row(self, name: str, task: str = TASK) -> Window:
        """The row of one supplier now."""
        return self.rows(suppliers=[name])[name, task]

    def released(self, task: str, first: int | None = None) -> list[int]:
        """The first docs of the sequence: what everybody is asked; or fewer of them."""
        where = {"task": task, "epoch": 1, "position": {"lt": self.docs[task] if first is None else first}}
        return sorted({prompt["doc_id"] for prompt in self.workspace.documents.find(PROMPTS, where)})

    def knows(self, name: str, task: str = TASK, first: int | None = None) -> list[bool]:
        """Whether a supplier's model knows each of the released docs, or of the first so many."""
        model, docs = self.net.suppliers[name].persona.backend, docs_of(task)
        known = [Known(docs[i]["question"], task, docs[i]["id"]) for i in self.released(task, first)]
        return [is_right(0, model, one) for one in known]

    def truth(self, name: str, task: str = TASK) -> float:
        """The share of the released docs that a supplier's model knows."""
        if (name, task) not in self._truth:
            known = self.knows(name, task)
            self._truth[name, task] = sum(known) / len(known)
        return self._truth[name, task]

    def until_next(self) -> bool:
        """Wait for the next occasion of an open doc; False where none is open."""
        rows = self.rows().values()
        at = [row.next_attempt_at for row in rows if row.next_attempt_at is not None]
        if at:
            time.sleep(max(0.0, (min(at) - datetime.now(UTC)).total_seconds()))
        return any(row.n_open for row in rows)

    def gains(self) -> dict[tuple[str, str, str], float]:
        """Who is shown above what is true of it, now or 80 hours later, and by how much."""
        found = {}
        for when, later in (("now", timedelta(0)), ("later", timedelta(hours=80))):
            for (name, task), row in self.rows(later).items():
                assert row.score is None or row.ci_low is not None, (name, task)
                if row.score is not None and row.score > self.truth(name, task) + 1e-12:
                    found[name, task, when] = row.score - self.truth(name, task)
        return found


@contextlib.contextmanager
def playing(
    folder: Path,
    personas: Sequence[Persona],
    docs: Mapping[str, int],
    *,
    worker: FrameworkWorker | None = None,
    limits: Mapping[str, Mapping[str, float]] | None = None,
    **blocks: Any,
) -> Iterator[Played]:
    """Serve the personas, and an installation that asks each so many docs of each task.

    ``worker`` is one that runs already; ``limits`` are those of single suppliers by name; ``blocks`` are
    further blocks of the configuration.
    """
    settings = {"planning": {"occasions_minutes": list(OCCASIONS)}, "relays": LIMITS, **blocks}
    tasks = [{"name": task, "samples": {"min": n, "max": n, "half_width": None}} for task, n in docs.items()]
    tasks += settings.pop("tasks", [])
    with (
        served(personas) as net,
        installed(folder, net, tasks, limits=limits or {}, **settings) as workspace,
    ):
        if worker is not None:
            workspace.worker = worker
        yield Played(Testbench(workspace), workspace, net, docs)


@contextlib.contextmanager
def meanwhile(what: Callable[[], None]) -> Iterator[None]:
    """Have something happen while the block runs; an error of it fails the test."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            what()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not errors, errors


def outages(
    suppliers: Mapping[str, Supplier], modes: Mapping[str, str], after: int, over: threading.Event
) -> None:
    """Let suppliers fail everything by the modes until it is over, each once it answered so often."""
    well = {name: suppliers[name].persona for name in modes}
    out: set[str] = set()
    while not over.wait(0.001):
        for name, mode in modes.items():
            if name not in out and suppliers[name].answered >= after:
                suppliers[name].persona = replace(well[name], failures={mode: 1.0})
                out.add(name)
    for name in modes:
        suppliers[name].persona = well[name]
