"""The due calls of a supplier as relays, with their requests from the stored prompts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from testbench_dagster.core.records.prompts import PromptRequests
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Endpoint, Relay
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.planning.canaries import Canary
from testbench_dagster.planning.due import DueCall, DuePrompt, PromptRef, TaskPlan
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


@dataclass(frozen=True)
class PlannedCanary:
    """A canary with the registration and the epoch of its task."""

    registration: Registration
    epoch: int
    canary: Canary


@dataclass(frozen=True)
class PlannedSupplier:
    """What a supplier is asked: docs of its tasks, canaries among them, and spare ones."""

    tasks: Sequence[PlannedTask]
    canaries: Sequence[PlannedCanary] = ()
    spares: Sequence[PlannedCanary] = ()

    @property
    def n_calls(self) -> int:
        """Number of relays that are planned, retries and spare canaries aside."""
        return sum(task.plan.n_calls for task in self.tasks) + len(self.canaries)

    @property
    def names(self) -> set[str]:
        """Names of the tasks of which something may be asked."""
        asked_again = (one.canary.task for one in (*self.canaries, *self.spares))
        return {task.spec.name for task in self.tasks}.union(asked_again)


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


class DueRelays:
    """The due relays of one supplier: what is open first, then new docs, the tasks in turn in both.

    Tasks take turns so that a cap leaves none without any; planned canaries stand first, between and last. To
    be gone through once. It has a length, so that what is left need not be read to be counted, and knows
    which new docs no relay was taken of.

    Whoever has answered nothing yet is asked new and open docs by turns: a run leaves it after a few docs,
    and were these the same ones in each, it would have no score as long as it does not answer just them.
    """

    def __init__(self, target: Endpoint, planned: PlannedSupplier, prompts: Prompts) -> None:
        self._target = target
        self._planned = planned
        self._prompts = prompts
        self._taken = [0] * len(planned.tasks)  # new docs of each task
        self._relays = self._with_canaries()

    @property
    def service(self) -> str:
        """The supplier's service."""
        return self._target.service

    @property
    def spares(self) -> list[Relay]:
        """Docs it has answered before, to be asked again where it seems to answer nothing any more."""
        return canary_relays(self._target, self._planned.spares, self._prompts)

    def __len__(self) -> int:
        return self._planned.n_calls

    def __iter__(self) -> Iterator[Relay]:
        return self._relays

    def left(self) -> Iterator[tuple[PlannedTask, Sequence[DuePrompt]]]:
        """Yield the tasks with new docs of which nothing was taken, and these."""
        for planned, taken in zip(self._planned.tasks, self._taken, strict=True):
            left = [doc for doc in planned.plan.due if not doc.open][taken:]
            if left:
                yield planned, left

    def _with_canaries(self) -> Iterator[Relay]:
        canaries = canary_relays(self._target, self._planned.canaries, self._prompts)
        places = canary_places(len(self) - len(self._planned.canaries), len(canaries))
        sent = 0
        for number, relay in enumerate(self._docs()):
            while sent < len(places) and places[sent] <= number:
                yield canaries[sent]
                sent += 1
            yield relay
        yield from canaries[sent:]

    def _docs(self) -> Iterator[Relay]:
        again, new = self._in_turn(again=True), self._in_turn(again=False)
        answered = self._planned.canaries or self._planned.spares
        return chain(again, new) if answered else _by_turns(new, again)

    def _in_turn(self, again: bool) -> Iterator[Relay]:
        tasks = enumerate(self._planned.tasks)
        return _by_turns(*(self._of_task(place, planned, again) for place, planned in tasks))

    def _of_task(self, place: int, planned: PlannedTask, again: bool) -> Iterator[Relay]:
        target, due = self._target, [doc for doc in planned.plan.due if doc.open == again]
        for start in range(0, len(due), _FETCH):
            batch = due[start : start + _FETCH]
            bodies = self._prompts.get([doc.prompt.id for doc in batch])
            for doc in batch:
                requests = bodies[doc.prompt.id].requests
                self._taken[place] += not again
                for call in doc.calls:
                    yield _relay(
                        target,
                        planned.registration,
                        planned.epoch if doc.epoch is None else doc.epoch,
                        doc.prompt,
                        doc.round,
                        call,
                        requests,
                        occasion=doc.occasion,
                    )


def _by_turns(*queues: Iterator[Relay]) -> Iterator[Relay]:
    """One of each in turn, as long as it has any."""
    waiting = deque(queues)
    while waiting:
        queue = waiting.popleft()
        relay = next(queue, None)
        if relay is not None:
            yield relay
            waiting.append(queue)


def canary_places(relays: int, canaries: int) -> list[int]:
    """Before which of so many relays each canary is sent: the first before all, the last after all."""
    return [relays * place // max(1, canaries - 1) for place in range(canaries)]


def canary_relays(target: Endpoint, planned: Sequence[PlannedCanary], prompts: Prompts) -> list[Relay]:
    """Return canaries as relays, without those whose prompt is not stored any more."""
    bodies = prompts.get([one.canary.prompt.id for one in planned])
    return [
        _relay(
            target,
            one.registration,
            one.epoch,
            one.canary.prompt,
            one.canary.round,
            DueCall(one.canary.idx, one.canary.repeat, one.canary.attempt),
            bodies[one.canary.prompt.id].requests,
            canary=True,
        )
        for one in planned
        if one.canary.prompt.id in bodies
    ]


def _relay(
    target: Endpoint,
    registration: Registration,
    epoch: int,
    prompt: PromptRef,
    round_: int,
    call: DueCall,
    requests: Sequence[Mapping[str, Any]],
    *,
    occasion: int = 1,
    canary: bool = False,
) -> Relay:
    """One call of a prompt, of a doc that is due or of a canary."""
    return Relay(
        supplier=target.supplier,
        service=target.service,
        task=registration.task,
        task_hash=registration.task_hash,
        epoch=epoch,
        round=round_,
        prompt_id=prompt.id,
        position=prompt.position,
        doc_id=prompt.doc_id,
        idx=call.idx,
        repeat=call.repeat,
        request=requests[call.idx],
        attempt=call.attempt,
        occasion=occasion,
        canary=canary,
    )
