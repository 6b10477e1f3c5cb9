"""What Dagster costs per supplier when relays and scoring do nothing, process start included.

    python benchmarks/orchestration.py [--suppliers 50 250]

Each row is one `testbench run --max-relays 0` in a process of its own on an installation whose catalog is
ready: roster, one evaluation run over all suppliers with its checks, leaderboard. Beside it stands a bare
`python -c "import dagster"`, and the CPU the code location's import adds to that.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

TARGETS_MS = {50: 120.0, 250: 30.0}


def timed(command: list[str], environment: dict[str, str], cwd: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, env=environment, cwd=cwd, capture_output=True, check=False)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def settings(suppliers: int) -> dict[str, object]:
    """A configuration whose suppliers nobody calls: the cap on relays is zero."""
    return {
        "suppliers": [
            {"address": f"s{i:04}", "base_url": "http://127.0.0.1:9/v1", "model": "none"}
            for i in range(suppliers)
        ],
        "tasks": [{"name": "starter_arithmetic", "samples": 20}],
        "taxonomies": ["builtin:starter"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, nargs="+", default=[50, 250])
    counts = parser.parse_args().suppliers
    testbench = [sys.executable, "-c", "from testbench_dagster.cli import main; main()"]
    with tempfile.TemporaryDirectory() as folder:
        base = {**os.environ, "TESTBENCH_SUPPLIERS_PER_RUN": str(max(counts))}
        _, bare = timed([sys.executable, "-c", "import dagster"], base, Path(folder))
        _, loaded = timed([sys.executable, "-c", "import testbench_dagster.definitions"], base, Path(folder))
        print(f"import dagster {bare:.2f} s CPU; code location adds {loaded - bare:.2f} s (target 1 s)\n")
        print(
            f"{'suppliers':>9}  {'wall s':>7}  {'ms/supplier':>11}  {'target':>7}  {'x import dagster':>16}"
        )
        for count in counts:
            home = Path(folder) / str(count)
            home.mkdir()
            (home / "testbench.yaml").write_text(yaml.safe_dump(settings(count)))
            environment = {**base, "TESTBENCH_CONFIG": str(home / "testbench.yaml")}
            timed([*testbench, "run", "--max-relays", "0"], environment, home)  # prepares the catalog
            bare_wall, _ = timed([sys.executable, "-c", "import dagster"], base, home)
            wall, _ = timed([*testbench, "run", "--max-relays", "0"], environment, home)
            target = TARGETS_MS.get(count)
            shown, each = f"{target:.0f}" if target else "–", wall / count * 1000
            print(f"{count:>9}  {wall:>7.2f}  {each:>11.1f}  {shown:>7}  {wall / bare_wall:>16.1f}")


if __name__ == "__main__":
    main()
