"""``testbench import-frameworks``: YAML on stdout, notes on stderr, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster_tests.commands import Said, say

RULES = {
    "task_dependency": {"any": ["signatures:identity:equal:UNIQUE_OR_PROXY"]},
    "schedule_limits": {"any": "1:session"},
    "trigger_minimum": {"any": "1", "gsm8k": "2"},
}
CONFIG = {"pocket_blocks_per_session": 4, "frameworks": {"lmeh": RULES, "helm": {}}}


def run(file: Path, content: Any, *arguments: str) -> Said:
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return say(file.parent, "import-frameworks", str(file), *arguments)


def test_stdout_is_yaml_and_stderr_tells_what_changed(tmp_path: Path) -> None:
    done = run(tmp_path / "config.json", CONFIG, "--framework", "lmeh")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) == {
        "planning": {
            "schedule": {"every": 1, "unit": "session"},
            "trigger_minimum": 1,
            "blocks_per_session": 4,
        },
        "tasks": [{"name": "gsm8k", "planning": {"trigger_minimum": 2}}],
    }
    notes = done.stderr.splitlines()
    assert all(line.startswith("note: ") for line in notes)
    assert any("UNIQUE_OR_PROXY" in line for line in notes)


def test_several_frameworks_at_once(tmp_path: Path) -> None:
    content = {"frameworks": {"signatures": {"trigger_minimum": {"identity": "1"}}, **CONFIG["frameworks"]}}
    done = run(tmp_path / "config.json", content, "--framework", "signatures", "--framework", "lmeh")
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)
    assert found["planning"]["trigger_minimum"] == 1
    assert [(one["name"], one.get("framework")) for one in found["tasks"]] == [
        ("gsm8k", None), ("tokenizer", "signatures"), ("config", "signatures"), ("identity", "signatures"),
    ]  # fmt: skip


def test_the_frameworks_object_alone_will_do(tmp_path: Path) -> None:
    done = run(tmp_path / "frameworks.json", {"lmeh": RULES})
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["planning"]["trigger_minimum"] == 1


def test_a_byte_order_mark_is_no_part_of_the_json(tmp_path: Path) -> None:
    done = run(tmp_path / "frameworks.json", "\ufeff" + json.dumps({"lmeh": RULES}))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (CONFIG, "choose one with --framework: helm, lmeh"),
        ("{", "cannot be read as JSON"),
        ("[]", "is no JSON object"),
        ({"pocket_blocks_per_session": 0, "frameworks": {"helm": {}}}, "pocket_blocks_per_session: 0"),
        (
            {"lmeh": {"schedule_limits": {"any": "daily"}}},
            "task 'any': schedule_limits: 'daily' is malformed",
        ),
    ],
)
def test_bad_input_is_one_message_and_code_2(tmp_path: Path, content: Any, said: str) -> None:
    done = run(tmp_path / "config.json", content)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.startswith(f"error: {tmp_path / 'config.json'}: ")
    assert "Traceback" not in done.stderr
