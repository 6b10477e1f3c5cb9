"""The chart of deploy/k8s rendered with values, and the pod of a run as Dagster's launcher builds it."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import helm_python
import kubernetes.client
import yaml
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
CHART = K8S / "testbench"
EXAMPLES = ("minimal", "existing-secrets", "celery", "autoscaling", "everything")
RELEASE, NAMESPACE = "eval", "models"

#: Names every key and variable that the examples give to pods.
CONFIGURATION = """\
installation: my-network
suppliers:
  - {address: a, base_url: "${SUPPLIERS:-https://a.example.org/v1}", model: m, api_key_env: MY_SUPPLIER_KEY}
automation: {alert_webhook_env: ALERT_WEBHOOK}
tasks: [{name: gsm8k}]
"""
#: Secrets that the examples expect to be there, with their keys; None: whatever the user puts there.
THEIR_SECRETS: Mapping[str, frozenset[str] | None] = {
    "testbench-stores-of-ours": frozenset(
        {"TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI", "DAGSTER_POSTGRES_URL", "TESTBENCH_REDIS_URL"}
    ),
    "testbench-keys-of-ours": None,
    "testbench-key-files-of-ours": None,
    "testbench-object-store": None,
    "registry": None,
    "dagster-tls": None,
    "board-tls": None,
}

Object = dict[str, Any]


@cache
def chart() -> helm_python.Chart:
    """The chart; it is read once."""
    return helm_python.Chart.load(CHART)


def example(name: str, **changes: Any) -> Object:
    """Values of an example, with a configuration, as `helm install --set-file testbenchYaml=…` gives it."""
    values = yaml.safe_load((K8S / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {"testbenchYaml": CONFIGURATION, **values, **changes}


def merged(under: Object, over: Object) -> Object:
    """Values with others over them, as Helm lays them."""
    both = dict(under)
    for key, value in over.items():
        both[key] = merged(both[key], value) if isinstance(value, dict) and key in both else value
    return both


def render(values: Mapping[str, Any]) -> list[Object]:
    """The objects that these values make, in the order of the templates.

    Raises:
        helm_python.HelmError: the values are refused.
    """
    texts = chart().render(dict(values), name=RELEASE, namespace=NAMESPACE)
    return [
        made
        for name, text in texts.items()
        if name.endswith(".yaml")
        for made in yaml.safe_load_all(text)
        if made is not None
    ]


@cache
def _rendered(name: str) -> tuple[Object, ...]:
    return tuple(render(example(name)))


def rendered(name: str) -> list[Object]:
    """The objects of an example, which the caller may change."""
    return copy.deepcopy(list(_rendered(name)))


def found(objects: list[Object], kind: str, name: str) -> Object:
    """The object of a kind whose name ends so, the first of them."""
    return next(one for one in objects if one["kind"] == kind and one["metadata"]["name"].endswith(name))


def dagster_yaml(objects: list[Object]) -> Object:
    """Dagster's settings, as all pods but that of the migration have them."""
    text = found(objects, "ConfigMap", "testbench-instance")["data"]["dagster.yaml"]
    settings: Object = yaml.safe_load(text)
    return settings


def launches_pods(objects: list[Object]) -> bool:
    """Whether runs get pods of their own."""
    return bool(dagster_yaml(objects)["run_launcher"]["class"] == "K8sRunLauncher")


def run_pod(settings: Mapping[str, Any], folder: Path) -> Object:
    """The Job of a run, as the daemon makes it by ``run_launcher`` of dagster.yaml.

    What is not of the cluster is done by dagster_k8s itself; ``folder`` takes the file that stands for one.

    Raises:
        Exception: the configuration does not make a Job.
    """
    config = dict(settings["run_launcher"]["config"])
    launcher = K8sRunLauncher.from_config_value(
        None, {**config, "load_incluster_config": False, "kubeconfig_file": str(_no_cluster(folder))}
    )
    context = K8sContainerContext.create_for_run(dg.DagsterRun(job_name="evaluate_suppliers"), launcher, True)
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(job_image=None, run_launcher=launcher),
        args=["dagster", "api", "execute_run", "{}"],
        job_name="dagster-run-0",
        component="run_worker",
        user_defined_k8s_config=context.run_k8s_config,
        labels={"dagster/job": "evaluate_suppliers", "dagster/run-id": "0"},
        env_vars=[{"name": "DAGSTER_RUN_JOB_NAME", "value": "evaluate_suppliers"}],
    )
    made: Object = kubernetes.client.ApiClient().sanitize_for_serialization(job)
    return {**made, "metadata": {**made["metadata"], "namespace": context.namespace}}


def _no_cluster(folder: Path) -> Path:
    path = folder / "kubeconfig"
    cluster = {"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "users": [{"name": "none", "user": {}}],
                "contexts": [context],
                "current-context": "none",
            }
        ),
        encoding="utf-8",
    )
    return path


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Name and template of what every Deployment and Job makes."""
    for one in objects:
        if one["kind"] in ("Deployment", "Job"):
            yield f"{one['kind']} {one['metadata']['name']}", one["spec"]["template"]


def containers(template: Object) -> list[Object]:
    """The containers of a pod, those that come first included."""
    spec = template["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def configurable(settings: Mapping[str, Any]) -> Iterator[tuple[str, type, Any]]:
    """Of dagster.yaml where a class is named: where, the class, and its configuration.

    Raises:
        ImportError, AttributeError: there is no such class.
    """
    named = {
        key: settings[key] for key in ("run_launcher", "run_coordinator", "compute_logs") if key in settings
    }
    named["storage"] = settings["storage"]["custom"]
    for key, block in named.items():
        yield key, getattr(importlib.import_module(block["module"]), block["class"]), block.get("config", {})
