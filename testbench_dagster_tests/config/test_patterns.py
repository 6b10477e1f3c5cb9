"""Patterns of who is asked what: what may be written, and what is told where one can match nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.stages.configured_tasks import task_specs

URL = "http://127.0.0.1:9/v1"


def written(tmp_path: Path, task: dict[str, Any], **more: Any) -> Path:
    suppliers = [
        {"address": "alice", "service": "text", "base_url": URL, "model": "m"},
        {"address": "bob", "service": "code", "base_url": URL, "model": "m", **more.pop("bob", {})},
    ]
    tasks = [{"name": "starter_logic", **task}, {"name": "starter_units", "alias": "metres"}]
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"suppliers": suppliers, "tasks": tasks, **more}), encoding="utf-8")
    return path


def asked(path: Path) -> dict[str, set[str]]:
    """By task the keys of the configured suppliers that are asked it."""
    from testbench_dagster.stages.discover.roster import configured_supplier

    config = load_config(path)
    suppliers = [configured_supplier(one) for one in config.settings.suppliers]
    return {spec.name: {s.key for s in suppliers if spec.asked_of(s)} for spec in task_specs(config)}


BOTH = {"alice@text", "bob@code"}


def test_patterns_choose_who_is_asked(tmp_path: Path) -> None:
    assert asked(written(tmp_path, {})) == {"starter_logic": BOTH, "metres": BOTH}
    for task in ({"services": ["c*"]}, {"services": ["!text"]}, {"suppliers": ["bob@*"]}):
        assert asked(written(tmp_path, task)) == {"starter_logic": {"bob@code"}, "metres": BOTH}, task
    for mine in (
        ["metres"],
        ["starter_units"],
        ["!*logic"],
    ):  # its alias, its configured name, all but another
        found = asked(written(tmp_path, {}, bob={"tasks": mine}))
        assert found == {"starter_logic": {"alice@text"}, "metres": BOTH}, mine
    nobody = asked(written(tmp_path, {"services": ["code"]}, bob={"tasks": ["metres"]}))
    assert nobody == {"starter_logic": set(), "metres": BOTH}


def test_a_group_is_meant_by_its_name_and_by_those_of_its_tasks(tmp_path: Path) -> None:
    path = written(tmp_path, {}, bob={"tasks": ["cloze"]})
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    only = ["blimp_adjunct_island", "blimp_animate_subject_passive"]
    settings["tasks"] = [{"name": "blimp", "alias": "cloze", "only": only}, {"name": "starter_logic"}]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert asked(path) == {
        "cloze__blimp_adjunct_island": {"alice@text", "bob@code"},
        "cloze__blimp_animate_subject_passive": {"alice@text", "bob@code"},
        "starter_logic": {"alice@text"},
    }
    settings["suppliers"][1]["tasks"] = ["cloze", "!*adjunct*"]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert asked(path)["cloze__blimp_adjunct_island"] == {"alice@text"}


@pytest.mark.parametrize(
    ("task", "bob", "message"),
    [
        (
            {"services": ["chat"]},
            {},
            "tasks[0] 'starter_logic': services: 'chat' matches none of the configured services; there are: "
            "text, code; correct it, or remove it",
        ),
        ({"services": ["text", "!chat"]}, {}, "services: '!chat' matches none of the configured services"),
        (
            {"suppliers": ["carol@*"]},
            {},
            "tasks[0] 'starter_logic': suppliers: 'carol@*' matches none of the configured suppliers; there "
            "are: alice@text, bob@code; correct it, or remove it",
        ),
        (
            {"suppliers": ["alice"]},
            {},
            "tasks[0].suppliers: 'alice' can match no key of a supplier, which is <address>@<service>; write "
            "'alice@*'",
        ),
        (
            {},
            {"tasks": ["gsm8k"]},
            "suppliers[1] 'bob@code': tasks: 'gsm8k' matches none of the configured tasks and groups; there "
            "are: starter_logic, metres, starter_units; correct it, or remove it",
        ),
        ({"services": []}, {}, "tasks[0].services: the list is empty"),
        (
            {"services": "text"},
            {},
            "tasks[0].services: 'text' is no list of patterns; write it like ['text']",
        ),
        ({"services": ["!"]}, {}, "tasks[0].services: '!' is no pattern"),
        ({"services": [" text"]}, {}, "tasks[0].services: ' text' is no pattern"),
        ({"services": ["text", "text"]}, {}, "tasks[0].services: 'text' stands there twice; remove one"),
        ({"services": [5]}, {}, "tasks[0].services[0]: input should be a valid string (it is 5)"),
        ({}, {"tasks": [""]}, "suppliers[1].tasks: '' is no pattern"),
    ],
)
def test_what_matches_nothing_or_is_no_pattern_is_told(
    tmp_path: Path, task: dict[str, Any], bob: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as error:
        task_specs(load_config(written(tmp_path, task, bob=bob)))
    assert message in str(error.value)


def test_what_a_source_may_yet_list_is_no_error(tmp_path: Path) -> None:
    source = {"supplier_sources": [{"file": "roster.json"}]}
    path = written(tmp_path, {"services": ["chat"], "suppliers": ["carol@*"]}, **source)
    assert asked(path)["starter_logic"] == set()


@pytest.mark.parametrize("written", ["- !code", "- *-code", "- *"])
def test_a_pattern_that_yaml_takes_for_something_else_is_to_stand_in_quotes(
    tmp_path: Path, written: str
) -> None:
    path = tmp_path / "testbench.yaml"
    path.write_text(f"tasks:\n  - name: starter_logic\n    services:\n      {written}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a text that begins with ! or \* stands in quotes"):
        load_config(path)
    path.write_text("tasks:\n  - {name: starter_logic, services: [!code]}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"a text that begins with ! or \* stands in quotes"):
        load_config(path)


def test_signatures_are_asked_of_whom_it_says_too(tmp_path: Path) -> None:
    path = written(tmp_path, {"name": "config", "framework": "signatures", "services": ["code"]})
    assert asked(path)["config"] == {"bob@code"}
