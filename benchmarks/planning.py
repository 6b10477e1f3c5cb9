"""What planning a supplier costs, against another checkout of the package in the same run.

    python benchmarks/planning.py [--peer CHECKOUT] [--tasks 100] [--docs 50] [--suppliers 20]

Suppliers with answers to all docs of all tasks are planned from the embedded store: once with every doc
answered, once with one in twenty open, for a fixed number of docs and for one that follows from a half width.
Seconds are of CPU, the least of five passes. With ``--peer`` the folder of another checkout is measured the
same way, in turn, and the ratio printed (target: at most 1.3 times commit 3c46674).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

# the variable is set where the peer is measured, which would be found too late by PYTHONPATH
sys.path.insert(0, os.environ.get("TESTBENCH_PLANNING_PEER") or str(Path(__file__).resolve().parent.parent))

import testbench_dagster
from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import EPOCHS, PROMPTS
from testbench_dagster_tests.stages.score.facts import Facts, configuration

NOW = datetime.now(UTC).replace(microsecond=0)
RULES: dict[str, Any] = {"number": 50, "half width": {"min": 25, "max": 100, "half_width": 0.1}}
PASSES = 5


def fill(folder: Path, samples: Any, tasks: int, docs: int, suppliers: int, share: float) -> Workspace:
    """An installation in which a share of each supplier's docs is open."""
    names = [f"task{n:03}" for n in range(tasks)]
    roster = [
        {"address": f"s{n}", "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "chat"}
        for n in range(suppliers)
    ]
    settings = {
        "suppliers": roster,
        "tasks": [{"name": "starter_logic", "alias": name, "samples": samples} for name in names],
    }
    workspace = Workspace(configuration(folder, settings))
    facts, most = Facts(workspace), 100
    for name in names:
        registration = facts.registration(name, n_docs=200)
        epoch = {
            "_id": f"e-{name}",
            "task": name,
            "epoch": 1,
            "seed": "s",
            "seed_sha256": "",
            "started_at": NOW,
        }
        workspace.documents.put_new(EPOCHS, [epoch])
        prompts = [
            {"_id": f"{name}-{doc}", "task": name, "task_hash": registration.task_hash, "epoch": 1,
             "api": "chat", "position": doc, "doc_id": doc, "doc_hash": "", "calls": 1, "relayable": True,
             "requests": [{"type": "generate_until", "idx": 0}]}
            for doc in range(most)
        ]  # fmt: skip
        workspace.documents.put_new(PROMPTS, prompts)
        for supplier in roster:
            key = f"{supplier['address']}@external"
            for doc in range(docs):
                at = NOW - timedelta(days=1, seconds=doc)
                open_ = share > 0 and doc % round(1 / share) == 0
                facts.attempt(
                    registration, doc, Fault.TRANSPORT if open_ else Fault.OK, at, supplier=key, text="yes"
                )
                if not open_:
                    facts.score(registration, doc, float(doc % 3 > 0), at, supplier=key)
    return workspace


def measure(tasks: int, docs: int, suppliers: int) -> dict[str, float]:
    """CPU milliseconds per supplier, by what was planned."""
    found = {}
    for rule, samples in RULES.items():
        for share in (0.0, 0.05):
            with (
                tempfile.TemporaryDirectory() as folder,
                fill(Path(folder), samples, tasks, docs, suppliers, share) as workspace,
            ):
                roster, times = active_suppliers(workspace), []
                for _ in range(PASSES):
                    planner = Planner(workspace, now=NOW)
                    planner.plan(roster[0])  # reads what all share
                    start = time.process_time()
                    for supplier in roster[1:]:
                        planner.plan(supplier)
                    times.append(time.process_time() - start)
                found[f"{rule}, {share:.0%} open"] = 1000 * min(times) / (len(roster) - 1)
    return found


def _measured() -> str:
    """The folder of the package that this process measures."""
    return str(Path(testbench_dagster.__file__).resolve().parent.parent)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--docs", type=int, default=50)
    parser.add_argument("--suppliers", type=int, default=20)
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    own = measure(options.tasks, options.docs, options.suppliers)
    if options.json:
        print(json.dumps({"checkout": _measured(), "found": own}))
        return
    peer: dict[str, float] = {}
    if options.peer is not None:
        size = ["--tasks", str(options.tasks), "--docs", str(options.docs)]
        command = [sys.executable, __file__, "--json", *size, "--suppliers", str(options.suppliers)]
        environment = {**os.environ, "TESTBENCH_PLANNING_PEER": str(options.peer.resolve())}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        told = json.loads(done.stdout)
        if told["checkout"] != str(options.peer.resolve()):
            raise SystemExit(f"measured {told['checkout']} instead of {options.peer}")
        peer = told["found"]
    print(f"{options.tasks} tasks, {options.docs} docs; CPU ms per supplier")
    for name, milliseconds in own.items():
        ratio = f"   peer {peer[name]:8.1f}   ratio {milliseconds / peer[name]:.2f}" if peer else ""
        print(f"  {name:24} {milliseconds:8.1f}{ratio}")


if __name__ == "__main__":
    main()
