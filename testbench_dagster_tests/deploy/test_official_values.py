"""deploy/k8s/official-chart-values.yaml: values for Dagster's own chart, which is too large to be kept here.

The keys that it knows are listed below, as far as we use them. They are those of its values.schema.json
(Dagster's repository, `helm/dagster/schema/schema/charts`), which mostly forbids others.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._core.instance.config import get_default_tick_retention_settings, get_tick_retention_settings
from dagster._core.scheduler.instigation import InstigatorType

for needed, extra in (
    ("helm_python", "deploy"),
    ("kubernetes_validate", "deploy"),
    ("dagster_k8s", "k8s"),
    ("celery", "celery"),
):
    pytest.importorskip(needed, reason=f"the extra {extra} is not installed")

from testbench_dagster import __version__  # noqa: E402
from testbench_dagster_tests.deploy import charts, checking, commands  # noqa: E402

VALUES = Path(__file__).parents[2] / "deploy" / "k8s" / "official-chart-values.yaml"
ANY: dict[str, Any] = {"*": None}
IMAGE = {"repository": None, "tag": None, "pullPolicy": None}
#: Of pods; what is in them is Kubernetes'.
POD = {
    "image": IMAGE,
    "podSecurityContext": ANY,
    "securityContext": ANY,
    "readinessProbe": ANY,
    "resources": ANY,
    "volumes": ANY,
    "volumeMounts": ANY,
    "env": ANY,
    "envSecrets": ANY,
    "annotations": ANY,
}
THREADS = dict.fromkeys(("useThreads", "numWorkers", "numSubmitWorkers"))
TICKS = {"purgeAfterDays": dict.fromkeys(("skipped", "success", "failure", "started"))}
KNOWN: dict[str, Any] = {
    "global": {"postgresqlSecretName": None},
    "postgresql": dict.fromkeys(("enabled", "postgresqlHost", "postgresqlUsername", "postgresqlDatabase")),
    "generatePostgresqlPasswordSecret": None,
    "dagster-user-deployments": {
        "enabled": None,
        "enableSubchart": None,
        "deployments": {
            "name": None,
            "port": None,
            "dagsterApiGrpcArgs": ANY,
            "includeConfigInLaunchedRuns": {"enabled": None},
            **POD,
        },
    },
    "runLauncher": {
        "type": None,
        "config": {
            "k8sRunLauncher": {
                **dict.fromkeys(("imagePullPolicy", "loadInclusterConfig")),
                **dict.fromkeys(("envConfigMaps", "envSecrets", "envVars", "volumeMounts", "volumes"), ANY),
                "runK8sConfig": {"containerConfig": ANY, "podSpecConfig": ANY},
            }
        },
    },
    "dagsterDaemon": {
        "runCoordinator": {
            "enabled": None,
            "type": None,
            "config": {"customRunCoordinator": {"module": None, "class": None, "config": ANY}},
        },
        "runMonitoring": {
            **dict.fromkeys(("enabled", "startTimeoutSeconds", "cancelTimeoutSeconds")),
            **dict.fromkeys(("maxResumeRunAttempts", "pollIntervalSeconds", "freeSlotsAfterRunEndSeconds")),
        },
        "runRetries": dict.fromkeys(("enabled", "maxRetries", "retryOnAssetOrOpFailure")),
        **dict.fromkeys(("sensors", "schedules", "backfills"), THREADS),
        **POD,
    },
    "dagsterWebserver": {"service": {"type": None, "port": None}, **POD},
    "retention": {"enabled": None, **dict.fromkeys(("schedule", "sensor", "autoMaterialize"), TICKS)},
    "additionalInstanceConfig": ANY,
    "migrate": {"enabled": None},
    "telemetry": {"enabled": None},
}


def unknown(values: Any, known: Any, where: str = "") -> list[str]:
    """Keys that the chart does not know."""
    if known == ANY or known is None:
        return []
    if isinstance(values, list):
        return [found for one in values for found in unknown(one, known, where)]
    found = [f"{where}.{key}" for key in values.keys() - known.keys()]
    for key in values.keys() & known.keys():
        found += unknown(values[key], known[key], f"{where}.{key}")
    return found


def pods(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is Kubernetes' in the values, as pods, so that its schemas judge it."""
    run = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    found = {"run": {"spec": run["podSpecConfig"], "container": run["containerConfig"]}}
    for name, role in (
        ("code", values["dagster-user-deployments"]["deployments"][0]),
        ("daemon", values["dagsterDaemon"]),
        ("webserver", values["dagsterWebserver"]),
    ):
        found[name] = {
            "spec": {"volumes": role.get("volumes", []), "securityContext": role["podSecurityContext"]},
            "container": {
                **{
                    key: role[key]
                    for key in ("env", "resources", "volumeMounts", "readinessProbe")
                    if key in role
                },
                "envFrom": [{"secretRef": secret} for secret in role.get("envSecrets", ())],
                "securityContext": role["securityContext"],
            },
        }
    return {
        name: {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {**pod["spec"], "containers": [{"name": name, "image": "image", **pod["container"]}]},
        }
        for name, pod in found.items()
    }


def problems(values: dict[str, Any]) -> list[str]:
    """Everything that is wrong with the values, as far as it can be known without the chart."""
    found = unknown(values, KNOWN)
    for pod in pods(values).values():
        found += checking.field_problems(pod)
    code = values["dagster-user-deployments"]["deployments"][0]
    command = [
        "dagster",
        "api",
        "grpc",
        "-h",
        "0.0.0.0",
        "-p",
        str(code["port"]),
        *code["dagsterApiGrpcArgs"],
    ]
    if problem := commands.problem(command):
        found.append(problem)
    queue = values["dagsterDaemon"]["runCoordinator"]["config"]["customRunCoordinator"]
    settings = {**usual_storage(), "run_coordinator": queue, **values["additionalInstanceConfig"]}
    return found + checking.settings_problems(yaml.safe_dump(settings))


def usual_storage() -> dict[str, Any]:
    storage = {"module": "testbench_dagster.defs.storage", "class": "TestbenchStorage", "config": {}}
    return {"storage": {"custom": storage}}


#: Blocks of dagster.yaml that the chart writes from values of ours, by where these are.
WRITTEN = {
    "run_monitoring": ("dagsterDaemon", "runMonitoring"),
    "run_retries": ("dagsterDaemon", "runRetries"),
    "sensors": ("dagsterDaemon", "sensors"),
    "schedules": ("dagsterDaemon", "schedules"),
    "backfills": ("dagsterDaemon", "backfills"),
    "retention": ("retention",),
    "telemetry": ("telemetry",),
}


def snake(node: Any) -> Any:
    """With keys as dagster.yaml has them."""
    if not isinstance(node, dict):
        return node
    return {re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", key): snake(node[key]) for key in node}


def written(values: dict[str, Any]) -> dict[str, Any]:
    """What the chart writes into dagster.yaml of those values, but for classes and their configuration."""
    made = {}
    for block, path in WRITTEN.items():
        node: Any = values
        for step in path:
            node = node[step]
        made[block] = snake(node)
    assert made["retention"].pop("enabled") is True  # a switch of the chart's own
    return {**made, **values["additionalInstanceConfig"]}


def meant(settings: dict[str, Any]) -> dict[str, Any]:
    """The same, with retention as Dagster takes it: a number is that of every outcome."""
    kinds = {
        "schedule": InstigatorType.SCHEDULE,
        "sensor": InstigatorType.SENSOR,
        "auto_materialize": InstigatorType.AUTO_MATERIALIZE,
    }
    days = {
        name: get_tick_retention_settings(
            settings["retention"].get(name), get_default_tick_retention_settings(kind)
        )
        for name, kind in kinds.items()
    }
    return {**settings, "retention": days}


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    return loaded


def test_they_are_right(values: dict[str, Any]) -> None:
    assert problems(values) == []


def test_it_is_set_as_where_runs_have_pods_by_our_own_chart(values: dict[str, Any]) -> None:
    """Retries, monitoring, retention and threads, which would drift apart silently."""
    ours, theirs = meant(charts.dagster_yaml(charts.rendered("minimal"))), meant(written(values))
    # the chart has no value for it, which docs/deployment.md says
    del ours["run_monitoring"]["max_runtime_seconds"]
    # what Dagster does where nothing is said, which that chart always says
    said = {"max_resume_run_attempts": 0, "free_slots_after_run_end_seconds": 0}
    assert said.items() <= theirs["run_monitoring"].items()
    theirs["run_monitoring"] = {
        key: value for key, value in theirs["run_monitoring"].items() if key not in said
    }
    assert {key: ours[key] for key in theirs} == theirs
    elsewhere = {"storage", "run_launcher", "run_coordinator", "compute_logs", "nux"}
    assert ours.keys() - theirs.keys() == elsewhere


def test_dagster_takes_what_the_chart_writes(values: dict[str, Any]) -> None:
    assert checking.settings_problems(yaml.safe_dump({**usual_storage(), **written(values)})) == []


def test_it_limits_runs_as_our_own_chart(values: dict[str, Any]) -> None:
    queue = values["dagsterDaemon"]["runCoordinator"]["config"]["customRunCoordinator"]
    assert queue == charts.dagster_yaml(charts.rendered("minimal"))["run_coordinator"]


def test_all_roles_are_of_our_image_and_version(values: dict[str, Any]) -> None:
    images = [values["dagsterDaemon"]["image"], values["dagsterWebserver"]["image"]]
    images += [one["image"] for one in values["dagster-user-deployments"]["deployments"]]
    assert {(image["repository"], image["tag"]) for image in images} == {("testbench-dagster", __version__)}


def test_who_asks_for_the_ui_asks_where_it_is(values: dict[str, Any]) -> None:
    ui = values["dagsterWebserver"]
    assert ui["service"]["port"] == ui["readinessProbe"]["httpGet"]["port"]


def test_all_that_it_needs_is_told_how_to_make(values: dict[str, Any]) -> None:
    said = re.findall(
        r"kubectl create (?:configmap|secret generic) ([a-z-]+)", VALUES.read_text(encoding="utf-8")
    )
    code = values["dagster-user-deployments"]["deployments"][0]
    used = {secret["name"] for secret in code["envSecrets"]} | {values["global"]["postgresqlSecretName"]}
    used |= {volume["configMap"]["name"] for volume in code["volumes"] if "configMap" in volume}
    assert used == set(said)


@pytest.mark.parametrize(
    "path",
    [
        ("dagsterDaemon", "runMonitoring", "startTimeoutSeconds"),
        ("dagsterDaemon", "runCoordinator", "config", "customRunCoordinator", "config", "evaluations"),
        ("dagsterWebserver", "podSecurityContext", "runAsNonRoot"),
        (
            "runLauncher",
            "config",
            "k8sRunLauncher",
            "runK8sConfig",
            "podSpecConfig",
            "terminationGracePeriodSeconds",
        ),
        ("runLauncher", "config", "k8sRunLauncher", "runK8sConfig", "containerConfig", "resources", "limits"),
        ("dagster-user-deployments", "deployments", 0, "volumeMounts", 0, "mountPath"),
        ("additionalInstanceConfig", "concurrency", "pools", "granularity"),
        ("postgresql", "postgresqlHost"),
    ],
    ids=lambda path: str(path[-1]),
)
def test_a_typo_is_found(path: tuple[Any, ...], values: dict[str, Any]) -> None:
    changed = copy.deepcopy(values)
    node: Any = changed
    for step in path[:-1]:
        node = node[step]
    node[f"{path[-1]}x"] = node.pop(path[-1])
    assert problems(changed) != []
