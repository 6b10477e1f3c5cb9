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

Needs the extra ``celery``. Belongs here: what the daemon and the UI do to runs on Celery.
"""

from __future__ import annotations

import dagster as dg
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from testbench_dagster.defs.dagster_internals import CheckRunHealthResult, WorkerStatus

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
