"""However the code is served: one name of its location, and what was switched off stays off."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml
from dagster._core.scheduler.instigation import InstigatorType

import testbench_dagster
from testbench_dagster.config import load_config
from testbench_dagster.config.settings import AUTOMATION_NAMES
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.dagster_internals import (
    InstigatorState,
    InstigatorStatus,
    LoadableTargetOrigin,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from testbench_dagster.defs.entry_points import (
    CODE,
    LOCATION,
    WORKSPACE,
    remarks,
    served_as,
    shared_switches,
    take_over_switches,
)
from testbench_dagster.defs.local_runs import LocalRuns, prepare_home, workspace_file
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.servers import free_port

ROOT = Path(testbench_dagster.__file__).parent.parent
SERVER = ["dagster", "api", "grpc", "--location-name"]


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and a schedule of its own, which is where one is."""
    schedule = {"name": "mine", "suppliers": ["*"], "cron": "0 0 1 1 *"}
    settings = {"tasks": [{"name": "starter_logic"}], "schedules": [schedule]}
    (tmp_path / "testbench.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    for name in ("DAGSTER_HOME", "TESTBENCH_HOME", "TESTBENCH_CONFIG", "DAGSTER_POSTGRES_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state(location: str, name: str, status: InstigatorStatus) -> InstigatorState:
    """What Dagster keeps of a sensor of a code location."""
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=CODE)
    code = ManagedGrpcPythonEnvCodeLocationOrigin(target, location)
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(code, "__repository__"), name)
    return InstigatorState(origin, InstigatorType.SENSOR, status)


def test_every_file_gives_the_location_the_same_name(installation: Path) -> None:
    assert yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8")) == WORKSPACE
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert project["dagster"] == {"module_name": CODE, "code_location_name": LOCATION}
    assert project["dg"]["project"]["code_location_name"] == LOCATION
    assert project["dg"]["project"]["code_location_target_module"] == CODE
    home = prepare_home(load_config())["DAGSTER_HOME"]
    assert yaml.safe_load(workspace_file(home).read_text(encoding="utf-8")) == WORKSPACE


def test_a_workspace_that_is_there_is_left_alone(installation: Path) -> None:
    own = workspace_file(installation / ".testbench" / "dagster")
    own.parent.mkdir(parents=True)
    own.write_text("load_from: []\n", encoding="utf-8")
    prepare_home(load_config())
    assert own.read_text(encoding="utf-8") == "load_from: []\n"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([*SERVER, LOCATION, "-m", CODE], LOCATION),
        ([*SERVER, CODE, "-m", CODE], CODE),
        (["dagster", "code-server", "start", "-m", CODE], None),
        (["testbench", "run"], None),
        ([*SERVER], None),
    ],
)
def test_a_server_knows_what_it_serves_is_called(arguments: list[str], name: str | None) -> None:
    assert served_as(arguments) == name


def test_people_are_told_where_the_name_or_the_runs_are_others() -> None:
    kept = '{"storage_data": {"class_name": "TestbenchStorage"}, "x": "/a/.tmp_dagster_home_1/storage"}'
    lost = '{"storage_data": {"class_name": "DagsterSqliteStorage", "y": "/a/.tmp_dagster_home_1"}}'
    own = '{"storage_data": {"class_name": "DagsterSqliteStorage", "y": "/srv/dagster"}}'
    for reference in (kept, own):
        assert remarks(["--instance-ref", reference, *SERVER, LOCATION], "/home") == []
    (forgets,) = remarks(["--instance-ref", lost, *SERVER, LOCATION], "/home")
    assert "forgets these runs" in forgets and "export DAGSTER_HOME=/home/dagster" in forgets
    (named,) = remarks(["--instance-ref", own, *SERVER, CODE], "/home")
    assert f"called {CODE}" in named and "-w /home/dagster/workspace.yaml" in named
    assert remarks(["testbench", "run"], "/home") == []


def test_switches_of_the_modules_name_are_taken_over_once(installation: Path) -> None:
    """Earlier versions of ``up`` served the code by that name: nothing switched off may come on again."""
    with dg.DagsterInstance.local_temp(str(installation)) as instance:
        assert take_over_switches(instance) == []
        instance.add_instigator_state(state(CODE, "stale_scores", InstigatorStatus.STOPPED))
        instance.add_instigator_state(state(CODE, "lost_runs", InstigatorStatus.STOPPED))
        instance.add_instigator_state(state(LOCATION, "lost_runs", InstigatorStatus.RUNNING))
        instance.add_instigator_state(state("another", "retention", InstigatorStatus.STOPPED))
        assert take_over_switches(instance) == ["stale_scores"]
        found = {
            one.instigator_name: one.status
            for one in instance.all_instigator_state()
            if one.origin.repository_origin.code_location_origin.location_name == LOCATION
        }
        assert found == {
            "stale_scores": InstigatorStatus.STOPPED,
            "lost_runs": InstigatorStatus.RUNNING,
        }
        assert take_over_switches(instance) == []


def test_what_is_switched_off_begins_switched_off_under_another_name(installation: Path) -> None:
    """Every sensor and schedule: those of the configuration, too."""
    with dg.DagsterInstance.local_temp(str(installation)) as instance:
        names = {*AUTOMATION_NAMES - {"summaries_sensor", "summaries"}, "mine"}
        for name in names:
            instance.add_instigator_state(state(LOCATION, name, InstigatorStatus.STOPPED))
        reference = dg.serialize_value(instance.get_ref())
        arguments = ["--instance-ref", reference, *SERVER]
        assert shared_switches([*arguments, LOCATION]) == {}, "Dagster knows them itself"
        switched = shared_switches([*arguments, CODE])
        assert switched == dict.fromkeys(names, False)
    repository = build_definitions(switched=switched).get_repository_def()
    assert {one.name for one in (*repository.sensor_defs, *repository.schedule_defs)} == names
    assert {one.default_status for one in repository.sensor_defs} == {dg.DefaultSensorStatus.STOPPED}
    assert {one.default_status for one in repository.schedule_defs} == {dg.DefaultScheduleStatus.STOPPED}


def test_an_instance_that_is_away_keeps_nobody_from_loading(installation: Path) -> None:
    assert shared_switches(["--instance-ref", "{}", *SERVER, CODE]) == {}


# ------------------------------------------------------------------------------------------ all four ways


_AUTOMATION = """
{
  repositoriesOrError {
    ... on RepositoryConnection {
      nodes { location { name } sensors { name sensorState { id status } } }
    }
  }
}
"""
_STOP = """
mutation Stop($id: String!) {
  stopSensor(id: $id) {
    __typename
    ... on StopSensorMutationResult { instigationState { status } }
  }
}
"""


@contextmanager
def served(instance: dg.DagsterInstance, target: Any) -> Iterator[Any]:
    """GraphQL over a code server of its own, as the webserver asks it."""
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster_webserver.app import create_app_from_workspace_process_context
    from starlette.testclient import TestClient

    with WorkspaceProcessContext(instance, target) as context:
        client = TestClient(create_app_from_workspace_process_context(context))

        def graphql(query: str, **variables: Any) -> Any:
            answer = client.post("/graphql", json={"query": query, "variables": variables}).json()
            assert "errors" not in answer, answer
            return answer["data"]

        yield graphql


@pytest.mark.slow
def test_what_is_switched_off_in_one_way_is_off_in_all(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-w workspace.yaml`, a plain `dagster dev`, `dg dev` and `-m`, one after the other on one instance."""
    from dagster._core.workspace.load_target import (
        ModuleTarget,
        PyProjectFileTarget,
        WorkspaceFileTarget,
        get_target_from_toml_data,
    )

    monkeypatch.setenv("TESTBENCH_CONFIG", str(installation / "testbench.yaml"))
    monkeypatch.setenv("DAGSTER_HOME", prepare_home(load_config())["DAGSTER_HOME"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    del project["tool"]["dagster"]
    ways = {
        "-w": WorkspaceFileTarget([str(ROOT / "workspace.yaml")]),
        "plain": PyProjectFileTarget(str(ROOT / "pyproject.toml")),
        "dg": get_target_from_toml_data(project),
        "-m": ModuleTarget(CODE, None, str(installation), None),
    }
    names, off = {}, {}
    with dg.DagsterInstance.get() as instance:
        for way, target in ways.items():
            with served(instance, target) as graphql:
                (node,) = graphql(_AUTOMATION)["repositoriesOrError"]["nodes"]
                names[way] = node["location"]["name"]
                if way == "-w":
                    (id_,) = (
                        sensor["sensorState"]["id"]
                        for sensor in node["sensors"]
                        if sensor["name"] == "stale_scores"
                    )
                    stopped = graphql(_STOP, id=id_)["stopSensor"]
                    assert stopped["instigationState"]["status"] == "STOPPED", stopped
                    (node,) = graphql(_AUTOMATION)["repositoriesOrError"]["nodes"]
                off[way] = {
                    sensor["name"]
                    for sensor in node["sensors"]
                    if sensor["sensorState"]["status"] == "STOPPED"
                }
    # service probes are not switched on by this configuration
    assert off == {way: {"stale_scores", "service_probes"} for way in ways}
    assert names == {"-w": LOCATION, "plain": LOCATION, "dg": LOCATION, "-m": CODE}, (
        "nothing names what -m serves: see remarks()"
    )


_RUNS = "{ runsOrError { ... on Runs { results { jobName status } } } }"


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the checkout", "configured elsewhere"])
def test_a_plain_webserver_in_a_checkout_shows_the_runs_of_the_installation(
    installation: Path, tmp_path: Path, *, elsewhere: bool
) -> None:
    """Without any variable, as `dagster dev` too: Dagster itself speaks of a temporary folder then."""
    with Workspace(load_config()) as workspace, LocalRuns(workspace) as runs:
        runs.refresh_suppliers()
    checkout = installation
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    if elsewhere:
        checkout = tmp_path / "checkout"
        checkout.mkdir()
        environment["TESTBENCH_CONFIG"] = str(installation / "testbench.yaml")
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, checkout / name)
    port = free_port()
    log = (tmp_path / "webserver.log").open("wb")
    command = [sys.executable, "-m", "dagster_webserver", "-p", str(port)]
    with subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=log) as server:
        try:
            deadline = time.monotonic() + 240
            while time.monotonic() < deadline:
                assert server.poll() is None, (tmp_path / "webserver.log").read_text()[-3000:]
                with contextlib.suppress(httpx.HTTPError):
                    answer = httpx.post(f"http://127.0.0.1:{port}/graphql", json={"query": _RUNS})
                    break
                time.sleep(0.5)
            found = answer.json()["data"]["runsOrError"]["results"]
        finally:
            server.terminate()
    assert found == [{"jobName": "refresh_suppliers", "status": "SUCCESS"}]
    told = (tmp_path / "webserver.log").read_text()
    assert f"Runs are kept in {installation / '.testbench' / 'dagster' / 'storage'}" in told
