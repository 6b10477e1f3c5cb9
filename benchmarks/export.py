"""What files for other tools cost: all answers of a supplier for Inspect, for lm-eval, and as parquet.

    python benchmarks/export.py [--docs 10000] [--per-day 1000]

Each format in a process of its own, answers of some 280 characters, from what is cached beside the windows.
Targets for 10,000 samples: 5 s and 300 MB.

Then what ``testbench export DEST --since last`` costs for one new day of ``--per-day`` attempts and scores
after 30, 90 and 300 days of history, beside all facts written anew. Target: the same, ±10 % of what the store
examines. Set TESTBENCH_MONGO_URI (an empty database) to measure that on MongoDB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from reading import fill, prepare, register

from testbench_dagster.api import EXPORT_FORMATS, Testbench
from testbench_dagster.config import load_config
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.publish.by_day import LAST, export_by_day
from testbench_dagster.stages.publish.export import export_parquet
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster_tests.examined import examined
from testbench_dagster_tests.stages.publish.days import AFTER, BEFORE, TODAY, fill_day

TARGET_S, TARGET_MB, SAMPLES = 5.0, 300, 10_000
DAYS = (30, 90, 300)


def made(config: Path, docs: int) -> None:
    """Fill an installation of one supplier."""
    with Workspace(load_config(config)) as workspace:
        registrations = register(workspace, {"large": docs})
        [supplier] = active_suppliers(workspace)
        fill(workspace, supplier.key, registrations["large"])
        refresh_window_cache(workspace, [supplier.key])


def most_memory() -> float:
    """Most memory of this process so far, in MB; getrusage would tell at least that of who started it."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return int(line.split()[1]) / 1024


def one(config: Path, format_: str, out: Path) -> None:
    """Export once; print what it cost as JSON."""
    with Testbench.open(config) as testbench:
        before = most_memory()
        start, cpu = time.perf_counter(), time.process_time()
        written = testbench.export(out, tasks=["large"], format=format_)
        took, spent = time.perf_counter() - start, time.process_time() - cpu
    peak = most_memory()
    size = sum(path.stat().st_size for path in written) / 1e6
    print(json.dumps([took, spent, before, peak, size, len(written)]))


def by_day(config: Path, per_day: int, folder: Path) -> None:
    """Let the history of an installation grow, and print what one more day of it costs to export."""
    print("\n| days before | CPU ms | peak memory, MB | examined | all facts anew: CPU ms |")
    print("|---|---|---|---|---|")
    with Workspace(load_config(config)) as workspace:
        documents, known = workspace.documents, 0
        for days in DAYS:
            for day in range(known + 1, days + 1):
                fill_day(workspace, TODAY - timedelta(days=day), per_day)
            known = days
            export_by_day(documents, folder / str(days), LAST, now=BEFORE)
            shutil.copytree(folder / str(days), folder / "again")
            fill_day(workspace, TODAY, per_day)
            cpu = time.process_time()
            done = export_by_day(documents, folder / str(days), LAST, now=AFTER)
            spent = time.process_time() - cpu
            assert list(done.files.values()) == [per_day, per_day]
            with examined(workspace) as count:
                export_by_day(documents, folder / "again", LAST, now=AFTER)
                looked_at = count()
            cpu = time.process_time()
            export_parquet(documents, folder / "all", {})
            anew = time.process_time() - cpu
            print(f"| {days} | {spent * 1e3:.0f} | {most_memory():.0f} | {looked_at:,} | {anew * 1e3:,.0f} |")
            shutil.rmtree(folder / "again")
            for collection, at in ((ATTEMPTS, "finished_at"), (SCORES, "answered_at")):
                documents.purge(collection, {at: {"gte": TODAY}})


def main() -> None:
    """Fill an installation and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=SAMPLES)
    parser.add_argument("--per-day", type=int, default=1_000)
    parser.add_argument("--one", nargs=3, metavar=("CONFIG", "FORMAT", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    server = os.environ.pop("TESTBENCH_MONGO_URI", None)
    for name in ("TESTBENCH_HOME", "TESTBENCH_POSTGRES_URI"):
        os.environ.pop(name, None)
    if given.one:
        one(Path(given.one[0]), given.one[1], Path(given.one[2]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = prepare(folder, 1, 1, given.docs)
        made(config, given.docs)
        print(f"| {given.docs:,} samples | s | CPU s | peak memory, MB | before, MB | MB written | files |")
        print("|---|---|---|---|---|---|---|")
        for format_ in EXPORT_FORMATS:
            command = [sys.executable, __file__, "--one", str(config), format_, str(folder / format_)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            took, cpu, before, peak, size, files = json.loads(done.stdout)
            print(
                f"| {format_} | {took:.1f} | {cpu:.1f} | {peak:.0f} | {before:.0f} | {size:.1f} | {files} |"
            )
        print(f"| target for {SAMPLES:,} | {TARGET_S:.0f} | | {TARGET_MB} | | | |")
        if server is not None:
            os.environ["TESTBENCH_MONGO_URI"] = server
        grown = folder / "grown"
        grown.mkdir()
        by_day(prepare(grown, 1, 1, 1), given.per_day, grown)


if __name__ == "__main__":
    main()
