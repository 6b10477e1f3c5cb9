"""Sensor ``run_failure``: failed runs go to the log and, where configured, to a webhook."""

import os

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.defs.partitions import RANGE_END, RANGE_START

_TIMEOUT_S = 10.0
_FROM_OUTSIDE = "This run has been marked as failed from outside the execution context."
"""What Dagster says of a run whose process died; why is told by the engine event before it."""
_MESSAGE_CHARS = 1_000


def run_failure_sensor(automation: AutomationSettings) -> dg.SensorDefinition:
    """The hook on failed runs; the webhook's URL is a secret and only read from the environment."""

    @dg.run_failure_sensor(
        name="run_failure",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Logs failed runs and posts them to the webhook of automation.alert_webhook_env.",
    )
    def run_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        alert = alert_of(context.dagster_run, what_happened(context))
        context.log.error(alert["text"])
        name = automation.alert_webhook_env
        if name is None:
            return None
        url = os.environ.get(name)
        if not url:
            return dg.SkipReason(f"automation.alert_webhook_env names {name}, which is not set; export it")
        problem = post(url, alert)
        return dg.SkipReason(f"the alert webhook of {name} failed: {problem}") if problem else None

    return run_failure


def what_happened(context: dg.RunFailureSensorContext) -> str:
    """Why a run failed: what Dagster says, and what it leaves out, the steps' errors or the process's end.

    Errors of ours are told in full, since they never hold a key; of any other only the name.
    """
    said = context.failure_event.message or ""
    if said == _FROM_OUTSIDE:
        failure = dg.DagsterEventType.RUN_FAILURE
        kinds = {dg.DagsterEventType.ENGINE_EVENT, failure}
        for record in context.instance.get_records_for_run(context.dagster_run.run_id, of_type=kinds).records:
            event = record.event_log_entry.dagster_event
            if event is None or event.event_type is failure:
                break  # what follows is about the retry
            said = event.message or said
        return said
    ours = {kind.__name__ for kind in _subclasses(TestbenchError)}
    for event in context.get_step_failure_events():
        chain = [event.step_failure_data.error]
        while chain[-1] is not None:
            chain.append(chain[-1].cause)
        errors = [error for error in chain if error is not None]
        told = next((error.message for error in errors if error.cls_name in ours), None)
        if told is None:  # the first is Dagster's own, around the one that the step raised
            told = next((str(error.cls_name) for error in errors[1:] or errors), "no error")
        said += f" {event.step_key}: {told}"
    return said


def _subclasses(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(_subclasses(below) for below in kind.__subclasses__()))


def alert_of(run: dg.DagsterRun, message: str) -> dict[str, str]:
    """What is told of a failed run; ``text`` alone is what chat services show."""
    partitions = run.tags.get("dagster/partition") or "...".join(
        run.tags[tag] for tag in (RANGE_START, RANGE_END) if tag in run.tags
    )
    shown = " ".join(message.split())[:_MESSAGE_CHARS]
    return {
        "text": f"testbench: run {run.run_id} of {run.job_name} failed"
        f"{f' for {partitions}' if partitions else ''}: {shown}",
        "job": run.job_name,
        "run_id": run.run_id,
        "partitions": partitions,
        "message": shown,
    }


def post(url: str, alert: dict[str, str]) -> str | None:
    """Post an alert as JSON; return what went wrong, without the URL, which may hold a secret."""
    import httpx

    try:
        response = httpx.post(url, json=alert, timeout=_TIMEOUT_S, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None if response.is_success else f"HTTP {response.status_code}"
