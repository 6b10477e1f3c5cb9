"""How long a supplier's answers are waited for."""

from __future__ import annotations

from testbench_dagster.core.supplier import CONFIG_SOURCE, Supplier
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.transports.payload import DEFAULT_MAX_TOKENS


def deadline_s(workspace: Workspace, supplier: Supplier) -> float:
    """Seconds after which a relay to a supplier is given up, of the task whose answers may be longest.

    What follows from the YAML of a task alone is not looked at: it is known once the task is registered.
    """
    config = workspace.config
    limits = supplier.limits(config.settings.relays.limits())
    tokens = max((spec.generation.max_tokens or DEFAULT_MAX_TOKENS for spec in workspace.specs), default=0)
    own = config.supplier(supplier.key) if supplier.source == CONFIG_SOURCE else None
    asking = config.settings.asking(supplier.service, supplier.transport, own)
    return limits.for_answer(tokens + asking.generation.budget).total_s
