"""Which files of the operator's own define a task, and that they come out where they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbench_dagster.core.task import TaskSpec
from testbench_dagster.evidence.definitions import own_definitions, unpack
from testbench_dagster.evidence.layout import DefinitionFile
from testbench_dagster.stages.dispute.rescore import evaluates_text
from testbench_dagster.tasks.index import TaskIndex
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.tasks.quiz import jsonl, spec_of

TEMPLATE = """dataset_path: x
output_type: generate_until
test_split: test
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
process_results: !function lib.checks.check
metric_list: [{metric: right, aggregation: mean, higher_is_better: true}]
"""
FILES = {
    "group.yaml": "group: all_mine\ntask: [one, {task: two, num_fewshot: 0}, starter_logic]\n",
    "one.yaml": "task: one\ninclude: shared/_template\n",
    "deep/two.yaml": "task: two\ninclude: ../shared/_template\n",
    "shared/_template": TEMPLATE,
    "shared/lib/checks.py": "from pathlib import Path\ndef check(doc, results):\n    return {'right': 1.0}\n",
    "shared/lib/beside.py": "x = 1\n",
    "shared/other.py": "y = 1\n",
    "three.yaml": "task: three\ndataset_path: x\n",
    "secret.txt": "no definition",
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def needed(spec: TaskSpec) -> set[str]:
    return {place.path for place in own_definitions(spec).files}


def test_what_a_task_is_made_of_and_nothing_else(mine: Path) -> None:
    lib = {"shared/_template", "shared/lib/checks.py", "shared/lib/beside.py"}
    assert needed(spec_of("one", include=(str(mine),))) == {"one.yaml", *lib}
    in_group = spec_of("two", root="all_mine", include=(str(mine),))
    assert needed(in_group) == {"group.yaml", "one.yaml", "deep/two.yaml", *lib}
    assert needed(spec_of("three", include=(str(mine),))) == {"three.yaml"}
    assert needed(spec_of("gsm8k", include=(str(mine),))) == set()
    assert needed(spec_of("starter_logic", include=())) == set()


def test_what_comes_out_defines_the_same_task(mine: Path, tmp_path: Path, worker: FrameworkWorker) -> None:
    data = {"test": jsonl(tmp_path / "test.jsonl", [{"q": "a", "a": "b"}])}
    spec = spec_of("two", root="all_mine", include=(str(mine),), data=data)
    include = unpack(own_definitions(spec).files, tmp_path / "elsewhere")
    there = spec_of("two", root="all_mine", include=include)
    registered = worker.call("lm_eval", "register", spec)
    found = worker.call("lm_eval", "identify", there, registered.data, registered.fingerprint)
    assert found == (registered.task_hash, registered.config_hash)


def test_a_file_from_outside_is_told(mine: Path) -> None:
    (mine.parent / "outside.yaml").write_text(TEMPLATE, encoding="utf-8")
    (mine / "one.yaml").write_text("task: one\ninclude: ../outside.yaml\n", encoding="utf-8")
    found = own_definitions(spec_of("one", include=(str(mine),)))
    assert found.problem == "its definition uses outside.yaml, which lies outside of task_paths"
    assert set(found.files) == {DefinitionFile(0, "one.yaml")}


def test_several_folders_keep_their_order(mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "one.yaml").write_text("task: one\ndataset_path: y\n", encoding="utf-8")
    found = own_definitions(spec_of("one", include=(str(mine), str(other))))
    assert set(found.files) == {DefinitionFile(1, "one.yaml")}, "the later folder wins, as in lm-eval"
    folders = unpack(found.files, tmp_path / "out")
    assert [os.listdir(folder) for folder in folders] == [["one.yaml"]]


def test_tasks_that_evaluate_text_are_known() -> None:
    index = TaskIndex.load()

    def evaluates(task: str) -> bool:
        entry = index.entries[task]
        assert entry.path is not None
        return evaluates_text(Path(entry.path).parent)

    longproc = [name for name in index.entries if name.startswith("longproc") and index.entries[name].path]
    assert longproc and any(evaluates(name) for name in longproc)
    assert not any(evaluates(name) for name in ("gsm8k", "ifeval", "arc_challenge", "minerva_math_algebra"))
