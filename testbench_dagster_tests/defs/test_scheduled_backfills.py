"""Schedules of the configuration, one tick at a time: what they launch, and why they launch nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.defs.backfills import BackfillRequests
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.dagster_internals import BulkActionStatus, PartitionBackfill
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.workspace import Workspace

CHAIN = ("relay_responses", "supplier_scores", "taxonomy_summaries")
SCHEDULES: list[dict[str, Any]] = [
    {
        "name": "even",
        "suppliers": ["s[024]@*"],
        "services": ["text"],
        "tasks": ["starter_units"],
        "cron": "0 3 * * *",
        "timezone": "Europe/Berlin",
    },
    {"name": "all_of_them", "suppliers": ["*"], "cron": "0 4 * * *", "enabled": False},
    {"name": "nobody", "suppliers": ["dora@*"], "cron": "0 5 * * *"},
    {"name": "untasked", "suppliers": ["*"], "tasks": ["starter_unit"], "cron": "0 6 * * *"},
]


@dataclass
class Installation:
    """Five suppliers nobody relays to, with partitions, and the schedules above."""

    folder: Path
    workspace: Workspace
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    earlier: frozenset[str] = frozenset()

    def backfills(self) -> list[PartitionBackfill]:
        """Those of this test."""
        return [one for one in self.instance.get_backfills() if one.backfill_id not in self.earlier]

    def schedule(self, name: str) -> dg.ScheduleDefinition:
        return self.definitions.get_repository_def().get_schedule_def(name)

    def tick(self, name: str, at: datetime | None = None) -> Any:
        """Evaluate a schedule once, as the daemon has the code server do."""
        repository = self.definitions.get_repository_def()
        context = dg.build_schedule_context(
            instance=self.instance,
            repository_def=repository,
            scheduled_execution_time=at or datetime(2026, 1, 5, 2, tzinfo=UTC),
            resources={"workspace": self.workspace},
        )
        return repository.get_schedule_def(name).evaluate_tick(context)

    def launch(self, name: str) -> None:
        """A tick, and the run that it asks for."""
        (request,) = self.tick(name).run_requests
        self.request(request.run_config, request.tags)

    def request(self, config: Any, tags: Any = None) -> dg.ExecuteInProcessResult:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        job = self.definitions.resolve_job_def("request_backfill")
        return job.execute_in_process(instance=self.instance, run_config={**config, **quiet}, tags=tags)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("schedules")
    list_suppliers(folder, 5)
    settings = {
        "supplier_sources": [{"file": "roster.json", "allow_private_networks": True}],
        "tasks": [{"name": "starter_logic", "samples": 5}, {"name": "starter_units", "samples": 5}],
        "schedules": SCHEDULES,
        "roster": {"loss_share": 1},  # whoever is not listed any more has left, be it all
    }
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as workspace, dg.DagsterInstance.local_temp(str(folder)) as instance:
        yield Installation(folder, workspace, instance, build_definitions(workspace))


@pytest.fixture
def installed(shared: Installation) -> Installation:
    """As at the beginning, but for the backfills of earlier tests, all of which have ended."""
    list_suppliers(shared.folder, 5)
    keys = refresh_roster(shared.workspace).active
    shared.instance.add_dynamic_partitions("supplier", sorted(keys))
    for backfill in shared.instance.get_backfills():
        shared.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    earlier = frozenset(backfill.backfill_id for backfill in shared.instance.get_backfills())
    return replace(shared, earlier=earlier)


def list_suppliers(folder: Path, n: int) -> None:
    suppliers = [
        {
            "address": f"s{i}",
            "service": "code" if i == 4 else "text",
            "base_url": "http://127.0.0.1:9/v1",
            "model": "m",
        }
        for i in range(n)
    ]
    (folder / "roster.json").write_text(json.dumps({"suppliers": suppliers}), encoding="utf-8")


def partitions(backfill: PartitionBackfill) -> dict[str, set[str]]:
    """What a backfill is of, by asset."""
    assert backfill.asset_backfill_data is not None
    subset = backfill.asset_backfill_data.target_subset
    return {
        key.to_user_string(): set(keys.get_partition_keys())
        for key, keys in subset.partitions_subsets_by_asset_key.items()
    }


def test_each_is_a_schedule_of_dagster_with_its_owner(installed: Installation) -> None:
    even, off = installed.schedule("even"), installed.schedule("all_of_them")
    assert (even.cron_schedule, even.execution_timezone) == ("0 3 * * *", "Europe/Berlin")
    assert even.owners == ["team:evaluation"]
    assert even.description is not None and "suppliers s[024]@* of services text" in even.description
    assert even.default_status is dg.DefaultScheduleStatus.RUNNING
    assert off.default_status is dg.DefaultScheduleStatus.STOPPED


def test_a_tick_launches_a_backfill_of_exactly_its_suppliers_and_tasks(installed: Installation) -> None:
    (request,) = installed.tick("even").run_requests
    assert installed.backfills() == [], "a tick only looks: the UI can try one"
    installed.request(request.run_config, request.tags)
    (backfill,) = installed.backfills()
    assert partitions(backfill) == {name: {"s0@text", "s2@text"} for name in CHAIN}
    assert backfill.run_config == {"ops": {"relay_responses": {"config": {"tasks": ["starter_units"]}}}}
    assert backfill.title == "schedule even"
    assert backfill.description is not None and "Launched by the schedule even" in backfill.description
    assert backfill.tags == {
        "testbench/schedule": "even",
        "dagster/schedule_name": "even",
        "testbench/kind": "evaluation",
        "dagster/priority": "-1",
    }


def test_equal_ticks_ask_once(installed: Installation) -> None:
    first, again = installed.tick("even"), installed.tick("even")
    later = installed.tick("even", datetime(2026, 1, 6, 2, tzinfo=UTC))
    keys = [tick.run_requests[0].run_key for tick in (first, again, later)]
    assert keys[0] == keys[1] != keys[2]


def test_a_tick_is_skipped_while_the_backfill_before_it_runs(installed: Installation) -> None:
    installed.launch("even")
    (backfill,) = installed.backfills()
    skipped = installed.tick("even")
    assert not skipped.run_requests
    assert skipped.skip_message == (
        f"backfill {backfill.backfill_id} of this schedule has not ended; the next tick looks again"
    )
    assert installed.tick("all_of_them").run_requests, "another schedule is not held up"
    # a run that was queued meanwhile, or one started by hand
    assert installed.request({"ops": {"request": {"config": {"schedule": "even"}}}}).success
    assert len(installed.backfills()) == 1
    for status in (BulkActionStatus.CANCELING, BulkActionStatus.FAILING):
        installed.instance.update_backfill(backfill.with_status(status))
        assert not installed.tick("even").run_requests, status
    for status in (BulkActionStatus.COMPLETED_SUCCESS, BulkActionStatus.COMPLETED_FAILED):
        installed.instance.update_backfill(backfill.with_status(status))
        assert installed.tick("even").run_requests, status


def test_a_run_that_is_retried_requests_no_second_backfill(installed: Installation) -> None:
    config = {"ops": {"request": {"config": {"schedule": "even"}}}}
    first = installed.request(config)
    (backfill,) = installed.backfills()
    installed.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    retry = {"dagster/root_run_id": first.run_id, "dagster/parent_run_id": first.run_id}
    installed.request(config, retry)
    assert len(installed.backfills()) == 1
    installed.request(config)
    assert len(installed.backfills()) == 2


def test_who_matches_nobody_says_so_and_stops_no_other(installed: Installation) -> None:
    tick = installed.tick("nobody")
    assert not tick.run_requests
    assert tick.skip_message.startswith(
        "suppliers dora@*: no active supplier (suppliers: 'dora@*' matches none of the suppliers on the "
        "roster; there are: s0@text"
    )
    assert installed.tick("even").run_requests


def test_a_task_that_there_is_not_fails_its_own_ticks_alone(installed: Installation) -> None:
    with pytest.raises(Exception, match=r"schedules, 'untasked': tasks: task 'starter_unit' is not config"):
        installed.tick("untasked")
    assert installed.tick("even").run_requests


def test_suppliers_without_a_partition_or_that_left_are_not_backfilled(installed: Installation) -> None:
    installed.instance.delete_dynamic_partition("supplier", "s0@text")
    installed.launch("even")
    (backfill,) = installed.backfills()
    assert partitions(backfill)["relay_responses"] == {"s2@text"}
    installed.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    installed.instance.delete_dynamic_partition("supplier", "s2@text")
    skipped = installed.tick("even").skip_message
    assert "2 suppliers (suppliers s[024]@* of services text), none with a partition yet; run" in skipped
    list_suppliers(installed.folder, 0)
    refresh_roster(installed.workspace)
    assert "no active supplier" in installed.tick("even").skip_message


def test_one_that_was_taken_out_of_the_file_since_says_so(installed: Installation) -> None:
    path = installed.folder / "testbench.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    changed_path = installed.folder / "changed.yaml"
    changed_path.write_text(yaml.safe_dump({**settings, "schedules": []}), encoding="utf-8")
    with Workspace(load_config(changed_path)) as changed:
        installed.workspace = changed
        tick = installed.tick("even")
    assert tick.skip_message == ("testbench.yaml has no schedule 'even' any more; reload the code location")


def test_backfills_requested_by_hand_count_as_evaluations_too(
    installed: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Dagster would run any number of them at a time."""
    monkeypatch.setenv("DAGSTER_HOME", str(installed.folder / "home"))
    with BackfillRequests(installed.workspace) as requests:
        requests._instance.add_dynamic_partitions("supplier", ["s0@text"])
        kinds = {}
        for rescore in (False, True):
            backfill = requests._instance.get_backfill(requests.start(["s0@text"], rescore=rescore))
            assert backfill is not None
            kinds[rescore] = backfill.tags["testbench/kind"]
    assert kinds == {False: "evaluation", True: "rescore"}
