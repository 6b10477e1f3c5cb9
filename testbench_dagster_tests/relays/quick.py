"""The engine with its times compressed a hundredfold, so that tests need not wait for patience to end."""

from __future__ import annotations

from typing import Any

from testbench_dagster.relays import engine
from testbench_dagster.relays.circuit import PATIENCE
from testbench_dagster.relays.report import Report

QUICK = PATIENCE.scaled(0.01)


async def relay_all(*args: Any, **options: Any) -> Report:
    """As :func:`testbench_dagster.relays.engine.relay_all`, in a hundredth of the time."""
    return await engine.relay_all(*args, **{"patience": QUICK, **options})


def run_relays(*args: Any, **options: Any) -> Report:
    """As :func:`testbench_dagster.relays.engine.run_relays`, in a hundredth of the time."""
    return engine.run_relays(*args, **{"patience": QUICK, **options})
