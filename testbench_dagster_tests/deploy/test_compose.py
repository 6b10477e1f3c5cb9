"""deploy/compose/compose.yaml, as far as it can be judged where no engine starts it."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema import Draft7Validator

from testbench_dagster.config import load_config
from testbench_dagster_tests import servers

check_jsonschema = pytest.importorskip("check_jsonschema", reason="the extra deploy is not installed")
pytest.importorskip("celery", reason="the extra celery is not installed")
pytest.importorskip("dockerfile_parse", reason="the extra deploy is not installed")

from testbench_dagster_tests.deploy import commands  # noqa: E402  needs celery
from testbench_dagster_tests.deploy.checking import settings_problems  # noqa: E402
from testbench_dagster_tests.deploy.dockerfile import environment, stages  # noqa: E402

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
#: Of other images: what their commands are is theirs to say.
SERVERS = {"postgres", "mongo", "redis"}
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")

Compose = dict[str, Any]


def read() -> Compose:
    """The file, with anchors and merges resolved as YAML has it, and no variable replaced."""
    loaded: Compose = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def replaced(node: Any, variables: Mapping[str, str]) -> Any:
    """With variables as compose replaces them.

    Raises:
        KeyError: one that must be set is not.
    """
    if isinstance(node, dict):
        return {key: replaced(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(value, variables) for value in node]
    if not isinstance(node, str):
        return node

    def value(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        if variables.get(name):
            return variables[name]
        if kind != "-":
            raise KeyError(f"{name}: {default}")
        return str(default)

    return _VARIABLE.sub(value, node)


@pytest.fixture
def compose() -> Compose:
    made: Compose = replaced(read(), {"POSTGRES_PASSWORD": "secret"})
    return made


def field_problems(made: Compose) -> list[str]:
    """What the schema of the compose specification has against it."""
    return [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in _schema().iter_errors(made)
    ]


def _schema() -> Any:
    from jsonschema.validators import validator_for

    folder = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor"
    schema = json.loads((folder / "compose-spec.json").read_text(encoding="utf-8"))
    return validator_for(schema, Draft7Validator)(schema)


def problems(made: Compose) -> list[str]:
    """Everything that is wrong with it."""
    return [*field_problems(made), *_reference_problems(made)]


def _reference_problems(made: Compose) -> Iterator[str]:
    for name, service in made["services"].items():
        for problem in _service_problems(made, name, service):
            yield f"{name}: {problem}"
    used = {
        place.split(":")[0] for service in made["services"].values() for place in service.get("volumes", ())
    }
    for volume in made["volumes"].keys() - used:
        yield f"nobody uses the volume {volume}"


def _service_problems(made: Compose, name: str, service: Compose) -> Iterator[str]:
    for other, wanted in service.get("depends_on", {}).items():
        awaited = made["services"].get(other)
        if awaited is None:
            yield f"there is no service {other}"
        elif wanted["condition"] == "service_healthy" and "healthcheck" not in awaited:
            yield f"nobody can tell whether {other} is well"
        elif (
            wanted["condition"] == "service_completed_successfully" and awaited["restart"] == "unless-stopped"
        ):
            yield f"{other} never completes"
    for network in service["networks"]:
        if network not in made["networks"]:
            yield f"there is no network {network}"
    mounted = []
    for place in service.get("volumes", ()):
        source, target, *_ = place.split(":")
        mounted.append(target)
        if not source.startswith("."):
            if source not in made["volumes"]:
                yield f"there is no volume {source}"
        elif not any((FOLDER / one).exists() for one in (source, _example(source))):
            yield f"there is no file {source}"
    for file in service.get("env_file", ()):
        if not (FOLDER / f"{file}.example").exists():
            yield f"there is no example of {file}"
    if name not in SERVERS:
        yield from _role_problems(made, service, mounted)


def _example(source: str) -> str:
    path = Path(source)
    return f"{path.stem}.example{path.suffix}"


def _role_problems(made: Compose, service: Compose, mounted: list[str]) -> Iterator[str]:
    """Of what our image does."""
    if service["command"][0] == "python":
        if service["command"][1] not in mounted:
            yield f"there is no {service['command'][1]}"
    elif problem := commands.problem(service["command"], mounted):
        yield problem
    check = service.get("healthcheck", {}).get("test", ["CMD", "python"])
    if check[0] != "CMD":
        yield f"its health is asked for by a shell: {check[0]}"
    if check[1] != "python" and (problem := commands.problem(check[1:], mounted)):
        yield problem
    for published in service.get("ports", ()):
        host, _, port = published.rsplit(":", 2)
        if host != "127.0.0.1":
            yield f"others reach {published}"
        if f"--port={port}" not in service["command"]:
            yield f"nothing listens on port {port}"
    if not service["read_only"] or service["cap_drop"] != ["ALL"] or "user" in service:
        yield "it has more rights than it needs"
    if "no-new-privileges:true" not in service["security_opt"]:
        yield "it may gain rights"
    if service["command"][0] == "python":
        return
    given = environment(stages()[-1])
    for variable, path in (
        ("TESTBENCH_CONFIG", ""),
        ("DAGSTER_HOME", "/dagster.yaml"),
        ("TESTBENCH_HOME", ""),
    ):
        if given[variable] + path not in mounted:
            yield f"nothing is mounted at {variable}"
    hosts = {
        name for name, other in made["services"].items() if set(other["networks"]) & set(service["networks"])
    }
    for variable, value in service["environment"].items():
        host = urlsplit(value).hostname
        if host is not None and host not in hosts:
            yield f"{variable}: there is no {host} in its networks"
    code = made["services"][service["environment"]["TESTBENCH_CODE_HOST"]]
    if f"--port={service['environment']['TESTBENCH_CODE_PORT']}" not in code["command"]:
        yield "the code server listens elsewhere"


def test_it_is_right(compose: Compose) -> None:
    assert problems(compose) == []


def test_it_says_which_variable_must_be_set() -> None:
    with pytest.raises(KeyError, match=r"POSTGRES_PASSWORD: set it in \.env"):
        replaced(read(), {})


def test_the_examples_set_what_it_uses_and_nothing_else() -> None:
    text = (FOLDER / ".env.example").read_text(encoding="utf-8")
    named = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    used = {match[1]: match[3] for match in _VARIABLE.finditer((FOLDER / "compose.yaml").read_text("utf-8"))}
    assert named.keys() == used.keys()
    # an example is what happens without it
    assert {name: value for name, value in named.items() if value} == {
        name: default for name, default in used.items() if name != "POSTGRES_PASSWORD"
    }


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    settings = load_config(FOLDER / "testbench.example.yaml").settings
    keys = (FOLDER / "keys.env.example").read_text(encoding="utf-8")
    named = {line.split("=")[0] for line in keys.splitlines() if line and not line.startswith("#")}
    assert {supplier.api_key_env for supplier in settings.suppliers} == named


def test_dagster_takes_its_settings_and_all_variables_of_them_are_given(compose: Compose) -> None:
    text = (ROOT / "deploy" / "celery" / "dagster.yaml").read_text(encoding="utf-8")
    assert settings_problems(text) == []
    text += (ROOT / "deploy" / "celery" / "workspace.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"env: ([A-Z_]+)", text))
    for name in compose["services"].keys() - SERVERS - {"mongo-initiate"}:
        assert named <= compose["services"][name]["environment"].keys(), name


def test_one_dagster_yaml_one_configuration_and_a_worker_for_every_slot(compose: Compose) -> None:
    roles = [
        service for name, service in compose["services"].items() if name not in {*SERVERS, "mongo-initiate"}
    ]
    assert len({tuple(service["volumes"]) for service in roles}) == 1
    worker, settings = compose["services"]["worker"], read_settings()
    assert "--concurrency=1" in worker["command"]
    assert worker["deploy"]["replicas"] == worker["environment"]["TESTBENCH_RUN_SLOTS"] == "4"
    monitoring = settings["run_monitoring"]
    longest = monitoring["max_runtime_seconds"] + monitoring["cancel_timeout_seconds"]
    assert seconds(worker["stop_grace_period"]) >= longest


def read_settings() -> Any:
    return yaml.safe_load((ROOT / "deploy" / "celery" / "dagster.yaml").read_text(encoding="utf-8"))


def seconds(duration: str) -> int:
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"([0-9]+)([hms])", duration))


def test_keys_are_given_to_what_asks_suppliers_alone(compose: Compose) -> None:
    assert {name for name, service in compose["services"].items() if "env_file" in service} == {
        "code",
        "worker",
    }


def test_stores_are_for_this_host_and_the_page_promises_no_other(compose: Compose) -> None:
    """Clients go where a replica set says that its members are: a name that only its network knows."""
    inside = {name for name, network in compose["networks"].items() if (network or {}).get("internal")}
    for name in SERVERS:
        server = compose["services"][name]
        assert set(server["networks"]) <= inside and "ports" not in server
    member = compose["services"]["mongo-initiate"]["command"][2].partition(":")[0]
    assert member in compose["services"]
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    section = page.partition("\n## Docker Compose\n")[2].partition("\n## ")[0]
    elsewhere = [
        part for part in section.split("\n\n") if re.search(r"(second|further|other) hosts?\b", part)
    ]
    assert elsewhere and all("(#celery-on-a-few-hosts)" in part for part in elsewhere)


def mappings(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every key is whose name the specification knows."""
    if isinstance(node, dict):
        for key, value in node.items():
            free = path and path[-1] in ("services", "networks", "volumes", "environment", "depends_on")
            if not free and not str(key).startswith("x-"):
                yield (*path, key)
            yield from mappings(value, (*path, key))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from mappings(value, (*path, place))


def planted(made: Compose, path: tuple[Any, ...]) -> Compose:
    """With a typo in one key."""
    changed = copy.deepcopy(made)
    node = changed
    for step in path[:-1]:
        node = node[step]
    node[f"{path[-1]}x"] = node.pop(path[-1])
    return changed


def test_a_typo_in_any_key_is_refused(compose: Compose) -> None:
    compose.pop("x-testbench")
    schema, passed = _schema(), []
    # of services that are alike the first
    shapes = {("services", *path[2:]) if path[0] == "services" else path: path for path in mappings(compose)}
    assert len(shapes) > 30
    for path in shapes.values():
        if next(iter(schema.iter_errors(planted(compose, path))), None) is None:
            passed.append(path)
    assert passed == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("redis: {condition: service_healthy}", "rediss: {condition: service_healthy}"),
        (
            "migrate: {condition: service_completed_successfully}",
            "code: {condition: service_completed_successfully}",
        ),
        ("mongo: {condition: service_healthy}", "mongo-initiate: {condition: service_healthy}"),
        ("networks: [stores, out]", "networks: [stores, outer]"),
        ("- home:/var/lib/testbench", "- hom:/var/lib/testbench"),
        ("../celery/dagster.yaml:", "../celery/dagstr.yaml:"),
        (":/opt/dagster/dagster_home/workspace.yaml:ro", ":/opt/dagster/dagster_home/workspac.yaml:ro"),
        ("./testbench.yaml:/etc/testbench/testbench.yaml", "./testbench.yaml:/etc/testbench/testbnch.yaml"),
        ("env_file: &keys [keys.env]", "env_file: &keys [key.env]"),
        ("--module-name=testbench", "--modul-name=testbench"),
        ("dagster instance migrate", "dagster instances migrate"),
        ("grpc-health-check", "grpc-health-chek"),
        ("[dagster-daemon, run,", "[dagster-demon, run,"),
        ("--concurrency=1", "--concurency=1"),
        ("--port=3001", "--port=3002"),
        ('"127.0.0.1:${BOARD_PORT:-3001}:3001"', '"0.0.0.0:${BOARD_PORT:-3001}:3001"'),
        ("redis://redis:6379/0", "redis://rediss:6379/0"),
        ("mongodb://mongo:27017", "mongodb://mongod:27017"),
        ("TESTBENCH_CODE_HOST: code", "TESTBENCH_CODE_HOST: board"),
        ("cap_drop: [ALL]", "cap_drop: [CHOWN]"),
        ("read_only: true", "read_only: false"),
        ("python, /opt/initiate.py", "python, /opt/initate.py"),
    ],
)
def test_a_name_that_leads_nowhere_is_found(old: str, new: str) -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    assert old in text
    changed = replaced(yaml.safe_load(text.replace(old, new)), {"POSTGRES_PASSWORD": "secret"})
    assert problems(changed) != []


def test_health_is_asked_of_what_answers(tmp_path: Path) -> None:
    """The line of Python that asks UI and board: 0 for a page, another code for none."""
    script = read()["services"]["board"]["healthcheck"]["test"][3]
    (tmp_path / "page").write_text("fine")
    port = servers.free_port()
    served = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        servers.wait_for_port(port, served)
        for path, code in (("page", 0), ("none", 1)):
            asked = subprocess.run(
                [sys.executable, "-c", script, f"http://127.0.0.1:{port}/{path}"], capture_output=True
            )
            assert asked.returncode == code
    finally:
        servers.stop(served)


@pytest.mark.slow(minutes=0.2)
def test_a_replica_set_is_initiated_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = servers.free_port()
    data = tmp_path / "data"
    data.mkdir()
    command = [servers.mongod_binary(), "--dbpath", str(data), "--port", str(port), "--bind_ip", "127.0.0.1"]
    command += ["--replSet", "rs0", "--oplogSize", "16", "--wiredTigerCacheSizeGB", "0.25"]
    command += ["--nounixsocket"]
    mongod = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(2):
            monkeypatch.setattr("sys.argv", ["initiate.py", f"127.0.0.1:{port}", "rs0"])
            runpy.run_path(str(FOLDER / "initiate.py"), run_name="__main__")
            assert capsys.readouterr().out == f"127.0.0.1:{port} is the primary of rs0\n"
    finally:
        servers.stop(mongod)
    spec = importlib.util.spec_from_file_location("initiate", FOLDER / "initiate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "WAIT_S", 1)
    with pytest.raises(SystemExit, match="takes no writes after 1 seconds"):
        module.initiate(f"127.0.0.1:{port}", "rs0")
