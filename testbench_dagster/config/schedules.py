"""The entries of ``schedules`` in `testbench.yaml`, and what all times of schedules have in common."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator, model_validator

from testbench_dagster.config.fields import PatternList, SupplierPatternList
from testbench_dagster.core.rules import Strict

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,79}")
#: Largest number in each field of a cron expression.
_LARGEST = (59, 23, 31, 12, 7)
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,#()?-]+")
_CRON_WORDS = frozenset({"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually"})


def no_cron(cron: str) -> str:
    """How to say that a text is no cron expression."""
    return f"{cron!r} is no cron expression; write it like '0 2 * * *'"


def _cron(text: str) -> str:
    """A cron expression by its shape; Dagster, which is not loaded here, looks at the rest of it."""
    fields = text.split()
    if len(fields) == 1 and fields[0].lower() in _CRON_WORDS:
        return text
    if len(fields) != len(_LARGEST) or not all(map(_in_range, fields, _LARGEST)):
        raise ValueError(no_cron(text))
    return text


def _in_range(field: str, largest: int) -> bool:
    if not field.isascii() or not _CRON_FIELD.fullmatch(field):
        return False
    bounds = [bound for part in field.split(",") for bound in re.split("[/#(]", part)[0].split("-")]
    return all(int(bound) <= largest for bound in bounds if bound.isdecimal())


#: When a schedule ticks.
Cron = Annotated[str, AfterValidator(_cron)]


class ScheduledBackfill(Strict):
    """When some suppliers are evaluated by a backfill of their own.

    ``suppliers`` and ``services`` are patterns of supplier keys and of services; who is backfilled fits both
    where both are given. ``tasks`` are names of tasks and groups, None for all. ``cron`` is in ``timezone``.
    """

    name: str
    suppliers: SupplierPatternList | None = None
    services: PatternList | None = None
    tasks: tuple[Annotated[str, Field(min_length=1)], ...] | None = None
    cron: Cron
    timezone: str = "UTC"
    enabled: bool = True

    @field_validator("name")
    @classmethod
    def _usable_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot name a schedule; use 1 to 80 letters, digits and '_', a letter first"
            )
        return name

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if value is not None and not isinstance(value, (list, tuple)):
            raise ValueError(f"{value!r} is no list of tasks; write it like ['{value}']")
        if value is not None and not value:
            raise ValueError("the list is empty: nothing would be asked; name tasks, or leave it out for all")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, name: str) -> str:
        with suppress(Exception):  # of any kind: a name may be a path, a folder, or not even that
            ZoneInfo(name)
            return name
        raise ValueError(f"{name!r} is no time zone; write it like 'Europe/Berlin', or leave it out for UTC")

    @model_validator(mode="after")
    def _of_somebody(self) -> ScheduledBackfill:
        if self.suppliers is None and self.services is None:
            raise ValueError(
                f"schedule {self.name!r} says of nobody; give suppliers or services, such as suppliers: ['*']"
            )
        return self

    @property
    def whom(self) -> str:
        """Whom it is about, in words."""
        parts = [
            f"{what} {', '.join(patterns)}"
            for what, patterns in (("suppliers", self.suppliers), ("services", self.services))
            if patterns is not None
        ]
        return " of ".join(parts)

    @property
    def what(self) -> str:
        """What they are asked, in words."""
        return "all tasks" if self.tasks is None else f"tasks {', '.join(self.tasks)}"

    @property
    def when(self) -> str:
        """When it ticks, in words."""
        return f"{self.cron} ({self.timezone})"
