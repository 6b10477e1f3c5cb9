"""Which docs are released within a number of relays: the same first ones of each task to all suppliers.

Decided before anything is asked, so that no supplier's answers have a say in how many docs its score, or
another's, rests on. What is open was released before and comes first, with its canaries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace

from testbench_dagster.planning.due import DuePrompt
from testbench_dagster.planning.supplier import Decision, SupplierPlan

_Place = tuple[bool, int, str]  # new, position, task: in this order docs are released


def release(plans: Mapping[str, SupplierPlan], max_calls: int) -> dict[str, SupplierPlan]:
    """Cut the plans of some suppliers to ``max_calls`` relays together, canaries included.

    Docs are taken by position in their sequence, at each the tasks by name, for all suppliers at once: where
    a place does not fit for all to whom it is due, it is released to none, nor is any after it. Only of the
    very first place as many get theirs as fit, by key: the others come first the next time, for a place that
    fewer still need fits sooner. Docs that are open come before new ones in the same order. At most half of
    the relays are canaries. A larger ``max_calls`` never takes a doc away.
    """
    if sum(plan.n_calls for plan in plans.values()) <= max_calls:
        return dict(plans)
    canaries = _canaries(plans, max_calls // 2)
    left = max_calls - sum(canaries.values())
    wanted: dict[_Place, dict[str, int]] = defaultdict(dict)  # calls by supplier
    for key in sorted(plans):
        for task, decision in plans[key].tasks.items():
            for doc in decision.plan.due:
                wanted[_place(task, doc)][key] = len(doc.calls)
    released: dict[str, set[_Place]] = {key: set() for key in plans}
    for number, place in enumerate(sorted(wanted)):
        calls = wanted[place]
        whole = sum(calls.values()) <= left
        if not whole and number:
            break
        for key, count in calls.items():
            if count > left:
                break
            left -= count
            released[key].add(place)
        if not whole:
            break
    return {key: _cut(plan, released[key], canaries[key], max_calls) for key, plan in plans.items()}


def _place(task: str, doc: DuePrompt) -> _Place:
    return (not doc.open, doc.prompt.position, task)


def _canaries(plans: Mapping[str, SupplierPlan], most: int) -> dict[str, int]:
    """How many canaries each supplier keeps: one for each first, then a second one, as far as they go."""
    kept = dict.fromkeys(plans, 0)
    for number in range(max((len(plan.canaries) for plan in plans.values()), default=0)):
        for key in sorted(plans):
            if most and len(plans[key].canaries) > number:
                kept[key] += 1
                most -= 1
    return kept


def _cut(plan: SupplierPlan, released: Collection[_Place], canaries: int, max_calls: int) -> SupplierPlan:
    tasks = {name: _released(decision, released, max_calls) for name, decision in plan.tasks.items()}
    return replace(plan, tasks=tasks, canaries=plan.canaries[:canaries])


def _released(decision: Decision, released: Collection[_Place], max_calls: int) -> Decision:
    due = decision.plan.due
    docs = [doc for doc in due if _place(decision.task, doc) in released]
    if len(docs) == len(due):
        return decision
    if docs:
        reason = f"{decision.reason}; {len(docs)} of {len(due)} docs fit into {max_calls} calls"
    else:
        reason = f"its next doc does not fit into {max_calls} calls, shared by all"
    plan = replace(decision.plan, due=docs, reason=reason)
    return replace(decision, state="due" if docs else "capped", reason=reason, plan=plan)
