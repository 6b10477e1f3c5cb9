"""Runs on Celery that are asked to end, where no worker is needed; the rest: ../deploy/test_two_hosts.py."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from testbench_dagster.core.finding import Finding
from testbench_dagster.defs.celery_launcher import BROKER, WORKERS, TestbenchCeleryLauncher
from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.deploy import units
from testbench_dagster_tests.servers import free_port, start_redis, stop

RUNNING, CANCELING, CANCELED = (
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.CANCELED,
)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """The instance of deploy/celery, on SQLite, with a Redis that is away."""
    values = {"DAGSTER_POSTGRES_URL": "", "TESTBENCH_REDIS_URL": "redis://127.0.0.1:9/0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in units.install(tmp_path_factory.mktemp("celery"), values).items():
            patch.setenv(name, value)
        with dg.DagsterInstance.get() as made:
            assert isinstance(made.run_launcher, TestbenchCeleryLauncher)
            yield made


def run_in(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> str:
    @dg.job
    def nothing() -> None: ...

    return instance.create_run_for_job(nothing, status=status).run_id


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_run_at_work_is_canceling_until_it_has_left(instance: dg.DagsterInstance) -> None:
    run_id = run_in(instance, RUNNING)
    assert instance.run_launcher.terminate(run_id)
    assert status(instance, run_id) is CANCELING
    assert instance.run_launcher.terminate(run_id), "once more"
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_CANCELING)
    assert len(events) == 1


@pytest.mark.parametrize("before", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED])
def test_a_run_that_waits_for_a_worker_is_canceled_at_once(
    instance: dg.DagsterInstance, before: dg.DagsterRunStatus
) -> None:
    run_id = run_in(instance, before)
    assert instance.run_launcher.terminate(run_id)
    assert status(instance, run_id) is CANCELED


@pytest.mark.parametrize("before", [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, CANCELED])
def test_a_run_that_ended_stays_as_it_is(instance: dg.DagsterInstance, before: dg.DagsterRunStatus) -> None:
    run_id = run_in(instance, before)
    assert not instance.run_launcher.terminate(run_id)
    assert status(instance, run_id) is before
    assert not instance.run_launcher.terminate("no such run")


def findings(instance: dg.DagsterInstance) -> dict[str, Finding]:
    assert isinstance(instance.run_launcher, TestbenchCeleryLauncher)
    return {found.what: found for found in instance.run_launcher.findings()}


def test_a_broker_that_is_away_is_told_of(instance: dg.DagsterInstance) -> None:
    (found,) = findings(instance).values()
    assert (found.what, found.ok, found.warning) == (BROKER, False, False)
    assert found.detail.startswith("redis at 127.0.0.1:9 does not answer (ConnectionError): ")


@pytest.mark.slow
def test_a_broker_without_workers_is_told_of_and_never_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    url = f"redis://:secret@127.0.0.1:{port}/0"
    for name, value in units.install(
        tmp_path / "celery", {"DAGSTER_POSTGRES_URL": "", "TESTBENCH_REDIS_URL": url}
    ).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "redis.conf").write_text("requirepass secret\n")

    @contextlib.contextmanager
    def redis() -> Iterator[None]:
        process = start_redis(tmp_path, port, tmp_path / "redis.conf")
        yield
        stop(process)

    with server_or_skip(redis()), dg.DagsterInstance.get() as made:
        found = findings(made)
    assert found[BROKER].ok and found[WORKERS].warning
    assert found[BROKER].detail == f"reached: redis at 127.0.0.1:{port}"
    assert found[WORKERS].detail.startswith("none answers: ")


def test_a_message_on_its_way_is_no_dead_worker(instance: dg.DagsterInstance) -> None:
    run = instance.get_run_by_id(run_in(instance, RUNNING))
    assert run is not None
    assert instance.run_launcher.check_run_worker_health(run).status.name == "RUNNING"


def test_what_runs_sees_that_it_was_asked_to_end(instance: dg.DagsterInstance) -> None:
    from testbench_dagster.defs.celery_worker import asked_to_end

    run_id = run_in(instance, RUNNING)
    assert not asked_to_end(instance, run_id)
    instance.run_launcher.terminate(run_id)
    assert asked_to_end(instance, run_id)

    failed = run_in(instance, RUNNING)
    run = instance.get_run_by_id(failed)
    assert run is not None
    instance.report_run_failed(run)
    assert asked_to_end(instance, failed), "whoever took it for lost gave it up"
    assert not asked_to_end(instance, run_in(instance, dg.DagsterRunStatus.SUCCESS))


def test_a_run_that_begins_at_that_moment_is_canceling_again(instance: dg.DagsterInstance) -> None:
    from testbench_dagster.defs.celery_worker import asked_to_end

    run_id = run_in(instance, dg.DagsterRunStatus.STARTING)
    instance.run_launcher.terminate(run_id)
    run = instance.get_run_by_id(run_id)
    assert run is not None
    begins = dg.DagsterEvent(event_type_value="PIPELINE_START", job_name=run.job_name)
    instance.report_dagster_event(begins, run_id)
    assert status(instance, run_id) is RUNNING
    assert asked_to_end(instance, run_id)
    assert status(instance, run_id) is CANCELING


def test_a_run_that_is_asked_to_end_is_interrupted_once(instance: dg.DagsterInstance) -> None:
    from testbench_dagster.defs.celery_worker import ending_when_asked

    run_id = run_in(instance, RUNNING)
    heard: list[int] = []
    interrupted = threading.Event()

    def hear(number: int, _: object) -> None:
        heard.append(number)
        interrupted.set()

    before = signal.signal(signal.SIGTERM, hear)
    try:
        with ending_when_asked(run_id, look_s=0.02) as told:
            assert not interrupted.wait(0.2)
            instance.run_launcher.terminate(run_id)
            assert interrupted.wait(30)
            interrupted.clear()
            assert not interrupted.wait(0.2)
        assert heard == [signal.SIGTERM]
        assert told.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_run_that_was_interrupted_early_is_concluded(instance: dg.DagsterInstance) -> None:
    from testbench_dagster.defs.celery_worker import conclude

    early, done = run_in(instance, RUNNING), run_in(instance, dg.DagsterRunStatus.SUCCESS)
    instance.run_launcher.terminate(early)
    for run_id in (early, done):
        conclude(run_id)
    assert status(instance, early) is CANCELED
    assert status(instance, done) is dg.DagsterRunStatus.SUCCESS


def test_a_worker_without_the_files_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    units.install(tmp_path, {})
    for name, value in units.environment_file().items():
        monkeypatch.setenv(name, units.moved(value, tmp_path))
    from testbench_dagster.core.errors import ConfigError
    from testbench_dagster.defs.celery_worker import RunTask, worker_app

    assert isinstance(worker_app().tasks["execute_job"], RunTask)
    (Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.raises(ConfigError, match=r"run_launcher of .* is .*DefaultRunLauncher; take deploy/celery"):
        worker_app()
    monkeypatch.delenv("DAGSTER_HOME")
    with pytest.raises(ConfigError, match="DAGSTER_HOME is not set"):
        worker_app()
