"""SIGKILL at random instants, to one part after the other and to all at once, while suppliers are evaluated.

Nobody repairs anything; `dagster dev` is started anew where it ended. In the end the platform is quiet and
complete by itself, and what it stored is what the suppliers received: nothing lost but what was in flight at
the kill of a run's process or answered within the second before it, nothing counted twice.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from testbench_dagster.stages.score.windows import windows
from testbench_dagster_tests.busy import times_slower
from testbench_dagster_tests.operations.evidence import (
    DURABLE_S,
    assert_one_at_a_time,
    assert_scored_once,
    docs_scored,
    lost_requests,
)
from testbench_dagster_tests.operations.harness import (
    DAY,
    INTERVAL_S,
    UNFINISHED,
    Platform,
    platform,
    wait_until,
)
from testbench_dagster_tests.operations.servers import both_stores

pytestmark = pytest.mark.slow(minutes=6)

SEED = os.environ.get("TESTBENCH_TEST_SEED") or str(random.SystemRandom().getrandbits(32))
SUPPLIERS_N, PER_RUN, DOCS, MORE_DOCS = 12, 4, 15, 25
TASKS = ("starter_logic", "starter_units", "starter_reading")
IN_FLIGHT = 4
"""Of one run, and so of one supplier."""
LATENCY_S = 0.04
MAX_AGE_S = 30.0
"""So short that there is always something to ask."""
START_TIMEOUT_S, POLL_S = 90, 5
"""Of Dagster's run monitoring (180 and 30 in production): what was starting at a power cut holds its slot so
long, for such a run has no heartbeat yet that could be missed."""
LAG_S = 1.0
"""What a busy machine adds to the times above and below."""
RELAYING_WITHIN_S = 600.0
ENDED_WITHIN_S = 900.0
PROCESSES = {
    "daemon": ("-m dagster._daemon",),
    "webserver": ("-m dagster_webserver",),
    "code server": ("-m dagster code-server", "-m dagster api grpc"),
}


# on the embedded stores test_budgets.py kills a run and then everything
@pytest.fixture(params=["servers"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp(request.param)
    with (
        both_stores(request) as environment,
        platform(
            folder,
            SUPPLIERS_N,
            {**environment, "TESTBENCH_SUPPLIERS_PER_RUN": str(PER_RUN)},
            latency_ms=LATENCY_S * 1000,
            run_monitoring={"start_timeout_seconds": START_TIMEOUT_S, "poll_interval_seconds": POLL_S},
            **settings(DOCS, MAX_AGE_S),
        ) as made,
    ):
        made.start()
        yield made


def settings(docs: int, max_age_s: float) -> dict[str, object]:
    samples = {"min": docs, "max": docs, "half_width": None}
    return {
        "tasks": [{"name": name, "samples": samples} for name in TASKS],
        "sampling": {"max_age_days": max_age_s / DAY, "window": 100},
        "relays": {"connect_s": 20, "first_byte_s": 50, "total_s": 100, "max_in_flight": IN_FLIGHT},
    }


def in_flight(made: Platform) -> list[str]:
    """Suppliers that are answering a request."""
    return [f"{a}@simulation" for a, s in made.localnet.stats().items() if s["in_flight"]]


def relaying_workers(made: Platform) -> dict[str, int]:
    """Runs that have a request in flight at this moment, with their processes."""
    workers, leases = made.workers(), made.leases()
    runs = {leases.get(key, "") for key in in_flight(made)}
    return {run: pid for run, pid in workers.items() if run in runs}


def random_instant(made: Platform, draw: random.Random) -> dict[str, int]:
    """Wait for relaying, then a random while, and return the runs that are relaying now."""
    wait_until("relays", lambda: relaying_workers(made), RELAYING_WITHIN_S, every_s=0.05)
    time.sleep(draw.uniform(0, 2))
    return wait_until("relays", lambda: relaying_workers(made), RELAYING_WITHIN_S, every_s=0.02)


def strike(made: Platform, victim: str, draw: random.Random) -> tuple[float, float]:
    """Kill a part at a random instant; return when, and when suppliers were asked something again."""
    relaying = random_instant(made, draw)
    if victim == "worker":
        run = draw.choice(sorted(relaying))
        at = made.kill([relaying[run]])
    elif victim == "everything":
        at = time.time()
        made.kill_everything()
    else:
        pids = [pid for word in PROCESSES[victim] for pid in made.pids(word)]
        assert pids, victim
        at = made.kill(pids)
    if victim == "everything":
        # from now on samples live long, so that the work comes to an end; of more docs, so that there is some
        made.configure(**settings(MORE_DOCS, DAY))
        made.start()
    elif victim in ("daemon", "webserver"):
        made.start_again()
    before = sum(s["requests"] for s in made.localnet.stats().values())
    wait_until(
        "further relays",
        lambda: sum(s["requests"] for s in made.localnet.stats().values()) > before,
        RELAYING_WITHIN_S,
        every_s=0.1,
    )
    return at, time.time()


def unfinished(made: Platform, since: float) -> list[dict[str, object]]:
    """Runs from before an instant that have no end."""
    runs = made.runs(*UNFINISHED)
    return [{k: r[k] for k in ("runId", "jobName", "status")} for r in runs if r["creationTime"] < since]


def test_nothing_is_lost_and_nothing_counted_twice(running: Platform) -> None:
    draw = random.Random(SEED)
    print(f"TESTBENCH_TEST_SEED={SEED}")
    victims = ["worker", *PROCESSES]
    draw.shuffle(victims)
    kills: list[tuple[str, float]] = []
    for victim in (*victims, "everything"):
        at, again = strike(running, victim, draw)
        kills.append((victim, at))
        print(f"{victim}: killed at {at:.2f}, relays again after {again - at:.1f} s")
    power_cut = kills[-1][1]

    # what the machine's death interrupted ends by itself, and so does the work
    wait_until(
        "the end of all runs before the power cut",
        lambda: not unfinished(running, power_cut),
        ENDED_WITHIN_S,
    )
    print(f"all runs before it had ended {time.time() - power_cut:.1f} s after the power cut")
    expected = {f"{s['address']}@{s['service']}": len(TASKS) * MORE_DOCS for s in running.localnet.roster()}
    assert len(expected) == SUPPLIERS_N
    wait_until("complete windows", lambda: docs_scored(running) == expected, ENDED_WITHIN_S, every_s=1)
    print(f"all windows were complete {time.time() - power_cut:.1f} s after the power cut")

    wait_until("rest", running.at_rest, ENDED_WITHIN_S, every_s=1)
    print(f"at rest {time.time() - power_cut:.1f} s after the power cut")
    with running.workspace() as workspace:
        rows = [row for row in windows(workspace) if row.primary]
    assert {row.n for row in rows} == {MORE_DOCS}
    assert len(rows) == SUPPLIERS_N * len(TASKS)
    assert running.leases() == {}
    assert running.workers() == {}
    assert in_flight(running) == []
    time.sleep(2 * INTERVAL_S)
    assert running.at_rest(), "work began again although nothing is due"

    lost = lost_requests(running)
    deadly = [at for victim, at in kills if victim in ("worker", "everything")]
    slower = times_slower()
    durable_s, lag_s = DURABLE_S * slower, LAG_S * slower
    for request in lost:
        before = LATENCY_S + lag_s + (0 if request.outcome == "cancelled" else durable_s)
        assert any(at - before <= request.at <= at + lag_s for at in deadly), (
            f"{request} was lost although no run's process was killed then: {kills}"
        )
    cancelled = [request for request in lost if request.outcome == "cancelled"]
    assert len(cancelled) <= 3 * IN_FLIGHT, "one run was killed alone, at most two at the power cut"
    print(f"lost: {len(lost)} requests; the suppliers saw {len(cancelled)} of them cut off")
    stats = running.localnet.stats()
    assert len(running.attempts()) == sum(s["requests"] for s in stats.values()) - len(lost)
    assert_scored_once(running)
    leases = assert_one_at_a_time(running)
    assert leases > SUPPLIERS_N, "nobody was relayed to twice: the test did not test anything"
    assert max(s["in_flight_max"] for s in stats.values()) <= IN_FLIGHT
