"""One broken task among good ones, and a judge that is gone: the rest of an evaluation goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from testbench_dagster.api import Testbench
from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.core.errors import TaskError
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.entry_points import LOCATION
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster_tests.defs.conftest import opened_instance, starter_settings
from testbench_dagster_tests.servers import free_port
from testbench_dagster_tests.stages.score.judging import Judge
from testbench_dagster_tests.stages.score.test_outages import written

BROKEN = {
    "starter_logik": "unknown task 'starter_logik'; did you mean starter_logic or ",
    "torn": "task 'torn': its definition ",
    "babisteps-chat_zero_shot-task_04-listing": "is a task of pocket-ml-testbench's lm-eval fork, not in",
    "lost": "does not exist; correct the path",
}


@pytest.fixture
def path(localnet: LocalnetProcess, tmp_path: Path) -> Path:
    """Two suppliers; broken tasks before, between and behind two good ones."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/torn.yaml").write_text("task: torn\ndoc_to_text: 'unclosed\n", encoding="utf-8")
    settings = starter_settings(localnet)
    settings["suppliers"] = settings["suppliers"][:2]
    good = [{"name": name, "samples": 4} for name in ("starter_logic", "starter_units")]
    lost = {"name": "starter_choice", "alias": "lost", "num_fewshot": 0, "data": {"test": "absent.jsonl"}}
    first, second, third, _ = ({"name": name} for name in BROKEN)
    settings["tasks"] = [first, good[0], second, third, good[1], lost]
    settings["task_paths"] = ["own"]
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


@pytest.fixture
def workspace(path: Path) -> Iterator[Workspace]:
    with Workspace(load_config(path)) as opened:
        yield opened


@pytest.mark.slow
def test_a_run_scores_the_good_tasks_and_names_the_others(workspace: Workspace) -> None:
    notes: list[str] = []
    report = Testbench(workspace).run(on_note=notes.append)
    assert (report.tasks, report.sent, report.problem) == (("starter_logic", "starter_units"), 2 * 2 * 4, "")
    assert report.set_aside.keys() == BROKEN.keys()
    for name, told in BROKEN.items():
        (line,) = [note for note in notes if note.startswith(f"catalog: task {name} is set aside: ")]
        assert told in line
    assert notes[-1].startswith("evaluation: 4 of 6 tasks are set aside (starter_logik, torn, babisteps")
    assert workspace.documents.count(SCORES) == 2 * 2 * 4

    with opened_instance(workspace) as instance:
        runs = instance.get_runs()
        assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}, "no run fails for them"
        origins = [run.remote_job_origin.repository_origin for run in runs if run.remote_job_origin]
        code = LOCATION, build_definitions(workspace).get_repository_def().name
        told = {(of.code_location_origin.location_name, of.repository_name) for of in origins}
        assert (len(origins), told) == (len(runs), {code}), "the UI's timeline shows no others"
        checks = _last_check(instance, "task_datasets", "tasks_prepared")
        assert not checks.passed and checks.severity == dg.AssetCheckSeverity.WARN
        record = instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey("task_datasets"), asset_partitions=["torn"]), limit=1
        ).records[0]
        assert record.asset_materialization is not None
        metadata = record.asset_materialization.metadata
        assert "its definition" in str(metadata["set_aside"].value), "its partition says why"

    published = workspace.config.home / "published"
    listed = json.loads((published / "feed.json").read_text(encoding="utf-8"))["set_aside"]
    assert {one["task"] for one in listed} == BROKEN.keys()
    assert all(BROKEN[one["task"]] in one["reason"] for one in listed)
    page = (published / "leaderboard.html").read_text(encoding="utf-8")
    assert "<h2>Tasks set aside</h2>" in page
    assert "<bdi>torn</bdi></b>: <bdi>task &#39;torn&#39;: its definition " in page

    again = Testbench(workspace).run(on_note=lambda note: None)
    assert (again.sent, again.set_aside.keys()) == (0, BROKEN.keys()), "tried again, and nothing asked twice"


def _last_check(instance: dg.DagsterInstance, asset: str, name: str) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(dg.AssetKey(asset), name)
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.event is not None and record.event.dagster_event is not None
    return record.event.dagster_event.asset_check_evaluation_data


@pytest.mark.slow
def test_the_sensor_leaves_set_aside_tasks_for_a_while(workspace: Workspace) -> None:
    Testbench(workspace).run(max_relays=0)
    definitions = build_definitions(workspace)
    sensor = definitions.resolve_sensor_def("stale_catalog")
    with opened_instance(workspace) as instance:
        context = dg.build_sensor_context(instance=instance, resources={"workspace": workspace})
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert str(
        result.skip_reason
    ) == "SkipReason(skip_message='6 tasks are complete, 4 of them set aside')" or (
        "4 of them set aside" in str(result.skip_reason)
    )


@pytest.mark.slow
def test_where_all_chosen_tasks_are_set_aside_the_run_fails(workspace: Workspace) -> None:
    with pytest.raises(TaskError, match="unknown task 'starter_logik'; did you mean starter_logic"):
        Testbench(workspace).run(tasks=["starter_logik"])
    assert workspace.documents.count(ATTEMPTS) == 0


@pytest.mark.slow
def test_the_command_ends_well_where_something_was_scored(path: Path) -> None:
    done = CliRunner().invoke(cli, ["--config", str(path), "run"])
    assert done.exit_code == 0, done.output
    assert "evaluation: 4 of 6 tasks are set aside" in done.output
    check = CliRunner().invoke(cli, ["--config", str(path), "check"])
    assert check.exit_code == 1
    assert "FAIL  task torn: its definition" in check.output
    assert "ok    task starter_logic: " in check.output
    plan = CliRunner().invoke(cli, ["--config", str(path), "plan"])
    assert plan.exit_code == 0 and "the task is set aside: " in plan.output


# --- external scorers ----------------------------------------------------------------------------------


@pytest.fixture
def judged(localnet: LocalnetProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, int]:
    """The example of docs/scorers.md over the simulated network, and the port of its judge."""
    port = free_port()
    monkeypatch.setenv("JUDGE_URL", f"http://127.0.0.1:{port}/judge")
    written(tmp_path, careless=False)
    settings: dict[str, Any] = starter_settings(localnet)
    settings["suppliers"] = settings["suppliers"][:2]
    settings |= {
        "task_paths": ["capitals"],
        "tasks": [{"name": "capitals", "data": {"test": "capitals/capitals.jsonl"}}],
    }
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path, port


@pytest.mark.slow
def test_a_judge_that_is_gone_costs_no_relay_and_is_told(judged: tuple[Path, int]) -> None:
    path, port = judged
    with Workspace(load_config(path)) as workspace:
        testbench = Testbench(workspace)
        notes: list[str] = []
        first = testbench.run(on_note=notes.append)
        assert first.sent == first.final == 24
        assert first.problem == "nothing was scored: the service that a metric asks is gone, see above"
        assert first.unscored.keys() == {"capitals"}
        (line,) = [note for note in notes if note.startswith("evaluation: task capitals: ")]
        assert "24 answered docs wait for the service that its metric asks (URLError: " in line
        assert {row["state"] for row in testbench.plan().rows} == {"unscored"}

        still = testbench.run()
        assert (still.sent, still.problem) == (0, first.problem), "nothing is paid twice"
        with Judge(port):
            last = testbench.run()
        assert (last.sent, last.problem, dict(last.unscored)) == (0, "", {})
        assert workspace.documents.count(SCORES) == 24
        assert {row["state"] for row in testbench.plan().rows} == {"fresh"}


@pytest.mark.slow
def test_the_command_fails_where_nothing_was_scored(judged: tuple[Path, int]) -> None:
    path, port = judged
    done = CliRunner().invoke(cli, ["--config", str(path), "run"])
    assert done.exit_code == 1
    assert "nothing was scored: the service that a metric asks is gone" in str(done.exception)
    check = CliRunner().invoke(cli, ["--config", str(path), "check", "--no-suppliers"])
    assert (
        "warn  answers to capitals: 24 answered docs wait for the service that its metric asks"
        in check.output
    )
    with Judge(port):
        assert CliRunner().invoke(cli, ["--config", str(path), "run"]).exit_code == 0


def test_the_example_says_what_it_sends(judged: tuple[Path, int]) -> None:
    path, _ = judged
    lines = (path.parent / "capitals/capitals.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]).keys() == {"country", "capital"}
