"""The committed data: reproducible, small, unambiguous, and never at odds with its own checks."""

import gzip
import json
from collections import Counter

import pytest

from testbench_dagster.tasks.starter import CHOICE_TASK, TASKS
from testbench_dagster.tasks.starter.checks import follows
from testbench_dagster.tasks.starter.generate import TEST_DOCS, TRAIN_DOCS, generate
from testbench_dagster.tasks.starter.loader import DATA, load, read_docs


def test_generator_reproduces_the_committed_data(tmp_path):
    for made in generate(tmp_path):
        committed = (DATA / made.name).read_bytes()
        # the text decides; the packed bytes could differ under another zlib than the committer's
        assert gzip.decompress(made.read_bytes()) == gzip.decompress(committed)
        assert committed[4:8] == b"\0\0\0\0", "gzip carries a time stamp"
        assert len(committed) < 100_000


def test_generator_writes_the_same_bytes_twice(tmp_path):
    first = [path.read_bytes() for path in generate(tmp_path / "a")]
    assert first == [path.read_bytes() for path in generate(tmp_path / "b")]


@pytest.mark.parametrize("task", TASKS)
def test_splits_are_full_and_ids_unique(task):
    docs = read_docs(task)
    assert Counter(doc["split"] for doc in docs) == {"test": TEST_DOCS, "train": TRAIN_DOCS}
    assert len({doc["id"] for doc in docs}) == len(docs)
    assert {doc["level"] for doc in docs} == {1, 2, 3}
    assert len({doc["kind"] for doc in docs}) >= 5
    assert read_docs(task, "train") == [doc for doc in docs if doc["split"] == "train"]


def test_questions_are_distinct_across_the_catalogue_and_on_one_line():
    questions = [doc["question"] for task in TASKS for doc in read_docs(task)]
    assert len(set(questions)) == len(questions)
    assert all(question == " ".join(question.split()) for question in questions)


@pytest.mark.parametrize("task", TASKS)
def test_wrong_answers_are_wrong(task):
    for doc in read_docs(task):
        assert doc["wrong"]
        assert doc["answer"].lower() not in {wrong.lower() for wrong in doc["wrong"]}


def test_instruction_examples_follow_and_wrong_answers_do_not():
    for doc in read_docs("starter_instructions"):
        rules = json.loads(doc["rules"])
        assert follows(doc["answer"], rules)
        assert not any(follows(wrong, rules) for wrong in doc["wrong"])


def test_choice_options_are_distinct_and_none_begins_another():
    for doc in read_docs(CHOICE_TASK):
        choices = doc["choices"]
        assert len(choices) == len({choice.lower() for choice in choices}) == 4
        assert choices[doc["gold"]] == doc["answer"]
        assert not any(a != b and a.startswith(b) for a in choices for b in choices)


def test_choice_gold_positions_are_balanced():
    counts = Counter(doc["gold"] for doc in read_docs(CHOICE_TASK, "test"))
    assert all(0.15 < counts[i] / TEST_DOCS < 0.35 for i in range(4)), counts


def test_logic_verdicts_are_balanced():
    counts = Counter(doc["answer"] for doc in read_docs("starter_logic", "test"))
    assert set(counts) == {"yes", "no", "unknown"}
    assert min(counts.values()) > TEST_DOCS / 4


def test_sums_match_their_questions():
    signs = set("What is0123456789+-*()?")
    bare = [doc for doc in read_docs("starter_arithmetic") if set(doc["question"]) <= signs]
    assert len(bare) > 100
    for doc in bare:
        expression = doc["question"].removeprefix("What is ").removesuffix("?")
        assert eval(expression, {"__builtins__": {}}) == int(doc["answer"])


def test_unknown_task_names_the_known_ones():
    with pytest.raises(FileNotFoundError, match="starter_arithmetic"):
        read_docs("starter_nothing")


def test_loader_ignores_what_lm_eval_adds():
    loaded = load("starter_logic", version=1.0)
    assert loaded["test"].num_rows == TEST_DOCS
    assert loaded["test"][0] == read_docs("starter_logic", "test")[0]
