"""Limits hold for runs of every origin: a run that relays is tagged when it is queued, whoever asked."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
import yaml

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs import dagster_internals as internals
from testbench_dagster.defs.entry_points import code_origin
from testbench_dagster.defs.kinds import EVALUATION_KIND, KIND_TAG, RESCORE_KIND
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.run_queue import TestbenchRunQueue


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """The instance that `testbench up` makes, on SQLite."""
    home = tmp_path_factory.mktemp("queue")
    (home / "dagster.yaml").write_text(yaml.safe_dump(INSTANCE_SETTINGS), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_POSTGRES_URL", raising=False)
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as made:
            yield made


def queued(instance: dg.DagsterInstance, assets: list[str], tags: dict[str, str]) -> dg.DagsterRun:
    """A run of Dagster's own asset job, as the UI and its backfills make it, given to the queue."""

    @dg.job(name="__ASSET_JOB")
    def anything() -> None: ...

    repository = internals.RemoteRepositoryOrigin(code_origin(), "__repository__")
    run = instance.create_run_for_job(
        anything,
        tags=tags,
        remote_job_origin=internals.RemoteJobOrigin(repository, "anything"),
    )
    run = run._replace(asset_selection=frozenset(map(dg.AssetKey, assets)))
    coordinator = instance.run_coordinator
    assert isinstance(coordinator, TestbenchRunQueue)
    return coordinator.submit_run(dg.SubmitRunContext(run, None))  # type: ignore[arg-type]  # nobody looks at it


def test_a_run_without_a_tag_gets_that_of_its_assets(instance: dg.DagsterInstance) -> None:
    run = queued(instance, ["relay_responses"], {})
    assert run.tags[KIND_TAG] == EVALUATION_KIND
    assert run.status is dg.DagsterRunStatus.QUEUED
    assert KIND_TAG not in queued(instance, ["catalog"], {}).tags


def test_a_tag_that_a_run_has_stays(instance: dg.DagsterInstance) -> None:
    tags = {KIND_TAG: RESCORE_KIND}
    assert queued(instance, ["relay_responses"], tags).tags[KIND_TAG] == RESCORE_KIND


def test_limits_of_the_settings_hold_beside_it(instance: dg.DagsterInstance) -> None:
    """Dagster reads those of `concurrency.runs` also where the queue is ours."""
    limits = instance.get_concurrency_config().run_queue_config
    assert limits is not None
    wanted = INSTANCE_SETTINGS["concurrency"]["runs"]
    assert limits.max_concurrent_runs == wanted["max_concurrent_runs"]
    assert list(limits.tag_concurrency_limits) == wanted["tag_concurrency_limits"]


@pytest.mark.parametrize(
    ("slots", "evaluations", "told"),
    [
        (0, 1, "max_concurrent_runs in dagster.yaml is 0"),
        (2, 5, "evaluations in dagster.yaml is 5; set it to 1 or more"),
        (2, 0, "evaluations in dagster.yaml is 0"),
        (-1, -1, "evaluations in dagster.yaml is -1"),
    ],
)
def test_slots_that_make_no_sense_are_refused(slots: int, evaluations: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TestbenchRunQueue.from_config_value(None, {"max_concurrent_runs": slots, "evaluations": evaluations})


@pytest.mark.parametrize(("slots", "evaluations"), [(1, 1), (4, 3), (-1, 8)])
def test_slots_that_fit_are_taken(slots: int, evaluations: int) -> None:
    queue = TestbenchRunQueue.from_config_value(
        None, {"max_concurrent_runs": slots, "evaluations": evaluations}
    )
    assert queue.get_run_queue_config().max_concurrent_runs == slots
