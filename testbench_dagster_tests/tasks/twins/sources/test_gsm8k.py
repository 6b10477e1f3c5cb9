"""GSM8K's templates: they parse, reproduce the data set's answers, and draw twins that keep the rules."""

import gzip
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import time
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import yaml

from testbench_dagster.tasks.twins.sources import gsm8k as module
from testbench_dagster.tasks.twins.sources import gsm8k_item, gsm8k_template_ids, gsm8k_twin, question_id
from testbench_dagster.tasks.twins.sources.drawing import HashRandom
from testbench_dagster.tasks.twins.sources.gsm8k import FILE
from testbench_dagster.tasks.twins.sources.numbers import number_tokens
from testbench_dagster.tasks.twins.sources.templates import MAX_DRAWS, fit, read_template
from testbench_dagster_tests.pythons import HASH_SEEDS, OTHERS, can, interpreters, printed
from testbench_dagster_tests.tasks.twins.make_templates import TEST_FILE

# What one twin of each template hashes to. Another value means other questions for stored epochs: raise
# SOURCES_VERSION.
DRAWN = "79aa064c68ebd4a0171a29bb98b5cad98893da062cc673be73b6867f43e3ac27"

DRAW = (
    "import gzip, hashlib, json, sys\n"
    "from testbench_dagster.tasks.twins.sources import gsm8k_item, gsm8k_twin\n"
    "rows = [json.loads(line) for line in gzip.open(sys.argv[1], 'rt', encoding='utf-8')]\n"
    "items = [(r['question'], r['answer']) for r in rows if gsm8k_item(r['question'], r['answer'])]\n"
    "twins = [gsm8k_twin(*item, 'e1') for item in items]\n"
    "text = repr([(t.id, t.question, t.answer, t.template, t.kind) for t in twins])\n"
    "print(hashlib.sha256(text.encode()).hexdigest())\n"
)


@cache
def rows() -> list[dict[str, str]]:
    """The data set's test questions that have a template."""
    if not TEST_FILE.is_file():
        pytest.skip(f"{TEST_FILE} is absent (set TESTBENCH_SHARED)")
    with gzip.open(TEST_FILE, "rt", encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [row for row in found if question_id(row["question"]) in gsm8k_template_ids()]


@cache
def lines() -> dict[str, str]:
    """All templates as written."""
    loaded: dict[str, str] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return loaded


# ------------------------------------------------------------------------------------- without the data


def test_the_file_parses() -> None:
    assert len(lines()) >= 200
    assert list(lines()) == sorted(lines())
    for name, line in lines().items():
        assert re.fullmatch(r"[0-9a-f]{16}", name)
        assert read_template(line).steps
    assert gsm8k_template_ids() == frozenset(lines())


def test_the_file_names_data_set_and_licence_and_has_no_text_of_it() -> None:
    text = FILE.read_text(encoding="utf-8")
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert (
        "GSM8K" in " ".join(head) and "MIT" in " ".join(head) and "openai/grade-school-math" in " ".join(head)
    )
    body = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'"[0-9a-f]{16}": [a-z0-9 .:|+*/()<>=!,-]+', line) for line in body)
    assert not [word for line in body for word in re.findall("[a-z]{3,}", line.partition(": ")[2])]


def test_every_template_evaluates() -> None:
    """Without the data set: steps and conditions on made-up numbers, which differ from name to name."""
    for line in lines().values():
        template = read_template(line)
        known = {number.name: Fraction(60 * count + 1) for count, number in enumerate(template.numbers, 1)}
        for count, step in enumerate(template.steps, 1):
            known[f"s{count}"] = step.evaluate(known)
        assert all(condition.holds(known) in (True, False) for condition in template.conditions)


def test_loading_costs_little() -> None:
    module._lines.cache_clear()
    start = time.process_time()
    gsm8k_template_ids()
    assert time.process_time() - start < 0.5  # 15 ms measured, 100 ms with PyYAML's parser in Python


def test_a_question_without_template_is_none() -> None:
    assert gsm8k_item("How many?", "#### 3") is None
    with pytest.raises(KeyError, match="no template for 'How many"):
        gsm8k_twin("How many?", "#### 3", "e1")


def test_a_question_of_our_own_with_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Bo has 1,200 seeds and plants 300. How many are left?"
    monkeypatch.setattr(module, "_lines", lambda: {question_id(question): "a0 b1 | a-b"})
    module._fitted.cache_clear()
    item = gsm8k_item(question, "1200 - 300 = <<1200-300=900>>900\n#### 900")
    assert item is not None
    assert (item.id, item.answer, item.template) == (question_id(question), "900", f"gsm8k:{item.id}")
    assert gsm8k_item(question, "900") == item
    assert gsm8k_item(question, "#### 901") is None  # not the answer it computes
    twin = gsm8k_twin(question, "900", "e1")
    large, small = re.findall(r"[\d,]+", twin.question)
    assert twin.question == f"Bo has {large} seeds and plants {small}. How many are left?" != question
    assert int(large.replace(",", "")) - int(small) == int(twin.answer) != 900
    module._fitted.cache_clear()


# ---------------------------------------------------------------------------------------- with the data


def test_each_template_yields_the_data_sets_answer() -> None:
    items = [gsm8k_item(row["question"], row["answer"]) for row in rows()]
    assert len(items) == len(gsm8k_template_ids())
    for item, row in zip(items, rows(), strict=True):
        assert item is not None, row["question"]
        assert item.question == row["question"]
        assert item.answer == row["answer"].rpartition("####")[2].strip().replace(",", "")


def check_twin(row: dict[str, str], seed: str) -> str:
    """A twin of a question, whose rules hold; returns its text."""
    item, twin = (
        gsm8k_item(row["question"], row["answer"]),
        gsm8k_twin(row["question"], row["answer"], seed),
    )
    assert item is not None
    assert (twin.id, twin.template, twin.kind) == (item.id, item.template, item.kind)
    assert re.fullmatch("[1-9][0-9]*", twin.answer) and twin.answer != item.answer
    assert abs(len(twin.answer) - len(item.answer)) <= 1
    before, after = number_tokens(item.question), number_tokens(twin.question)
    # only numbers differ, and in their values alone
    assert _without(item.question) == _without(twin.question)
    varying = {number.place for number in read_template(lines()[item.id]).numbers}
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if place not in varying:
            assert new.written == old.written
            continue
        assert new.value != 1 and old.value * 2 / 5 <= new.value <= old.value * 5 / 2
        assert new.is_word == old.is_word
        if not old.is_word:
            assert re.sub(r"\d", "0", new.written) == re.sub(r"\d", "0", old.written)
        else:
            assert new.written[0].isupper() == old.written[0].isupper()
    # the template, fitted to the twin as if this were the original, gives the twin's answer and holds
    assert str(fit(read_template(lines()[item.id]), twin.question).answer) == twin.answer
    return twin.question


def _without(text: str) -> str:
    for token in reversed(number_tokens(text)):
        text = f"{text[: token.start]}#{text[token.end :]}"
    return text


def test_a_twin_of_each_template_keeps_the_rules() -> None:
    for row in rows():
        assert check_twin(row, "e1") != row["question"]


@pytest.mark.slow
def test_five_twins_of_each_template_keep_the_rules() -> None:
    for row in rows():
        assert len({check_twin(row, f"seed {number}") for number in range(5)}) >= 3


@pytest.mark.slow
def test_a_twin_is_found_long_before_draws_are_given_up() -> None:
    """One draw in a thousand fits or more: three do within 3,000, and 20,000 are made."""
    assert MAX_DRAWS >= 20_000
    for row in rows():
        fitted = fit(read_template(lines()[question_id(row["question"])]), row["question"])
        rng = HashRandom(f"rate of {row['question']}")
        drawn = ([choices.draw(rng) for choices in fitted.values] for _ in range(3000))
        fitting = (values for values in drawn if fitted.answer_with(values) is not None)
        assert len(list(islice(fitting, 3))) == 3, row["question"]


def test_numbers_are_neither_larger_nor_smaller_than_the_originals() -> None:
    """Larger numbers would make twins harder; a mean of 0.7 logarithmic units would be twice as large."""
    ratios = []
    for row in rows():
        twin = gsm8k_twin(row["question"], row["answer"], "e2")
        pairs = zip(number_tokens(row["question"]), number_tokens(twin.question), strict=True)
        ratios += [math.log(new.value / old.value) for old, new in pairs if new.value != old.value]
    assert len(ratios) > 700
    assert abs(sum(ratios) / len(ratios)) < 0.1


@pytest.mark.slow
def test_each_template_has_twenty_twins() -> None:
    for row in rows():
        texts: set[str] = set()
        for number in range(200):
            texts.add(gsm8k_twin(row["question"], row["answer"], f"s{number}").question)
            if len(texts) == 20:
                break
        assert len(texts) == 20, row["question"]


def test_the_same_twins_in_another_process_with_another_hash_seed() -> None:
    assert rows()
    told = subprocess.run(
        [sys.executable, "-c", DRAW, str(TEST_FILE)],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()
    twins = [gsm8k_twin(row["question"], row["answer"], "e1") for row in rows()]
    text = repr([(t.id, t.question, t.answer, t.template, t.kind) for t in twins])
    assert told == hashlib.sha256(text.encode()).hexdigest() == DRAWN


@pytest.mark.slow
@pytest.mark.parametrize("python", interpreters())
def test_the_same_twins_on_every_python(python: str) -> None:
    assert rows()
    if not can(python, "import yaml"):
        pytest.skip(f"{python} has no PyYAML; name others in {OTHERS}")
    assert {printed(python, DRAW, seed, str(TEST_FILE)) for seed in HASH_SEEDS} == {DRAWN}


def test_no_question_is_in_the_repository() -> None:
    """No twelve words in a row of a question with a template stand in the package or its tests."""
    root = Path(module.__file__).parents[4]
    folders = ("testbench_dagster/tasks/twins", "testbench_dagster_tests/tasks/twins")
    files = [
        path for folder in folders for path in (root / folder).rglob("*") if path.suffix in (".py", ".yaml")
    ]
    text = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in files)
    assert len(files) > 10
    for row in rows():
        words = row["question"].split()
        assert not [i for i in range(len(words) - 11) if " ".join(words[i : i + 12]) in text]
