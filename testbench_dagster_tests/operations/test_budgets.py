"""Budgets under pressure: several runs at once share too little, are killed and restarted, and keep to it.

What counts is what the simulated suppliers received, looked at all the time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from testbench_dagster.coordination.budgets import next_period
from testbench_dagster.relays.quotas import MAX_SUPPLIER_CHUNK
from testbench_dagster.stages.plan.remaining import budget_left
from testbench_dagster_tests.operations.evidence import assert_scored_once, docs_scored, lost_requests
from testbench_dagster_tests.operations.harness import Platform, platform, wait_until
from testbench_dagster_tests.operations.servers import both_stores

pytestmark = pytest.mark.slow(minutes=5)

SUPPLIERS_N, PER_RUN, DOCS = 9, 3, 30
TASKS = ("starter_logic", "starter_units")
WANTED = DOCS * len(TASKS)  # by every supplier
DAY_CAP = SUPPLIERS_N * WANTED * 60 // 100
HOUR_CAP = 48  # of every supplier: more than its share of the day's budget, less than it wants
CHUNK = DAY_CAP // 8  # what a process holds of the day's budget at most: an eighth of what is left
#: Equal suppliers end equal, but for what another process held unused when a run's shares were made (it is
#: missing to all alike, and whoever comes later gets it), and for one where it does not divide.
SPREAD = -(-CHUNK // SUPPLIERS_N) + 1
IN_FLIGHT = 2  # of a run, so that relaying takes its time
LATENCY_MS = 120
TAKES = timedelta(minutes=6)  # the whole test on a busy machine; no hour may end meanwhile
SPENT_WITHIN_S, RAISED_WITHIN_S = 900.0, 600.0


def budgeted(day_cap: int, hour_cap: int) -> dict[str, object]:
    samples = {"min": DOCS, "max": DOCS, "half_width": None}
    return {
        "tasks": [{"name": name, "samples": samples} for name in TASKS],
        "relays": {"connect_s": 20, "first_byte_s": 50, "total_s": 100, "max_in_flight": IN_FLIGHT},
        "budget": {"relays_per_day": day_cap, "relays_per_supplier_hour": hour_cap},
    }


# over servers the same budgets are fought for in coordination/test_budgets.py
@pytest.fixture(params=["embedded"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp(request.param)
    with (
        both_stores(request) as environment,
        platform(
            folder,
            SUPPLIERS_N,
            {**environment, "TESTBENCH_SUPPLIERS_PER_RUN": str(PER_RUN)},
            latency_ms=LATENCY_MS,
            run_monitoring={"start_timeout_seconds": 90, "poll_interval_seconds": 5},
            **budgeted(DAY_CAP, HOUR_CAP),
        ) as made,
    ):
        left = next_period("hour", datetime.now(UTC)) - datetime.now(UTC)
        if left < TAKES:  # a new hour would renew the budgets in the middle of it
            time.sleep(left.total_seconds() + 1)
        made.start()
        yield made


class Watch:
    """Looks at what the suppliers received ten times a second, and remembers every cap that was exceeded."""

    def __init__(self, made: Platform) -> None:
        self._made = made
        self._ending = threading.Event()
        self.day_cap, self.hour_cap = DAY_CAP, HOUR_CAP
        self.looks = 0
        self.exceeded: list[str] = []
        self.failed: list[BaseException] = []

    def received(self) -> Counter[str]:
        """Requests per supplier."""
        return Counter({f"{a}@simulation": s["requests"] for a, s in self._made.localnet.stats().items()})

    def _look(self) -> None:
        try:
            while not self._ending.wait(0.1):
                received = self.received()
                self.looks += 1
                if received.total() > self.day_cap:
                    self.exceeded.append(f"{received.total()} requests of {self.day_cap} a day")
                self.exceeded += [
                    f"{n} requests to {key} of {self.hour_cap} an hour"
                    for key, n in received.items()
                    if n > self.hour_cap
                ]
        except BaseException as error:
            self.failed.append(error)

    @contextmanager
    def looking(self) -> Iterator[Watch]:
        """Look while the context lasts; fails at its end if a cap was ever exceeded."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ending.set()
            thread.join()
        assert self.failed == []
        assert self.exceeded == []
        assert self.looks > 100


def spent(made: Platform) -> bool:
    """Whether the day's budget is used up, and the platform knows that there is nothing to do."""
    with made.workspace() as workspace:
        left = budget_left(
            workspace.documents, workspace.config.settings.budget, "simulation", datetime.now(UTC)
        )
    return left == 0 and made.at_rest()


def test_no_cap_is_ever_exceeded_and_shares_are_fair(running: Platform) -> None:
    watch = Watch(running)
    with watch.looking():
        # two runs at a time; the process of one is killed in the middle, then everything
        wait_until("relays of two runs", lambda: len(set(running.leases().values())) == 2, 240, every_s=0.2)
        wait_until("a few answers", lambda: watch.received().total() > DAY_CAP // 10, 30, every_s=0.02)
        run, pid = next((r, p) for r, p in running.workers().items() if r in running.leases().values())
        running.kill([pid])
        killed = watch.received().total()
        wait_until("more answers", lambda: watch.received().total() > killed + 30, 60, every_s=0.02)
        running.kill_everything()
        dead = watch.received().total()
        assert dead < DAY_CAP, "nothing was left to go wrong"
        running.start()

        wait_until("the budget to be spent", lambda: spent(running), SPENT_WITHIN_S)
        used = watch.received()
        print(f"{run} killed at {killed}, everything at {dead} requests; of {DAY_CAP}: {dict(used)}")
        stored = Counter(a["supplier"] for a in running.attempts())
        per_task = Counter((a["supplier"], a["task"]) for a in running.attempts())
        print(f"stored {dict(stored)}, spread {max(stored.values()) - min(stored.values())}")
        assert len(per_task) == SUPPLIERS_N * len(TASKS), "somebody, or some task, got nothing"
        assert max(stored.values()) - min(stored.values()) <= SPREAD
        # tasks take turns, one relay each; what was in flight at a kill may be missing of one of them
        assert all(abs(per_task[k, TASKS[0]] - per_task[k, TASKS[1]]) <= 2 * IN_FLIGHT for k in stored)
        # dead processes keep at most a chunk each: one was killed alone, at most two by the power cut
        assert used.total() >= DAY_CAP - 3 * CHUNK

        # the day's budget raised: the suppliers' hours are what ends it now; nothing is restarted
        watch.day_cap = 10_000
        running.configure(**budgeted(watch.day_cap, HOUR_CAP))
        changed = time.monotonic()
        wait_until("further relays", lambda: watch.received().total() > used.total(), RAISED_WITHIN_S)
        print(f"raised: further relays after {time.monotonic() - changed:.1f} s")
        wait_until("the hours to be used up", running.at_rest, RAISED_WITHIN_S)
        hours = watch.received()
        print(f"hours {dict(hours)}")
        # a killed process takes what it was granted and had not used with it
        assert all(HOUR_CAP - 2 * MAX_SUPPLIER_CHUNK <= n <= HOUR_CAP for n in hours.values())

        watch.hour_cap = 1_000
        running.configure(**budgeted(watch.day_cap, watch.hour_cap))
        everything = dict.fromkeys(hours, WANTED)
        wait_until(
            "all docs",
            lambda: docs_scored(running) == everything,
            RAISED_WITHIN_S,
        )
    assert len(running.attempts()) == watch.received().total() - len(lost_requests(running))
    assert_scored_once(running)
