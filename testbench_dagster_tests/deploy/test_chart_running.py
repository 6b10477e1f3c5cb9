"""The chart at work: its pods as processes of this machine, over real stores, with runs of Dagster's.

Each pod has the user, the read-only root, the mounts and the variables that the chart gives it, no others.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

for needed, extra in (
    ("helm_python", "deploy"),
    ("kubernetes_validate", "deploy"),
    ("dockerfile_parse", "deploy"),
    ("dagster_k8s", "k8s"),
    ("celery", "celery"),
):
    pytest.importorskip(needed, reason=f"the extra {extra} is not installed")

from testbench_dagster.localnet.run import LocalnetProcess, control  # noqa: E402
from testbench_dagster.stores.documents import open_documents  # noqa: E402
from testbench_dagster.stores.documents.collections import SCORES  # noqa: E402
from testbench_dagster_tests import certificates  # noqa: E402
from testbench_dagster_tests.deploy import charts  # noqa: E402
from testbench_dagster_tests.deploy.kubelet import Cluster, on_free_ports  # noqa: E402
from testbench_dagster_tests.operations.harness import wait_until  # noqa: E402
from testbench_dagster_tests.servers import mongo_database, postgres_database  # noqa: E402

pytestmark = [
    pytest.mark.slow(minutes=2.5),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap to make pods of"),
]

CONFIGURATION = """\
installation: charted
simulation: true
suppliers:
  - {{address: sim-01, service: simulation, base_url: "{url}/sim-01/v1", api: chat, model: simulated-granite}}
tasks: [{{name: starter_arithmetic, samples: 10}}]
allow_code_execution: true
automation:
  new_suppliers: {{every_s: 5}}
  stale_catalog: {{every_s: 5}}
  stale_scores: {{every_s: 5}}
  lost_runs: {{every_s: 5}}
"""
_RUNS = "{ runsOrError { ... on Runs { results { runId status jobName } } } }"
_LAUNCH = """
mutation Launch($job: String!, $tags: [ExecutionTag!]) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "testbench", repositoryName: "__repository__", jobName: $job}
    runConfigData: {ops: {relay_responses: {config: {force: true}}}}
    executionMetadata: {tags: $tags}
  }) { __typename ... on PythonError { message } ... on RunConfigValidationInvalid { errors { message } } }
}
"""
_TERMINATE = "mutation End($id: String!) { terminateRun(runId: $id) { __typename } }"


@pytest.fixture(scope="module")
def suppliers() -> Iterator[LocalnetProcess]:
    with LocalnetProcess() as localnet:
        yield localnet


@pytest.fixture(scope="module")
def stores(mongo_uri: str, postgres_uri: str) -> Iterator[dict[str, str]]:
    with mongo_database(mongo_uri) as documents, postgres_database(postgres_uri) as sql:
        yield {"mongoUri": documents, "postgresUri": sql, "dagsterPostgresUrl": sql}


@pytest.fixture(scope="module")
def cluster(
    suppliers: LocalnetProcess, stores: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    values: dict[str, Any] = {"testbenchYaml": CONFIGURATION.format(url=suppliers.url), "stores": stores}
    values["runs"] = {"startTimeoutSeconds": 300}
    objects = on_free_ports(charts.render(values))
    with Cluster(objects, folder, certificates.made_in(folder)) as made:
        yield made


def template(cluster: Cluster, name: str) -> dict[str, Any]:
    return dict(charts.pods(cluster.objects))[name]


def test_the_migration_makes_empty_stores_ready(cluster: Cluster) -> None:
    ended = cluster.run("migration", template(cluster, "Job eval-testbench-migration"))
    assert [code for code, _ in ended] == [0, 0], ended


@pytest.mark.parametrize("role", ["code", "webserver", "board"])
def test_a_role_becomes_ready_by_its_own_probe(role: str, cluster: Cluster) -> None:
    pod = template(cluster, f"Deployment eval-testbench-{role}")
    assert not cluster.ready(pod)
    cluster.start(role, pod)
    wait_until(
        f"{role} to be ready", lambda: cluster.ready(pod) or cluster.pods[role].poll() is not None, 120
    )
    assert cluster.ready(pod), cluster.said(role)


def test_model_written_code_has_a_sandbox_there(cluster: Cluster) -> None:
    """`testbench check` as somebody calls it in the pod of the code server, which is like that of a run."""
    pod = template(cluster, "Deployment eval-testbench-code")
    [container] = charts.containers(pod)
    checking = {**pod, "spec": {**pod["spec"], "containers": [{**container, "args": ["testbench", "check"]}]}}
    [(code, said)] = cluster.run("check", checking)
    assert "Landlock" in said or "runs code" in said, said
    assert code == 0, said


def test_the_daemon_launches_runs_as_pods_that_measure_a_supplier(
    cluster: Cluster, stores: dict[str, str]
) -> None:
    daemon = template(cluster, "Deployment eval-testbench-daemon")
    cluster.start("daemon", daemon)
    documents = open_documents(cluster.folder, stores["mongoUri"])
    with contextlib.closing(documents):
        wait_until("scores of the supplier", lambda: documents.size(SCORES.name) >= 10, 420, every_s=1)
    assert cluster.live(daemon, "daemon") == 0
    launched = {job["spec"]["template"]["metadata"]["labels"]["dagster/job"] for job in cluster.jobs.values()}
    assert {"refresh_catalog", "evaluate_suppliers"} <= launched
    wait_until("runs to succeed", lambda: "SUCCESS" in {run["status"] for run in runs(cluster)}, 60)
    assert "FAILURE" not in {run["status"] for run in runs(cluster)}, cluster.said("daemon")


def test_a_run_that_is_ended_in_the_ui_ends(cluster: Cluster, suppliers: LocalnetProcess) -> None:
    """By the right to delete its Job; the run has the grace period of its pod to say that it was canceled."""
    control(suppliers.url, "fail", {"address": "sim-01", "mode": "timeout", "rate": 1})
    launched = set(cluster.jobs)
    tags = [
        {"key": f"dagster/asset_partition_range_{end}", "value": "sim-01@simulation"}
        for end in ("start", "end")
    ]
    said = graphql(cluster, _LAUNCH, {"job": "evaluate_suppliers", "tags": tags})
    assert said["launchRun"]["__typename"] == "LaunchRunSuccess", said
    job = wait_until("the pod of the run", lambda: next(iter(set(cluster.jobs) - launched), None), 60)
    run = cluster.jobs[job]["spec"]["template"]["metadata"]["labels"]["dagster/run-id"]
    wait_until("the run to be at work", lambda: status(cluster, run) == "STARTED", 60)
    graphql(cluster, _TERMINATE, {"id": run})
    wait_until("the run to end", lambda: status(cluster, run) == "CANCELED", 60)
    assert cluster.pods[job].wait(60) is not None


def test_nothing_was_asked_of_the_cluster_without_a_right_to_it(cluster: Cluster) -> None:
    assert len(cluster.jobs) >= 3
    assert cluster.denied == []


def test_an_earlier_version_refuses_stores_of_a_later_one(cluster: Cluster, stores: dict[str, str]) -> None:
    """What stops `helm rollback` before a pod is replaced."""
    with contextlib.closing(open_documents(cluster.folder, stores["mongoUri"])) as documents:
        version = documents.schema_version()
        assert version is not None
        documents.move_schema(version, version + 1)
    try:
        [(code, said)] = cluster.run("rollback", template(cluster, "Job eval-testbench-migration"))
        assert code == 1 and "newer" in said
    finally:
        with contextlib.closing(
            open_documents(cluster.folder, stores["mongoUri"], any_schema=True)
        ) as documents:
            documents.move_schema(version + 1, version)


def graphql(cluster: Cluster, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
    [container] = charts.containers(template(cluster, "Deployment eval-testbench-webserver"))
    url = f"http://127.0.0.1:{container['ports'][0]['containerPort']}/graphql"
    answered = httpx.post(url, json={"query": query, "variables": variables or {}}, timeout=60).json()
    assert "errors" not in answered, answered
    data: dict[str, Any] = answered["data"]
    return data


def runs(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = graphql(cluster, _RUNS)["runsOrError"]["results"]
    return found


def status(cluster: Cluster, run: str) -> str:
    return next((one["status"] for one in runs(cluster) if one["runId"] == run), "")
