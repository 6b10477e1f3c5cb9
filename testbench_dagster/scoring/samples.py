"""The samples of a supplier and task that a window is made of: newest outcome per doc, young enough."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.network.roster import Supplier
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.outcomes import last_attempts
from testbench_dagster.scoring.score import scorer_version
from testbench_dagster.stores.datasets import Registration
from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import SCORES
from testbench_dagster.tasks.specs import TaskSpec
from testbench_dagster.workspace import Workspace


@dataclass(frozen=True)
class Sample:
    """Newest outcome of one doc: scored (``metrics`` by filter), or failed with ``fault``."""

    doc_id: int
    at: datetime
    epoch: int
    round: int
    fault: Fault
    metrics: dict[str, dict[str, Any]] | None = None
    latency_ms: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @property
    def scored(self) -> bool:
        """Whether the sample carries metrics."""
        return self.metrics is not None

    @property
    def counts(self) -> bool:
        """Whether it is a sample of the window: scored, or failed by the supplier's fault."""
        return self.scored or self.fault.settled

    @property
    def rank(self) -> tuple[bool, datetime, int, int]:
        """Order in which outcomes of one doc replace each other."""
        return (self.counts, self.at, self.epoch, self.round)


def window_samples(
    workspace: Workspace, supplier: Supplier, spec: TaskSpec, registration: Registration, now: datetime
) -> list[Sample]:
    """Return the samples inside the window, ascending by doc id (aggregation order matters: last bits).

    The window holds the newest outcome per doc, no older than the task's maximum age and later than the
    last change of the supplier's model (``cut_at``); of these the newest ``sampling.window`` that count
    (scored, or failed by the supplier), unless the task wants all docs. An outcome that is not the supplier's
    fault never hides one that counts; of docs without any that counts it is kept, to be shown.
    """
    oldest = now - spec.max_age(workspace.config)
    if supplier.cut_at is not None:
        oldest = max(oldest, supplier.cut_at)
    newest: dict[int, Sample] = {}
    for sample in (
        *_scored(workspace, supplier.key, spec, registration, oldest),
        *_failed(workspace, supplier.key, spec, registration, oldest),
    ):
        known = newest.get(sample.doc_id)
        if known is None or known.rank < sample.rank:
            newest[sample.doc_id] = sample
    counted = sorted((s for s in newest.values() if s.counts), key=lambda s: (s.at, s.doc_id), reverse=True)
    if spec.samples is not None:
        counted = counted[: workspace.config.settings.sampling.window]
    shown = [s for s in newest.values() if not s.counts]
    return sorted([*counted, *shown], key=lambda s: s.doc_id)


def _scored(
    workspace: Workspace, supplier: str, spec: TaskSpec, registration: Registration, oldest: datetime
) -> Iterable[Sample]:
    by_answer: dict[str, Sample] = {}
    where: Document = {
        "supplier": supplier,
        "task": spec.name,
        "task_hash": registration.task_hash,
        "scorer_version": scorer_version(registration),
        "answered_at": {"gt": oldest},
    }
    for score in workspace.documents.find(SCORES, where):
        known = by_answer.get(score["answer_id"])
        if known is not None and known.metrics is not None:
            known.metrics[score["filter"]] = score["metrics"]
            continue
        failed = score["error"] is not None
        by_answer[score["answer_id"]] = Sample(
            doc_id=score["doc_id"],
            at=score["answered_at"],
            epoch=score["epoch"],
            round=score["round"],
            # an answer the scorer cannot digest is our fault until someone shows otherwise
            fault=Fault.INTERNAL if failed else Fault.TRUNCATED if score["truncated"] else Fault.OK,
            metrics=None if failed else {score["filter"]: score["metrics"]},
            latency_ms=score["latency_ms"],
            prompt_tokens=score["prompt_tokens"],
            completion_tokens=score["completion_tokens"],
        )
    return by_answer.values()


def _failed(
    workspace: Workspace, supplier: str, spec: TaskSpec, registration: Registration, oldest: datetime
) -> Iterable[Sample]:
    """Docs whose outcome in a round is a failure: one of their calls ended in a fault."""
    worst: dict[tuple[str, int], Document] = {}
    for (prompt_id, round_, _, _), attempt in last_attempts(
        workspace.documents, supplier, spec.name, registration.task_hash, since=oldest
    ).items():
        fault = Fault(attempt["fault"])
        if fault.answered:
            continue
        known = worst.get((prompt_id, round_))
        # of several failed calls the one that settles the doc stands for it
        if known is None or (fault.settled and not Fault(known["fault"]).settled):
            worst[(prompt_id, round_)] = attempt
    for (_, round_), attempt in worst.items():
        yield Sample(
            attempt["doc_id"], attempt["finished_at"], attempt["epoch"], round_, Fault(attempt["fault"])
        )
