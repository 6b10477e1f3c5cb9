"""The due calls of a supplier as relays, with their requests from the stored prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbench_dagster.core.records.prompts import PromptRequests
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Endpoint, Relay
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.planning.due import DuePrompt, TaskPlan
from testbench_dagster.stores.documents import DocumentStore, typed

_FETCH = 64  # prompts read at a time: the engine pulls lazily, so memory does not grow with the queue


@dataclass(frozen=True)
class PlannedTask:
    """A plan with what it is for."""

    supplier: str
    spec: TaskSpec
    registration: Registration
    epoch: int
    plan: TaskPlan


class Prompts:
    """Prompt documents by id, fetched in small batches and shared by the suppliers of a run."""

    def __init__(self, documents: DocumentStore, most: int = 4096) -> None:
        self._documents = documents
        self._most = most
        self._known: dict[str, PromptRequests] = {}

    def get(self, ids: Sequence[str]) -> Mapping[str, PromptRequests]:
        """Return the requests of the prompts with these ids."""
        missing = [i for i in ids if i not in self._known]
        fetched = typed.by_id(self._documents, PromptRequests, missing) if missing else {}
        found = {i: fetched.get(i) or self._known[i] for i in ids}
        self._known.update(fetched)
        while len(self._known) > self._most:
            self._known.pop(next(iter(self._known)))
        return found


def due_relays(target: Endpoint, plans: Sequence[PlannedTask], prompts: Prompts) -> Iterator[Relay]:
    """Yield the due relays of one supplier, the tasks in turn, so that a cap leaves no task without any."""
    queues: list[Iterator[Relay]] = [_task_relays(target, planned, prompts) for planned in plans]
    while queues:
        still: list[Iterator[Relay]] = []
        for queue in queues:
            relay = next(queue, None)
            if relay is not None:
                yield relay
                still.append(queue)
        queues = still


def _task_relays(target: Endpoint, planned: PlannedTask, prompts: Prompts) -> Iterator[Relay]:
    due: list[DuePrompt] = planned.plan.due
    for start in range(0, len(due), _FETCH):
        batch = due[start : start + _FETCH]
        bodies = prompts.get([d.prompt.id for d in batch])
        for item in batch:
            requests = bodies[item.prompt.id].requests
            for call in item.calls:
                yield Relay(
                    supplier=target.supplier,
                    service=target.service,
                    task=planned.spec.name,
                    task_hash=planned.registration.task_hash,
                    epoch=planned.epoch,
                    round=planned.plan.round,
                    prompt_id=item.prompt.id,
                    position=item.prompt.position,
                    doc_id=item.prompt.doc_id,
                    idx=call.idx,
                    repeat=call.repeat,
                    request=requests[call.idx],
                    attempt=call.attempt,
                )
