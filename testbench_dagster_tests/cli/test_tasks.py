"""``testbench tasks``: counts, rows of single tasks, explanations, and what of them the reference says."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from testbench_dagster.cli import cli
from testbench_dagster.core.errors import TaskError
from testbench_dagster.tasks.explained import counts
from testbench_dagster.tasks.verdicts import NOTES, REASONS, SUPPLIER_KINDS, packaged
from testbench_dagster_tests.tasks.layouts import REPOSITORY

REFERENCE = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
HEADING = "Which tasks can be measured"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, without a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TESTBENCH_CONFIG", raising=False)
    return tmp_path


def shown(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["tasks", *arguments], standalone_mode=False)


def rows(*arguments: str) -> list[dict[str, Any]]:
    done = shown(*arguments, "--format", "json")
    assert done.exception is None, done.exception
    return list(json.loads(done.stdout))


def test_all_tasks_are_listed_with_fields_that_are_documented() -> None:
    found = rows()
    assert [row["task"] for row in found] == sorted(packaged())
    section = REFERENCE.partition("## Fields of `testbench tasks --format json`")[2].partition("\n## ")[0]
    assert list(found[0]) == re.findall(r"^\| `(\w+)`", section, re.M)
    by_mode = Counter(row["chat"] for row in found)
    table = {row["what"]: row for row in counts(packaged().values())}
    assert by_mode["as is"] == table["as is"]["chat"]
    assert by_mode["chat_choice"] == table["chat_choice"]["chat"]
    assert sum(row["chat"] for what, row in table.items() if what != "tasks") == len(found)


def test_of_lm_evals_tasks_85_in_100_are_measured_on_a_supplier_that_only_chats() -> None:
    measured = sum(verdict.modes["chat"] is not None for verdict in packaged().values())
    assert measured >= 0.85 * len(packaged())


def test_a_pattern_shows_single_tasks_and_those_of_groups() -> None:
    names = [row["task"] for row in rows("hellaswag", "gsm8k", "mmlu_stem")]
    assert {"hellaswag", "gsm8k", "mmlu_anatomy", "mmlu_astronomy"} <= set(names)
    assert names == sorted(set(names))
    done = shown("arc_*", "--format", "csv")
    read = {row["task"]: row for row in csv.DictReader(io.StringIO(done.stdout))}
    assert read["arc_easy"]["chat"] == "chat_choice"
    assert read["arc_easy"]["echo"] == "as is"
    done = shown("arc_easy")
    assert "chat_choice" in done.stdout


def test_what_matches_nothing_is_an_error_with_near_names() -> None:
    done = shown("hellaswg")
    assert isinstance(done.exception, TaskError)
    assert "did you mean hellaswag" in str(done.exception)


@pytest.mark.parametrize(
    ("name", "says", "config"),
    [
        ("hellaswag", "as a choice of letters", [{"name": "hellaswag", "mode": "chat_choice"}]),
        ("hellaswag~chat", "hellaswag~chat", [{"name": "hellaswag", "mode": "chat_choice"}]),
        ("gsm8k", "On suppliers with `api: chat` it is asked as lm-eval asks it", [{"name": "gsm8k"}]),
        ("humaneval", "runs code that the model wrote", None),
        ("mmmu_val_art", "shows images", None),
        ("truthfulqa_mc2", "is not scored by accuracy", [{"name": "truthfulqa_mc2"}]),
        ("squadv2", "is a Python class", None),
        ("ifeval", "python -m nltk.downloader punkt_tab", [{"name": "ifeval"}]),
        (
            "mmlu_anatomy",
            "that do not echo log-probabilities it is not asked: letters are for chats",
            [{"name": "mmlu_anatomy", "mode": "chat_choice"}],
        ),
        (
            "mmlu",
            "log-probabilities 57 of them are not asked: letters are for chats",
            [{"name": "mmlu", "mode": "chat_choice"}],
        ),
        ("mmlu", "stands for 57 tasks", [{"name": "mmlu", "mode": "chat_choice"}]),
    ],
)
def test_one_task_is_explained_with_what_to_write(name: str, says: str, config: Any) -> None:
    done = shown("--why", name)
    assert done.exception is None, done.exception
    text, _, block = done.stdout.partition("\nIn testbench.yaml:\n\n")
    assert says in text
    assert (yaml.safe_load(block) or {}).get("tasks") == config
    row = rows("--why", name)[0]
    assert text.split("\n")[:-1] == row["sentences"]
    assert row["config"] == (block or None)


def test_it_is_told_why_completions_that_do_not_echo_are_not_asked() -> None:
    told = {row["task"]: row for row in rows("mmlu_anatomy", "gsm8k")}
    assert (told["mmlu_anatomy"]["completions"], told["mmlu_anatomy"]["completions_reason"]) == (
        None,
        "loglikelihood",
    )
    assert (told["gsm8k"]["completions"], told["gsm8k"]["completions_reason"]) == ("as is", None)


def test_a_task_of_a_script_gets_the_splits_that_local_files_stand_for() -> None:
    name = next(name for name, v in packaged().items() if v.as_is is not None and v.as_is.code == "script")
    row = rows("--why", name)[0]
    assert row["chat"] is None
    (task,) = yaml.safe_load(row["config"])["tasks"]
    assert task["name"] == name
    assert all(file == f"{split}.jsonl" for split, file in task["data"].items())


def test_tasks_of_ones_own_are_told_by_their_definition(folder: Path) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "a.yaml").write_text(
        "task: own_choice\noutput_type: multiple_choice\ndataset_path: json\n"
        "doc_to_text: '{{q}}'\ndoc_to_target: gold\ndoc_to_choice: options\n"
        "metric_list: [{metric: acc}]\n"
    )
    (folder / "own" / "b.yaml").write_text(
        "task: own_f1\noutput_type: multiple_choice\ndataset_path: json\n"
        "doc_to_text: '{{q}}'\ndoc_to_target: gold\ndoc_to_choice: options\n"
        "metric_list: [{metric: f1}]\n"
    )
    (folder / "own" / "c.yaml").write_text(
        "task: hellaswag\noutput_type: generate_until\nunsafe_code: true\n"
    )
    (folder / "testbench.yaml").write_text(
        "task_paths: [own]\ntasks: [{name: own_choice}]\n"
        "suppliers: [{address: a, service: external, base_url: 'http://127.0.0.1:9/v1', model: m}]\n"
    )
    found = {row["task"]: row for row in rows("own_*", "hellaswag")}
    assert found["own_choice"]["chat"] == "chat_choice"
    assert found["own_f1"]["reason"] == "no_accuracy"
    assert found["hellaswag"]["reason"] == "runs_code", "the folder's own takes the place of lm-eval's"
    assert not any(row["tried"] for row in found.values())


def table(*lines: tuple[str, ...]) -> str:
    head, *rest = lines
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *map(_line, rest)])


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def test_the_reference_counts_them_and_lists_the_reasons() -> None:
    numbers = table(
        ("", "", *(f"`{kind}`" for kind in SUPPLIER_KINDS)),
        *(
            (row["group"], f"`{row['what']}`", *(f"{row[kind]:,}" for kind in SUPPLIER_KINDS))
            for row in counts(packaged().values())
        ),
    )
    meanings = table(
        ("reason", "the task …", "what to do"),
        *(
            (f"`{code}`", cause.says.format(detail="…"), cause.remedy.format(detail="…"))
            for code, cause in REASONS.items()
        ),
    )
    section = REFERENCE.partition(f"\n## {HEADING}\n")[2].partition("\n## ")[0]
    for wanted in (numbers, meanings):
        assert wanted in section, (
            f"paste this table into the section {HEADING!r} of docs/reference.md:\n\n{wanted}\n"
        )
    for code, meaning in NOTES.items():
        assert f"`{code}`: {meaning[0].lower()}{meaning[1:]}" in " ".join(REFERENCE.split())


def test_tasks_that_other_frameworks_name_are_found_too() -> None:
    found = {row["task"]: row for row in rows("fresh_*")}
    assert len(found) == 30
    assert found["fresh_gcd"] == {
        **found["fresh_gcd"], "family": "fresh", "output_type": "generate_until", "chat": "as is",
        "completions": "as is", "echo": "as is", "reason": None,
    }  # fmt: skip
    assert list(found["fresh_gcd"]) == list(rows("gsm8k")[0])
    names = [row["task"] for row in rows("gsm8k", "fresh_lcm")]
    assert names == ["gsm8k", "fresh_lcm"]
    assert "generate_until" in shown("fresh_lcm").stdout


def test_a_task_of_another_framework_is_explained_with_what_to_write() -> None:
    said = shown("--why", "fresh_gcd").stdout
    assert "fresh_gcd is a task of the framework fresh." in said
    assert yaml.safe_load(said.partition("In testbench.yaml:")[2]) == {
        "tasks": [{"name": "fresh_gcd", "framework": "fresh"}]
    }
    with pytest.raises(TaskError, match="unknown task 'fresh_countdown'"):
        raise shown("--why", "fresh_countdown").exception or AssertionError
