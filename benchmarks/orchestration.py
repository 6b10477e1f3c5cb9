"""What Dagster costs per supplier when relays and scoring do nothing, process start included.

    python benchmarks/orchestration.py [--suppliers 50 250] [--sqlite | --servers] [--rounds 3]

Each row is one `testbench run --max-relays 0` in a process of its own on an installation whose catalog is
ready: roster, one evaluation run over all suppliers with its checks, leaderboard. Beside it stands a bare
`python -c "import dagster"`, and the CPU the code location's import adds to that. Of several rounds the
shortest is shown. The same on two back ends: embedded files, and PostgreSQL with MongoDB (``--servers``),
which are started when they can be found (see testbench_dagster_tests/servers.py).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from testbench_dagster_tests import servers

TARGETS_MS = {50: 120.0, 250: 30.0}
EMBEDDED = "SQLite"
SERVERS = "PostgreSQL and MongoDB"


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


@contextlib.contextmanager
def running(backend: str) -> Iterator[tuple[str, str] | None]:
    """The servers of a back end while they run: PostgreSQL's and MongoDB's address."""
    if backend == EMBEDDED:
        yield None
        return
    with servers.postgres_server() as postgres, servers.mongo_server() as mongo:
        yield postgres, mongo


@contextlib.contextmanager
def databases(addresses: tuple[str, str] | None) -> Iterator[dict[str, str]]:
    """The variables that name new databases on these servers; none where there are no servers."""
    if addresses is None:
        yield {}
        return
    postgres, mongo = addresses
    with servers.postgres_database(postgres) as sql, servers.mongo_database(mongo) as documents:
        yield {
            "DAGSTER_POSTGRES_URL": sql,
            "TESTBENCH_POSTGRES_URI": sql,
            "TESTBENCH_MONGO_URI": documents,
        }


def measure(backend: str, counts: list[int], rounds: int, base: dict[str, str], folder: Path) -> None:
    """Print a row for each number of suppliers."""
    testbench = [sys.executable, "-c", "from testbench_dagster.cli import main; main()"]
    run = [*testbench, "run", "--max-relays", "0"]
    print(
        f"\n{backend}\n{'suppliers':>9}  {'wall s':>7}  {'CPU s':>6}  {'ms/supplier':>11}  {'target':>7}  "
        f"{'x import dagster':>16}"
    )
    with running(backend) as addresses:
        for count in counts:
            home = folder / backend.split()[0] / str(count)
            home.mkdir(parents=True)
            (home / "testbench.yaml").write_text(yaml.safe_dump(settings(count)))
            with databases(addresses) as named:
                environment = {**base, **named, "TESTBENCH_CONFIG": str(home / "testbench.yaml")}
                timed(run, environment, home)  # prepares the catalog
                bare, _ = min(
                    timed([sys.executable, "-c", "import dagster"], base, home) for _ in range(rounds)
                )
                wall, cpu = min(timed(run, environment, home) for _ in range(rounds))
            target = TARGETS_MS.get(count)
            shown, each = f"{target:.0f}" if target else "–", wall / count * 1000
            print(
                f"{count:>9}  {wall:>7.2f}  {cpu:>6.2f}  {each:>11.1f}  {shown:>7}  {wall / bare:>16.1f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, nargs="+", default=[50, 250])
    parser.add_argument("--rounds", type=int, default=3)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--sqlite", action="store_true", help="on embedded files alone")
    only.add_argument("--servers", action="store_true", help="on PostgreSQL and MongoDB alone")
    chosen = parser.parse_args()
    base = {**os.environ, "TESTBENCH_SUPPLIERS_PER_RUN": str(max(chosen.suppliers))}
    for name in ("DAGSTER_POSTGRES_URL", "TESTBENCH_POSTGRES_URI", "TESTBENCH_MONGO_URI"):
        base.pop(name, None)
    with tempfile.TemporaryDirectory() as folder:
        _, bare = timed([sys.executable, "-c", "import dagster"], base, Path(folder))
        _, loaded = timed([sys.executable, "-c", "import testbench_dagster.definitions"], base, Path(folder))
        print(f"import dagster {bare:.2f} s CPU; code location adds {loaded - bare:.2f} s (target 1 s)")
        for backend in (EMBEDDED, SERVERS):
            if (chosen.servers and backend == EMBEDDED) or (chosen.sqlite and backend == SERVERS):
                continue
            measure(backend, chosen.suppliers, chosen.rounds, base, Path(folder))


if __name__ == "__main__":
    main()
