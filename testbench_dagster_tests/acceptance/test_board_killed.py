"""A board with readers, killed with SIGKILL in the middle of an evaluation: the run never notices.

The run ends with every answer, each scored once; the board comes back and shows them.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from testbench_dagster.localnet.demo import demo_settings
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stores.documents import Group
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster_tests.acceptance.harness import Installation, kill_group

SUPPLIERS, DOCS, READERS = 6, 60, 8
TASKS = ("starter_arithmetic", "starter_logic", "starter_units")
WITHIN_S = 120.0

pytestmark = pytest.mark.slow(minutes=2)


@contextmanager
def board(installation: Installation) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A board of its own over the installation, and its address."""
    process = installation.start("board", "--port", "0")
    try:
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.search(r"board: (http://127\.0\.0\.1:\d+)$", told.strip())
        assert found, told + process.stderr.read()
        yield process, found[1]
    finally:
        kill_group(process)


class Readers:
    """People who read pages one after the other until they are told to stop."""

    def __init__(self, address: str, paths: Sequence[str]) -> None:
        self.statuses: list[int] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(address, paths, number)) for number in range(READERS)
        ]

    def _read(self, address: str, paths: Sequence[str], number: int) -> None:
        while not self._over.is_set():
            try:
                with urllib.request.urlopen(
                    f"{address}{paths[number % len(paths)]}", timeout=WITHIN_S
                ) as page:
                    page.read()
                    self.statuses.append(page.status)
            except urllib.error.HTTPError as error:
                self.statuses.append(error.code)
            except OSError:  # killed
                time.sleep(0.05)
            number += 1

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_a_board_killed_under_its_readers_harms_nothing(installation: Installation) -> None:
    with LocalnetProcess(SUPPLIERS, latency_ms=150, fail_rate=0.0) as net:
        settings = demo_settings(net.roster())
        tasks = [{"name": name, "samples": {"min": DOCS, "max": DOCS, "half_width": None}} for name in TASKS]
        pace = {"max_in_flight": 4}
        installation.configure(
            **settings | {"tasks": tasks, "suppliers": [s | pace for s in settings["suppliers"]]}
        )
        keys = [f"{s['address']}@{s['service']}" for s in settings["suppliers"]]
        paths = [
            "/", "/catalog", "/changes", f"/supplier/{keys[0]}", f"/supplier/{keys[1]}/task/{TASKS[0]}",
            f"/task/{TASKS[1]}", f"/compare?a={keys[0]}&b={keys[1]}",
        ]  # fmt: skip
        installation.run("--max-relays", str(2 * SUPPLIERS))  # so that there is something to read
        run = installation.start("run")
        try:
            with board(installation) as (process, address), Readers(address, paths) as readers:
                wanted = SUPPLIERS * len(TASKS) * DOCS
                at = wait_for_attempts(installation, run, wanted // 3)
                assert len(readers.statuses) >= READERS and set(readers.statuses) == {200}
                kill_group(process)
                assert run.poll() is None and at < wanted, "it was killed in the middle"
                out, err = run.communicate(timeout=300)
        finally:
            kill_group(run)
    assert run.returncode == 0, f"{out[-2000:]}\n{err[-2000:]}"
    assert "database is locked" not in err and "Traceback" not in err
    with installation.documents() as documents:
        scored = {
            (row["supplier"], row["task"]): row["count"]
            for row in documents.group(SCORES, Group(by=["supplier", "task"]))
        }
        assert scored == {(key, task): DOCS for key in keys for task in TASKS}, "every answer, once"
        assert documents.count(ATTEMPTS) == wanted, "nothing was asked twice"
    with board(installation) as (_, address):
        for path in paths:
            with urllib.request.urlopen(f"{address}{path}", timeout=WITHIN_S) as page:
                text = page.read().decode()
                assert page.status == 200
            if path == "/":
                assert all(key in text for key in keys)


def wait_for_attempts(installation: Installation, run: subprocess.Popen[str], wanted: int) -> int:
    """Return how many attempts are stored as soon as they are so many."""
    deadline = time.monotonic() + WITHIN_S
    with installation.documents() as documents:
        while (stored := documents.count(ATTEMPTS)) < wanted:
            assert run.poll() is None, "the run ended too early"
            assert time.monotonic() < deadline, f"only {stored} of {wanted} attempts"
            time.sleep(0.05)
    return stored
