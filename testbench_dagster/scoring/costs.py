"""What the answers behind a window cost: by the tokens that the supplier reports, at the price of the roster.

The price is applied when a window is read, so another price needs no new window. What is counted are the
answers that the scored docs rest on, the tokens of thoughts among those of the completion, as suppliers bill
them. Attempts that failed before them, canaries and answers that another replaced are not: what all attempts
of a day cost is told by :mod:`testbench_dagster.stages.read.spending`.
"""

from __future__ import annotations

from collections.abc import Iterable

from testbench_dagster.core.price import Price
from testbench_dagster.core.window import Window

#: Right answers that ``cost_per_1000_right`` is for.
_RIGHT = 1000


def with_cost(row: Window, price: Price) -> Window:
    """The same row of a task with its costs; they stay unknown where tokens of a scored doc are."""
    prompt, completion = row.tokens["prompt"], row.tokens["completion"]
    if row.n_unmetered or prompt is None or completion is None:
        return row
    cost = price.of(prompt, completion)
    # not by __init__: of half a million frozen rows it takes more time than all the rest
    made = Window.__new__(Window)
    vars(made).update(vars(row), cost=cost, cost_per_1000_right=_by_right(cost, [row]))
    return made


def costs_of_group(parts: Iterable[Window]) -> dict[str, float | None]:
    """The costs of a group of tasks, by column: unknown unless all of its tasks' are known."""
    rows = list(parts)
    costs = [row.cost for row in rows if row.cost is not None]
    if not rows or len(costs) < len(rows):
        return {"cost": None, "cost_per_1000_right": None}
    cost = sum(costs)
    return {"cost": cost, "cost_per_1000_right": _by_right(cost, rows)}


def _by_right(cost: float, rows: Iterable[Window]) -> float | None:
    """What 1,000 right answers cost; None where nothing is right, or what is right cannot be counted."""
    found = 0.0
    for row in rows:
        right = _right_docs(row)
        if right is None:
            return None
        found += right
    return cost / found * _RIGHT if found > 0 else None


def _right_docs(row: Window) -> float | None:
    """How many docs are right, parts of docs included; None for a metric that says nothing of the kind.

    Those with an interval have values from 0 to 1.
    """
    if row.score_answered is None or row.ci_low is None or not row.higher_is_better:
        return None
    return row.score_answered * row.n
