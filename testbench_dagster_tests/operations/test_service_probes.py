"""Suppliers probed by the daemon with nobody at the keyboard, beside evaluations, within their own budget.

One platform for all of it, in order. What is due tomorrow would be seen tomorrow: here stored probes are
moved two days back instead, so that the next ones are due at once, and the seed is one by which nothing else
falls due meanwhile.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from testbench_dagster.coordination.budgets import BudgetLedger, period_start
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.records.service_quality import ServiceQualityRecord
from testbench_dagster.planning.probing import probe_instant
from testbench_dagster.stages.service.budget import probe_account
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.operations.harness import (
    INTERVAL_S,
    SENSORS,
    Platform,
    platform,
    wait_until,
)

pytestmark = pytest.mark.slow(minutes=4)

SUPPLIERS_N = 6
KEYS = [f"sim-{n:02d}@simulation" for n in range(1, SUPPLIERS_N + 1)]
WORKLOADS = ("short", "1k")
PER_DAY = 1
CAP = 60
WITHIN_S = 600.0
TAKES_AT_MOST = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MATERIALIZATIONS = """
query Seen($key: AssetKeyInput!, $partition: String!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode {
      assetMaterializations(partitions: [$partition], limit: 1) {
        metadataEntries {
          label
          ... on IntMetadataEntry { intValue }
          ... on FloatMetadataEntry { floatValue }
        }
      }
    }
  }
}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(
        tmp_path_factory.mktemp("probed"),
        SUPPLIERS_N,
        automation={**SENSORS, "service_probes": {"every_s": INTERVAL_S}},
        service_probes={"enabled": True, "answer_tokens": 32, "relays_per_day": CAP, "per_day": PER_DAY},
        sampling={"epoch_seed": quiet_seed(datetime.now(UTC))},
    ) as made:
        made.start()
        yield made


def quiet_seed(now: datetime) -> int:
    """A seed by which no instant of anybody falls into the time that these tests take."""
    day, end = timedelta(days=1), now + TAKES_AT_MOST
    cells = range((now - EPOCH) // day, (end - EPOCH) // day + 1)

    def is_quiet(seed: int) -> bool:
        return not any(
            now <= probe_instant(f"{seed}:service_probes", key, workload, PER_DAY, cell) <= end
            for key in KEYS
            for workload in WORKLOADS
            for cell in cells
        )

    return next(seed for seed in range(10_000) if is_quiet(seed))


def probes(made: Platform) -> list[ServiceProbeRecord]:
    with made.documents() as documents:
        return list(typed.find(documents, ServiceProbeRecord))


def of_each(made: Platform) -> Counter[tuple[str, str]]:
    return Counter((one.supplier, one.workload) for one in probes(made))


def seen(made: Platform, partition: str) -> dict[str, Any]:
    """What the UI shows of a partition."""
    data = made.graphql(_MATERIALIZATIONS, key={"path": ["service_probes"]}, partition=partition)
    (newest,) = data["assetNodeOrError"]["assetMaterializations"]
    return {
        entry["label"]: entry.get("intValue", entry.get("floatValue")) for entry in newest["metadataEntries"]
    }


def test_everybody_is_probed_and_evaluated(running: Platform) -> None:
    keys = {f"{one['address']}@{one['service']}" for one in running.localnet.roster()}
    assert keys == set(KEYS)
    wanted = {(key, workload) for key in keys for workload in WORKLOADS}
    wait_until("probes of everybody", lambda: set(of_each(running)) == wanted, WITHIN_S)
    wait_until("their evaluation", lambda: running.materialized() >= keys, WITHIN_S)
    assert set(of_each(running).values()) == {1}, "nobody is asked twice for one instant"
    with running.documents() as documents:
        rows = {row.supplier for row in typed.find(documents, ServiceQualityRecord)}
        attempts = list(typed.find(documents, AttemptRecord))
    assert rows == keys
    assert attempts and all(one.first_token_ms is None for one in attempts), "no quality relay is streamed"


def test_each_partition_shows_its_own(running: Platform) -> None:
    for key in ("sim-01@simulation", "sim-06@simulation"):
        own = wait_until("its partition", lambda key=key: seen(running, key), 60)
        assert (own["attempts"], own["answered"]) == (2, 2)
        assert own["uptime"] == 1.0


def test_what_falls_due_is_probed_again_and_once(running: Platform) -> None:
    """Of two suppliers the last probes were two days ago: a whole cell passed, and one probe each follows.

    Within a single day there may be no instant at all: one early in the first cell, one late in the second.
    """
    late = ("sim-02@simulation", "sim-05@simulation")
    past = timedelta(days=2)
    with running.documents() as documents:
        old = [one for one in typed.find(documents, ServiceProbeRecord) if one.supplier in late]
        moved = [
            replace(one, started_at=one.started_at - past, finished_at=one.finished_at - past) for one in old
        ]
        typed.upsert(documents, ServiceProbeRecord, moved)

    def again() -> bool:
        counted = of_each(running)
        return all(counted[key, workload] == 2 for key in late for workload in WORKLOADS)

    wait_until("their next probes", again, WITHIN_S)
    time.sleep(3 * INTERVAL_S)  # some further looks
    counted = of_each(running)
    assert {key for (key, _), n in counted.items() if n > 1} == set(late)
    assert max(counted.values()) == 2


def test_nobody_was_lost_to_a_probe_and_every_run_went_well(running: Platform) -> None:
    assert running.runs("FAILURE") == []
    runs = Counter(run["jobName"] for run in running.runs())
    assert runs["probe_service"] >= 2 and runs["evaluate_suppliers"] >= 1
    ticks = running.ticks("service_probes")
    assert {tick["status"] for tick in ticks} <= {"SUCCESS", "SKIPPED", "STARTED"}
    assert "refused" not in running.log() and "held_by_others" not in running.log()
    with running.documents() as documents:
        now = datetime.now(UTC)
        spent = BudgetLedger(documents).spent(probe_account("simulation"), period_start("day", now))
        stored = typed.count(documents, ServiceProbeRecord)
        sent = stored + typed.count(documents, AttemptRecord)
    assert spent is not None and stored <= spent <= CAP
    received = sum(stats["requests"] for stats in running.localnet.stats().values())
    assert sent == received, "what was sent is what the suppliers received"
