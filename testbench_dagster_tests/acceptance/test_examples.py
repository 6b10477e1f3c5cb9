"""Every configuration in ``examples/`` is valid, and reads ``../shared`` by its variable only."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster_tests.acceptance.harness import EXAMPLES, Installation
from testbench_dagster_tests.tasks.layouts import shared_rows

CONFIGS = sorted(path.name for path in EXAMPLES.glob("*.yaml"))
#: File → leaf tasks, suppliers.
EXPECTED = {
    "bbh-cot-replay.yaml": (9, 1),
    "gsm8k-replay.yaml": (1, 4),
    "ifeval-replay.yaml": (1, 1),
    "mmlu-pro-replay.yaml": (14, 3),
    "mmlu.yaml": (57, 1),
    "openai-compatible.yaml": (3, 2),
    "operations.yaml": (4, 1),
    "pocket.yaml": (2, 0),
    "taxonomy-chat-only.yaml": (62, 1),
}


def test_the_table_above_names_every_example():
    assert sorted(EXPECTED) == CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_loads_and_its_tasks_expand(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TESTBENCH_SHARED", "/elsewhere/shared")
    config = load_config(EXAMPLES / name)
    specs = task_specs(config)
    assert (len(specs), len(config.settings.suppliers)) == EXPECTED[name]
    for spec in specs:
        for split, path in (spec.data or {}).items():
            assert "{" not in path, f"{spec.name}.{split} keeps a placeholder"
            assert Path(path).is_relative_to("/elsewhere/shared") or name.startswith("ifeval")


# ifeval's file is made by prepare_ifeval.py, see below
@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith("ifeval")])
def test_local_files_of_an_example_exist(name: str, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBENCH_SHARED", str(shared.parent))
    for spec in task_specs(load_config(EXAMPLES / name)):
        for path in (spec.data or {}).values():
            assert Path(path).is_file()


@pytest.mark.slow
def test_every_mmlu_subject_finds_its_rows_in_the_one_file(shared: Path, installation: Installation) -> None:
    installation.configure_example("mmlu.yaml")
    done = installation.command("check", "--no-suppliers")
    assert done.code == 0, done
    counts = Counter(row["subject"] for row in shared_rows("mmlu/test.jsonl.gz"))
    assert len(counts) == 57 and sum(counts.values()) == 14_042
    for subject, docs in counts.items():
        assert f"task mmlu_{subject}: {docs} docs, 5-shot, multiple_choice" in done.out


@pytest.mark.parametrize("name", CONFIGS)
def test_an_example_holds_no_fixed_path_and_no_key(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert "../shared" not in text
    assert "api_key:" not in text
    written = yaml.safe_load(text)
    for service in written.get("services", {}).values():
        assert all(url.startswith("${") for url in service["nodes"]["rest"])
        assert all(app["address"].startswith("${") for app in service["apps"])
    for supplier in written.get("suppliers", []):
        assert supplier["base_url"].startswith("${"), "the URL of a supplier is a variable"


def test_the_readme_explains_every_example():
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in sorted(EXAMPLES.iterdir()):
        if path.name != "README.md" and path.is_file():
            assert f"`{path.name}`" in readme, f"examples/README.md does not mention {path.name}"


def test_prepare_ifeval_strips_prefixes_and_fills_every_argument(tmp_path: Path) -> None:
    rows = [
        {
            "key": 7,
            "prompt": "No commas – please.",
            "instruction_id_list": ["en:punctuation:no_comma", "en:length_constraints:number_words"],
            "kwargs": [{}, {"relation": "at least", "num_words": 3}],
        },
        {"key": 8, "prompt": "b", "instruction_id_list": ["en:x:y"], "kwargs": [{"num_words": 4}]},
    ]
    source, answered, out = tmp_path / "in.jsonl.gz", tmp_path / "answered.jsonl", tmp_path / "out.jsonl"
    with gzip.open(source, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    answered.write_text('{"key": 7, "response": "x"}\n')
    command = [sys.executable, str(EXAMPLES / "prepare_ifeval.py"), str(source), str(out)]
    done = subprocess.run([*command, "--answered", str(answered)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{out}: 1 prompts\n"
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == [
        {
            "key": 7,
            "prompt": "No commas – please.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [
                {"num_words": None, "relation": None},
                {"num_words": 3, "relation": "at least"},
            ],
        }
    ]
    subprocess.run(command, capture_output=True, check=True)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 2
