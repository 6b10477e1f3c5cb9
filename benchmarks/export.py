"""What files for other tools cost: all answers of a supplier for Inspect, for lm-eval, and as parquet.

    python benchmarks/export.py [--docs 10000]

Each format in a process of its own, answers of some 280 characters, from what is cached beside the windows.
Targets for 10,000 samples: 5 s and 300 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reading import fill, prepare, register

from testbench_dagster.api import EXPORT_FORMATS, Testbench
from testbench_dagster.config import load_config
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.workspace import Workspace

TARGET_S, TARGET_MB, SAMPLES = 5.0, 300, 10_000


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


def main() -> None:
    """Fill an installation and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=SAMPLES)
    parser.add_argument("--one", nargs=3, metavar=("CONFIG", "FORMAT", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    for name in ("TESTBENCH_HOME", "TESTBENCH_POSTGRES_URI", "TESTBENCH_MONGO_URI"):
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


if __name__ == "__main__":
    main()
