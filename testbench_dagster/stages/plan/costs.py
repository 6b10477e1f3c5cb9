"""What planned calls will cost, estimated by the tokens of answers that are stored, else by the prompts.

The tokens of a call are those of the supplier's own window of the task, on average; else those of the windows
of others that are asked in the same form; else the characters of prompts by four, and the most that answers
may have, which is seldom needed. Each estimate says which of them it is. Calls that fail and are repeated
come on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from testbench_dagster.core.pace import estimated_parts
from testbench_dagster.core.records.prompts import PromptRequests
from testbench_dagster.core.supplier import CONFIG_SOURCE, Supplier
from testbench_dagster.core.window import Window
from testbench_dagster.planning.due import PromptRef
from testbench_dagster.planning.supplier import SupplierFacts
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: What the tokens of a call are known by: windows of the supplier, of others, or prompts alone.
OWN, OTHERS, PROMPTS = "own", "others", "prompts"
#: Suppliers whose windows an average is taken of, and prompts: more would hardly change it.
_SUPPLIERS, _PROMPTS = 100, 20


@dataclass(frozen=True)
class _Tokens:
    """Tokens of prompts and of completions, in so many docs or calls, and what they are known by."""

    prompt: float
    completion: float
    of: float
    basis: str


def fill_in_costs(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    facts: Mapping[str, SupplierFacts],
    rows: Sequence[dict[str, Any]],
    now: datetime,
) -> int:
    """Fill in ``cost`` and ``cost_from`` of a plan's rows, of suppliers that have a price.

    Returns:
        Of how many of the relays no cost is known.
    """
    asked = {supplier.key: supplier for supplier in suppliers if supplier.price is not None}
    priced = [row for row in rows if row["supplier"] in asked]
    known = _Known(workspace, asked, [row for row in priced if _calls(row)], now)
    for row in priced:
        supplier, calls = asked[row["supplier"]], _calls(row)
        if supplier.price is None or row["unpriced"]:
            continue
        if not calls:
            row["cost"] = 0.0
            continue
        prompts = facts[supplier.key].tasks[row["task"]].prompts
        tokens = known.tokens(supplier, row["task"], prompts)
        if tokens is not None:
            of_each = supplier.price.of(tokens.prompt, tokens.completion) / tokens.of
            row |= {"cost": of_each * calls, "cost_from": tokens.basis}
    return sum(_calls(row) for row in rows if row["cost"] is None)


def likely_costs(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    facts: Mapping[str, SupplierFacts],
    calls: Mapping[tuple[str, str], int],
    now: datetime,
) -> dict[str, float] | None:
    """About what planned calls of suppliers cost, by supplier key, at their prices.

    ``calls`` by supplier key and task. None where answers tell nothing of some of them: the longest answers
    that are allowed would say far too much.
    """
    asked = {supplier.key: supplier for supplier in suppliers if supplier.price is not None}
    rows = [{"supplier": key, "task": task} for (key, task), n in calls.items() if n and key in asked]
    known = _Known(workspace, asked, rows, now)
    costs = dict.fromkeys(asked, 0.0)
    for row in rows:
        supplier, task = asked[row["supplier"]], row["task"]
        tokens = known.tokens(supplier, task, facts[supplier.key].tasks[task].prompts)
        if tokens is None or tokens.basis == PROMPTS or supplier.price is None:
            return None
        of_each = supplier.price.of(tokens.prompt, tokens.completion) / tokens.of
        costs[supplier.key] += of_each * calls[supplier.key, task]
    return costs


def _calls(row: Mapping[str, Any]) -> int:
    return int(row["calls"] + row["canaries"])


class _Known:
    """What is known of the tokens of calls; stores are read for what planned ``rows`` need, once."""

    def __init__(
        self,
        workspace: Workspace,
        suppliers: Mapping[str, Supplier],
        rows: Sequence[Mapping[str, Any]],
        now: datetime,
    ) -> None:
        self._workspace, self._now = workspace, now
        wanted = {(row["supplier"], row["task"]) for row in rows}
        keys = {key for key, _ in wanted}
        planned = [one for key, one in suppliers.items() if key in keys]
        self._own = {
            (row.supplier, row.task): tokens
            for row in self._windows(planned, [row["task"] for row in rows])
            if (tokens := _of_window(row, OWN)) is not None
        }
        self._lacking = sorted({task for key, task in wanted if (key, task) not in self._own})
        self._of_prompts: dict[tuple[str, str, int], _Tokens | None] = {}

    def _windows(self, suppliers: Sequence[Supplier], tasks: Sequence[str]) -> Iterator[Window]:
        if suppliers and tasks:
            for _, rows in primary_windows(self._workspace, suppliers, self._now, list(dict.fromkeys(tasks))):
                yield from rows

    def tokens(self, supplier: Supplier, task: str, prompts: Sequence[PromptRef]) -> _Tokens | None:
        """The tokens of calls of a task; None while it has no prompts."""
        if not prompts:
            return None
        per_doc = self._own.get((supplier.key, task)) or self._others.get((supplier.api, task))
        if per_doc is not None:
            calls = sum(prompt.requests * prompt.repeats for prompt in prompts) / len(prompts)
            return replace(per_doc, of=per_doc.of * calls)
        budget = self._budget(supplier)
        place = (supplier.api, task, budget)
        if place not in self._of_prompts:
            self._of_prompts[place] = self._guess(prompts, budget)
        return self._of_prompts[place]

    @cached_property
    def _others(self) -> Mapping[tuple[str, str], _Tokens]:
        """By API and task the tokens of all suppliers' windows of tasks that a planned one has none of."""
        chosen = active_suppliers(self._workspace)[:_SUPPLIERS]
        apis = {supplier.key: supplier.api for supplier in chosen}
        found: dict[tuple[str, str], _Tokens] = {}
        for row in self._windows(chosen, self._lacking):
            more = _of_window(row, OTHERS)
            if more is not None:
                place = (apis[row.supplier], row.task)
                known = found.get(place, _Tokens(0, 0, 0, OTHERS))
                found[place] = _Tokens(
                    known.prompt + more.prompt, known.completion + more.completion, known.of + more.of, OTHERS
                )
        return found

    def _budget(self, supplier: Supplier) -> int:
        """Tokens that a supplier is granted to think, on top of a task's limit."""
        config = self._workspace.config
        own = config.supplier(supplier.key) if supplier.source == CONFIG_SOURCE else None
        return config.settings.asking(supplier.service, supplier.transport, own).generation.budget

    def _guess(self, prompts: Sequence[PromptRef], budget: int) -> _Tokens | None:
        """The tokens of calls by their length and limits alone; the first prompts stand for all."""
        ids = [prompt.id for prompt in prompts[:_PROMPTS]]
        found = typed.by_id(self._workspace.documents, PromptRequests, ids).values()
        parts = [estimated_parts(request, budget) for prompt in found for request in prompt.requests]
        if not parts:
            return None
        return _Tokens(sum(asked for asked, _ in parts), sum(most for _, most in parts), len(parts), PROMPTS)


def _of_window(row: Window, basis: str) -> _Tokens | None:
    """The tokens of the docs of a window; None where they are not known of all."""
    prompt, completion = row.tokens["prompt"], row.tokens["completion"]
    if not row.n or row.n_unmetered or prompt is None or completion is None:
        return None
    return _Tokens(prompt, completion, row.n, basis)
