"""What people who read the board cost an evaluation that runs meanwhile: relays with and without them.

    python benchmarks/board_readers.py [--suppliers 60] [--readers 50] [--every 30] [--period 4] [--docs 80]

One `testbench run` over simulated suppliers with a `testbench board` beside it. Readers, each a page every
``--every`` seconds, come and go in turns of ``--period`` seconds within that one run, so that both figures
have the same machine and the same suppliers. Counted are attempts by when they ended, between the first and
the last tenth of them, without the second after each turn; the CPU time is that of the run's processes alone
(Linux). Relays per second of wall time need an otherwise idle machine, relays per CPU second do not.

The target is that of 50 people during an evaluation of 500 suppliers (``--suppliers 500``: some ten minutes).
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import yaml

from testbench_dagster.localnet.demo import STARTER_TASKS, demo_settings
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stores.documents import open_documents
from testbench_dagster.stores.documents.collections import ATTEMPTS

TARGET = 0.10
SETTLED_S = 1.0  # after a turn of the readers what is in flight still belongs to the one before
_TESTBENCH = [sys.executable, "-c", "from testbench_dagster.cli import main; main()"]
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Readers:
    """People who look at a page every so many seconds, while they are there."""

    address: str
    paths: list[str]
    n: int
    every_s: float
    took_s: list[float] = field(default_factory=list)
    failed: int = 0
    there: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self.threads = [threading.Thread(target=self._read, args=(i,), daemon=True) for i in range(self.n)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.over.set()
        self.there.set()
        for thread in self.threads:
            thread.join(60)

    def _read(self, number: int) -> None:
        draw = random.Random(number)
        while not self.over.wait(draw.uniform(0, 2 * self.every_s)):  # so often on average
            if not self.there.is_set():
                continue
            began = time.perf_counter()
            try:
                with urllib.request.urlopen(self.address + draw.choice(self.paths), timeout=60) as page:  # noqa: S310  our own board
                    page.read()
                self.took_s.append(time.perf_counter() - began)
            except OSError:
                self.failed += 1


def cpu_seconds(group: int) -> float:
    """CPU time of the processes of a group that are alive, and of those of their children that ended."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(values[2]) == group:
            total += sum(map(int, values[11:15])) / _TICK
    return total


def started(command: list[str], folder: Path) -> subprocess.Popen[str]:
    """A command in a process group of its own."""
    return subprocess.Popen(
        [*_TESTBENCH, *command],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith(("TESTBENCH_", "DAGSTER_"))}
        | {"TESTBENCH_CACHE_DIR": str(folder / "cache")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass
class Turn:
    """A time in which readers were there, or not: when it began and ended, and CPU seconds then."""

    reading: bool
    began: float
    ended: float
    cpu: float


def turns(run: subprocess.Popen[str], readers: Readers, period_s: float) -> list[Turn]:
    """Let the readers come and go until the run is over."""
    found = []
    reading = False
    while run.poll() is None:
        (readers.there.set if reading else readers.there.clear)()
        time.sleep(SETTLED_S)
        began, cpu = time.time(), cpu_seconds(run.pid)
        until = began + period_s - SETTLED_S
        while time.time() < until and run.poll() is None:
            time.sleep(0.1)
        if run.poll() is None:
            found.append(Turn(reading, began, time.time(), cpu_seconds(run.pid) - cpu))
        reading = not reading
    readers.there.clear()
    return found


def ended_at(folder: Path, since: float) -> list[float]:
    """When the attempts of the run ended, ascending."""
    documents = open_documents(folder / ".testbench", None)
    try:
        rows = documents.find(ATTEMPTS, fields=["finished_at"])
        times = [row["finished_at"] for row in rows]
    finally:
        documents.close()
    return sorted(at for t in times if isinstance(t, datetime) and (at := t.timestamp()) > since)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suppliers", type=int, default=60)
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two pages of a reader")
    parser.add_argument("--period", type=float, default=4.0, help="seconds that readers stay, or are gone")
    parser.add_argument("--docs", type=int, default=80)
    parser.add_argument("--latency-ms", type=float, default=100.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        LocalnetProcess(options.suppliers, latency_ms=options.latency_ms, fail_rate=0.0) as net,
    ):
        folder = Path(name)
        settings = demo_settings(net.roster())
        docs = {"min": options.docs, "max": options.docs, "half_width": None}
        settings["tasks"] = [{"name": task, "samples": docs} for task in STARTER_TASKS]
        (folder / "testbench.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        first = started(["run", "--max-relays", str(8 * options.suppliers)], folder)
        told_by_first = first.communicate()[1]
        if first.returncode:
            raise SystemExit(f"the first run failed, there is nothing to read: {told_by_first[-1000:]}")
        board = started(["board", "--port", "0"], folder)
        assert board.stderr is not None
        told = re.search(r"board: (http://127\.0\.0\.1:\d+)", board.stderr.readline())
        assert told, "the board did not start"
        keys = [f"{s['address']}@{s['service']}" for s in settings["suppliers"]]
        paths = ["/", "/catalog", "/changes", *(f"/task/{task}" for task in STARTER_TASKS[:3])]
        for key, other in itertools.pairwise(keys[:21]):
            paths += [
                f"/supplier/{key}",
                f"/supplier/{key}/task/{STARTER_TASKS[0]}",
                f"/compare?a={key}&b={other}",
            ]
        readers = Readers(told[1], paths, options.readers, options.every)
        began = time.time()
        run = started(["run"], folder)
        drain = threading.Thread(target=run.stderr.read if run.stderr else None, daemon=True)
        drain.start()
        readers.start()
        try:
            found = turns(run, readers, options.period)
            own = cpu_seconds(board.pid)
        finally:
            readers.stop()
            board.kill()
            board.wait()
        report(found, ended_at(folder, began), readers, own, run.returncode)


def down_in_pair(one: Turn, other: Turn, times: list[float]) -> float:
    """By what share fewer relays a CPU second there are in that of two turns in which readers are there."""
    rates = {
        turn.reading: sum(turn.began <= at < turn.ended for at in times) / turn.cpu for turn in (one, other)
    }
    return 1 - rates[True] / rates[False]


def report(found: list[Turn], times: list[float], readers: Readers, board_cpu_s: float, code: int) -> None:
    """Print both rates and how they differ."""
    first, last = times[len(times) // 10], times[-1 - len(times) // 10]
    inside = [turn for turn in found if turn.began >= first and turn.ended <= last]
    print(f"{len(times):,} relays, exit code {code}; {len(inside)} turns counted of {len(found)}")
    rates: dict[bool, tuple[float, float]] = {}
    print(f"\n{'readers':>8}  {'turns':>5}  {'relays':>8}  {'relays/s':>9}  {'relays/CPU s':>12}")
    for reading in (False, True):
        chosen = [turn for turn in inside if turn.reading is reading]
        n = sum(sum(turn.began <= at < turn.ended for at in times) for turn in chosen)
        wall, cpu = sum(t.ended - t.began for t in chosen), sum(t.cpu for t in chosen)
        if not chosen or not cpu:
            raise SystemExit(
                "the run is too short for turns of this length: more --docs or a shorter --period"
            )
        rates[reading] = n / wall, n / cpu
        print(f"{readers.n * reading:>8}  {len(chosen):>5}  {n:>8,}  {n / wall:>9,.0f}  {n / cpu:>12,.0f}")
    down = [1 - with_ / without for with_, without in zip(rates[True], rates[False], strict=True)]
    print(f"\ndown by {down[0]:.1%} a second, {down[1]:.1%} a CPU second (target below {TARGET:.0%})")
    pairs = [down_in_pair(one, other, times) for one, other in itertools.pairwise(inside)]
    if len(pairs) > 3:
        low, middle, high = statistics.quantiles(pairs, n=4)
        print(f"a CPU second, from turn to turn: {middle:.1%}, middle half {low:.1%} to {high:.1%}")
    took = sorted(readers.took_s)
    if len(took) > 1:
        p95 = statistics.quantiles(took, n=20)[-1]
        print(
            f"{len(took)} pages read, {readers.failed} failed, p50 {statistics.median(took) * 1000:.0f} ms, "
            f"p95 {p95 * 1000:.0f} ms; the board took {board_cpu_s / len(took) * 1000:.0f} ms of CPU each"
        )


if __name__ == "__main__":
    main()
