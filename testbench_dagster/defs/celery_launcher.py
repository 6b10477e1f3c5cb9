"""Runs as messages to Celery workers on any host; one that is terminated ends CANCELED.

Dagster's launcher for Celery has three gaps, which this closes:

- *Terminate* tells the worker to end the process and tells Dagster nothing: the run ended FAILURE, was told
  of to the webhook, and could be started again. Here the run is *canceling* first, and one that has not begun
  is canceled at once (the UI offers to force that): its message, when a worker takes it, comes to nothing.
  What runs notices by itself (:mod:`.celery_worker`), so no broadcast can be missed. Where the worker is
  dead, the sensor `lost_runs` or Dagster's monitor (`cancel_timeout_seconds`) ends it.
- A result that Redis has lost, or dropped by age, counted as a dead worker: a run at work was failed. Here
  Celery is believed when it says that a process died; whether one lives, our heartbeats know (`lost_runs`).
- A run of ours is not resumed by another process: it would begin as a duplicate. It is started anew.

Needs the extra ``celery``. Belongs here: what the daemon and the UI do to runs on Celery, and what
``testbench check`` tells of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from testbench_dagster.core.finding import Finding
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.dagster_internals import CheckRunHealthResult, WorkerStatus

BROKER, WORKERS = "Celery's broker", "Celery's workers"
_CONNECT_S, _ANSWER_S = 5.0, 3.0
_NOT_BEGUN = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)


class TestbenchCeleryLauncher(CeleryRunLauncher):
    """Dagster's ``CeleryRunLauncher``, with the same configuration."""

    __test__ = False  # pytest: the name starts with "Test", but this is no test class

    def terminate(self, run_id: str) -> bool:
        """Ask a run to end; False when there is none, or it has ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if run.status is not dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        if run.status in _NOT_BEGUN:
            self._instance.report_run_canceled(run, "No worker had begun it.")
        return True

    @property
    def supports_resume_run(self) -> bool:
        """No."""
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Failed only where Celery says that the run's process died."""
        if DAGSTER_CELERY_TASK_ID_TAG in run.tags:  # not yet, while the message is being sent
            health = super().check_run_worker_health(run)
            if health.status is WorkerStatus.FAILED:
                return health
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def findings(self) -> Iterator[Finding]:
        """Whether messages get through, and whether as many runs can be at work as may leave the queue."""
        with self.celery.connection_for_read() as connection:
            where = f"{connection.transport_cls} at {connection.host}"  # never a password
            connection.transport_options |= {
                "socket_connect_timeout": _CONNECT_S,
                "socket_timeout": _CONNECT_S,
            }
            try:
                connection.ensure_connection(
                    max_retries=1, timeout=_CONNECT_S, reraise_as_library_errors=False
                )
                found = self.celery.control.inspect(timeout=_ANSWER_S, connection=connection).stats()
            except (*connection.connection_errors, *connection.channel_errors) as error:
                yield Finding(
                    BROKER,
                    f"{where} does not answer ({type(error).__name__}): no run begins; start it, or correct "
                    "`broker` of run_launcher in dagster.yaml (TESTBENCH_REDIS_URL)",
                    ok=False,
                )
                return
        yield Finding(BROKER, f"reached: {where}")
        yield self._of_workers(found or {})

    def _of_workers(self, found: dict[str, Any]) -> Finding:
        if not found:
            told = "none answers: runs wait for one; start testbench-worker on a host"
            return Finding(WORKERS, told, ok=False, warning=True)
        slots = sum(int(stats["pool"]["max-concurrency"]) for stats in found.values())
        hosts = ", ".join(sorted(name.partition("@")[2] for name in found))
        told = f"{counted(len(found), 'worker')} with {counted(slots, 'slot')} on {hosts}"
        config = self._instance.get_concurrency_config().run_queue_config
        limit = None if config is None else config.max_concurrent_runs
        if limit is not None and limit > slots:
            told += (
                f", but max_concurrent_runs is {limit}: what no slot is free for waits in Redis, where its "
                "start timeout runs; set TESTBENCH_RUN_SLOTS to the slots of all workers, or start more"
            )
            return Finding(WORKERS, told, ok=False, warning=True)
        return Finding(WORKERS, told)
