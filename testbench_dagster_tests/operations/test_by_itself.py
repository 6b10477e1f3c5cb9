"""Twenty suppliers kept fresh with nobody at the keyboard; joining, leaving, ageing, swapping, budgets.

One platform for all of it, in order, because it takes its time to start; each step waits for what an operator
would see in the UI and then counts at the simulated suppliers.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stores.documents.collections import SUPPLIERS
from testbench_dagster_tests.commands import say
from testbench_dagster_tests.operations.harness import DAY, INTERVAL_S, Platform, platform, wait_until
from testbench_dagster_tests.operations.servers import both_stores

pytestmark = pytest.mark.slow(minutes=5)

SUPPLIERS_N = 20
DOCS, TASKS = 8, 2
MAX_AGE_S = 120.0
#: A tick may be late by the daemon's own loop; a run takes 5-10 s to start and waits for one of two slots.
PARTITION_WITHIN_S = 240.0
EVALUATED_WITHIN_S = 600.0


# embedded stores serve the other long tests of this folder
@pytest.fixture(scope="module", params=["servers"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp(request.param)
    with (
        both_stores(request) as environment,
        platform(
            folder,
            SUPPLIERS_N,
            environment,
            sampling={"max_age_days": MAX_AGE_S / DAY, "window": 100},
            roster={"grace_hours": 10 / 3600},
            budget={"relays_per_day": 100_000, "relays_per_supplier_hour": 400},
        ) as made,
    ):
        made.start()
        yield made


def evaluated(made: Platform, key: str, since: datetime) -> bool:
    """Whether a supplier has scores of answers after an instant for every task."""
    rows = made.scores(supplier=key, answered_at={"gt": since})
    docs = {(row["task"], row["doc_id"]) for row in rows}
    return len({task for task, _ in docs}) == TASKS and len(docs) == DOCS * TASKS


def test_everyone_gets_a_partition_and_first_scores(running: Platform) -> None:
    keys = {f"{s['address']}@{s['service']}" for s in running.localnet.roster()}
    assert len(keys) == SUPPLIERS_N
    wait_until("twenty partitions", lambda: set(running.partitions()) == keys, PARTITION_WITHIN_S)
    wait_until("their evaluation", lambda: running.materialized() >= keys, EVALUATED_WITHIN_S)
    attempts = Counter(a["supplier"] for a in running.attempts())
    assert set(attempts) == keys
    # what was sent is what the suppliers received, relay by relay
    stats = running.localnet.stats()
    assert {f"{a}@simulation": s["requests"] for a, s in stats.items() if s["requests"]} == attempts
    names = {run["jobName"] for run in running.runs()}
    assert {"refresh_catalog", "evaluate_suppliers"} <= names


def test_a_newcomer_is_found_and_evaluated(running: Platform) -> None:
    running.localnet.join(address="newcomer")
    joined = time.monotonic()
    wait_until("its partition", lambda: "newcomer@simulation" in running.partitions(), PARTITION_WITHIN_S)
    print(f"partition after {time.monotonic() - joined:.1f} s")
    wait_until(
        "its first scores",
        lambda: evaluated(running, "newcomer@simulation", datetime.min.replace(tzinfo=UTC)),
        EVALUATED_WITHIN_S,
    )
    print(f"first scores after {time.monotonic() - joined:.1f} s")


def test_a_supplier_that_leaves_is_retired_and_keeps_its_history(running: Platform) -> None:
    key = "sim-20@simulation"
    known = len(running.attempts(supplier=key))
    assert known
    running.localnet.leave("sim-20")
    with running.documents() as documents:
        wait_until("its leave", lambda: documents.get(SUPPLIERS, key)["status"] == "left", PARTITION_WITHIN_S)
        events = [entry["event"] for entry in documents.get(SUPPLIERS, key)["history"]]
    assert events == ["joined", "left"]
    wait_until("its partition gone", lambda: key not in running.partitions(), EVALUATED_WITHIN_S)
    asked = running.localnet.stats()["sim-20"]["requests"]
    time.sleep(2 * INTERVAL_S)
    assert running.localnet.stats()["sim-20"]["requests"] == asked
    assert len(running.attempts(supplier=key)) >= known


def test_an_announced_swap_cuts_the_window(running: Platform) -> None:
    key, address = "sim-05@simulation", "sim-05"
    running.localnet.swap(address, accuracy=0.0, announce=True)

    def cut() -> datetime | None:
        with running.documents() as documents:
            found: datetime | None = documents.get(SUPPLIERS, key)["cut_at"]
        return found

    at = wait_until("the change to be noticed", cut, PARTITION_WITHIN_S)

    def new_window() -> bool:
        with running.workspace() as workspace:
            rows = [r for r in windows(workspace, suppliers=[key]) if r.primary and r.status != "unsupported"]
        return all(r.n and r.cut_at == at and r.first_sample_at and r.first_sample_at > at for r in rows)

    # at once, long before the old answers would have grown old
    wait_until("a window after the cut", new_window, EVALUATED_WITHIN_S, every_s=2)


def test_scores_are_renewed_when_they_grow_old(running: Platform) -> None:
    """One supplier stays as it is, another silently swaps its model: the roster says the same.

    As the old answers grow old, new ones take their place, and then the window is the new model's.
    """
    key, swapping = "sim-01@simulation", "sim-03@simulation"
    running.localnet.swap("sim-03", accuracy=0.0, announce=False)
    swapped = datetime.now(UTC)
    first = min(s["answered_at"] for s in running.scores(supplier=key))
    due = first + timedelta(seconds=MAX_AGE_S)
    left = (due - datetime.now(UTC)).total_seconds()
    wait_until(
        "renewal", lambda: evaluated(running, key, due - timedelta(seconds=1)), left + EVALUATED_WITHIN_S
    )
    with running.workspace() as workspace:
        rows = [r for r in windows(workspace, suppliers=[key]) if r.primary and r.status == "ok"]
    assert rows
    assert all(r.first_sample_at > due - timedelta(seconds=5) for r in rows if r.first_sample_at)

    def only_new() -> bool:
        with running.workspace() as workspace:
            rows = [r for r in windows(workspace, suppliers=[swapping]) if r.primary and r.status == "ok"]
        return bool(rows) and all(
            r.score == 0.0 and r.first_sample_at is not None and r.first_sample_at > swapped for r in rows
        )

    wait_until("a window of the new model's answers", only_new, MAX_AGE_S + EVALUATED_WITHIN_S, every_s=2)


def test_nobody_was_asked_more_than_is_polite_and_every_run_went_well(running: Platform) -> None:
    for address, stats in running.localnet.stats().items():
        assert max(stats["by_hour"].values(), default=0) <= 400, address
    failed = running.runs("FAILURE")
    assert failed == []
    for sensor in ("new_suppliers", "stale_scores", "stale_catalog", "lost_runs"):
        ticks = running.ticks(sensor)
        assert len(ticks) > 10, sensor
        assert {t["status"] for t in ticks} <= {"SUCCESS", "SKIPPED", "STARTED"}, (sensor, ticks[:3])


def test_a_backfill_is_waited_for_and_tells_how_far_it_is(running: Platform) -> None:
    keys = running.partitions()[:2]
    chosen = [word for key in keys for word in ("-s", key)]
    done = say(
        running.folder,
        "backfill",
        *chosen,
        "--rescore",
        "--wait",
        environment=os.environ | running.environment,
    )
    assert done.returncode == 0, done.stderr
    assert running.backfill_status(done.stdout.strip()) == "COMPLETED_SUCCESS"
    assert "of 2 suppliers is requested" in done.stderr
    assert re.search(r"\d of [12] runs? ended", done.stderr), done.stderr


@pytest.mark.parametrize("process", ["dagster._daemon", "api grpc"])
def test_neither_daemon_nor_code_server_loads_lm_eval(running: Platform, process: str) -> None:
    """lm_eval imports datasets, and that pyarrow's libraries: they would be mapped."""
    pids = running.pids(process)
    assert pids
    for pid in pids:
        mapped = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
        assert "python" in mapped
        assert "pyarrow" not in mapped
        assert "pandas" not in mapped
