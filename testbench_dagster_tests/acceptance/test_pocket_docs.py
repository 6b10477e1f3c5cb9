"""docs/pocket.md says what is so: commands work, configurations are valid, the table of faults holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from testbench_dagster.config import ServiceConfig, load_config
from testbench_dagster.config.asking import AskingSettings
from testbench_dagster.config.fields import RelayOverrides
from testbench_dagster.config.pace import ServicePace
from testbench_dagster.core.faults import Fault, Owner
from testbench_dagster.localnet.pocket.faults import KINDS
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster_tests.acceptance.documents import (
    blocks_of,
    document,
    run_blocks,
    shell_environment,
    yaml_of,
)
from testbench_dagster_tests.acceptance.test_docs import models_of
from testbench_dagster_tests.operations.test_pocket import EXPECTED, UNREACHED
from testbench_dagster_tests.servers import free_port

POCKET = document("docs/pocket.md")
#: Where the documented chain listens; tests take a free port in its place.
DOCUMENTED = "127.0.0.1:8711"
#: Configurations that commands write, ready to be read.
WRITTEN = re.findall(r"<<'YAML'\n(.*?)^YAML$", POCKET, re.M | re.S)


# ---------------------------------------------------------------------------------------------- commands


@pytest.mark.slow(minutes=3)
def test_the_commands_work_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    port = free_port()
    assert DOCUMENTED in POCKET
    text = POCKET.replace(DOCUMENTED, f"127.0.0.1:{port}")
    up = "testbench localnet up --pocket"
    # quicker than documented, and without the failures that are drawn
    background = {up: (f"{up} --port {port} --latency-ms 5 --fail-rate 0", port)}
    environment = shell_environment(TESTBENCH_LOCALNET_URL=f"http://127.0.0.1:{port}")
    ran = run_blocks(text, folder, environment, background)
    assert len(ran) + 1 == sum(block.language == "bash" for block in blocks_of(POCKET))

    said = {command: done for done in ran for command in done.text.splitlines()}
    assert "Leaderboard (simulation)" in said["testbench demo --pocket --no-ui"].out
    check = said["testbench check"].out
    for quoted in ("10 blocks per session; 4 suppliers staked, 50 per session at most", *estimates(POCKET)):
        assert quoted in check
    assert "FAIL" not in check and "warn" not in check
    assert rows(said["testbench scores"].out, "ok") == 8  # four suppliers, two tasks
    delegated = said["testbench -c delegated.yaml check --no-suppliers"].out
    assert "key_file gateway.key holds it" in delegated and "FAIL" not in delegated
    faulty = next(done for done in ran if "kind=swapped_payload" in done.text)
    assert "unanswered (supplier_signature " in faulty.err
    assert "EQUAL" in said["testbench rescore sim-01.zip"].out
    gateway = said["testbench -c path.yaml run --max-relays 20"]
    assert "it calls 4 suppliers ready" in gateway.out and "20 relays sent" in gateway.err


def estimates(text: str) -> list[str]:
    """What the document quotes of the estimate of ``check``."""
    found = re.findall(r"up to [\d,]+ relays per supplier and session by stake, [\d,]+ in all", text)
    assert found
    return found


def rows(table: str, status: str) -> int:
    """Rows of a printed table that have a cell with this text."""
    return len(re.findall(rf"│ {status} +│", table))


def test_the_estimate_follows_from_the_formula() -> None:
    shown = re.search(r"1,000 × 0\.14599 uPOKT, so that\n10¹¹ uPOKT / 50 / 4 / 145\.99 = ([\d,]+)\.", POCKET)
    assert shown
    relays = int(10**11 / 50 / 4 / 145.99)
    assert shown[1] == f"{relays:,}"
    assert estimates(POCKET) == [
        f"up to {relays:,} relays per supplier and session by stake, {4 * relays:,} in all"
    ]


# ----------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize("snippet", [*yaml_of(POCKET), *WRITTEN])
def test_a_configuration_is_valid(snippet: str, tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    base = {**yaml.safe_load(WRITTEN[0]), "tasks": [{"name": "starter_logic"}]}
    path.write_text(yaml.safe_dump({**base, **yaml.safe_load(snippet)}), encoding="utf-8")
    config = load_config(path)
    assert len(task_specs(config)) == len(config.settings.tasks)


def keys_within(model: type[BaseModel]) -> Iterator[str]:
    """Every key of a block and of the blocks within it, but for the bounds of relays."""
    for name, field in model.model_fields.items():
        yield name
        for inner in models_of(field.annotation):
            if inner is not RelayOverrides:
                yield from keys_within(inner)


def written_keys(value: Any) -> Iterator[str]:
    """Every key of nested mappings."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from written_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from written_keys(inner)


def test_every_key_of_a_service_is_shown() -> None:
    shown: set[str] = set()
    for text in yaml_of(POCKET):
        for service in yaml.safe_load(text).get("services", {}).values():
            shown |= set(written_keys(service))
    shown |= set(re.findall(r"`(\w+):?`", POCKET))
    # those that suppliers reached directly have as well stand in docs/reference.md
    elsewhere = {*keys_within(AskingSettings), *keys_within(ServicePace)}
    keys = set(keys_within(ServiceConfig)) - elsewhere
    assert "reference.md#how-a-supplier-is-asked" in POCKET and "operations.md#pace" in POCKET
    assert {"key_file", "token_env", "poll_s", "max_relays_per_session"} <= keys
    assert keys <= shown


# ------------------------------------------------------------------------------------------------- faults


def fault_rows() -> list[list[str]]:
    """Cells of the table of faults, without its head."""
    section = re.search(r"^## Faults$(.*?)^## ", POCKET, re.M | re.S)
    assert section
    lines = [line for line in section[1].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == 6 for row in cells)
    return cells[2:]


def code(cell: str) -> list[str]:
    """What stands in a cell as code."""
    return re.findall(r"`(\w+)`", cell)


def test_every_fault_has_its_row_and_its_owner() -> None:
    told = []
    for row in fault_rows():
        for names, owner in re.findall(r"((?:`\w+`(?:, )?)+) \((\w+)\)", row[3]):
            told += [Fault(name) for name in code(names)]
            assert {Fault(name).owner for name in code(names)} == {Owner(owner)}, row
    assert sum(len(code(row[3])) for row in fault_rows()) == len(told), "a fault without owner"
    missing = ", ".join(sorted(set(Fault) - set(told)))
    assert not missing, f"say in the table Faults of docs/pocket.md when it happens: {missing}"


def test_every_fault_of_the_simulation_comes_to_the_fault_it_stands_beside() -> None:
    """The faults are those that the whole platform was seen to store; see operations/test_pocket.py."""
    shown: dict[str, set[Fault]] = {}
    for row in fault_rows():
        for kind in code(row[5]):
            assert kind not in shown, f"{kind} stands twice"
            shown[kind] = {Fault(name) for name in code(row[3])}
    assert shown.keys() == KINDS.keys()
    for kind in KINDS.keys() - UNREACHED:
        assert shown[kind] == EXPECTED[kind], kind


def test_every_fault_that_commands_ask_for_exists() -> None:
    asked = re.findall(r"kind=(\w+)", POCKET)
    assert asked and set(asked) <= KINDS.keys()
