"""What an alert says of a failed run: enough to know what to do, and no secret."""

from __future__ import annotations

import logging
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import dagster as dg
import pytest

from testbench_dagster.core.errors import TaskInputError
from testbench_dagster.defs.operations.alerts import post, what_happened


@dg.op
def our_mistake() -> None:
    try:
        raise KeyError("sk-of-the-library")
    except KeyError as error:
        raise TaskInputError("data/test.jsonl: line 7 is no JSON") from error


@dg.op
def somebody_elses() -> None:
    try:
        raise KeyError("sk-secret")
    except KeyError as error:
        raise ValueError("https://user:sk-secret@host") from error


@dg.job
def ours() -> None:
    our_mistake()


@dg.job
def theirs() -> None:
    somebody_elses()


def failed(job: dg.JobDefinition, instance: dg.DagsterInstance) -> dg.RunFailureSensorContext:
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    (event,) = [e for e in result.all_events if e.event_type is dg.DagsterEventType.RUN_FAILURE]
    context = dg.build_run_status_sensor_context("run_failure", event, instance, result.dagster_run)
    return context.for_run_failure()


@pytest.mark.parametrize(
    ("job", "end"),
    [
        (
            ours,
            "our_mistake: testbench_dagster.core.errors.TaskInputError: data/test.jsonl: line 7 is no JSON",
        ),
        (theirs, "somebody_elses: ValueError"),
    ],
)
def test_errors_of_ours_are_told_in_full_and_others_by_name(job: dg.JobDefinition, end: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        said = what_happened(failed(job, instance))
    assert said.startswith(f'Execution of run for "{job.name}" failed.')
    assert said.strip().endswith(end)
    assert "sk-" not in said


def test_a_run_whose_process_died_is_told_with_the_reason() -> None:
    """Reported as Dagster's code server does, whose failure event names none."""
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(ours)
        instance.report_engine_event("Launched.", run)
        instance.report_engine_event("Run execution process unexpectedly exited with exit code -9.", run)
        event = instance.report_run_failed(run)
        instance.report_engine_event("Retrying the run", run)
        context = dg.build_run_status_sensor_context("run_failure", event, instance, run)
        said = what_happened(context.for_run_failure())
    assert said == "Run execution process unexpectedly exited with exit code -9."


def test_a_reason_that_is_given_is_told() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(ours)
        event = instance.report_run_failed(run, "The run's process is gone: no heartbeat.")
        context = dg.build_run_status_sensor_context("run_failure", event, instance, run)
        assert what_happened(context.for_run_failure()) == "The run's process is gone: no heartbeat."


def test_the_webhook_is_reached_through_the_proxy_that_is_named_and_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(f"{self.path} {self.headers['Proxy-Authorization']}")
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    Thread(target=server.serve_forever, daemon=True).start()
    url = "http://hook.invalid/t0ken-of-ours"
    try:
        proxy = f"127.0.0.1:{server.server_port}"
        monkeypatch.setenv("http_proxy", f"http://{proxy}")
        assert post(url, {"text": "t"}) == "ConnectError" and asked == []
        monkeypatch.delenv("ALERT_PROXY", raising=False)
        assert "ALERT_PROXY, which is not set" in (post(url, {}, "ALERT_PROXY") or "")
        monkeypatch.setenv("ALERT_PROXY", f"http://me:pw@{proxy}")
        assert post(url, {"text": "t"}, "ALERT_PROXY") is None
    finally:
        server.shutdown()
        server.server_close()
    assert asked == [f"{url} Basic bWU6cHc="]
    assert "t0ken" not in caplog.text
