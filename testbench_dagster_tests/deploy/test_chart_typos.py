"""A typo in whatever the chart makes, or is given, makes the check fail: planted one by one."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
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

from helm_python import HelmError  # noqa: E402

from testbench_dagster_tests.deploy import charts, checking  # noqa: E402
from testbench_dagster_tests.deploy.charts import (  # noqa: E402
    CHART,
    THEIR_SECRETS,
    Object,
    example,
    merged,
    render,
    rendered,
)

#: Mappings whose keys are anybody's; those of them that something refers to are planted in by value.
_FREE = {"annotations", "data", "labels", "matchLabels", "nodeSelector", "stringData"}


def keys(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every key is that Kubernetes gives a meaning."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not (path and (path[-1] in _FREE or (path == ("spec", "selector") and "/" in key))):
                yield (*path, key)
            yield from keys(value, (*path, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from keys(value, (*path, place))


def renamed(made: Object, path: tuple[Any, ...]) -> Object:
    """With a typo in one key."""
    changed = copy.deepcopy(made)
    node: Any = changed
    for step in path[:-1]:
        node = node[step]
    node[f"{path[-1]}x"] = node.pop(path[-1])
    return changed


def shape(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """A path without places in lists: what is alike."""
    return tuple(step for step in path if not isinstance(step, int))


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Object], Object]:
    """What the chart makes of everything, and the pod of a run; not to be changed."""
    objects = rendered("everything")
    return objects, charts.run_pod(charts.dagster_yaml(objects), tmp_path_factory.mktemp("cluster"))


OBJECTS = [*rendered("everything"), charts.found(rendered("celery"), "Deployment", "-worker")]


def planting() -> dict[str, list[tuple[Any, ...]]]:
    """By object the keys to misspell: at least three, and all that no object of the kind before has."""
    seen: set[tuple[Any, ...]] = set()
    wanted = {}
    for made in OBJECTS:
        shapes = {(made["kind"], *shape(path)): path for path in keys(made)}
        new = [path for known, path in shapes.items() if known not in seen]
        wanted[f"{made['kind']} {made['metadata']['name']}"] = [*new, *shapes.values()][: max(3, len(new))]
        seen |= shapes.keys()
    return wanted


PLANTED = planting()


@pytest.mark.parametrize("name", PLANTED)
def test_a_misspelt_field_is_refused(name: str) -> None:
    made = next(one for one in OBJECTS if f"{one['kind']} {one['metadata']['name']}" == name)
    assert misspelt_and_passed(made, PLANTED[name]) == []


def test_a_misspelt_field_of_the_pod_of_a_run_is_refused(right: tuple[list[Object], Object]) -> None:
    _, run = right
    of_a_job = next(one for one in OBJECTS if one["kind"] == "Job")
    known = {shape(path) for path in keys(of_a_job)}
    new = {shape(path): path for path in keys(run) if shape(path) not in known}
    assert len(new) > 10
    assert misspelt_and_passed(run, [*new.values(), ("spec", "template", "spec", "volumes")]) == []


def misspelt_and_passed(made: Object, paths: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    passed = []
    for path in paths:
        try:
            if not checking.field_problems(renamed(made, path)):
                passed.append(path)
        except KeyError:  # it does not even say what it is
            assert path in (("kind",), ("apiVersion",))
    return passed


@pytest.mark.slow(minutes=0.5)
def test_a_misspelt_key_of_dagster_yaml_is_refused(tmp_path: Path) -> None:
    """By Dagster, by the classes that are named, or where the pod of a run is built of it."""
    for name in ("everything", "celery", "existing-secrets"):
        settings = charts.dagster_yaml(rendered(name))
        shapes = {shape(path): path for path in keys(settings)}
        for path in shapes.values():
            if path[:3] == ("run_launcher", "config", "config_source") and len(path) > 3:
                continue  # Celery takes anything: test_chart.py holds it to deploy/celery
            assert _refuses(renamed(settings, path), tmp_path), f"{name}: {'.'.join(map(str, path))}"


@pytest.mark.parametrize(
    "path",
    [
        ("run_coordinator", "config", "evaluations"),
        ("run_monitoring", "start_timeout_seconds"),
        ("run_launcher", "config", "job_image"),
        ("run_launcher", "config", "run_k8s_config", "pod_spec_config", "terminationGracePeriodSeconds"),
        (
            "run_launcher",
            "config",
            "run_k8s_config",
            "container_config",
            "securityContext",
            "readOnlyRootFilesystem",
        ),
        ("run_launcher", "config", "run_k8s_config", "container_config", "resources", "limits", "memory"),
    ],
    ids=lambda path: path[-1],
)
def test_a_misspelt_setting_of_runs_is_refused(path: tuple[str, ...], tmp_path: Path) -> None:
    settings = charts.dagster_yaml(rendered("everything"))
    assert not _refuses(settings, tmp_path)
    assert _refuses(renamed(settings, path), tmp_path)


def _refuses(settings: Object, folder: Path) -> bool:
    if checking.settings_problems(yaml.safe_dump(settings)):
        return True
    try:
        return bool(checking.field_problems(charts.run_pod(settings, folder)))
    except Exception:
        return True


def test_a_misspelt_key_of_values_is_refused() -> None:
    usual = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    planted = 0
    for path in keys(usual):
        value: Any = usual
        for step in path:
            value = value[step]
        wrong: Any = value
        for step in (*path[:-1], f"{path[-1]}x")[::-1]:
            wrong = {step: wrong}
        with pytest.raises(HelmError, match=f"{path[-1]}x"):
            render(merged(example("minimal"), wrong))
        planted += 1
    assert planted > 150


#: Names that refer to something, or that something knows: template, old text, new text.
REFERENCES = [
    ("Deployment", "-code", "eval-testbench-config", "eval-testbench-configs"),
    ("Deployment", "-code", "eval-testbench-stores", "eval-testbench-store"),
    ("Deployment", "-code", '"key": "TESTBENCH_MONGO_URI"', '"key": "TESTBENCH_MONGO_URL"'),
    ("Deployment", "-code", '"name": "TESTBENCH_MONGO_URI", "v', '"name": "TESTBENCH_MONGO_URL", "v'),
    ("Deployment", "-code", "eval-testbench-keys", "eval-testbench-key"),
    ("Deployment", "-code", "testbench-key-files-of-ours", "testbench-key-files-of-our"),
    ("Deployment", "-code", '"subPath": "dagster.yaml"', '"subPath": "dagster.yml"'),
    ("Deployment", "-code", "/etc/testbench/testbench.yaml", "/etc/testbench/testbench.yml"),
    (
        "Deployment",
        "-code",
        '"serviceAccountName": "eval-testbench"',
        '"serviceAccountName": "eval-testbnch"',
    ),
    ("Deployment", "-code", '"port": 4000', '"port": 4001'),
    ("Deployment", "-code", "DagsterApi", "DagsterAPI"),
    (
        "Deployment",
        "-code",
        "--module-name=testbench_dagster.definitions",
        "--module-name=testbench_dagster.defn",
    ),
    ("Deployment", "-code", "--module-name", "--modul-name"),
    ("Deployment", "-code", "--location-name=testbench", "--location-name=testbnch"),
    ("Deployment", "-code", "--container-image=testbench-dagster", "--container-image=testbench-dagstr"),
    ("Deployment", "-daemon", '"subPath": "workspace.yaml"', '"subPath": "workspace.yml"'),
    ("Deployment", "-daemon", "liveness-check", "livenes-check"),
    ("Deployment", "-daemon", "Recreate", "Recreated"),
    ("Deployment", "-webserver", "/server_info", "/server_infos"),
    ("Deployment", "-webserver", '"port": "http"', '"port": "htp"'),
    ("Deployment", "-webserver", "--read-only", "--readonly"),
    ("Deployment", "-board", "--no-answers", "--no-answer"),
    ("Deployment", "-board", "--port=3001", "--port=3002"),
    ("Deployment", "-feed", "--serve", "--server"),
    ("Job", "-migration", '"migrate"', '"migrat"'),
    ("Job", "-migration", "eval-testbench-migration-instance", "eval-testbench-migration-instanc"),
    ("Service", "-code", '"targetPort": "grpc"', '"targetPort": "grcp"'),
    (
        "HorizontalPodAutoscaler",
        "-feed",
        '"name": "eval-testbench-feed"}, "',
        '"name": "eval-testbench-fed"}, "',
    ),
    ("PodDisruptionBudget", "-runs", "run_worker", "run-worker"),
    ("Ingress", "-board", '"name": "eval-testbench-board", "po', '"name": "eval-testbench-bord", "po'),
    ("Ingress", "-board", '"name": "http"', '"name": "htp"'),
    ("Ingress", "-board", '"hosts": ["board.example.org"]', '"hosts": ["bord.example.org"]'),
    ("NetworkPolicy", "-code", '"port": "grpc"', '"port": "grcp"'),
    (
        "NetworkPolicy",
        "-code",
        '"app.kubernetes.io/component": "daemon"',
        '"app.kubernetes.io/component": "demon"',
    ),
    (
        "RoleBinding",
        "-launcher",
        '"kind": "Role", "name": "eval-testbench-launcher"',
        '"kind": "Role", "name": "eval"',
    ),
    ("RoleBinding", "-launcher", '"namespace": "models"', '"namespace": "model"'),
    ("Role", "-launcher", '"pods/log"', '"pods/logs"'),
    ("ConfigMap", "-testbench-config", "api_key_env", "api_key_evn"),
    ("ConfigMap", "-testbench-instance", "eval-testbench-code", "eval-testbench-cod"),
    ("ConfigMap", "-testbench-instance", "port: 4000", "port: 4001"),
    ("ConfigMap", "-testbench-instance", "class: TestbenchRunQueue", "class: TestbenchRunQueu"),
    ("Secret", "-keys", "MY_SUPPLIER_KEY", "MY_SUPLIER_KEY"),
    ("Secret", "-stores", "TESTBENCH_MONGO_URI", "TESTBENCH_MONGO_URL"),
    (
        "Deployment",
        "-code",
        '"app.kubernetes.io/component": "code"}}, "template"',
        '"app.kubernetes.io/component": "cod"}}, "template"',
    ),
    ("Deployment", "-code", '"checksum/config"', '"checksum/configs"'),
    ("Service", "-code", 'io/component": "code"}, "ports"', 'io/component": "cod"}, "ports"'),
]


@pytest.mark.parametrize(("kind", "name", "old", "new"), REFERENCES)
def test_a_name_that_leads_nowhere_is_found(
    kind: str, name: str, old: str, new: str, right: tuple[list[Object], Object]
) -> None:
    objects, run = right
    made = charts.found(objects, kind, name)
    text = json.dumps(made)
    assert old in text
    changed = [json.loads(text.replace(old, new)) if one is made else one for one in objects]
    assert checking.reference_problems(changed, THEIR_SECRETS, run) or any(
        map(checking.field_problems, changed)
    )


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every text, and where it is."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, (*path, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from leaves(value, (*path, place))
    elif isinstance(node, str):
        yield path, node


#: Texts that are anybody's: nothing else has to be alike.
_ANYTHING = re.compile(
    r"(.*\.)?metadata\.name|(.*\.)?metadata\.(labels|annotations)\..*|(.*\.)?nodeSelector\..*|.*\.affinity\..*"
    r"|(string)?[dD]ata\..*|.*\.priorityClassName|.*\.runtimeClassName|.*\.tolerations\..*|.*\.claimName"
    r"|.*containers\.[0-9]+\.name|.*[cC]ontainers\.[0-9]+\.name|.*\.env\.[0-9]+\.value"
    r"|.*\.volumeMounts\.[0-9]+\.mountPath|.*\.ports\.[0-9]+\.name|.*\.ingressClassName|.*\.path"
    r"|spec\.rules\.[0-9]+\.host|.*\.namespaceSelector\..*|.*\.metrics\.0\.resource\.name|metadata\.namespace"
)


@pytest.mark.slow(minutes=1)
def test_every_text_that_something_refers_to_is_checked(right: tuple[list[Object], Object]) -> None:
    """A letter more in any text of any object, but for those that are anybody's."""
    objects, run = right
    passed, planted = [], 0
    for made in [*objects, run]:
        for path, text in leaves(made):
            where = ".".join(map(str, path))
            if _ANYTHING.fullmatch(where) or text == "{}":  # the run, for `dagster api execute_run`
                continue
            changed = copy.deepcopy(made)
            node: Any = changed
            for step in path[:-1]:
                node = node[step]
            node[path[-1]] = f"{text}x"
            planted += 1
            others = [changed if one is made else one for one in objects]
            if not checking.field_problems(changed) and not checking.reference_problems(
                others, THEIR_SECRETS, changed if made is run else run
            ):
                passed.append(f"{made['kind']} {made['metadata']['name']}: {where}: {text}")
    assert planted > 400
    assert passed == []
