"""The documents say what is so: commands work, snippets are valid, every key and option is explained."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel

from testbench_dagster.api import Answers, Doc, Plan, Probes, Ranking, Testbench
from testbench_dagster.cli import cli
from testbench_dagster.config import load_config
from testbench_dagster.config.asking import AskingSettings, GenerationSettings, TlsSettings
from testbench_dagster.config.settings import IdentityConfig, ScheduleSettings, SensorSettings, Settings
from testbench_dagster.core.answer_prefix import ANSWER_PREFIX_CHARS
from testbench_dagster.core.finding import Finding
from testbench_dagster.defs.backfills import Outcome, RequestedBackfill
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.local_evaluation import RunReport
from testbench_dagster.identity.settings import IdentitySettings
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.dispute.bundle import Exported
from testbench_dagster.stages.identify.identify import IdentityReport, refresh_identity
from testbench_dagster.stages.identify.views import identity_rows
from testbench_dagster.stages.publish.by_day import ExportedByDay
from testbench_dagster.stages.read.supplier import SupplierPage
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ALL
from testbench_dagster.transports.direct.rosters import parse_roster
from testbench_dagster_tests.acceptance.documents import (
    Done,
    blocks_of,
    broken_links,
    document,
    run_blocks,
    shell_environment,
    yaml_of,
)
from testbench_dagster_tests.acceptance.harness import EXAMPLES, console_script
from testbench_dagster_tests.servers import free_port

OPERATIONS = document("docs/operations.md")
REFERENCE = document("docs/reference.md")
BLOCKS = blocks_of(OPERATIONS)
YAML = yaml_of(OPERATIONS)


# ------------------------------------------------------------------------------------------- operations.md


@pytest.mark.slow(minutes=3)
def test_the_commands_of_operations_work_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "examples").mkdir()
    example = (EXAMPLES / "operations.yaml").read_text(encoding="utf-8")
    assert "every_s: 60}" in example
    quicker = example.replace("every_s: 60}", "every_s: 10}")  # than the documented minute
    (folder / "examples" / "operations.yaml").write_text(quicker, encoding="utf-8")
    localnet, web = free_port(), free_port()
    environment = shell_environment(TESTBENCH_LOCALNET_URL=f"http://127.0.0.1:{localnet}")
    background = {
        "testbench localnet up": (f"testbench localnet up --port {localnet}", localnet),
        "testbench up": (f"testbench up --port {web} --board-port {free_port()}", web),
    }

    def follow(done: Done) -> None:
        if done.text.startswith("testbench localnet control"):
            _until_the_roster_follows(folder, environment)

    ran = run_blocks(OPERATIONS, folder, environment, background, follow)
    assert len(ran) + len(background) == sum(block.language == "bash" for block in BLOCKS) > 10


def _until_the_roster_follows(folder: Path, environment: dict[str, str]) -> None:
    """What the text promises: the sensor notices who joined and who left."""
    deadline = time.monotonic() + 90
    command = [str(console_script()), "plan", "--format", "json"]
    while True:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
        suppliers = {row["supplier"] for row in json.loads(done.stdout)}
        if "new-01@simulation" in suppliers and "sim-05@simulation" not in suppliers:
            return
        assert time.monotonic() < deadline, suppliers
        time.sleep(2)


@pytest.mark.parametrize("snippet", YAML, ids=[str(text.split(":")[0]) for text in YAML])
def test_a_yaml_snippet_is_valid(snippet: str, tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    tasks = {"tasks": [{"name": "starter_logic"}]}
    path.write_text(yaml.safe_dump({**tasks, **yaml.safe_load(snippet)}), encoding="utf-8")
    config = load_config(path)
    assert len(task_specs(config)) == len(config.settings.tasks)  # names and gates are resolved


def test_the_configuration_of_identity_is_valid_and_shows_the_defaults(tmp_path: Path) -> None:
    text, reference = yaml_of(document("docs/identity.md"))
    path = tmp_path / "testbench.yaml"
    path.write_text(text, encoding="utf-8")
    config = load_config(path)
    assert config.settings.identity == IdentityConfig()
    assert [s.framework for s in task_specs(config)][-1] == "signatures"
    path.write_text(f"{reference}\ntasks: [{{name: gsm8k}}]\n", encoding="utf-8")
    assert load_config(path).settings.suppliers[0].reference is True


def test_reference_lists_the_fields_of_identity(tmp_path: Path) -> None:
    """Those of a supplier's row; the rows of pairs and changes are told in the text below the table."""
    shutil.copy(EXAMPLES / "operations.yaml", tmp_path / "testbench.yaml")
    with Workspace.open(tmp_path / "testbench.yaml") as workspace:
        refresh_identity(workspace)
        rows = identity_rows(workspace, [s.key for s in active_suppliers(workspace)])
    assert documented_keys("Fields of `testbench identity --format json`") == set(rows[0])


def test_the_documented_roster_is_read_as_one() -> None:
    (text,) = [block.text for block in BLOCKS if block.language == "json"]
    listing = parse_roster(text.encode())
    assert len(listing.suppliers) == 1
    assert listing.height == 123


def test_operations_names_every_sensor_schedule_and_check(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "operations.yaml", tmp_path / "testbench.yaml")
    with Workspace.open(tmp_path / "testbench.yaml") as workspace:
        definitions = build_definitions(workspace)
        own = {schedule.name for schedule in workspace.config.settings.schedules}
    named = {d.name for d in (*(definitions.sensors or ()), *(definitions.schedules or ()))} - own
    checks = {key.name for d in definitions.asset_checks or () for key in d.check_keys}
    assert len(named) == 13 and len(checks) == 18
    assert named | checks <= set(re.findall(r"^\| `(\w+)`", OPERATIONS, re.M))


def test_design_tells_what_every_asset_does_in_a_pass(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "operations.yaml", tmp_path / "testbench.yaml")
    with Workspace.open(tmp_path / "testbench.yaml") as workspace:
        keys = build_definitions(workspace).resolve_asset_graph().get_all_asset_keys()
    (told,) = re.findall(r"^\*\*One pass\.\*\*(.*?)^\*\*", document("docs/design.md"), re.M | re.S)
    assert set(re.findall(r"`([a-z_]+)`", told)) == {key.to_user_string() for key in keys}


def test_the_operations_example_has_every_automation_and_every_budget() -> None:
    raw = yaml.safe_load((EXAMPLES / "operations.yaml").read_text(encoding="utf-8"))
    for block in ("automation", "budget"):
        written = set(raw[block]) | {"alert_webhook_env", "alert_proxy_env"}
        assert written >= set(Settings.model_fields[block].annotation.model_fields)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/operations.md",
        "docs/reference.md",
        "docs/board.md",
        "docs/design.md",
        "docs/glossary.md",
        "docs/gateways.md",
        "docs/identity.md",
        "docs/disputes.md",
        "docs/pocket.md",
        "docs/transports.md",
        "docs/taxonomies/README.md",
    ],
)
def test_links_between_documents_lead_somewhere(name: str) -> None:
    assert not broken_links(name)


def test_the_glossary_tells_the_lengths_of_answer_prefixes() -> None:
    (told,) = re.findall(r"^\| \*\*answer prefix\*\* \| (.*) \|$", document("docs/glossary.md"), re.M)
    assert re.findall(r"\d+", told)[1:] == [str(ANSWER_PREFIX_CHARS), str(IdentitySettings().prefix_chars)]


# -------------------------------------------------------------------------------------------- reference.md


def first_cells(heading: str) -> list[str]:
    """First cells of the tables under a heading."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", REFERENCE, re.M | re.S)
    assert section, f"reference.md has no section {heading!r}"
    cells = re.findall(r"^\| (.*?) (?<!\\)\| ", section[1], re.M)
    return [cell for cell in cells if cell.startswith("`")]


def documented_keys(heading: str) -> set[str]:
    """Keys of a table; in a row ``.x`` stands beside the key before it."""
    found: set[str] = set()
    for cell in first_cells(heading):
        before = ""
        for name in re.findall(r"`([^`]+)`", cell):
            before = f"{before.rpartition('.')[0]}{name}" if name.startswith(".") else name
            found.add(before)
    return found


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in models_of(argument)]


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that may be written, as reference.md writes it."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = models_of(field.annotation)
        if str(field.annotation).startswith("dict[") and inner:
            key += f".<{name.removesuffix('s')}>"
        several = any(kind in str(field.annotation) for kind in ("list[", "tuple["))
        if several and not key.startswith("tasks[]") and key != "planning.gates":
            key += "[]"
        if key == "planning.gates" or not inner:
            yield key
        elif prefix and inner[0] in (GenerationSettings, TlsSettings):
            yield key  # explained where it is said how suppliers are asked
        elif inner[0] in (SensorSettings, ScheduleSettings):
            yield key
            kind = "sensor" if inner[0] is SensorSettings else "schedule"
            yield from (f"automation.<{kind}>.{part}" for part in inner[0].model_fields)
        elif set(inner[0].model_fields) <= set(model.model_fields) or key == "tasks[].planning":
            yield key  # the same keys in a block of their own: explained where they are first
        else:
            if key == "tasks[].samples":
                yield key  # which may be a number too
            yield from keys_of(inner[0], f"{key}.")


def test_reference_explains_every_key_and_no_other() -> None:
    keys = set(keys_of(Settings))
    assert {"tasks[].samples.half_width", "planning.schedule.unit", "automation.retention"} <= keys
    assert documented_keys("Configuration: `testbench.yaml`") == keys


def test_reference_explains_every_key_of_how_suppliers_are_asked_and_no_other() -> None:
    keys = {key.removesuffix("[]").partition(".<")[0] for key in keys_of(AskingSettings)}
    assert {"generation.token_field", "headers", "tls.ca_file"} <= keys
    assert documented_keys("How a supplier is asked") == keys


def test_the_example_of_how_suppliers_are_asked_is_read(tmp_path: Path) -> None:
    section = REFERENCE.partition("## How a supplier is asked")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```yaml\n(.*?)```", section, re.S)
    path = tmp_path / "testbench.yaml"
    path.write_text(f"tasks: [{{name: starter_logic}}]\n{block}", encoding="utf-8")
    settings = load_config(path).settings
    east, deep, inside = (settings.asking(s.service, "direct", s) for s in settings.suppliers)
    assert (east.query, east.key_header) == ({"api-version": "2024-10-21"}, "api-key")
    assert deep.generation.budget == 16384
    assert inside.connection.proxy == "http://proxy.example:3128"


def test_reference_explains_every_key_of_gates_and_no_other() -> None:
    models = models_of(Settings.model_fields["planning"].annotation)[0].model_fields["gates"].annotation
    keys = {f"gates[].{f.alias or n}" for m in models_of(models) for n, f in m.model_fields.items()}
    assert len(keys) == 12
    assert documented_keys("Gates") == keys


def commands(group: click.Group, prefix: str = "testbench") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def test_reference_shows_every_command_with_exactly_its_options() -> None:
    rows = {re.split(r" [-\[(A-Z]|`", cell[1:], maxsplit=1)[0]: cell for cell in first_cells("Commands")}
    assert set(rows) == {name for name, _ in commands(cli)}
    for name, command in commands(cli):
        options = {max(p.opts, key=len) for p in command.params if isinstance(p, click.Option)}
        assert set(re.findall(r"--[a-z-]+", rows[name])) == options, name
    assert all(f"`{max(p.opts, key=len)}`" in REFERENCE for p in cli.params)


def test_reference_shows_every_method_with_its_arguments() -> None:
    rows = {cell.split("(")[0].strip("`"): cell.strip("`") for cell in first_cells("Python")}
    methods = {
        name: method
        for name, method in vars(Testbench).items()
        if inspect.isfunction(method) and not name.startswith("_") and name != "close"
    }
    assert set(rows) == set(methods)
    for name, method in methods.items():
        arguments = [
            str(parameter.replace(annotation=inspect.Parameter.empty)).replace(" ", "")
            for parameter in inspect.signature(method).parameters.values()
        ]
        shown = [part for part in rows[name].partition("(")[2].removesuffix(")").split(", ") if part != "*"]
        assert ["self", *filter(None, shown)] == arguments, name


RESULTS = {
    cls.__name__: cls
    for cls in (
        Finding,
        RunReport,
        Plan,
        Probes,
        RequestedBackfill,
        Outcome,
        IdentityReport,
        Exported,
        ExportedByDay,
        Answers,
        Doc,
        SupplierPage,
        Ranking,
    )
}


def members(cls: type) -> set[str]:
    """What callers may use of a result: its fields, its properties, and its methods with ``()``."""
    found = {field.name for field in dataclasses.fields(cls)}
    for base in cls.__mro__[:-1]:
        for name, value in vars(base).items():
            if isinstance(value, property):
                found.add(name)
            elif inspect.isfunction(value):
                found.add(f"{name}()")
    return {name for name in found if not name.startswith("_")}


def test_reference_shows_every_result_with_its_members() -> None:
    (section,) = re.findall(r"^## Python$(.*?)^## ", REFERENCE, re.M | re.S)
    shown = {
        name: re.findall(r"`([^`]+)`", names)
        for name, names in re.findall(r"`([A-Z]\w+)` \((`[^`]+`(?:, `[^`]+`)*)\)", section)
    }
    assert set(shown) == set(RESULTS)
    for name, cls in RESULTS.items():
        assert set(shown[name]) == members(cls), name
    returned = {
        re.sub(r"list\[(\w+)\]", r"\1", str(method.__annotations__["return"]))
        for name, method in vars(Testbench).items()
        if inspect.isfunction(method) and not name.startswith("_") and name != "close"
    }
    assert returned - {"Table", "dict[Path, int]", "dict[str, Any] | None"} == set(RESULTS) - {"Outcome"}


def test_every_option_explains_itself() -> None:
    for name, command in commands(cli):
        assert command.help, name
        silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
        assert not silent, f"{name}: {silent}"


def test_reference_lists_the_fields_of_a_plan(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "operations.yaml", tmp_path / "testbench.yaml")
    with Testbench.open(tmp_path / "testbench.yaml") as testbench:
        rows = testbench.plan().rows
    assert documented_keys("Fields of `testbench plan --format json`") == set(rows[0])


def test_reference_lists_every_collection() -> None:
    assert documented_keys("Collections of the document store") == {collection.name for collection in ALL}
