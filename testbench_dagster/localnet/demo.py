"""The configuration of the demo, made from a running localnet's roster, and the bundled one.

``python -m testbench_dagster.localnet.demo > testbench_dagster/localnet/starter.yaml`` writes the latter
anew; a test keeps both alike.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from testbench_dagster.localnet.personas import DEMO_SUPPLIERS, SERVICE, default_population
from testbench_dagster.localnet.pocket.settings import services_block
from testbench_dagster.tasks.starter import CHOICE_TASK

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

#: Of the tasks with tools one where a call is wanted, and one where none is.
TOOL_TASKS = ("tools_several", "tools_none")

_SAMPLES = {"min": 40, "max": 80, "half_width": 0.1}

#: Pairs of a public question and a fresh one, for who knows the public ones alone: so many that it shows in
#: one epoch.
TWIN_TASK, TWIN_PAIRS = "twins_starter", 70
#: Suppliers follow from a seed, so with the same questions every demo finds the same. This seed was chosen,
#: as one with a verdict: with so few peers chance often makes one sort of questions look harder, and then
#: there is none. docs/twins.md tells how sure it is with how many.
EPOCH_SEED = 18

#: Where the bundled configuration expects `testbench localnet up`.
STARTER_PORT = 8711
_STARTER_URL = f"${{TESTBENCH_LOCALNET_URL:-http://127.0.0.1:{STARTER_PORT}}}"

_STARTER_HEADER = """\
# Used where there is no testbench.yaml: seven simulated suppliers, one of which deceives, the starter tasks,
# fresh variants of their questions, two tasks with tools, no network.
# `testbench localnet up` serves the suppliers; `testbench demo` does so by itself.
# Made by `python -m testbench_dagster.localnet.demo`; a test compares it.
"""


def demo_settings(roster: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of a ``testbench.yaml`` for the suppliers of a roster: all that comes with the package."""
    suppliers = [
        {key: supplier[key] for key in ("address", "service", "base_url", "api", "model")}
        for supplier in roster
    ]
    # the first one whose model others name too is trusted: these are compared with it
    named = Counter(supplier["model"] for supplier in suppliers)
    trusted = next((supplier for supplier in suppliers if named[supplier["model"]] > 1), None)
    if trusted is not None:
        trusted["reference"] = True
    measured = _measured()
    docs = 2 * TWIN_PAIRS
    samples = {"min": docs, "max": docs, "half_width": None}
    pairs = {"name": TWIN_TASK, "framework": "twins", "cluster": "template", "samples": samples}
    measured["tasks"].append(pairs)
    measured["sampling"] |= {"window": docs, "epoch_seed": EPOCH_SEED}
    return {"simulation": True, "suppliers": suppliers, **measured}


def pocket_settings(description: Mapping[str, Any]) -> dict[str, Any]:
    """The same for a simulated Pocket network, as it describes itself.

    The first backend that several of a service have is asked directly, too: as its maker's endpoint would be,
    the reference of those that stake for the service.
    """
    settings: dict[str, Any] = {"simulation": True, "services": services_block(description)}
    staked = description["suppliers"]
    named = Counter((one["service"], one["model"]) for one in staked)
    trusted = next((one for one in staked if named[one["service"], one["model"]] > 1), None)
    if trusted is not None:
        maker = {
            "address": "maker",
            "service": "direct",
            "base_url": trusted["plain_url"],
            "api": trusted["api"],
            "model": trusted["model"],
            # what the service calls it
            "reference": [settings["services"][trusted["service"]]["model"]],
        }
        settings["suppliers"] = [maker]
    return settings | _measured()


def _measured() -> dict[str, Any]:
    return {
        "tasks": [
            *({"name": name, "samples": dict(_SAMPLES)} for name in STARTER_TASKS),
            # for the suppliers that give no log-probabilities
            {"name": CHOICE_TASK, "mode": "chat_choice", "samples": dict(_SAMPLES)},
            *({"name": name, "framework": "tools", "samples": dict(_SAMPLES)} for name in TOOL_TASKS),
            {"name": "identity", "framework": "signatures"},
        ],
        "taxonomies": ["builtin:demo"],
        "relays": {"connect_s": 2, "first_byte_s": 5, "total_s": 10},
        "sampling": {"max_age_days": 32, "window": 100},
        "service_probes": {"enabled": True, "answer_tokens": 64},
        # simulated suppliers are back at once: an hour does for what takes three days elsewhere
        "planning": {"occasions_minutes": [0, 1, 5, 10, 20, 40, 60]},
    }


def starter_settings() -> dict[str, Any]:
    """The content of the bundled ``starter.yaml``: the default population at a localnet not yet running."""
    return demo_settings(
        {
            "address": persona.address,
            "service": SERVICE,
            "base_url": f"{_STARTER_URL}/{persona.address}/v1",
            "api": persona.api,
            "model": persona.backend.model,
        }
        for persona in default_population(DEMO_SUPPLIERS, 0)
    )


def starter_text() -> str:
    """The bundled ``starter.yaml`` as it is written."""
    import yaml

    return _STARTER_HEADER + yaml.safe_dump(starter_settings(), sort_keys=False, width=120)


if __name__ == "__main__":
    sys.stdout.write(starter_text())
