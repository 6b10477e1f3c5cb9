"""Limits hold for runs of every origin: a run that relays is tagged when it is queued, whoever asked."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest
import yaml

from testbench_dagster.defs import dagster_internals as internals
from testbench_dagster.defs.celery_queue import CeleryRunQueue, kind_of
from testbench_dagster.defs.entry_points import code_origin
from testbench_dagster.defs.evaluation import EVALUATION_KIND, KIND_TAG, RESCORE_KIND
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS
from testbench_dagster.defs.partitions import PROBES

QUEUE = {"module": "testbench_dagster.defs.celery_queue", "class": "CeleryRunQueue", "config": {}}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """The instance that `testbench up` makes, on SQLite, with this queue."""
    home = tmp_path_factory.mktemp("queue")
    (home / "dagster.yaml").write_text(
        yaml.safe_dump({**INSTANCE_SETTINGS, "run_coordinator": QUEUE}), encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DAGSTER_POSTGRES_URL", raising=False)
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as made:
            yield made


@pytest.mark.parametrize(
    ("assets", "kind"),
    [
        (["relay_responses"], EVALUATION_KIND),
        (["relay_responses", "supplier_scores", "taxonomy_summaries"], EVALUATION_KIND),
        (["service_probes"], PROBES),
        (["supplier_scores"], None),
        ([], None),
    ],
)
def test_kinds_follow_from_the_assets(assets: list[str], kind: str | None) -> None:
    assert kind_of(dg.AssetKey(name) for name in assets) == kind


def queued(instance: dg.DagsterInstance, assets: list[str], tags: dict[str, str]) -> dg.DagsterRun:
    """A run of Dagster's own asset job, as the UI and its backfills make it, given to the queue."""

    @dg.job
    def anything() -> None: ...

    repository = internals.RemoteRepositoryOrigin(code_origin(), "__repository__")
    run = instance.create_run_for_job(
        anything,
        tags=tags,
        remote_job_origin=internals.RemoteJobOrigin(repository, "anything"),
    )
    run = run._replace(asset_selection=frozenset(map(dg.AssetKey, assets)))
    coordinator = instance.run_coordinator
    assert isinstance(coordinator, CeleryRunQueue)
    return coordinator.submit_run(dg.SubmitRunContext(run, None))  # type: ignore[arg-type]  # nobody looks at it


def test_a_run_without_a_tag_gets_that_of_its_assets(instance: dg.DagsterInstance) -> None:
    run = queued(instance, ["relay_responses"], {})
    assert run.tags[KIND_TAG] == EVALUATION_KIND
    assert run.status is dg.DagsterRunStatus.QUEUED
    assert KIND_TAG not in queued(instance, ["supplier_scores"], {}).tags


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
