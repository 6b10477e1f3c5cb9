"""A run on a machine that goes by something else than the code server: refused once, with a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.coordination.processes import host_name
from testbench_dagster.coordination.statements import CODE_SERVER
from testbench_dagster.core.errors import DriftError
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.coordination import StatementRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.hosts import CONFIG_TAG, HOST_TAG, PACKAGES_TAG, REFUSED_TAG, REQUESTED_BY_TAG
from testbench_dagster.defs.kinds import EVALUATION, EVALUATION_KIND, PROBES, RESCORE_KIND, RESCORING, kind_of
from testbench_dagster.defs.local_evaluation import evaluate
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS, LocalRuns, prepare_home
from testbench_dagster.defs.operations.alerts import what_happened
from testbench_dagster.defs.partitions import range_tags
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.sample.catalogue import stale_tasks
from testbench_dagster.stages.statements import ServerStatement, statement, statement_findings
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.defs.conftest import opened_instance, starter_settings
from testbench_dagster_tests.statements import elsewhere

QUIET: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SENTENCE = "tasks.starter_units.samples.max is 2 here and 3 there"


@dataclasses.dataclass
class Host:
    """An installation of which nothing was asked yet, its instance, and its code as a code server has it."""

    workspace: Workspace
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    keys: list[str]

    def run(self, tags: dict[str, str] | None = None) -> dg.DagsterRun:
        """Execute an evaluation of everybody as the daemon's processes do; return the run as it ended."""
        done = self.definitions.resolve_job_def("evaluate_suppliers").execute_in_process(
            instance=self.instance,
            tags={**range_tags(self.keys[0], self.keys[-1]), **(tags or {})},
            run_config=QUIET,
            raise_on_error=False,
        )
        run = self.instance.get_run_by_id(done.run_id)
        assert run is not None
        return run

    def tick(self, sensor: str) -> dg.SensorResult:
        """What a sensor of this code server asks for."""
        made = self.definitions.get_sensor_def(sensor)
        with dg.build_sensor_context(
            instance=self.instance, resources={"workspace": self.workspace}, definitions=self.definitions
        ) as context:
            result = made(context)
        assert isinstance(result, dg.SensorResult)
        return result

    def written(self) -> tuple[int, int]:
        """How many attempts and plans there are."""
        documents = self.workspace.documents
        return typed.count(documents, AttemptRecord), typed.count(documents, PlanRecord)


@pytest.fixture
def host(localnet: LocalnetProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    path = tmp_path / "testbench.yaml"
    settings = starter_settings(localnet, 2)
    settings["tasks"] = [task for task in settings["tasks"] if task["name"] == "starter_units"]
    settings["taxonomies"] = []
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.setenv("TESTBENCH_CONFIG", str(path))
    with Workspace(load_config(path)) as workspace:
        prepare_home(workspace.config)
        with opened_instance(workspace) as instance:
            keys = [supplier.key for supplier in workspace.config.settings.suppliers]
            instance.add_dynamic_partitions("supplier", keys)
            yield Host(workspace, instance, build_definitions(), keys)


def state_elsewhere(workspace: Workspace, samples: int, host: str = "first") -> None:
    """A code server on another machine that asks so many docs."""
    own = statement(workspace.config, workspace.specs)
    changed = {**own.settings, "tasks.starter_units.samples.max": str(samples)}
    own = dataclasses.replace(own, settings=changed, path="/etc/testbench.yaml")
    now = datetime.now(UTC)
    record = elsewhere(own, host, since=now - timedelta(minutes=1), expires_at=now + timedelta(minutes=10))
    typed.upsert(workspace.documents, StatementRecord, [record])


def test_a_machine_of_another_configuration_is_refused_once_and_writes_nothing(host: Host) -> None:
    state_elsewhere(host.workspace, 3)
    run = host.run()
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert (run.tags[REFUSED_TAG], run.tags[HOST_TAG]) == ("true", host_name())
    assert run.tags["dagster/max_retries"] == "0" and run.tags.get("dagster/will_retry") != "true"
    assert host.written() == (0, 0)

    (record,) = host.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
    event = record.event_log_entry.dagster_event
    assert event is not None
    context = dg.build_run_status_sensor_context("run_failure", event, host.instance, run)
    told = what_happened(context.for_run_failure())
    assert told.count(SENTENCE) == 1 and "than the code server on first (process 7" in told

    # this machine's code server requests nothing, for the other one was there first
    for sensor in ("stale_catalog", "new_suppliers"):
        tick = host.tick(sensor)
        assert not tick.run_requests and SENTENCE in str(tick.skip_reason), sensor
    (found,) = statement_findings(host.workspace)
    assert found.failed and found.what == "other machines" and SENTENCE in found.detail
    with pytest.raises(DriftError, match=r"samples\.max is 2 here and 3 there"):
        evaluate(host.workspace)
    with pytest.raises(DriftError, match="than the code server on first"), LocalRuns(host.workspace):
        raise AssertionError("it may not begin")
    assert host.written() == (0, 0)
    assert typed.count(host.workspace.documents, SupplierRecord) == 0, "nor was the roster touched"

    # so is a run that a code server which is gone by now requested, and that of no other
    typed.purge(host.workspace.documents, StatementRecord, {"role": CODE_SERVER})
    run = host.run({CONFIG_TAG: "another", PACKAGES_TAG: "one", REQUESTED_BY_TAG: "first"})
    assert run.status is dg.DagsterRunStatus.FAILURE and run.tags[REFUSED_TAG] == "true"
    assert host.written() == (0, 0)

    # who looks at the code sees what it goes by
    own = statement(host.workspace.config, host.workspace.specs)
    metadata = host.definitions.metadata or {}
    said = {name: getattr(value, "value", value) for name, value in metadata.items()}
    assert said == {CONFIG_TAG: own.config, PACKAGES_TAG: own.packages, REQUESTED_BY_TAG: host_name()}


@pytest.mark.slow(minutes=1)
def test_refused_suppliers_rest_and_whoever_agrees_evaluates_them(host: Host) -> None:
    with LocalRuns(host.workspace) as runs:
        runs.refresh_suppliers()
        runs.refresh_catalog(stale_tasks(host.workspace, host.workspace.specs))
    state_elsewhere(host.workspace, 3)
    assert SENTENCE in str(host.tick("stale_scores").skip_reason)
    assert host.run().tags[REFUSED_TAG] == "true"
    failed = [finding for finding in findings(host.workspace, suppliers=False) if finding.failed]
    assert [finding.what for finding in failed] == ["other machines"] and SENTENCE in failed[0].detail

    typed.purge(host.workspace.documents, StatementRecord, {"role": CODE_SERVER})
    tick = host.tick("stale_scores")
    assert not tick.run_requests and "runs were refused less than" in str(tick.skip_reason)
    assert SENTENCE in str(tick.skip_reason)
    again = host.run({REFUSED_TAG: "true", REQUESTED_BY_TAG: "first"})
    assert again.status is dg.DagsterRunStatus.SUCCESS
    own = statement(host.workspace.config, host.workspace.specs)
    assert (again.tags[CONFIG_TAG], again.tags[PACKAGES_TAG]) == (own.config, own.packages)
    assert (again.tags[HOST_TAG], again.tags[REFUSED_TAG]) == (host_name(), "false")
    attempts, plans = host.written()
    assert attempts >= 2 * len(host.keys) and plans == len(host.keys)
    sent = typed.find(host.workspace.documents, AttemptRecord)
    assert {attempt.host for attempt in sent} == {host_name()}
    assert not [f for f in findings(host.workspace, suppliers=False) if f.failed]


def test_a_code_server_reads_its_file_again_when_it_or_what_it_names_changed(tmp_path: Path) -> None:
    path, roster = tmp_path / "testbench.yaml", tmp_path / "roster.json"
    settings: dict[str, Any] = {
        "tasks": [{"name": "starter_units", "samples": 40}],
        "supplier_sources": [{"file": "roster.json"}],
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    served = ServerStatement(path)
    first = served.now()
    assert first is not None and served.now() is first
    assert first.settings["supplier_sources.roster.json.content"] == "missing"
    roster.write_text("[]", encoding="utf-8")
    second = served.now()
    assert second is not None and second.config != first.config
    path.write_text("tasks: [", encoding="utf-8")
    assert served.now() is second, "it is being edited"
    settings["tasks"][0]["samples"] = 41
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    third = served.now()
    assert third is not None
    changed = {key for key in third.settings if third.settings[key] != second.settings[key]}
    assert changed == {"tasks.starter_units.samples.min", "tasks.starter_units.samples.max"}


def test_data_tasks_and_taxonomies_count_by_their_content(tmp_path: Path) -> None:
    def stated(folder: Path, row: str = '{"q": 1}', taxonomy: str = "a", task: str = "one") -> str:
        folder.mkdir()
        (folder / "rows.jsonl").write_text(row, encoding="utf-8")
        (folder / "own.yaml").write_text(f"name: {taxonomy}", encoding="utf-8")
        (folder / "tasks").mkdir()
        (folder / "tasks" / "helper.py").write_text(f"x = '{task}'", encoding="utf-8")
        settings = {
            "tasks": [{"name": "starter_units", "data": {"test": str(folder / "rows.jsonl")}}],
            "taxonomies": ["own.yaml"],
            "task_paths": ["tasks"],
        }
        (folder / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Workspace(load_config(folder / "testbench.yaml")) as workspace:
            return statement(workspace.config, workspace.specs).config

    same = {stated(tmp_path / "one"), stated(tmp_path / "two")}
    assert len(same) == 1, "where files lie makes no difference"
    same |= {
        stated(tmp_path / "rows", row='{"q": 2}'),
        stated(tmp_path / "taxonomy", taxonomy="b"),
        stated(tmp_path / "task", task="two"),
    }
    assert len(same) == 4


@pytest.mark.parametrize(
    ("assets", "kind"),
    [
        (EVALUATION, EVALUATION_KIND),
        (("relay_responses",), EVALUATION_KIND),
        (None, EVALUATION_KIND),
        (RESCORING, RESCORE_KIND),
        (("taxonomy_summaries",), "summaries"),
        (("service_probes",), PROBES),
        (("leaderboard", "task_datasets"), None),
    ],
)
def test_what_a_run_materializes_says_its_kind(assets: tuple[str, ...] | None, kind: str | None) -> None:
    assert kind_of(assets) == kind


def test_a_home_of_an_earlier_version_gets_the_queue_and_an_own_one_stays(tmp_path: Path) -> None:
    (tmp_path / "testbench.yaml").write_text("tasks: [{name: starter_units}]", encoding="utf-8")
    config = load_config(tmp_path / "testbench.yaml")
    instance = Path(prepare_home(config)["DAGSTER_HOME"]) / "dagster.yaml"
    earlier = {name: value for name, value in INSTANCE_SETTINGS.items() if name != "run_coordinator"}
    instance.write_text(yaml.safe_dump(earlier), encoding="utf-8")
    prepare_home(config)
    assert yaml.safe_load(instance.read_text(encoding="utf-8")) == INSTANCE_SETTINGS
    instance.write_text(yaml.safe_dump({**earlier, "telemetry": {"enabled": True}}), encoding="utf-8")
    prepare_home(config)
    assert "run_coordinator" not in yaml.safe_load(instance.read_text(encoding="utf-8"))
