"""The block `service_probes` of testbench.yaml: what it takes, and what it says of what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.cli.init import starter_text
from testbench_dagster.config import load_config_text
from testbench_dagster.core.errors import ConfigError

BASE: dict[str, Any] = {
    "suppliers": [{"address": "a", "base_url": "http://127.0.0.1:9/v1", "model": "m"}],
    "tasks": [{"name": "starter_logic"}],
}


def loaded(tmp_path: Path, block: dict[str, Any], **blocks: Any) -> Any:
    text = yaml.safe_dump({**BASE, **blocks, "service_probes": block})
    return load_config_text(text, tmp_path / "testbench.yaml").settings


def test_they_are_off_unless_switched_on(tmp_path: Path) -> None:
    settings = load_config_text(yaml.safe_dump(BASE), tmp_path / "testbench.yaml").settings
    assert settings.service_probes.enabled is False
    assert settings.service_probes.workloads == ("short", "1k")
    assert settings.automation.service_probes.enabled is True


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"workloads": []}, "the list is empty; name some of short, 1k, 10k, context"),
        ({"workloads": ["2k"]}, "'2k' is no workload; use some of short"),
        ({"workloads": ["1k", "1k"]}, "'1k' stands there twice"),
        ({"per_day": 0}, "service_probes.per_day"),
        ({"per_day": 289}, "service_probes.per_day"),
        ({"answer_tokens": 8}, "service_probes.answer_tokens"),
        ({"context_per_day": 0}, "service_probes.context_per_day"),
        ({"relays_per_day": -1}, "service_probes.relays_per_day"),
        ({"services": []}, "the list is empty: nothing would match"),
        ({"suppliers": "a@*"}, "is no list of patterns"),
        ({"suppliers": ["a"]}, "'a' can match no key of a supplier.*write 'a@\\*'"),
        ({"suppliers": ["b@external"]}, "service_probes: suppliers: 'b@external' matches none"),
        ({"services": ["extern"]}, "service_probes: services: 'extern' matches none"),
        ({"every": 5}, "service_probes.every"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, block: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(tmp_path, block)


def test_the_commented_block_of_a_first_configuration_is_a_right_one(tmp_path: Path) -> None:
    """Without its marks it is what it says, and the file is one as before."""
    text = starter_text("https://api.example.com/v1", "m", None)
    line = next(line for line in text.splitlines() if line.startswith("# service_probes:"))
    path = tmp_path / "testbench.yaml"
    assert load_config_text(text, path).settings.service_probes.enabled is False
    settings = load_config_text(text.replace(line, line.removeprefix("# ")), path).settings.service_probes
    assert settings.enabled and settings.relays_per_day == 20 and settings.per_day == 8
