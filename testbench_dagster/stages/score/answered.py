"""Which docs of a supplier and task are fully answered, and which of them have no score yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import CallAttempt
from testbench_dagster.core.records.scores import ScoredId
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.attempts import last_attempts
from testbench_dagster.stages.score.states import calls_of
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


def unscored(
    documents: DocumentStore,
    supplier: str,
    spec: TaskSpec,
    registration: Registration,
    calls: dict[str, int] | None = None,
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
    made = _answered(documents, supplier, spec, registration, since)
    yield from _whole(documents, (doc for doc in made if doc.answer_id not in done), calls)


def answered_docs(
    documents: DocumentStore,
    supplier: str,
    spec: TaskSpec,
    registration: Registration,
    calls: dict[str, int] | None = None,
    since: datetime | None = None,
) -> Iterator[AnsweredDoc]:
    """Yield the docs all of whose calls are answered, in any epoch and round, attempts without their bodies.

    ``calls`` are those of prompts by id as far as they are known; what is read of them is added, for callers
    that ask for many suppliers. With ``since`` only docs all of whose calls finished after it.
    """
    yield from _whole(documents, _answered(documents, supplier, spec, registration, since), calls)


def _whole(
    documents: DocumentStore, docs: Iterable[AnsweredDoc], calls: dict[str, int] | None
) -> Iterator[AnsweredDoc]:
    """Those of some docs that have as many answers as their prompts have calls."""
    chosen, known = list(docs), {} if calls is None else calls
    known |= calls_of(documents, {doc.prompt_id for doc in chosen} - known.keys())
    yield from (doc for doc in chosen if len(doc.attempts) == known.get(doc.prompt_id))


def _answered(
    documents: DocumentStore,
    supplier: str,
    spec: TaskSpec,
    registration: Registration,
    since: datetime | None,
) -> Iterator[AnsweredDoc]:
    """The docs whose calls, as far as they were made, are all answered."""
    by_doc: dict[tuple[str, int], list[CallAttempt]] = {}
    for (prompt_id, round_, _, _), attempt in last_attempts(
        documents, supplier, spec.name, registration.task_hash, since=since
    ).items():
        by_doc.setdefault((prompt_id, round_), []).append(attempt)
    for (prompt_id, round_), attempts in by_doc.items():
        if all(Fault(a.fault).answered for a in attempts):
            ordered = tuple(sorted(attempts, key=lambda a: (a.idx, a.repeat)))
            yield AnsweredDoc(supplier, prompt_id, round_, ordered)
