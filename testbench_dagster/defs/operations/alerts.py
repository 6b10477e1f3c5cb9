"""Sensor ``run_failure``: failed runs go to the log and, where configured, to a webhook."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.errors import ConfigError, TestbenchError
from testbench_dagster.defs.partitions import RANGE_END, RANGE_START
from testbench_dagster.transports.clients import keep_urls_out_of_logs
from testbench_dagster.transports.endpoints import proxy_url

_TIMEOUT_S = 10.0
_FROM_OUTSIDE = "This run has been marked as failed from outside the execution context."
"""What Dagster says of a run whose process died; why is told by the engine event before it."""
_MESSAGE_CHARS = 1_000


def run_failure_sensor(automation: AutomationSettings, *, running: bool = True) -> dg.SensorDefinition:
    """The hook on failed runs; the webhook's URL is a secret and only read from the environment."""

    @dg.run_failure_sensor(
        name="run_failure",
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
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
        problem = post(url, alert, automation.alert_proxy_env)
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
    failed = context.get_step_failure_events()
    for event in failed:
        errors = _chain(event.step_failure_data.error)
        told = next((error.message for error in errors if error.cls_name in ours), None)
        if told is None:  # the first is Dagster's own, around the one that the step raised
            told = next((str(error.cls_name) for error in errors[1:] or errors), "no error")
        said += f" {event.step_key}: {told}"
    if not failed and (never_began := context.failure_event.event_specific_data) is not None:
        # its resources failed, or its machine was refused it
        errors = _chain(getattr(never_began, "error", None))
        said += "".join(f" {error.message}" for error in errors if error.cls_name in ours)
    return said


def _chain(error: Any) -> list[Any]:
    """An error as Dagster keeps it, and what it came from."""
    found = []
    while error is not None:
        found.append(error)
        error = error.cause
    return found


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


def post(url: str, alert: Mapping[str, Any], proxy_env: str | None = None) -> str | None:
    """Post an alert as JSON; return what went wrong, without the URL, which may hold a secret.

    ``proxy_env`` names the variable with the URL of a proxy; those of the environment are not obeyed.
    """
    import httpx

    keep_urls_out_of_logs()
    try:
        proxy = None if proxy_env is None else proxy_url("automation.alert_proxy_env", proxy_env)
        response = httpx.post(
            url, json=dict(alert), timeout=_TIMEOUT_S, follow_redirects=False, trust_env=False, proxy=proxy
        )
    except ConfigError as error:
        return str(error)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None if response.is_success else f"HTTP {response.status_code}"
