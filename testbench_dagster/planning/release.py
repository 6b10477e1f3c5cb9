"""Which docs are released within a number of relays: the same first ones of each task to all suppliers.

Decided before anything is asked, so that no supplier's answers have a say in how many docs its score, or
another's, rests on. What is open was released before: it is asked again within its supplier's share, with its
canaries, for else who leaves docs open would take the relays of those that answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from heapq import heappop, heappush
from typing import NamedTuple

from testbench_dagster.core.wording import counted
from testbench_dagster.planning.due import DuePrompt
from testbench_dagster.planning.supplier import Decision, SupplierPlan

_Place = tuple[int, str]  # position, task: in this order new docs are released
_Doc = tuple[str, str, int]  # task, prompt, round


class _Part(NamedTuple):
    """A doc of a supplier, or with no ``docs`` one canary, and its calls."""

    supplier: str
    calls: int
    docs: tuple[_Doc, ...] = ()


class _Step(NamedTuple):
    """What is released together; a new ``place`` to all to whom it is due."""

    parts: tuple[_Part, ...]
    place: bool = False


def release(
    plans: Mapping[str, SupplierPlan], max_calls: int, shares: Mapping[str, int] | None = None
) -> dict[str, SupplierPlan]:
    """Cut the plans of some suppliers to ``max_calls`` relays together, canaries included.

    New docs are taken by position in their sequence, at each the tasks by name, for all suppliers at once:
    where a place does not fit for all to whom it is due, it is released to none, nor is anything after it.
    Only of the very first place as many get theirs as fit, by key: the others come first the next time, for a
    place that fewer still need fits sooner. In between each supplier's open docs and canaries are taken, in
    the same order, as long as they are at most its share of what is taken so far; what exceeds it comes after
    the last new doc. ``shares`` are relative; where they are not given, all to whom something is due have the
    same. At most half of the relays are canaries. The order does not depend on ``max_calls``: a larger one
    never takes a doc away.
    """
    if sum(plan.n_calls for plan in plans.values()) <= max_calls:
        return dict(plans)
    left, first = max_calls, True
    docs: dict[str, set[_Doc]] = {key: set() for key in plans}
    canaries = dict.fromkeys(plans, 0)
    if shares is None:
        shares = {key: min(1, plan.n_calls) for key, plan in plans.items()}
    for step in _steps(plans, shares):
        whole = sum(part.calls for part in step.parts) <= left
        if not whole and not (step.place and first):
            break
        for part in step.parts:
            if part.calls > left:
                break
            left -= part.calls
            docs[part.supplier].update(part.docs)
            canaries[part.supplier] += not part.docs
        if not whole:
            break
        first = first and not step.place
    return {key: _cut(plan, docs[key], canaries[key], max_calls) for key, plan in plans.items()}


class _Again:
    """A supplier's open docs and canaries, from the last to the first, and the calls taken of them so far."""

    def __init__(self, share: int, docs: list[_Part], canaries: list[_Part]) -> None:
        self.share, self.docs, self.canaries = share, docs, canaries
        self.taken = 0
        self.turn = False  # whether a canary is next

    def next(self, spare: int) -> list[_Part]:
        """The list whose last is next; no canary where docs have only ``spare`` calls more than canaries."""
        if self.canaries and spare > 0 and (self.turn or not self.docs):
            return self.canaries
        return self.docs


def _steps(plans: Mapping[str, SupplierPlan], shares: Mapping[str, int]) -> Iterator[_Step]:
    """All that can be released, in order."""
    places: dict[_Place, dict[str, list[DuePrompt]]] = defaultdict(lambda: defaultdict(list))
    again: dict[str, _Again] = {}
    for key in sorted(plans):
        opened: list[tuple[_Place, DuePrompt]] = []
        for task, decision in plans[key].tasks.items():
            for doc in decision.plan.due:
                place = doc.prompt.position if doc.place is None else doc.place, task
                if doc.open:
                    opened.append((place, doc))
                else:
                    places[place][key].append(doc)
        opened.sort(key=lambda one: one[0], reverse=True)
        again[key] = _Again(
            shares.get(key, 0),
            [_part(key, task, doc) for (_, task), doc in opened],
            [_Part(key, 1)] * len(plans[key].canaries),
        )
    new = [
        _Step(tuple(_part(key, task, *docs) for key, docs in places[position, task].items()), True)
        for position, task in sorted(places, reverse=True)
    ]
    everything, taken, spare = sum(own.share for own in again.values()), 0, 0
    queue: list[tuple[float, str]] = []  # who would have least of its share with its next one
    waiting: set[str] = set()  # with canaries only, that are too many as yet

    def enter(key: str) -> None:
        own = again[key]
        if parts := own.next(spare):
            with_it = own.taken + parts[-1].calls
            heappush(queue, (with_it / own.share if own.share else float("inf"), key))
        elif own.canaries:
            waiting.add(key)

    for key in again:
        enter(key)
    while new or queue:
        if queue:
            own = again[queue[0][1]]
            parts = own.next(spare)
            calls = parts[-1].calls if parts else 0
            if not new or (own.taken + calls) * everything <= (taken + calls) * own.share:
                _, key = heappop(queue)
                if not parts:
                    waiting.add(key)
                    continue
                part = parts.pop()
                own.taken += part.calls
                own.turn = bool(part.docs)
                taken += part.calls
                spare += part.calls if part.docs else -part.calls
                enter(key)
                yield _Step((part,))
                continue
        step = new.pop()
        calls = sum(part.calls for part in step.parts)
        taken, spare = taken + calls, spare + calls
        for key in sorted(waiting):
            waiting.discard(key)
            enter(key)
        yield step


def _part(key: str, task: str, *docs: DuePrompt) -> _Part:
    return _Part(key, sum(len(doc.calls) for doc in docs), tuple(_doc(task, doc) for doc in docs))


def _doc(task: str, doc: DuePrompt) -> _Doc:
    return (task, doc.prompt.id, doc.round)


def _cut(plan: SupplierPlan, released: Collection[_Doc], canaries: int, max_calls: int) -> SupplierPlan:
    tasks = {name: _released(decision, released, max_calls) for name, decision in plan.tasks.items()}
    return replace(plan, tasks=tasks, canaries=plan.canaries[:canaries])


def _released(decision: Decision, released: Collection[_Doc], max_calls: int) -> Decision:
    due = decision.plan.due
    docs = [doc for doc in due if _doc(decision.task, doc) in released]
    if len(docs) == len(due):
        return decision
    calls = counted(max_calls, "call")
    if docs:
        reason = f"{decision.reason}; {len(docs)} of {counted(len(due), 'doc')} fit into {calls}"
    else:
        reason = f"its next doc does not fit into {calls}, shared by all"
    plan = replace(decision.plan, due=docs, reason=reason)
    return replace(decision, state="due" if docs else "capped", reason=reason, plan=plan)
