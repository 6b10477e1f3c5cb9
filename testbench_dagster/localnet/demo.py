"""The configuration of the demo, made from a running localnet's roster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

STARTER_TASKS = (
    "starter_arithmetic",
    "starter_calendar",
    "starter_choice",
    "starter_instructions",
    "starter_logic",
    "starter_reading",
    "starter_strings",
    "starter_units",
)


def demo_settings(roster: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a ``testbench.yaml`` for the suppliers of a roster and the starter tasks."""
    return {
        "simulation": True,
        "suppliers": [
            {key: supplier[key] for key in ("address", "service", "base_url", "api", "model")}
            for supplier in roster
        ],
        # the same number for everyone: a demo should show comparable windows after one run
        "tasks": [{"name": name, "samples": {"min": 60, "max": 60}} for name in STARTER_TASKS],
        "taxonomies": ["builtin:starter"],
        "relays": {"connect_s": 2, "first_byte_s": 5, "total_s": 10, "retries": 2},
        "sampling": {"max_age_days": 32, "window": 100},
    }
