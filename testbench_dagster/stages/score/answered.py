"""Which docs of a supplier and task are fully answered, and which of them have no score yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import CallAttempt
from testbench_dagster.core.records.prompts import PromptCalls
from testbench_dagster.core.records.scores import ScoredId
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.attempts import last_attempts
from testbench_dagster.stores.documents import DocumentStore, document_id, typed


@dataclass(frozen=True)
class AnsweredDoc:
    """A fully answered prompt of one supplier and round, by its attempts in (idx, repeat) order."""

    supplier: str
    prompt_id: str
    round: int
    attempts: tuple[CallAttempt, ...]

    @property
    def answer_id(self) -> str:
        """Id of the answer: of its attempt, or derived from its several attempts."""
        ids = [a.id for a in self.attempts]
        return ids[0] if len(ids) == 1 else document_id("answer", *ids)


def prompt_calls(documents: DocumentStore, registration: Registration) -> dict[str, int]:
    """Number of calls each prompt of a task needs, by prompt id."""
    where = {"task": registration.task, "task_hash": registration.task_hash}
    return {p.id: p.calls for p in typed.find(documents, PromptCalls, where)}


def unscored(
    documents: DocumentStore,
    supplier: str,
    spec: TaskSpec,
    registration: Registration,
    calls: Mapping[str, int] | None = None,
    since: datetime | None = None,
) -> Iterator[AnsweredDoc]:
    """Yield the fully answered docs of a supplier and task that have no score of the current scorer.

    For ``calls`` and ``since`` see :func:`answered_docs`.
    """
    where: dict[str, Any] = {
        "supplier": supplier,
        "task": spec.name,
        "task_hash": registration.task_hash,
        "scorer_version": scorer_version(registration),
    }
    if since is not None:
        where["answered_at"] = {"gt": since}
    done = {row.answer_id for row in typed.find(documents, ScoredId, where)}
    for doc in answered_docs(documents, supplier, spec, registration, calls, since):
        if doc.answer_id not in done:
            yield doc


def answered_docs(
    documents: DocumentStore,
    supplier: str,
    spec: TaskSpec,
    registration: Registration,
    calls: Mapping[str, int] | None = None,
    since: datetime | None = None,
) -> Iterator[AnsweredDoc]:
    """Yield the docs all of whose calls are answered, in any epoch and round, attempts without their bodies.

    ``calls`` is what :func:`prompt_calls` gives, for callers that ask for many suppliers. With ``since`` only
    docs all of whose calls finished after it.
    """
    if calls is None:
        calls = prompt_calls(documents, registration)
    by_doc: dict[tuple[str, int], list[CallAttempt]] = {}
    for (prompt_id, round_, _, _), attempt in last_attempts(
        documents, supplier, spec.name, registration.task_hash, since=since
    ).items():
        by_doc.setdefault((prompt_id, round_), []).append(attempt)
    for (prompt_id, round_), attempts in by_doc.items():
        if len(attempts) == calls.get(prompt_id) and all(Fault(a.fault).answered for a in attempts):
            ordered = tuple(sorted(attempts, key=lambda a: (a.idx, a.repeat)))
            yield AnsweredDoc(supplier, prompt_id, round_, ordered)
