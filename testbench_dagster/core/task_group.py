"""A configured group of tasks whose scores lm-eval makes one of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GroupMetric:
    """One entry of a group's ``aggregate_metric_list``.

    ``filters`` are lm-eval's ``filter_list``, None for all that the tasks have. ``weight_by_size``: each task
    weighs as much as it has docs, else all weigh the same.
    """

    metric: str
    filters: tuple[str, ...] | None = None
    weight_by_size: bool = True


@dataclass(frozen=True)
class TaskGroup:
    """A group, or one nested in it, all of whose tasks are configured.

    ``name`` is what its rows are called, ``root`` the outermost group as configured. ``tasks`` are the names
    of its leaf tasks in lm-eval's order, those that it holds by way of two nested groups twice. ``problem``
    says why lm-eval could not aggregate it; it has no ``metrics`` then.
    """

    name: str
    root: str
    tasks: tuple[str, ...]
    metrics: tuple[GroupMetric, ...]
    problem: str | None = None
