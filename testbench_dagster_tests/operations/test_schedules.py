"""A schedule of the configuration under the real daemon: its backfill, runs, and the scores they bring."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.defs.partitions import RANGE_END, RANGE_START
from testbench_dagster_tests.operations.harness import SENSORS, platform, wait_until

pytestmark = pytest.mark.slow(minutes=4)

SCHEDULED = ("sim-01@simulation", "sim-03@simulation")
"""Not neighbours: their backfill has two runs."""
TASK = "starter_units"
LAUNCHED_WITHIN_S = 240.0
EVALUATED_WITHIN_S = 400.0

_BACKFILLS = """
{
  partitionBackfillsOrError(limit: 50) {
    ... on PartitionBackfills {
      results { id status title partitionNames assetSelection { path } tags { key value } }
    }
  }
}
"""
_SCHEDULE = """
query Schedule($selector: ScheduleSelector!) {
  scheduleOrError(scheduleSelector: $selector) {
    ... on Schedule {
      description cronSchedule executionTimezone owners { ... on TeamDefinitionOwner { team } }
      scheduleState { status }
    }
  }
}
"""


def test_the_daemon_works_a_schedule_off(tmp_path: Path) -> None:
    """Every minute, beside sensors that evaluate nobody; nothing else asks anybody."""
    quiet = {name: {"enabled": False} for name in ("new_suppliers", "stale_scores", "nightly_evaluation")}
    schedules = [
        {"name": "some", "suppliers": list(SCHEDULED), "tasks": [TASK], "cron": "* * * * *"},
        {"name": "nobody", "suppliers": ["dora@*"], "cron": "* * * * *"},
        {"name": "untasked", "suppliers": ["*"], "tasks": ["nonsense"], "cron": "* * * * *"},
    ]
    # eight docs, one after another: an evaluation lasts until the schedule's next minute, which is skipped
    slowly = {"relays": {"connect_s": 20, "first_byte_s": 50, "total_s": 100, "max_in_flight": 1}}
    changes = {"automation": {**SENSORS, **quiet}, "schedules": schedules, **slowly}
    with platform(tmp_path, 4, latency_ms=9_000, **changes) as made:
        with made.workspace() as workspace:
            Testbench(workspace).run(max_relays=0)  # roster, partitions, prompts
        made.start()

        def backfills() -> list[dict[str, Any]]:
            return list(made.graphql(_BACKFILLS)["partitionBackfillsOrError"]["results"])

        wait_until("the first backfill", backfills, LAUNCHED_WITHIN_S)
        first = backfills()[-1]
        assert (first["title"], set(first["partitionNames"])) == ("schedule some", set(SCHEDULED))
        assert {"key": "testbench/schedule", "value": "some"} in first["tags"]
        wait_until(
            "its end", lambda: made.backfill_status(first["id"]) == "COMPLETED_SUCCESS", EVALUATED_WITHIN_S
        )
        runs = [run for run in made.runs() if run["tags"].get("dagster/backfill") == first["id"]]
        # one that died is started once more
        ranges = [tuple(run["tags"][end] for end in (RANGE_START, RANGE_END)) for run in runs]
        assert set(ranges) == {(key, key) for key in SCHEDULED}
        done = [of for of, run in zip(ranges, runs, strict=True) if run["status"] == "SUCCESS"]
        assert set(done) == set(ranges), runs
        assert {run["tags"]["testbench/kind"] for run in runs} == {"evaluation"}

        scores = Counter((row["supplier"], row["task"]) for row in made.scores())
        assert scores == {(key, TASK): 8 for key in SCHEDULED}
        assert {row["supplier"] for row in made.attempts()} == set(SCHEDULED)

        # what the UI shows of the schedule, and of ticks that launched nothing
        selector = {
            "repositoryName": "__repository__",
            "repositoryLocationName": made.location,
            "scheduleName": "some",
        }
        shown = made.graphql(_SCHEDULE, selector=selector)["scheduleOrError"]
        assert shown["owners"] == [{"team": "evaluation"}]
        assert "Launches a backfill of suppliers sim-01@simulation, sim-03@simulation" in shown["description"]
        assert shown["scheduleState"]["status"] == "RUNNING"
        ticks = wait_until(
            "a skipped tick",
            lambda: [t for t in made.ticks("some") if t["status"] == "SKIPPED"],
            LAUNCHED_WITHIN_S,
        )
        ids = {backfill["id"] for backfill in backfills()}
        told = ticks[0]["skipReason"]
        assert told.split()[1] in ids and "of this schedule has not ended" in told
        assert "matches none of the suppliers on the roster" in made.ticks("nobody")[0]["skipReason"]
        assert "FAILURE" in {tick["status"] for tick in made.ticks("untasked")}
    log = (tmp_path / "dagster.log").read_text(errors="replace")
    assert "ConfigError: schedules, 'untasked': tasks: task 'nonsense' is not configured" in log
