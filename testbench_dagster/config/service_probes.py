"""The block ``service_probes:`` of `testbench.yaml`: how the speed of suppliers is measured."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from testbench_dagster.config.fields import PatternList, SupplierPatternList
from testbench_dagster.core.rules import Strict
from testbench_dagster.core.workloads import WORKLOADS


class ServiceProbeSettings(Strict):
    """Streamed requests made for the purpose, beside the evaluation; they enter no score.

    ``per_day`` is how often each supplier is asked each of the ``workloads``, evenly over the day.
    ``answer_tokens`` is how long their answers may be. ``relays_per_day`` is a budget of its own, per service
    and UTC day; None for as many as that takes. ``services`` and ``suppliers`` are patterns of who is
    probed, by service and by supplier key; None for everybody. Context probes have their own number a day,
    for they are long.
    """

    enabled: bool = False
    workloads: tuple[str, ...] = ("short", "1k")
    per_day: int = Field(default=8, ge=1, le=288)
    answer_tokens: int = Field(default=300, ge=32, le=4_096)
    context_per_day: Annotated[float, Field(gt=0, le=24)] = 1 / 7
    relays_per_day: int | None = Field(default=None, ge=0)
    services: PatternList | None = None
    suppliers: SupplierPatternList | None = None

    @field_validator("workloads")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError(f"the list is empty; name some of {', '.join(WORKLOADS)}, or set enabled: false")
        for position, name in enumerate(names):
            if name not in WORKLOADS:
                raise ValueError(f"{name!r} is no workload; use some of {', '.join(WORKLOADS)}")
            if name in names[:position]:
                raise ValueError(f"{name!r} stands there twice; remove one")
        return names
