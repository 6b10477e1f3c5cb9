"""The Celery app of workers: ``celery -A testbench_dagster.defs.celery_worker worker``.

Broker, queue and settings are those of the launcher in ``DAGSTER_HOME/dagster.yaml``: they are written once.
Each run has a process of its own (`worker_max_tasks_per_child: 1`), forked from this one, which has imported
the code already but no configuration: a run reads `testbench.yaml` as it is when it begins.

A thread beside each run looks whether the run was asked to end, or was given up by whoever took it for lost,
and interrupts it as Ctrl-C would: what was answered is stored, leases and heartbeat end.

Needs the extra ``celery``. Belongs here: what happens in workers.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
import dagster_postgres  # noqa: F401 - what every run needs is imported once for all: a second of CPU each
import matplotlib.figure  # noqa: F401
import numpy  # noqa: F401
import pymongo  # noqa: F401
import scipy.stats  # noqa: F401
from celery import Celery, Task
from dagster_celery.tasks import create_execute_job_task

import testbench_dagster.defs.build  # noqa: F401
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs.celery_launcher import TestbenchCeleryLauncher
from testbench_dagster.defs.dagster_internals import ExecuteRunArgs, InstanceRef, unpack_value

#: Seconds between two looks at the run's events; each is a query of one row.
_LOOK_S = 2.0
_GIVEN_UP = (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE)

_log = logging.getLogger(__name__)


def asked_to_end(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a run was asked to end or has an end already, though its process is at work.

    Goes by the event, not by the status: a run that begins at that moment overwrites the status.
    """
    asked = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_CANCELING, limit=1).records
    run = instance.get_run_by_id(run_id)
    if run is None or run.status in _GIVEN_UP:
        return True
    if not asked or run.is_finished:
        return False
    if run.status is not dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceling(run, "It was asked to end before it began.")
    return True


def conclude(run_id: str) -> None:
    """Cancel a run that was interrupted so early that it has not said so itself."""
    with dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, "It was interrupted before it had begun its work.")


@contextmanager
def ending_when_asked(run_id: str, look_s: float = _LOOK_S) -> Iterator[threading.Event]:
    """Interrupt this process, once, when the run it executes is asked to end; yield what is set then."""
    ended, interrupted = threading.Event(), threading.Event()

    def look() -> None:
        with dg.DagsterInstance.get() as instance:
            while not ended.wait(look_s):
                try:
                    if asked_to_end(instance, run_id) and not ended.is_set():
                        interrupted.set()
                        os.kill(os.getpid(), signal.SIGTERM)
                        return
                except Exception as error:
                    # Dagster's storage is away: the run notices that, or is done before
                    _log.warning("whether run %s was asked to end cannot be seen: %s", run_id, error)

    thread = threading.Thread(target=look, name=f"testbench-ending-{run_id}", daemon=True)
    thread.start()
    try:
        yield interrupted
    finally:
        ended.set()


class RunTask(Task):  # type: ignore[misc]  # celery has no types
    """A run, ended when it is asked to."""

    abstract = True

    def __call__(self, execute_job_args_packed: Mapping[str, Any]) -> Any:
        """Execute the run of a message."""
        args = unpack_value(execute_job_args_packed, as_type=ExecuteRunArgs)
        with ending_when_asked(args.run_id) as interrupted:
            try:
                return super().__call__(execute_job_args_packed)
            finally:
                if interrupted.is_set():
                    conclude(args.run_id)


def worker_app() -> Celery:
    """The app of the installation in ``DAGSTER_HOME``.

    Raises:
        ConfigError: the variable is not set, or its `dagster.yaml` launches runs otherwise.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise ConfigError("DAGSTER_HOME is not set; set it to the folder of the worker's dagster.yaml")
    launcher = InstanceRef.from_dir(home).run_launcher
    if not isinstance(launcher, TestbenchCeleryLauncher):
        raise ConfigError(
            f"run_launcher of {home}/dagster.yaml is {type(launcher).__name__}; "
            "take deploy/celery/dagster.yaml there"
        )
    options: dict[str, Any] = {"base": RunTask, "shared": False}
    create_execute_job_task(launcher.celery, **options)
    return launcher.celery


app = worker_app()
