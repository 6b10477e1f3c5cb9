"""Suppliers of the simulated network evaluated by the product run after run, and what is true of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from testbench_dagster.api import Testbench
from testbench_dagster.core.window import Window
from testbench_dagster.localnet.answers import Known, is_right
from testbench_dagster.localnet.personas import SERVICE, Backend, Persona
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.withholding import Withholding
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster_tests.tasks.signatures.simulated import installed, served

TASK = "starter_units"
#: 72 hours become thirty seconds: the first five occasions begin within three.
OCCASIONS = (0.0, 0.01, 0.02, 0.035, 0.05, 0.2, 0.5)
LIMITS = {"connect_s": 1, "first_byte_s": 0.4, "idle_s": 0.4, "total_s": 0.4, "max_response_mb": 0.2}


def backend(name: str, accuracy: float = 0.6, *, latency_ms: float = 1.0) -> Backend:
    """A model of its own: nobody answers like it."""
    return Backend(f"model-of-{name}", accuracy, latency_ms=latency_ms)


def persona(name: str, withholds: Sequence[Withholding] = (), **more: Any) -> Persona:
    """A supplier with a model of its own that is right in three of five cases."""
    return Persona(name, more.pop("backend", None) or backend(name), withholds=tuple(withholds), **more)


@cache
def _docs(task: str) -> list[dict[str, Any]]:
    return list(read_docs(task, "test"))


@dataclass
class Played:
    """An installation over a simulated network; ``notes`` are what its runs said at the terminal."""

    testbench: Testbench
    workspace: Workspace
    net: Localnet
    notes: list[str] = field(default_factory=list)

    def run(self, **options: Any) -> Any:
        """One ``testbench run``."""
        return self.testbench.run(on_note=self.notes.append, **options)

    def rows(self, now: datetime | None = None, task: str | None = None) -> dict[str, Window]:
        """The primary row of each supplier by name, as stored facts say at an instant."""
        found = windows(self.workspace, tasks=None if task is None else [task], now=now)
        return {row.address: row for row in found if row.primary}

    def released(self, n: int, task: str = TASK) -> list[int]:
        """The first ``n`` docs of the sequence: what everybody is asked."""
        api = {"task": task, "epoch": 1, "position": {"lt": n}}
        return sorted({prompt["doc_id"] for prompt in self.workspace.documents.find(PROMPTS, api)})

    def truth(self, name: str, n: int, task: str = TASK) -> float:
        """The share of the released docs that a supplier answers rightly where it answers."""
        model, docs = self.net.suppliers[name].persona.backend, self.released(n, task)
        known = [Known(_docs(task)[doc]["question"], task, _docs(task)[doc]["id"]) for doc in docs]
        return sum(is_right(0, model, one) for one in known) / len(known)

    def until_next(self) -> bool:
        """Wait for the next occasion of an open doc; False where none follows."""
        at = [row.next_attempt_at for row in self.rows().values() if row.next_attempt_at is not None]
        if at:
            time.sleep(max(0.0, (min(at) - datetime.now(UTC)).total_seconds()))
        return bool(at)


@contextlib.contextmanager
def playing(
    folder: Path, personas: Sequence[Persona], docs: int, tasks: Sequence[str] = (TASK,), **blocks: Any
) -> Iterator[Played]:
    """Serve the personas, and an installation that asks each so many docs of each task."""
    settings = {
        "planning": {"occasions_minutes": list(OCCASIONS)},
        "relays": LIMITS,
        **blocks,
    }
    rules = [{"name": task, "samples": {"min": docs, "max": docs, "half_width": None}} for task in tasks]
    with served(personas) as net, installed(folder, net, rules, **settings) as workspace:
        yield Played(Testbench(workspace), workspace, net)


def key(name: str) -> str:
    """Partition key of a simulated supplier."""
    return f"{name}@{SERVICE}"


def later(row_of: Callable[[datetime], Window]) -> Iterator[Window]:
    """The row now, ten minutes and 80 hours later, nothing else being stored."""
    for wait in (timedelta(0), timedelta(minutes=10), timedelta(hours=80)):
        yield row_of(datetime.now(UTC) + wait)
