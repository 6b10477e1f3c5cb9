"""Gates are checked against the configured tasks and taxonomies when the configuration is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.rules import SequentialGate, TaskGate, TaxonomyGate
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stages.configured_tasks import task_specs

ARITHMETIC, LOGIC, UNITS = "starter_arithmetic", "starter_logic", "starter_units"


def specs(folder: Path, tasks: list[dict[str, Any]], **settings: Any) -> dict[str, TaskSpec]:
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": tasks, **settings}), encoding="utf-8")
    return {spec.name: spec for spec in task_specs(load_config(path))}


def test_a_task_has_its_own_rule_over_the_defaults(tmp_path: Path) -> None:
    found = specs(
        tmp_path,
        [
            {"name": ARITHMETIC, "planning": {"max_docs_per_run": 3}},
            {"name": LOGIC, "planning": {"schedule": {"every": 2, "unit": "minutes"}}},
            {"name": UNITS},
        ],
        planning={"schedule": {"every": 24, "unit": "hours"}, "trigger_minimum": 1, "max_docs_per_run": 8},
    )
    rules = {name: spec.planning for name, spec in found.items()}
    assert (rules[ARITHMETIC].max_docs_per_run, rules[ARITHMETIC].trigger_minimum) == (3, 1)
    assert rules[LOGIC].schedule is not None
    assert (rules[LOGIC].schedule.every, rules[LOGIC].schedule.unit) == (2, "minutes")
    assert rules[UNITS].max_docs_per_run == 8


def test_a_gate_on_a_nested_group_looks_at_its_tasks(tmp_path: Path) -> None:
    gate = {"task": "mmlu_stem", "is": "present"}
    tasks = [{"name": "mmlu"}, {"name": LOGIC, "planning": {"gates": [gate]}}]
    assert [g.task for g in specs(tmp_path, tasks)[LOGIC].planning.gates] == ["mmlu_stem"]
    tasks[1]["planning"] = {"gates": [{**gate, "task": "mmlu_other~chat"}]}
    with pytest.raises(ConfigError, match="'mmlu_other~chat' is no configured task or group"):
        specs(tmp_path, tasks)
    chats = [{"address": "a", "service": "x", "base_url": "http://127.0.0.1:9", "model": "m", "api": "chat"}]
    found = specs(tmp_path, tasks, choices_on_chat=True, suppliers=chats)
    assert [g.task for g in found[LOGIC].planning.gates] == ["mmlu_other~chat"]


def test_default_gates_spare_the_tasks_they_measure(tmp_path: Path) -> None:
    found = specs(
        tmp_path,
        [{"name": ARITHMETIC}, {"name": LOGIC}, {"name": UNITS, "planning": {"gates": []}}],
        planning={"gates": [{"task": ARITHMETIC, "pass": 0.9, "fail": 0.7}]},
    )
    assert found[ARITHMETIC].planning.gates == ()
    (gate,) = found[LOGIC].planning.gates
    assert isinstance(gate, SequentialGate)
    assert (gate.pass_at, gate.fail_at, gate.alpha) == (0.9, 0.7, 0.01)
    assert found[UNITS].planning.gates == ()


def test_a_taxonomy_gate_spares_the_tasks_of_its_taxonomy(tmp_path: Path) -> None:
    (tmp_path / "alive.yaml").write_text(
        f"name: alive\nroot: root\nnodes: {{root: {{tasks: [{ARITHMETIC}]}}}}\n", encoding="utf-8"
    )
    found = specs(
        tmp_path,
        [{"name": ARITHMETIC}, {"name": LOGIC}],
        taxonomies=["alive.yaml"],
        planning={"gates": [{"taxonomy": "alive", "min_score": 0.8, "min_samples": 10}]},
    )
    assert found[ARITHMETIC].planning.gates == ()
    (gate,) = found[LOGIC].planning.gates
    assert isinstance(gate, TaxonomyGate)


def test_equal_compares_a_score_with_a_number(tmp_path: Path) -> None:
    found = specs(
        tmp_path,
        [
            {"name": ARITHMETIC},
            {"name": LOGIC, "planning": {"gates": [{"task": ARITHMETIC, "is": "equal", "value": 1.0}]}},
        ],
    )
    (gate,) = found[LOGIC].planning.gates
    assert isinstance(gate, TaskGate)
    assert gate.value == 1.0


@pytest.mark.parametrize(
    ("gates", "told"),
    [
        ([{"task": "livness", "is": "ok"}], ["tasks[1].planning.gates[0].task", "'livness'", ARITHMETIC]),
        ([{"task": LOGIC, "is": "ok"}], ["never open", f"{LOGIC} waits for {LOGIC}", "remove"]),
        ([{"task": ARITHMETIC, "is": "equal", "value": "abc"}], ["gates[0].value", "'abc'", "number"]),
        ([{"task": ARITHMETIC, "is": "equal"}], ["is: equal needs a value"]),
        ([{"task": ARITHMETIC, "is": "ok", "value": 1}], ["the others take none"]),
        ([{"task": ARITHMETIC, "is": "fine"}], ["tasks[1].planning.gates[0].is", "'fine'"]),
        ([{"task": ARITHMETIC, "pass": 0.5, "fail": 0.7}], ["fail 0.7 must be below pass 0.5"]),
        ([{"taxonomy": "liveness"}], ["gates[0].taxonomy", "'liveness'", "starter"]),
        ([{"taxonomy": "starter", "node": "nothing"}], ["gates[0].node", "'nothing'"]),
    ],
)
def test_a_gate_that_cannot_be_is_refused(
    tmp_path: Path, gates: list[dict[str, Any]], told: list[str]
) -> None:
    tasks = [{"name": ARITHMETIC}, {"name": LOGIC, "planning": {"gates": gates}}]
    with pytest.raises(ConfigError) as refused:
        specs(tmp_path, tasks, taxonomies=["builtin:starter"])
    for text in told:
        assert text in str(refused.value)


def test_a_circle_over_several_tasks_is_told_whole(tmp_path: Path) -> None:
    chain = {ARITHMETIC: LOGIC, LOGIC: UNITS, UNITS: ARITHMETIC}
    tasks = [{"name": a, "planning": {"gates": [{"task": b, "is": "ok"}]}} for a, b in chain.items()]
    with pytest.raises(ConfigError, match=f"{ARITHMETIC} waits for {LOGIC} waits for {UNITS} waits for"):
        specs(tmp_path, tasks)


@pytest.mark.parametrize(
    ("planning", "told"),
    [
        ({"trigger_minimum": 2}, "without a schedule"),
        ({"trigger_minimum": 3, "max_docs_per_run": 2, "schedule": {"every": 1, "unit": "hours"}}, "exceeds"),
        ({"schedule": {"every": 1, "unit": "session"}}, "nothing tells a block height"),
        ({"schedule": {"every": 1.5, "unit": "block"}}, "sessions and blocks are whole"),
        ({"schedule": {"every": 0, "unit": "hours"}}, "every"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(
    tmp_path: Path, planning: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        specs(tmp_path, [{"name": ARITHMETIC}], planning=planning)
