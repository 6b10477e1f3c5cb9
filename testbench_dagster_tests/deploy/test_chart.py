"""deploy/k8s: what the chart makes of values, checked as far as no cluster is needed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster import __version__
from testbench_dagster.defs.local_runs import INSTANCE_SETTINGS

for needed, extra in (
    ("helm_python", "deploy"),
    ("kubernetes_validate", "deploy"),
    ("dagster_k8s", "k8s"),
    ("celery", "celery"),
):
    pytest.importorskip(needed, reason=f"the extra {extra} is not installed")

import helm_python  # noqa: E402
from helm_python import HelmError  # noqa: E402

from testbench_dagster_tests.deploy import charts, checking  # noqa: E402
from testbench_dagster_tests.deploy.charts import (  # noqa: E402
    CHART,
    EXAMPLES,
    THEIR_SECRETS,
    example,
    found,
    merged,
    render,
    rendered,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", EXAMPLES)
def test_everything_that_an_example_makes_is_right(name: str, tmp_path: Path) -> None:
    objects = rendered(name)
    run = None
    if charts.launches_pods(objects):
        run = charts.run_pod(charts.dagster_yaml(objects), tmp_path)
    assert checking.problems(objects, THEIR_SECRETS, run) == []
    for one in [*objects, *([run] if run is not None else [])]:
        assert checking.field_problems(one, checking.OLDEST) == []


def test_helm_has_nothing_against_the_chart() -> None:
    for name in EXAMPLES:
        said = helm_python.lint(CHART, example(name), strict=True)
        assert [message for message in said["messages"] if message["severity"] > 1] == []
        assert said["errors"] == []


def test_it_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["appVersion"] == chart["version"] == __version__


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_secret_is_in_a_config_map(name: str) -> None:
    for one in rendered(name):
        if one["kind"] != "Secret":
            assert "secret@" not in str(one) and ":secret" not in str(one)
            assert "https://chat.example.org/hook" not in str(one)


def test_with_secrets_of_ones_own_none_is_made() -> None:
    assert [one for one in rendered("existing-secrets") if one["kind"] == "Secret"] == []


def test_keys_reach_what_asks_suppliers_and_nothing_else(tmp_path: Path) -> None:
    objects = rendered("existing-secrets")
    run = charts.run_pod(charts.dagster_yaml(objects), tmp_path)
    having = {
        where
        for where, template in charts.pods([*objects, run])
        for one in charts.containers(template)
        if "testbench-keys-of-ours" in str(one.get("envFrom"))
    }
    assert having == {"Deployment eval-testbench-code", "Job dagster-run-0"}


def test_who_starts_no_runs_has_no_token(tmp_path: Path) -> None:
    objects = rendered("everything")
    run = charts.run_pod(charts.dagster_yaml(objects), tmp_path)
    having = {
        where
        for where, template in charts.pods([*objects, run])
        if template["spec"]["automountServiceAccountToken"]
    }
    assert having == {"Deployment eval-testbench-daemon", "Deployment eval-testbench-webserver"}


@pytest.mark.parametrize("name", ["minimal", "celery"])
def test_a_changed_configuration_restarts_every_pod(name: str) -> None:
    changed = example(name, testbenchYaml=charts.CONFIGURATION + "sampling: {window: 7}\n")
    templates = dict(charts.pods(render(changed)))
    for where, template in charts.pods(rendered(name)):
        if not where.startswith("Job"):
            key = "checksum/config"
            assert (
                template["metadata"]["annotations"][key] != templates[where]["metadata"]["annotations"][key]
            )


def test_a_changed_key_or_store_restarts_pods() -> None:
    before = dict(charts.pods(rendered("minimal")))
    values = example("minimal", keys={"values": {"MY_SUPPLIER_KEY": "another"}})
    values["stores"] = {**values["stores"], "postgresUri": "postgresql://testbench:new@postgres/testbench"}
    for where, template in charts.pods(render(values)):
        if not where.startswith("Job"):
            old, new = (one["metadata"]["annotations"] for one in (before[where], template))
            assert old["checksum/keys"] != new["checksum/keys"]
            assert old["checksum/stores"] != new["checksum/stores"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_all_but_what_differs_here_is_as_in_dagster_yaml(name: str) -> None:
    settings, usual = charts.dagster_yaml(rendered(name)), INSTANCE_SETTINGS
    same = {"storage", "run_retries", "sensors", "schedules", "backfills", "retention", "telemetry", "nux"}
    assert {key: settings[key] for key in same} == {key: usual[key] for key in same}
    assert settings.keys() - usual.keys() <= {"run_launcher", "run_coordinator", "compute_logs"}
    assert settings["concurrency"]["pools"] == {"granularity": "run"}
    monitoring = {**settings["run_monitoring"], "start_timeout_seconds": 180}
    assert monitoring == {**usual["run_monitoring"], "start_timeout_seconds": 180}


def test_celery_is_set_as_where_it_has_no_cluster() -> None:
    """Limits apart: deploy/celery takes them from the environment."""
    settings = charts.dagster_yaml(rendered("celery"))
    other = yaml.safe_load((ROOT / "deploy" / "celery" / "dagster.yaml").read_text(encoding="utf-8"))
    assert settings["run_launcher"] == other["run_launcher"]
    assert settings["run_monitoring"] == other["run_monitoring"]
    ours, theirs = settings["run_coordinator"], other["run_coordinator"]
    assert (ours["module"], ours["class"]) == (theirs["module"], theirs["class"])
    assert ours["config"].keys() == theirs["config"].keys()


def test_limits_follow_slots() -> None:
    objects = rendered("celery")
    queue = charts.dagster_yaml(objects)["run_coordinator"]["config"]
    worker = found(objects, "Deployment", "-worker")
    assert queue["max_concurrent_runs"] == worker["spec"]["replicas"] == 12
    assert "--concurrency=1" in charts.containers(worker["spec"]["template"])[0]["args"]
    assert queue["evaluations"] == 8


def test_a_pod_stays_as_long_as_what_it_does_may_take(tmp_path: Path) -> None:
    objects = rendered("celery")
    monitoring = charts.dagster_yaml(objects)["run_monitoring"]
    worker = found(objects, "Deployment", "-worker")["spec"]["template"]["spec"]
    assert worker["terminationGracePeriodSeconds"] >= monitoring["max_runtime_seconds"]
    celery = charts.dagster_yaml(objects)["run_launcher"]["config"]["config_source"]
    assert celery["broker_transport_options"]["visibility_timeout"] > monitoring["max_runtime_seconds"]
    # a run that is told to end ends: its pod has as long as Dagster waits for that
    settings = charts.dagster_yaml(rendered("minimal"))
    run = charts.run_pod(settings, tmp_path)["spec"]["template"]["spec"]
    assert run["terminationGracePeriodSeconds"] >= settings["run_monitoring"]["cancel_timeout_seconds"]


def test_a_drain_waits_for_runs_however_many_there_are(tmp_path: Path) -> None:
    objects = rendered("everything")
    budget = found(objects, "PodDisruptionBudget", "-runs")["spec"]
    queue = charts.dagster_yaml(objects)["run_coordinator"]["config"]
    assert budget["minAvailable"] >= queue["max_concurrent_runs"]
    template = charts.run_pod(charts.dagster_yaml(objects), tmp_path)["spec"]["template"]
    assert budget["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    kept = render(example("minimal", runs={"keepFromDrains": False}))
    assert [one for one in kept if one["kind"] == "PodDisruptionBudget"] == []


def test_there_is_one_daemon_and_one_code_server() -> None:
    for name in EXAMPLES:
        objects = rendered(name)
        daemon = found(objects, "Deployment", "-daemon")["spec"]
        assert (daemon["replicas"], daemon["strategy"]) == (1, {"type": "Recreate"})
        code = found(objects, "Deployment", "-code")["spec"]
        assert (code["replicas"], code["strategy"]["rollingUpdate"]["maxUnavailable"]) == (1, 0)
        probed = charts.containers(code["template"])[0]
        assert all("grpc" in probed[kind] for kind in ("startupProbe", "readinessProbe", "livenessProbe"))


def test_the_migration_comes_first_and_needs_nothing_that_comes_later() -> None:
    objects = rendered("everything")
    hooks = {
        one["metadata"]["name"]: one
        for one in objects
        if "helm.sh/hook" in one["metadata"].get("annotations", {})
    }
    job = hooks["eval-testbench-migration"]
    when = job["metadata"]["annotations"]["helm.sh/hook"]
    assert (
        when == "pre-install,pre-upgrade,pre-rollback"
    )  # a version that is too old for the stores stops there
    weight = int(job["metadata"]["annotations"]["helm.sh/hook-weight"])
    for volume in job["spec"]["template"]["spec"]["volumes"]:
        if "configMap" in volume:
            earlier = hooks[volume["configMap"]["name"]]["metadata"]["annotations"]
            assert int(earlier["helm.sh/hook-weight"]) < weight
    used = {
        variable["valueFrom"]["secretKeyRef"]["name"]
        for one in charts.containers(job["spec"]["template"])
        for variable in one["env"]
        if "valueFrom" in variable
    }
    assert used <= hooks.keys()
    # it has no token, which what starts runs asks for when Dagster shows its settings
    assert "run_launcher" not in hooks["eval-testbench-migration-instance"]["data"]["dagster.yaml"]
    assert [one["args"] for one in charts.containers(job["spec"]["template"])] == [
        ["testbench", "migrate"],
        ["dagster", "instance", "migrate"],
    ]
    assert [
        one for one in render(example("minimal", migration={"enabled": False})) if one["kind"] == "Job"
    ] == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"testbenchYaml": ""}, "testbenchYaml is empty; add --set-file"),
        ({"testbenchYaml": "tasks: []\n"}, "testbenchYaml has no installation; add a line such as"),
        ({"stores": {"mongoUri": ""}}, "stores.mongoUri is empty; set it, or name in stores.existingSecret"),
        ({"launcher": "celery"}, "stores.redisUrl is empty"),
        ({"files": {"testbench.yaml": ""}}, "files holds testbench.yaml"),
        (
            {"runs": {"maxConcurrent": 2, "evaluations": 2}},
            "do not fit into runs.maxConcurrent 2; raise the last",
        ),
        ({"board": {"ingress": {"enabled": True}}}, "board.ingress.host is empty"),
        (
            {"board": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
            "board.autoscaling.minReplicas 9 is above maxReplicas 6; lower it",
        ),
        ({"daemon": {"replicas": 2}}, "replicas"),
        ({"launcher": "docker"}, "launcher"),
        ({"stores": {"postgresUri": "mysql://host/db"}}, "postgresUri"),
        ({"image": {"digest": "abc"}}, "digest"),
        ({"keys": {"values": {"not a name": "x"}}}, "not a name"),
        ({"code": {"resources": {"limits": {"memroy": "1Gi"}}}}, "memroy"),
        ({"runs": {"resources": {"limits": {"memory": "1 GiB"}}}}, "memory"),
        ({"computeLogs": {"module": "dagster_aws.s3.compute_log_manager"}}, "computeLogs"),
        ({"user": 0}, "user"),
    ],
)
def test_values_that_make_no_sense_are_refused_and_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError, match=said):
        render(merged(example("minimal"), values))


def test_every_default_is_what_the_schema_allows_and_lists() -> None:
    """What the schema does not know cannot be set; what values.yaml does not show is not found."""
    shown = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = charts.chart().schema
    assert schema is not None

    def listed(node: dict[str, Any]) -> Any:
        if "$ref" in node:
            return listed(schema["$defs"][node["$ref"].rpartition("/")[2]])
        return node

    def compare(values: dict[str, Any], node: dict[str, Any], where: str) -> None:
        properties = listed(node).get("properties")
        if properties is None or not values:
            return
        assert listed(node)["additionalProperties"] is False, where
        assert values.keys() <= properties.keys(), where
        if where not in (".webserver.service", ".resources") and not where.endswith(("requests", "limits")):
            assert properties.keys() - values.keys() <= {"global"}, where
        for key, value in values.items():
            if isinstance(value, dict):
                compare(value, properties[key], f"{where}.{key}")

    compare(shown, schema, "")


def test_names_stay_short_enough_for_what_follows_them() -> None:
    texts = charts.chart().render(example("everything"), name="r" * 53, namespace="models")
    for file, text in texts.items():
        for one in yaml.safe_load_all(text if file.endswith(".yaml") else ""):
            if one is not None:
                assert len(one["metadata"]["name"]) <= 63


def test_notes_say_how_to_reach_each_role() -> None:
    texts = charts.chart().render(example("everything"), name="eval", namespace="models")
    notes = next(text for name, text in texts.items() if name.endswith("NOTES.txt"))
    assert (
        "https://board.example.org" in notes and "exec deploy/eval-testbench-code -- testbench check" in notes
    )
    assert "8 at once" in notes
    paused = charts.chart().render(
        example("minimal", daemon={"replicas": 0}), name="eval", namespace="models"
    )
    assert "paused" in next(text for name, text in paused.items() if name.endswith("NOTES.txt"))


def test_the_classes_of_dagster_yaml_are_where_it_says() -> None:
    for name in EXAMPLES:
        for _, configured, _ in charts.configurable(charts.dagster_yaml(rendered(name))):
            module = importlib.import_module(configured.__module__)
            assert getattr(module, configured.__name__) is configured
