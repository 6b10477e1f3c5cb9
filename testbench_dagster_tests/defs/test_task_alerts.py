"""The alert webhook hears of tasks set aside: each reason once, late after an outage, and of the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.config.settings import AutomationSettings
from testbench_dagster.core.records.set_aside import SetAsideRecord
from testbench_dagster.defs.operations.change_alerts import change_alerts_sensor
from testbench_dagster.defs.operations.task_alerts import TaskAlerts
from testbench_dagster.stages.sample.set_aside import prepare_dataset, prepare_prompts
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

GOOD = """
task: {name}
dataset_path: tests/quiz
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: exact_match}}]
"""
ROWS = [{"question": f"what is {n}?", "answer": str(n)} for n in range(6)]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """Two tasks; the data of the second is not there."""
    monkeypatch.setenv("TESTBENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "own").mkdir()
    tasks = []
    for name in ("good", "late"):
        (tmp_path / "own" / f"{name}.yaml").write_text(GOOD.format(name=name), encoding="utf-8")
        tasks.append({"name": name, "data": {"test": str(tmp_path / f"{name}.jsonl")}})
    write(tmp_path / "good.jsonl", ROWS)
    settings = {
        "tasks": tasks,
        "task_paths": ["own"],
        "suppliers": [{"address": "a", "base_url": "http://127.0.0.1:9/v1", "model": "m"}],
    }
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with Workspace(load_config(path)) as opened:
        yield opened


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def load(workspace: Workspace) -> None:
    for spec in workspace.specs:
        prepare_dataset(workspace, spec)


def complete(workspace: Workspace) -> None:
    for spec in workspace.specs:
        prepare_prompts(workspace, spec)


@pytest.fixture
def tick(
    workspace: Workspace, webhook: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[], str]]:
    """One tick of the sensor, as the daemon does it: what it says; the cursor is kept between ticks."""
    monkeypatch.setenv("TASK_HOOK", f"http://127.0.0.1:{webhook.server_address[1]}/secret-path")
    sensor = change_alerts_sensor(AutomationSettings(alert_webhook_env="TASK_HOOK"))
    cursor: str | None = None

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def once() -> str:
            nonlocal cursor
            context = dg.build_sensor_context(
                instance=instance, cursor=cursor, resources={"workspace": workspace}
            )
            said = sensor(context)
            cursor = context.cursor
            return str(said.skip_message)

        yield once


def test_a_task_is_told_once_for_each_reason_and_when_it_is_prepared_again(
    workspace: Workspace, tick: Callable[[], str], webhook: HTTPServer, tmp_path: Path
) -> None:
    taken: list[dict[str, Any]] = webhook.taken  # type: ignore[attr-defined]
    load(workspace)
    complete(workspace)
    assert tick() == "1 task told"
    (told,) = taken
    assert told.keys() == {"text", "task", "reason", "at"}
    assert told["task"] == "late"
    assert "late.jsonl" in told["reason"]
    assert told["text"].startswith("testbench: task late is set aside since 20")
    assert told["text"].endswith(f" UTC: {told['reason']}")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told["at"])).total_seconds()) < 120

    load(workspace)  # tried again in vain
    assert tick() == "nothing new"

    (tmp_path / "late.jsonl").write_text("no JSON\n", encoding="utf-8")
    load(workspace)
    assert tick() == "1 task told"
    assert taken[1]["task"] == "late"
    assert taken[1]["reason"] != told["reason"]

    (tmp_path / "late.jsonl").unlink()
    load(workspace)
    assert tick() == "nothing new", "the first reason was told"

    write(tmp_path / "late.jsonl", ROWS)
    load(workspace)
    assert tick() == "nothing new", "its prompts are still to be built"
    complete(workspace)
    assert tick() == "1 task told"
    assert (taken[2]["task"], taken[2]["reason"]) == ("late", None)
    assert taken[2]["text"] == "testbench: task late is prepared again and no longer set aside"
    assert tick() == "nothing new"

    (tmp_path / "late.jsonl").write_text("no JSON\n", encoding="utf-8")
    load(workspace)
    assert tick() == "1 task told", "a new time: every reason is told anew"
    assert len(taken) == 4


def test_an_outage_of_the_webhook_hides_nothing_not_even_what_is_over(
    workspace: Workspace, tick: Callable[[], str], webhook: HTTPServer, tmp_path: Path
) -> None:
    webhook.answer = 503  # type: ignore[attr-defined]
    load(workspace)
    complete(workspace)
    assert "HTTP 503" in tick()
    write(tmp_path / "late.jsonl", ROWS)
    load(workspace)
    complete(workspace)
    said = tick()
    assert "HTTP 503" in said
    assert "secret-path" not in said
    webhook.taken.clear()  # type: ignore[attr-defined]
    webhook.answer = 204  # type: ignore[attr-defined]
    assert tick() == "2 tasks told"
    told = webhook.taken  # type: ignore[attr-defined]
    assert [(t["task"], t["reason"] is None) for t in told] == [("late", False), ("late", True)]
    assert tick() == "nothing new"


def test_what_waits_is_bounded_and_nothing_is_lost(workspace: Workspace) -> None:
    load(workspace)
    complete(workspace)
    (known,) = typed.find(workspace.documents, SetAsideRecord)
    now = datetime.now(UTC)
    alerts = TaskAlerts()
    for n in range(150):  # a reason that is another at each try
        typed.upsert(
            workspace.documents,
            SetAsideRecord,
            [
                SetAsideRecord(
                    id=known.id,
                    step=known.step,
                    since=known.since,
                    tried_at=now,
                    failures=n,
                    retry_at=now,
                    reason=f"at {n}",
                    source=None,
                )
            ],
        )
        alerts = TaskAlerts.from_cursor(json.loads(json.dumps(alerts.to_cursor())))
        alerts.look(workspace, now)
    assert len(alerts.waiting) == 100
    assert len(alerts.found["late"]) == 20
    alerts.waiting.clear()
    alerts.look(workspace, now)
    assert [told["reason"] for told in alerts.waiting] == ["at 149"]


def test_a_task_that_is_configured_no_more_is_forgotten(workspace: Workspace) -> None:
    load(workspace)
    complete(workspace)
    alerts = TaskAlerts()
    now = datetime.now(UTC)
    alerts.look(workspace, now)
    assert list(alerts.found) == ["late"]
    alerts.waiting.clear()
    good = [spec for spec in workspace.specs if spec.name == "good"]
    alerts.look(workspace.with_specs(good), now)
    assert (alerts.found, alerts.waiting) == ({}, [])
