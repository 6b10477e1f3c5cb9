"""Sensor ``lost_runs``: fails runs whose process is gone, so that they hold neither a slot nor a supplier.

Dagster's default run launcher cannot tell that a run's process died together with the code server that
watched it (a power cut, an out-of-memory kill of the whole tree): the run would stay "started" until
``max_runtime_seconds``. Every run of ours has a heartbeat in the document store; one without a heartbeat is
lost. Failing it is an infrastructure failure, which Dagster's run retries start once more.
"""

import json
import time

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.coordination.heartbeats import holder_is_gone
from testbench_dagster.core.clock import SKEW
from testbench_dagster.core.wording import counted
from testbench_dagster.defs.automation import sensor_status
from testbench_dagster.stages.workspace import Workspace

#: A run gets its heartbeat a moment after it is started.
_GRACE_S = 30.0


def lost_runs_sensor(automation: AutomationSettings) -> dg.SensorDefinition:
    """The sensor; a run has to be seen without a heartbeat twice, since one that ends has none either."""

    @dg.sensor(
        name="lost_runs",
        minimum_interval_seconds=automation.lost_runs.every_s,
        default_status=sensor_status(automation.lost_runs),
        description="Fails started runs whose process is gone; they are retried once and hold no slot.",
    )
    def lost_runs(
        context: dg.SensorEvaluationContext, workspace: dg.ResourceParam[Workspace]
    ) -> dg.SensorResult:
        suspected = set(json.loads(context.cursor)) if context.cursor else set()
        lost, failed = [], 0
        for record in context.instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
        ):
            run = record.dagster_run
            age = None if record.start_time is None else time.time() - record.start_time
            # one that starts in the future was begun by a clock that was set back since
            if age is None or -SKEW.total_seconds() <= age < _GRACE_S:
                continue
            if not holder_is_gone(workspace.documents, run.run_id):
                continue
            if run.run_id not in suspected:
                lost.append(run.run_id)
                continue
            failed += 1
            context.log.warning(f"run {run.run_id} ({run.job_name}) is lost: no heartbeat")
            if run.status is dg.DagsterRunStatus.CANCELING:
                context.instance.report_run_canceled(run, "The run's process is gone.")
            else:
                context.instance.report_run_failed(run, "The run's process is gone: no heartbeat.")
        reason = f"{counted(failed, 'lost run')} failed" if failed else "every run has a heartbeat"
        return dg.SensorResult(skip_reason=reason, cursor=json.dumps(lost))

    return lost_runs
