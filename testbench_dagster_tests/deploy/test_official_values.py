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

for needed, extra in (
    ("helm_python", "deploy"),
    ("kubernetes_validate", "deploy"),
    ("dagster_k8s", "k8s"),
    ("celery", "celery"),
):
    pytest.importorskip(needed, reason=f"the extra {extra} is not installed")

from testbench_dagster import __version__  # noqa: E402
from testbench_dagster_tests.deploy import checking, commands  # noqa: E402

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
        "runRetries": {"enabled": None, "maxRetries": None},
        **POD,
    },
    "dagsterWebserver": {"service": {"type": None, "port": None}, **POD},
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
    storage = {"module": "testbench_dagster.defs.storage", "class": "TestbenchStorage", "config": {}}
    settings = {
        "storage": {"custom": storage},
        "run_coordinator": queue,
        **values["additionalInstanceConfig"],
    }
    return found + checking.settings_problems(yaml.safe_dump(settings))


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(VALUES.read_text(encoding="utf-8"))
    return loaded


def test_they_are_right(values: dict[str, Any]) -> None:
    assert problems(values) == []


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
