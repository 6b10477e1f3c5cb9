"""A simulated network with chosen personas in a thread of this process, and an installation over it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from testbench_dagster.config import load_config
from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.personas import Persona
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.plan.plan_cache import refresh_plans
from testbench_dagster.stages.relay.relay import RelayReport, relay_due
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts, stale_tasks
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.workspace import Workspace


@contextlib.contextmanager
def served(personas: Sequence[Persona], seed: int = 0, answers: Answers | None = None) -> Iterator[Localnet]:
    """Serve the personas; the network's attributes are only read from here."""
    net = Localnet(personas, answers or Answers(seed))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait_for(coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)

    wait_for(net.__aenter__())
    try:
        yield net
    finally:
        wait_for(net.__aexit__())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def installed(
    folder: Path,
    net: Localnet,
    tasks: Sequence[dict[str, Any]],
    *,
    limits: Mapping[str, Mapping[str, float]] | None = None,
    **blocks: Any,
) -> Workspace:
    """An installation whose suppliers are those of the network; ``limits`` are those of some, by address."""
    keys = ("address", "service", "base_url", "api", "model")
    suppliers = [
        {**{key: supplier[key] for key in keys}, **(limits or {}).get(supplier["address"], {})}
        for supplier in net.roster()["suppliers"]
    ]
    path = folder / "testbench.yaml"
    settings = {"simulation": True, "suppliers": suppliers, "tasks": list(tasks), **blocks}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return Workspace(load_config(path))


def prepared(workspace: Workspace) -> None:
    """The roster and the catalog, where stale."""
    refresh_roster(workspace)
    for spec in stale_tasks(workspace, workspace.specs):
        refresh_dataset(workspace, spec)
        refresh_prompts(workspace, spec)


def evaluated(workspace: Workspace, *, force_since: datetime | None = None) -> RelayReport:
    """One pass of all stages over all suppliers."""
    prepared(workspace)
    suppliers = active_suppliers(workspace)
    report = relay_due(workspace, [s.key for s in suppliers], force_since=force_since)
    score_new(workspace, [s.key for s in suppliers])
    refresh_plans(workspace, suppliers)
    return report
