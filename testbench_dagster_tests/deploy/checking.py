"""What is wrong with Kubernetes objects: fields, names that lead nowhere, commands, variables, rights.

A check is of no use that lets a typo pass: ``test_chart_typos.py`` plants them everywhere.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from dagster._config import validate_config
from dagster._config.field import resolve_to_config_type
from dagster._core.instance.config import dagster_instance_config
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from testbench_dagster.config import CONFIG_ENV, HOME_ENV, MONGO_ENV, POSTGRES_ENV
from testbench_dagster.config.loading import load_config_text
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.defs import storage
from testbench_dagster_tests.deploy import commands
from testbench_dagster_tests.deploy.charts import NAMESPACE, Object, configurable, containers, pods

NEWEST = kubernetes_validate.latest_version()
#: The earliest version that Chart.yaml allows.
OLDEST = "1.27.0"
_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_USED = re.compile(r"\$\{(" + _NAME + r")")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?")
#: What the API reference of Kubernetes lists; "type" is that of a strategy, a Service, a Secret, a metric or
#: a target, which share no word.
_WORDS = {
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "fsGroupChangePolicy": {"Always", "OnRootMismatch"},
    "restartPolicy": {"Always", "Never", "OnFailure"},
    "policyTypes": {"Ingress", "Egress"},
    "pathType": {"Exact", "Prefix", "ImplementationSpecific"},
    "operator": {"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Equal"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "type": {"RollingUpdate", "Recreate", "ClusterIP", "NodePort", "LoadBalancer", "Opaque", "Resource"}
    | {"Utilization", "AverageValue", "RuntimeDefault", "Localhost"},
    "appProtocol": {"http", "grpc"},
}
#: What dagster_k8s asks the cluster for; test_chart_running.py lets it do no more.
_RIGHTS = {
    ("batch", "jobs", "create"),
    ("batch", "jobs", "delete"),
    ("batch", "jobs", "list"),
    ("batch", "jobs/status", "get"),
    ("", "pods", "delete"),
    ("", "pods", "list"),
    ("", "pods/log", "get"),
    ("", "events", "list"),
}
#: Where the programs say how they are; test_chart_running.py asks there.
_HEALTH = {"/server_info", "/board.css", "/healthz"}
_PRODUCT = frozenset({CONFIG_ENV, HOME_ENV, MONGO_ENV, POSTGRES_ENV, storage.POSTGRES_ENV, "DAGSTER_HOME"})
#: dagster_k8s gives it to the pods of runs.
_OF_RUNS = frozenset({"DAGSTER_RUN_JOB_NAME"})

Secrets = Mapping[str, frozenset[str] | None]


def field_problems(made: Object, version: str = NEWEST) -> list[str]:
    """Misspelt, missing and ill-typed fields, as ``kubernetes-validate --strict`` finds them."""
    try:
        validator = _validator(version, made["kind"], made["apiVersion"])
    except FileNotFoundError:
        return [f"Kubernetes {version} has no {made['kind']} of {made['apiVersion']}"]
    where = f"{made['kind']} {made.get('metadata', {}).get('name')}"
    found = [
        f"{where}: {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(made)
    ]
    return found or [f"{where}: {problem}" for problem in (*_quantities(made), *_words(made))]


@cache
def _validator(version: str, kind: str, api_version: str) -> Draft202012Validator:
    """The schemas of the package kubernetes-validate, which reads them anew for every object: 7 ms each."""
    folder = f"kubernetes-json-schema/v{version}-local-strict"
    group, _, name = api_version.rpartition("/")
    api = "-".join(part for part in (group.split(".")[0], name) if part)
    contents = kubernetes_validate.utils.schema_contents
    schema = contents(f"{folder}/{kind.lower()}-{api}.json", version)
    definitions = contents(f"{folder}/_definitions.json", version)
    registry: Registry[Any] = Resource.from_contents(schema) @ Registry()
    registry = Resource.from_contents(definitions) @ registry
    return Draft202012Validator(schema, registry=registry)


def _quantities(made: Object) -> Iterator[str]:
    """Resources that there are not: their names are free for Kubernetes."""
    for _, template in pods([made]):
        for container in containers(template):
            for amounts in container.get("resources", {}).values():
                for name, amount in amounts.items():
                    if name not in ("cpu", "memory", "ephemeral-storage"):
                        yield f"there is no resource {name}"
                    if not _QUANTITY.fullmatch(str(amount)):
                        yield f"{amount} is no quantity"


def _words(node: Any) -> Iterator[str]:
    """Words that Kubernetes does not know; its schemas take any text for them."""
    if isinstance(node, list):
        for value in node:
            yield from _words(value)
    elif isinstance(node, dict):
        for key, value in node.items():
            known = _WORDS.get(key)
            for word in value if isinstance(value, list) else [value]:
                if known is not None and isinstance(word, str) and word not in known:
                    yield f"{key} is none of {', '.join(sorted(known))}: {word}"
            yield from _words(value)


def problems(objects: list[Object], theirs: Secrets, run: Object | None = None) -> list[str]:
    """Everything that is wrong with the objects of a release, in words.

    Args:
        objects: what the chart made.
        theirs: secrets of the user's own, with their keys (None: any).
        run: the Job of a run as the launcher makes it.
    """
    every = [*objects, *([run] if run is not None else [])]
    found = [problem for one in every for problem in field_problems(one)]
    return found or reference_problems(objects, theirs, run)


def reference_problems(objects: list[Object], theirs: Secrets, run: Object | None = None) -> list[str]:
    """As :func:`problems`, of objects whose fields are right."""
    every = [*objects, *([run] if run is not None else [])]
    names = _Names(objects, theirs)
    found = [*names.problems(), *_image_problems(every), *_workspace_problems(objects)]
    for where, template in pods(every):
        found += [f"{where}: {problem}" for problem in _pod_problems(template, names)]
    found += [problem for one in objects for problem in _object_problems(one, objects, every)]
    found += [problem for one in objects if one["kind"] == "ConfigMap" for problem in _contents(one)]
    return found


def _image_problems(every: list[Object]) -> Iterator[str]:
    """All roles are of one image; what the code server serves runs in the same."""
    images = {one["image"] for _, template in pods(every) for one in containers(template)}
    served = {
        argument.partition("=")[2]
        for _, template in pods(every)
        for one in containers(template)
        for argument in one["args"]
        if argument.startswith("--container-image=")
    }
    if len(images | served) != 1:
        yield f"there are several images: {', '.join(sorted(images | served))}"


def _workspace_problems(objects: list[Object]) -> Iterator[str]:
    """Daemon and UI find the code server where its Service is, under the name that it goes by."""
    for one in objects:
        if one["kind"] != "ConfigMap" or "workspace.yaml" not in one["data"]:
            continue
        server = yaml.safe_load(one["data"]["workspace.yaml"])["load_from"][0]["grpc_server"]
        service = _named(objects, "Service", server["host"])
        if service is None or server["port"] not in [port["port"] for port in service["spec"]["ports"]]:
            yield f"there is no Service {server['host']} with port {server['port']}"
        elif not any(
            f"--location-name={server['location_name']}" in container["args"]
            for template in _selected(service["spec"]["selector"], objects)
            for container in containers(template)
        ):
            yield f"the code server does not serve {server['location_name']}"


class _Names:
    """What objects may refer to."""

    def __init__(self, objects: list[Object], theirs: Secrets) -> None:
        self.objects = objects
        self.config_maps: Secrets = {
            one["metadata"]["name"]: frozenset(one.get("data", ()))
            for one in objects
            if one["kind"] == "ConfigMap"
        }
        made = {
            one["metadata"]["name"]: frozenset(one.get("stringData", ()))
            for one in objects
            if one["kind"] == "Secret"
        }
        self.secrets: Secrets = {**theirs, **made}
        self.accounts = {one["metadata"]["name"] for one in objects if one["kind"] == "ServiceAccount"}
        settings = next(
            yaml.safe_load(one["data"]["dagster.yaml"])
            for one in objects
            if one["kind"] == "ConfigMap" and "run_launcher:" in one["data"].get("dagster.yaml", "")
        )
        config = next(
            one["data"]["testbench.yaml"]
            for one in objects
            if one["kind"] == "ConfigMap" and "testbench.yaml" in one["data"]
        )
        self.used = _PRODUCT | _OF_RUNS | set(_USED.findall(config)) | set(_from_environment(settings))
        self.secret_variables = _secret_variables(config)

    def problems(self) -> Iterator[str]:
        seen: set[tuple[str, str]] = set()
        for one in self.objects:
            key = (one["kind"], one["metadata"]["name"])
            if key in seen:
                yield f"{key[0]} {key[1]} is made twice"
            seen.add(key)
            for secured in one["spec"].get("tls", ()) if one["kind"] == "Ingress" else ():
                yield from _missing("Secret", self.secrets, secured["secretName"])
            if one["kind"] == "Secret":
                for name in one["stringData"].keys() - self.used - self.secret_variables:
                    yield f"Secret {key[1]}: nothing reads {name}"


@cache
def _secret_variables(config: str) -> frozenset[str]:
    try:
        return load_config_text(config, Path("/etc/testbench/testbench.yaml")).settings.secret_variables
    except ConfigError:  # told by _contents
        return frozenset()


def _from_environment(settings: Any) -> Iterator[str]:
    """Variables that dagster.yaml takes values from."""
    if isinstance(settings, dict):
        if settings.keys() == {"env"} and isinstance(settings["env"], str):
            yield settings["env"]
        for value in settings.values():
            yield from _from_environment(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _from_environment(value)


def _pod_problems(template: Object, names: _Names) -> Iterator[str]:
    spec = template["spec"]
    account = spec.get("serviceAccountName")
    if account is None:
        if spec.get("automountServiceAccountToken") is not False:
            yield "has the token of the namespace's default account"
    elif account not in names.accounts:
        yield f"there is no ServiceAccount {account}"
    for secret in spec.get("imagePullSecrets", ()):
        yield from _missing("Secret", names.secrets, secret["name"])
    yield from _user_problems(spec.get("securityContext", {}))
    volumes = {volume["name"]: volume for volume in spec.get("volumes", ())}
    yield from _twice("volume", [volume["name"] for volume in spec.get("volumes", ())])
    mounted = {mount["name"] for one in containers(template) for mount in one.get("volumeMounts", ())}
    for name in volumes.keys() - mounted:
        yield f"nothing mounts the volume {name}"
    if spec.get("restartPolicy", "Always") != "Always" and "livenessProbe" in spec["containers"][0]:
        yield "a probe ends what is not started again"
    for volume in volumes.values():
        if "configMap" in volume:
            yield from _missing("ConfigMap", names.config_maps, volume["configMap"]["name"])
        if "secret" in volume:
            yield from _missing("Secret", names.secrets, volume["secret"]["secretName"])
    for container in containers(template):
        for problem in _container_problems(container, volumes, names):
            yield f"{container['name']}: {problem}"


def _user_problems(context: Object) -> Iterator[str]:
    """What Kubernetes' profile `restricted` forbids, and more of the same."""
    if not context.get("runAsNonRoot") or not context.get("runAsUser") or not context.get("runAsGroup"):
        yield "may run as root"
    if not context.get("fsGroup"):
        yield "its folders are not its own"
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "has no filter of system calls"


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    """What Kubernetes refuses, or of which it takes the last."""
    for name, times in Counter(names).items():
        if times > 1:
            yield f"the {what} {name} is there {times} times"


def _container_problems(container: Object, volumes: Mapping[str, Object], names: _Names) -> Iterator[str]:
    if "command" in container:
        yield "its command replaces the image's entry point, which passes signals on"
    mounted = _mounted_files(container, volumes, names)
    if problem := commands.problem(container["args"], mounted):
        yield problem
    for argument in container["args"]:
        name, _, value = argument.partition("=")
        if name == "--host" and value != "0.0.0.0":
            yield f"nobody reaches it at {value}"
        if name in ("--module-name", "--app") and find_spec(value) is None:
            yield f"there is no module {value}"
    asked = container.get("livenessProbe", {}).get("exec", {}).get("command")
    if asked is not None and (problem := commands.problem(asked, mounted)):
        yield problem
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False or not context.get("readOnlyRootFilesystem"):
        yield "may gain rights, or write to its image"
    if context.get("capabilities") != {"drop": ["ALL"]} or not context.get("runAsNonRoot"):
        yield "has capabilities, or may run as root"
    resources = container.get("resources", {})
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get(
        "limits", {}
    ):
        yield "says not what it needs and may use"
    yield from _twice("variable", [variable["name"] for variable in container.get("env", ())])
    yield from _twice("path", [mount["mountPath"] for mount in container.get("volumeMounts", ())])
    for mount in container.get("volumeMounts", ()):
        if mount["name"] not in volumes:
            yield f"there is no volume {mount['name']}"
        elif "subPath" in mount:
            volume = volumes[mount["name"]]
            keys = names.config_maps.get(volume.get("configMap", {}).get("name", ""), frozenset())
            if keys is not None and mount["subPath"] not in keys:
                yield f"the volume {mount['name']} has no {mount['subPath']}"
    yield from _variable_problems(container, names)
    yield from _home_problems(container, volumes, names)
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        for way in container.get(kind, {}).values():
            if isinstance(way, dict) and "port" in way and way["port"] not in {*ports, *ports.values()}:
                yield f"{kind} asks at a port that is not there: {way['port']}"
            if isinstance(way, dict) and way.get("path", "/healthz") not in _HEALTH:
                yield f"{kind} asks for a page that is not there: {way['path']}"
            if isinstance(way, dict) and way.get("service", "DagsterApi") != "DagsterApi":
                yield f"{kind} asks for a service that is not there: {way['service']}"
    for port in ports.values():
        if f"--port={port}" not in container["args"]:
            yield f"nothing listens on port {port}"


def _mounted_files(container: Object, volumes: Mapping[str, Object], names: _Names) -> list[str]:
    """Where files of ConfigMaps are in a container."""
    return [
        mount["mountPath"]
        for mount in container.get("volumeMounts", ())
        if "subPath" in mount
        and mount["subPath"]
        in (names.config_maps.get(volumes.get(mount["name"], {}).get("configMap", {}).get("name", "")) or ())
    ]


def _home_problems(container: Object, volumes: Mapping[str, Object], names: _Names) -> Iterator[str]:
    """Folders that the product reads and writes have to be mounted where its variables say."""
    places = {mount["mountPath"] for mount in container.get("volumeMounts", ())}
    values = {variable["name"]: variable.get("value") for variable in container.get("env", ())}
    for name in (HOME_ENV, "DAGSTER_HOME"):
        if values.get(name) not in places:
            yield f"nothing is mounted at {name}, {values.get(name)}"
    config = Path(values.get(CONFIG_ENV) or "/")
    folder = next(
        (mount for mount in container.get("volumeMounts", ()) if mount["mountPath"] == str(config.parent)), {}
    )
    volume = volumes.get(folder.get("name", ""), {})
    if config.name not in (names.config_maps.get(volume.get("configMap", {}).get("name", "")) or ()):
        yield f"there is no {CONFIG_ENV} {config}"
    if f"{values.get('DAGSTER_HOME')}/dagster.yaml" not in places:
        yield "Dagster's settings are not in its home"
    if "/tmp" not in places:  # noqa: S108  of a container
        yield "there is no place for temporary files"


def _variable_problems(container: Object, names: _Names) -> Iterator[str]:
    for variable in container.get("env", ()):
        if variable["name"] not in names.used:
            yield f"nothing reads the variable {variable['name']}"
        if "valueFrom" in variable:
            reference = variable["valueFrom"]["secretKeyRef"]
            yield from _missing("Secret", names.secrets, reference["name"], reference["key"])
    for source in container.get("envFrom") or ():
        yield from _missing("Secret", names.secrets, source["secretRef"]["name"])


def _missing(kind: str, known: Secrets, name: str, key: str | None = None) -> Iterator[str]:
    if name not in known:
        yield f"there is no {kind} {name}"
    elif key is not None and (keys := known[name]) is not None and key not in keys:
        yield f"{kind} {name} has no key {key}"


def _object_problems(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    where = f"{one['kind']} {one['metadata']['name']}"
    for problem in _REFERRING.get(one["kind"], _nothing)(one, objects, every):
        yield f"{where}: {problem}"


def _nothing(one: Object, objects: list[Object], every: list[Object]) -> Iterable[str]:
    return ()


def _selected(selector: Mapping[str, str], objects: list[Object]) -> list[Object]:
    """The templates of pods that have these labels."""
    return [
        template
        for _, template in pods(objects)
        if selector.items() <= template["metadata"].get("labels", {}).items()
    ]


def _deployment(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    selector = one["spec"]["selector"]["matchLabels"]
    if _selected(selector, every) != [one["spec"]["template"]]:
        yield "it selects other pods than its own"
    if "checksum/config" not in one["spec"]["template"]["metadata"].get("annotations", {}):
        yield "a change of the configuration does not restart it"


def _service(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    chosen = _selected(one["spec"]["selector"], every)
    if len(chosen) != 1:
        yield f"it selects {len(chosen)} kinds of pods"
        return
    ports = _ports(chosen[0])
    for port in one["spec"]["ports"]:
        if port["targetPort"] not in ports:
            yield f"its pods have no port {port['targetPort']}"


def _ports(template: Object) -> set[str]:
    return {port["name"] for container in containers(template) for port in container.get("ports", ())}


def _autoscaler(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    target = one["spec"]["scaleTargetRef"]
    scaled = _named(objects, target["kind"], target["name"])
    if scaled is None or scaled["apiVersion"] != target["apiVersion"]:
        yield f"there is no {target['kind']} {target['name']}"
    elif "replicas" in scaled["spec"]:
        yield "its target has a fixed number of replicas, which every upgrade would go back to"


def _budget(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    chosen = _selected(one["spec"]["selector"]["matchLabels"], every)
    if len(chosen) != 1:
        yield f"it is about {len(chosen)} kinds of pods"


def _ingress(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    hosts = {rule["host"] for rule in one["spec"]["rules"]}
    for secured in one["spec"].get("tls", ()):
        if set(secured["hosts"]) != hosts:
            yield f"its certificate is for {', '.join(secured['hosts'])}"
    for rule in one["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            wanted = path["backend"]["service"]
            service = _named(objects, "Service", wanted["name"])
            if service is None:
                yield f"there is no Service {wanted['name']}"
            elif wanted["port"]["name"] not in {port["name"] for port in service["spec"]["ports"]}:
                yield f"Service {wanted['name']} has no port {wanted['port']['name']}"


def _role(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    given = {
        (group, resource, verb)
        for rule in one["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    for right in given ^ _RIGHTS:
        yield f"{' '.join(right).strip()} is {'missing' if right in _RIGHTS else 'more than runs need'}"


def _policy(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    chosen = _selected(one["spec"]["podSelector"]["matchLabels"], every)
    if not chosen:
        yield "it is about no pods"
    for rule in one["spec"].get("ingress", ()):
        for port in rule["ports"]:
            if any(port["port"] not in _ports(template) for template in chosen):
                yield f"its pods have no port {port['port']}"
        for peer in rule["from"]:
            if peer.keys() == {"podSelector"} and not _selected(peer["podSelector"]["matchLabels"], every):
                yield "it lets in pods that there are not"


def _binding(one: Object, objects: list[Object], every: list[Object]) -> Iterator[str]:
    role = one["roleRef"]
    if _named(objects, role["kind"], role["name"]) is None or role["apiGroup"] != "rbac.authorization.k8s.io":
        yield f"there is no {role['kind']} {role['name']}"
    for subject in one["subjects"]:
        if _named(objects, subject["kind"], subject["name"]) is None or subject["namespace"] != NAMESPACE:
            yield f"there is no {subject['kind']} {subject['name']}"


_REFERRING = {
    "Deployment": _deployment,
    "Service": _service,
    "HorizontalPodAutoscaler": _autoscaler,
    "PodDisruptionBudget": _budget,
    "Ingress": _ingress,
    "NetworkPolicy": _policy,
    "Role": _role,
    "RoleBinding": _binding,
}


def _named(objects: list[Object], kind: str, name: str) -> Object | None:
    return next((one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)), None)


def _contents(one: Object) -> Iterator[str]:
    """What the files of a ConfigMap say, read by whoever reads them in a pod."""
    where = f"ConfigMap {one['metadata']['name']}"
    data = one["data"]
    if "testbench.yaml" in data and (problem := _config_problem(data["testbench.yaml"])):
        yield f"{where}: {problem}"
    if "dagster.yaml" in data:
        for problem in settings_problems(data["dagster.yaml"]):
            yield f"{where}: dagster.yaml: {problem}"


@cache
def _config_problem(text: str) -> str | None:
    try:
        load_config_text(text, Path("/etc/testbench/testbench.yaml"))
    except ConfigError as error:
        return str(error)
    return None


@cache
def settings_problems(text: str) -> list[str]:
    """What Dagster, and the classes that are named there, have against a dagster.yaml."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "dagster.yaml").write_text(text, encoding="utf-8")
        try:
            settings, _ = dagster_instance_config(folder)
        except Exception as error:
            return [str(error)]
    found = []
    try:
        for where, configured, config in configurable(settings):
            kind = resolve_to_config_type(configured.config_type())  # type: ignore[attr-defined]
            found += [f"{where}: {error.message}" for error in validate_config(kind, config).errors or ()]
    except (ImportError, AttributeError) as error:
        found.append(str(error))
    return found
