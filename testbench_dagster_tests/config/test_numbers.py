"""Where a number is wanted, true and false are none, in every block of testbench.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.rules import Strict


def blocks(of: type[Strict] = Strict) -> Iterator[type[Strict]]:
    for block in of.__subclasses__():
        if block.__module__.startswith("testbench_dagster."):
            yield block
        yield from blocks(block)


def kinds(schema: dict[str, Any]) -> set[str]:
    """The kinds of values that a field takes, of its items where it is a list or mapping."""
    found = {schema["type"]} if "type" in schema else set()
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        found |= kinds(part)
    return found


NUMBERS = sorted(
    {
        (f"{block.__module__}.{block.__qualname__}.{name}", block, name)
        for block in blocks()
        for name, schema in block.model_json_schema().get("properties", {}).items()
        if kinds(schema) & {"integer", "number"} and "boolean" not in kinds(schema)
    },
    key=lambda found: found[0],
)


def test_all_blocks_are_looked_at() -> None:
    names = {name for _, _, name in NUMBERS}
    assert {"budget", "total_s", "retries", "max_relays_per_session", "every"} <= names
    assert len(NUMBERS) > 60


@pytest.mark.parametrize(("block", "name"), [found[1:] for found in NUMBERS], ids=[n for n, *_ in NUMBERS])
@pytest.mark.parametrize("value", [True, False])
def test_true_is_no_number(block: type[Strict], name: str, value: bool) -> None:
    with pytest.raises(ValidationError) as caught:
        block.model_validate({name: value})
    said = [error["msg"] for error in caught.value.errors() if error["loc"][:1] == (name,)]
    assert any(f"{str(value).lower()} is no number" in text for text in said), said


@pytest.mark.parametrize(
    ("block", "key"),
    [
        ("suppliers:\n- {base_url: 'http://h/v1', model: m, generation: {budget: yes}}", "budget"),
        ("relays: {total_s: on}", "relays.total_s"),
        ("budget: {services: {local: true}}", "budget.services"),
        ("planning: {occasions_minutes: [0, true]}", "planning.occasions_minutes"),
    ],
)
def test_the_message_names_key_value_and_remedy(block: str, key: str, tmp_path: Path) -> None:
    (tmp_path / "testbench.yaml").write_text(f"tasks: [{{name: starter}}]\n{block}\n")
    with pytest.raises(ConfigError, match=r"is no number .* write a number such as 1") as caught:
        load_config(tmp_path / "testbench.yaml")
    assert key in str(caught.value) and "true" in str(caught.value).lower()
