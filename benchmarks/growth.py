"""What the stages read of ten times the history with the window as full: as much, within 10 % (the target).

    python benchmarks/growth.py [--suppliers 40] [--tasks 10] [--weeks 10] [--times 1 3 10] [--mongo]
    python benchmarks/growth.py --attempts 300000 1000000 3000000 --mongo

Every supplier answers 25 docs of each task a week; the window is 32 days. Rows examined are what MongoDB's
profiler counts (keys and documents), and steps of SQLite's virtual machine, of which every row takes some.
Rows returned are what the store gave out. CPU is that of this process, so of MongoDB it is the client's part.

``--attempts``: as many weeks as give so many attempts, loaded past the store. 40 suppliers × 10 tasks make
11,200 attempts a week.

MongoDB is started when a server can be found (see testbench_dagster_tests/servers.py), or
TESTBENCH_TEST_MONGO_URI names one: one million attempts with their scores take about 3 GB there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from testbench_dagster.config import load_config
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests import servers
from testbench_dagster_tests.growing import History, Reads, Size, configure, counted_reads, works

TARGET = 0.1
Row = tuple[Reads, float]


@contextlib.contextmanager
def database(server: str | None) -> Iterator[None]:
    """Let the stores opened next be new: embedded ones, or a database of a MongoDB server."""
    os.environ.pop("TESTBENCH_MONGO_URI", None)
    with contextlib.ExitStack() as stack:
        if server is not None:
            os.environ["TESTBENCH_MONGO_URI"] = stack.enter_context(servers.mongo_database(server))
        yield


def measure(size: Size, server: str | None) -> dict[str, Row]:
    """Reads and CPU milliseconds of each piece of work, on a history of this size."""
    with tempfile.TemporaryDirectory(prefix="tb-growth-") as folder, database(server):
        home = Path(folder) / "home"
        started = time.perf_counter()
        with Workspace(load_config(configure(home, size))) as workspace:
            history = History(workspace, size)
            history.fill()
        print(f"  {size.attempts:,} attempts, filled in {time.perf_counter() - started:.0f} s", flush=True)
        found: dict[str, Row] = {}
        with Workspace(load_config(home / "testbench.yaml")) as workspace:
            for name, work, ready in works(History(workspace, size, history.now)):
                (ready or work)()
                with counted_reads(workspace) as reads:
                    work()
                    counted = reads()
                if ready is not None:
                    found[name] = counted, float("nan")
                    continue
                cpu = time.process_time()
                work()
                found[name] = counted, 1000 * (time.process_time() - cpu)
        return found


def table(store: str, sizes: Sequence[Size], found: Sequence[dict[str, Row]]) -> bool:
    """Print what was measured; whether nothing grew by more than the target."""
    heads = [f"{size.attempts / 1000:,.0f}k" for size in sizes]
    print(f"\n{store}: {sizes[0].suppliers} suppliers, {sizes[0].tasks} tasks; attempts {' / '.join(heads)}")
    print(f"{'':28}{'examined':>36}{'':7}{'returned':>27}{'':7}{'CPU ms':>24}")
    held = True
    for name in found[0]:
        rows = [of_size[name] for of_size in found]
        cells = []
        for values, width in (
            ([reads.examined for reads, _ in rows], 12),
            ([reads.returned for reads, _ in rows], 9),
        ):
            grown = values[-1] / values[0] if values[0] else float(values[-1] == 0)
            held &= abs(grown - 1) <= TARGET
            cells.append("".join(f"{value:>{width},}" for value in values) + f"{grown:>6.2f}x")
        cells.append("".join("       -" if cpu != cpu else f"{cpu:>8.1f}" for _, cpu in rows))
        print(f"{name:28}" + "".join(cells), flush=True)
    return held


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, default=40)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--weeks", type=int, default=10, help="of the shortest history; 8 fill the window")
    parser.add_argument("--times", type=int, nargs="*", default=[1, 3, 10])
    parser.add_argument("--attempts", type=int, nargs="*", help="histories of so many attempts instead")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--sqlite", action="store_true", help="on the embedded store alone")
    only.add_argument("--mongo", action="store_true", help="on MongoDB alone")
    args = parser.parse_args()
    one_week = Size(args.suppliers, args.tasks, 1).attempts
    weeks = [max(8, attempts // one_week) for attempts in args.attempts or ()]
    sizes = [
        Size(args.suppliers, args.tasks, number)
        for number in weeks or [args.weeks * times for times in args.times]
    ]
    held = True
    with contextlib.ExitStack() as stack:
        chosen: list[tuple[str, str | None]] = [] if args.mongo else [("SQLite", None)]
        if not args.sqlite:
            try:
                chosen.append(("MongoDB", stack.enter_context(servers.mongo_server())))
            except servers.ServerMissing as missing:
                print(f"without MongoDB: {missing}")
        for store, server in chosen:
            print(store, flush=True)
            held &= table(store, sizes, [measure(size, server) for size in sizes])
    print(f"\nnothing grows by more than {TARGET:.0%}: {'yes' if held else 'NO'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
