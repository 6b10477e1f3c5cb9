"""The planner's rules as configured (``planning:`` in testbench.yaml): schedule limits, gates and caps.

Only their shape and what can be said of one rule alone; whether the tasks and taxonomies they name exist is
checked where tasks are expanded (:mod:`testbench_dagster.tasks.specs`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)


class Strict(BaseModel):
    """Base of every block of testbench.yaml: unknown keys are refused, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false where a number is wanted: pydantic would take them for 1 and 0."""
        if info.field_name is not None and _holds_boolean(value):
            wanted = frozenset(_leaves(cls.model_fields[info.field_name].annotation))
            if wanted & {int, float} and not wanted & {bool, Any}:
                shown = str(value).lower() if isinstance(value, bool) else f"{str(value)[:80]}: true or false"
                raise ValueError(
                    f"{shown} is no number (YAML reads yes, on, no and off as true and false); "
                    "write a number such as 1"
                )
        return value


def _holds_boolean(value: Any) -> bool:
    """Whether a value is true or false, or a list or mapping that holds one."""
    if isinstance(value, dict):
        return any(isinstance(item, bool) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(isinstance(item, bool) for item in value)
    return isinstance(value, bool)


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    origin = get_origin(annotation)
    if origin is None:
        yield annotation
    elif origin is not Literal:
        parts = get_args(annotation)
        for part in parts[:1] if origin is Annotated else parts:
            yield from _leaves(part)


class _Rule(Strict):
    model_config = ConfigDict(populate_by_name=True)


class ScheduleLimit(_Rule):
    """How long a task rests after a supplier's last sample of it: ``{every: 24, unit: hours}``.

    ``session`` and ``block`` count chain heights, a session being ``planning.blocks_per_session`` blocks.
    """

    every: float = Field(gt=0, le=10_000_000)
    unit: Literal["session", "block", "hours", "minutes"]

    @model_validator(mode="after")
    def _whole_blocks(self) -> Self:
        if self.unit in ("session", "block") and self.every != int(self.every):
            raise ValueError(f"every {self.every} {self.unit}: sessions and blocks are whole; round it")
        return self

    @property
    def needs_height(self) -> bool:
        """Whether the limit counts blocks instead of time."""
        return self.unit in ("session", "block")


class TaskGate(_Rule):
    """Opens by another task of the same supplier: ``{task: liveness, is: ok}``.

    ``present``: it has a sample in its window. ``ok``: its score is above zero, for a signature: there is
    one. ``equal``: its score (a number) or newest signature (a text) equals ``value``.
    """

    task: str
    condition: Literal["present", "ok", "equal"] = Field(alias="is")
    value: float | str | None = None

    @model_validator(mode="after")
    def _value_where_needed(self) -> Self:
        if (self.condition == "equal") != (self.value is not None):
            raise ValueError(
                f"gate on {self.task!r}: is: equal needs a value, such as "
                f"{{task: {self.task}, is: equal, value: 1.0}}; the others take none"
            )
        return self


class SequentialGate(_Rule):
    """Opens when Wald's sequential test of another task passes: ``{task: liveness, pass: 0.9, fail: 0.7}``.

    Tests a true score of at most ``fail`` against one of at least ``pass`` (where lower is better, of 1 less
    the score) on the docs in the order of the sequence, with error rates ``alpha`` (opening wrongly) and
    ``beta`` (staying shut wrongly). While it is undecided the gating task goes on sampling, up to its
    ``samples.max``.
    """

    task: str
    pass_at: float = Field(alias="pass", gt=0, lt=1)
    fail_at: float = Field(alias="fail", gt=0, lt=1)
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    beta: float = Field(default=0.01, gt=0, lt=0.5)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.fail_at >= self.pass_at:
            raise ValueError(
                f"fail {self.fail_at} must be below pass {self.pass_at}; lower fail or raise pass"
            )
        return self


class TaxonomyGate(_Rule):
    """Opens by an ability: ``{taxonomy: liveness, min_score: 0.8, min_success: 0.8, min_samples: 10}``.

    Of the taxonomy's root, or of ``node``: score at least ``min_score``, the share of its docs that it did
    not leave unanswered for good at least ``min_success``, and at least ``min_samples`` docs in each task
    behind it. A summary older than ``sampling.max_age_days`` does not open it.
    """

    taxonomy: str
    node: str | None = None
    min_score: float = Field(default=0.0, ge=0, le=1)
    min_success: float = Field(default=0.0, ge=0, le=1)
    min_samples: int = Field(default=0, ge=0)


def _kind_of_gate(value: Any) -> str:
    keys = value if isinstance(value, dict) else vars(value) if isinstance(value, BaseModel) else {}
    if "taxonomy" in keys:
        return "taxonomy"
    return "sequential" if {"pass", "fail", "pass_at", "fail_at"} & set(keys) else "task"


Gate = Annotated[
    Annotated[TaskGate, Tag("task")]
    | Annotated[SequentialGate, Tag("sequential")]
    | Annotated[TaxonomyGate, Tag("taxonomy")],
    Discriminator(_kind_of_gate),
]


class PlanningRule(_Rule):
    """When and how much of one task a supplier is asked; what is unset in a task is taken from ``planning``.

    ``max_docs_per_run``: new docs of the task asked per supplier and evaluation at most. ``trigger_minimum``:
    docs asked whenever the schedule allows, also when all wanted ones are fresh; it needs a schedule, which
    is then the rate of renewal. ``max_age_days``: instead of ``sampling.max_age_days``, for this task.
    """

    max_docs_per_run: int | None = Field(default=None, ge=1)
    trigger_minimum: int = Field(default=0, ge=0)
    schedule: ScheduleLimit | None = None
    gates: tuple[Gate, ...] = ()
    max_age_days: float | None = Field(default=None, gt=0)

    def over(self, defaults: PlanningRule) -> PlanningRule:
        """This rule with what it leaves unset taken from ``defaults``."""
        names = PlanningRule.model_fields
        chosen = {n: getattr(self if n in self.model_fields_set else defaults, n) for n in names}
        return PlanningRule.model_construct(**chosen)

    def problem(self) -> str | None:
        """What contradicts itself in a rule as it finally applies, with the remedy."""
        if self.trigger_minimum and self.schedule is None:
            return (
                f"trigger_minimum {self.trigger_minimum} without a schedule would ask without end; "
                "add one, such as schedule: {every: 24, unit: hours}"
            )
        if self.max_docs_per_run is not None and self.trigger_minimum > self.max_docs_per_run:
            return (
                f"trigger_minimum {self.trigger_minimum} exceeds max_docs_per_run {self.max_docs_per_run}; "
                "lower the first or raise the second"
            )
        return None


class PlanningSettings(PlanningRule):
    """The ``planning`` block: the rule of every task that has none of its own, and what holds for all.

    ``audit_hours``: about how often a member of an identity group, for which its proxy stands, is asked docs
    of each task, so that it has three in ten of them answered itself, or as many as comparing it with a
    reference takes. ``audit_docs``: how many each time instead; 0 for none.
    ``retry_minutes``: how soon an evaluation that got nowhere is
    asked for again; it doubles with every further one, up to ``retry_max_hours``. ``occasions_minutes``: how
    long after its first the further occasions of a doc begin that stays unanswered; with the last of them all
    other times of its life scale (see :class:`~testbench_dagster.core.doc_states.DocClock`).
    """

    blocks_per_session: int = Field(default=10, ge=1)
    audit_hours: float = Field(default=24, gt=0)
    audit_docs: int | None = Field(default=None, ge=0)
    retry_minutes: float = Field(default=5, gt=0)
    retry_max_hours: float = Field(default=24, gt=0)
    occasions_minutes: tuple[float, ...] = (0, 15, 120, 720, 1440, 2880, 4320)

    @field_validator("occasions_minutes")
    @classmethod
    def _ascending(cls, minutes: tuple[float, ...]) -> tuple[float, ...]:
        whole = all(math.isfinite(m) for m in minutes)
        if not whole or len(minutes) < 2 or minutes[0] != 0 or any(a >= b for a, b in pairwise(minutes)):
            raise ValueError(
                f"{list(minutes)} says not when occasions begin after the first; write at least two numbers "
                "of minutes that ascend from 0, such as [0, 15, 120]"
            )
        return minutes
