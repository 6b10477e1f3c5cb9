"""What the YAML of a task says of its requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster.tasks.outline import Outline, outlines


def outline_of(tmp_path: Path, **definition: Any) -> Outline:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "base.yaml").write_text(yaml.safe_dump({"dataset_path": "x", **definition}), encoding="utf-8")
    (folder / "mine.yaml").write_text(
        "task: mine\ninclude: base.yaml\ndoc_to_text: !function helpers.text\n", encoding="utf-8"
    )
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"task_paths": ["tasks"], "tasks": [{"name": "mine"}]}), encoding="utf-8")
    return outlines(task_specs(load_config(path)))["mine"]


@pytest.mark.parametrize(
    ("definition", "outline"),
    [
        ({}, Outline("generate_until")),
        ({"repeats": 3}, Outline("generate_until", 3)),
        ({"output_type": "loglikelihood"}, Outline("loglikelihood")),
        ({"output_type": "multiple_choice", "doc_to_choice": ["a", "b", "c"]}, Outline("multiple_choice", 3)),
        (
            {"output_type": "multiple_choice", "doc_to_choice": "{{x}}"},
            Outline("multiple_choice", 4, known=False),
        ),
        ({"output_type": ["odd"], "repeats": "many"}, Outline("generate_until")),
    ],
)
def test_kind_and_number_of_requests_come_from_the_definition_and_what_it_includes(
    tmp_path: Path, definition: dict[str, Any], outline: Outline
) -> None:
    assert outline_of(tmp_path, **definition) == outline


def test_an_unreadable_definition_is_guessed(tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": [{"name": "starter_logic"}]}), encoding="utf-8")
    [spec] = task_specs(load_config(path))
    from dataclasses import replace

    assert outlines([replace(spec, leaf="nowhere")]) == {
        "starter_logic": Outline("generate_until", known=False)
    }


def test_lm_evals_own_tasks_are_known(tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": [{"name": "gsm8k"}, {"name": "hellaswag"}]}), encoding="utf-8")
    found = outlines(task_specs(load_config(path)))
    assert found["gsm8k"] == Outline("generate_until")
    assert found["hellaswag"] == Outline("multiple_choice", 4, known=False)
