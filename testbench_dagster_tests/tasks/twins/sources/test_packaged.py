"""Twins of the packaged questions: of the same shape, right, fresh, and the same wherever they are drawn."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from datetime import date

import pytest

from testbench_dagster.tasks.starter import TASKS
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.tasks.twins.sources import Item, packaged_items, packaged_twin, question_id
from testbench_dagster.tasks.twins.sources.drawing import HashRandom
from testbench_dagster_tests.pythons import HASH_SEEDS, OTHERS, can, interpreters, printed

BY_DIGITS = ("arithmetic", "word_problems", "dates", "units")

# What one twin of each item hashes to. Another value means other questions for stored epochs: raise
# SOURCES_VERSION.
DRAWN = "1541fdf3d07d6c60c6b0c3ea11ad5ea8d53190474cbb2b1214564dd3d2ccfccb"

DRAW = (
    "import hashlib\n"
    "from testbench_dagster.tasks.twins.sources import packaged_items, packaged_twin\n"
    "twins = [packaged_twin(item.id, 'e1') for item in packaged_items()]\n"
    "text = repr([(t.id, t.question, t.answer, t.template, t.kind) for t in twins])\n"
    "print(hashlib.sha256(text.encode()).hexdigest())\n"
)


def pairs(*kinds: str, seed: str = "e1") -> list[tuple[Item, Item]]:
    """Public items of some kinds with a twin each."""
    return [(item, packaged_twin(item.id, seed)) for item in packaged_items() if item.kind in kinds]


def digit_lengths(text: str) -> list[int]:
    return [len(found) for found in re.findall(r"\d+", text)]


def test_the_items_are_the_catalogs_test_questions() -> None:
    docs = {doc["id"]: doc for task in TASKS for doc in read_docs(task, "test")}
    items = packaged_items()
    assert len({item.id for item in items}) == len(items) >= 1200
    assert all((i.question, i.answer) == (docs[i.id]["question"], docs[i.id]["answer"]) for i in items)
    assert min(Counter(item.kind for item in items).values()) >= 75
    assert len({item.template for item in items}) >= 40


def test_a_twin_keeps_id_template_and_kind_and_is_no_public_question() -> None:
    public = {doc["question"] for task in TASKS for doc in read_docs(task)}
    for item in packaged_items():
        twin = packaged_twin(item.id, "e1")
        assert (twin.id, twin.template, twin.kind) == (item.id, item.template, item.kind)
        assert twin.question not in public


def test_numbers_have_the_lengths_of_the_originals() -> None:
    for item, twin in pairs(*BY_DIGITS):
        assert digit_lengths(twin.question) == digit_lengths(item.question)
        assert digit_lengths(twin.answer) == digit_lengths(item.answer)


def test_sums_are_right() -> None:
    bare = [twin for _, twin in pairs("arithmetic") if set(twin.question) <= set("What is0123456789+-*()?")]
    assert len(bare) > 80
    for twin in bare:
        assert str(eval(twin.question.removeprefix("What is ").rstrip("?"))) == twin.answer, twin.question


def test_dates_are_right() -> None:
    between = [twin for _, twin in pairs("dates") if twin.template.endswith(":days_between")]
    assert len(between) == 34
    for twin in between:
        start, end = (date.fromisoformat(day) for day in re.findall(r"\d{4}-\d\d-\d\d", twin.question))
        assert str((end - start).days) == twin.answer


def test_words_are_as_long_as_the_originals() -> None:
    for item, twin in pairs("strings"):
        assert len(twin.question.split()) == len(item.question.split())
        assert abs(len(twin.question) - len(item.question)) < 3


def test_verdicts_of_twins_are_drawn_anew() -> None:
    same = [item.answer == twin.answer for item, twin in pairs("logic")]
    assert 0.2 < sum(same) / len(same) < 0.5  # a third by chance


def test_options_are_the_same_in_another_order() -> None:
    for item, twin in pairs("option_order"):
        stem, options = item.question.rstrip("?").rsplit(": ", 1)
        twin_stem, twin_options = twin.question.rstrip("?").rsplit(": ", 1)
        listed, drawn = (re.split(", | or ", text) for text in (options, twin_options))
        assert (twin_stem, twin.answer) == (stem, item.answer)
        assert drawn != listed and sorted(drawn) == sorted(listed)


def test_the_right_option_stands_everywhere() -> None:
    places = Counter(
        re.split(", | or ", twin.question.rstrip("?").rsplit(": ", 1)[1]).index(twin.answer)
        for _, twin in pairs("option_order")
    )
    assert all(40 <= places[place] <= 85 for place in range(4)), places


def test_the_seed_decides() -> None:
    item = packaged_items()[0]
    assert packaged_twin(item.id, "a") == packaged_twin(item.id, "a") != packaged_twin(item.id, "b")


def test_an_unknown_id_says_where_ids_are() -> None:
    with pytest.raises(KeyError, match=r"no packaged question 'x'; packaged_items\(\) lists them"):
        packaged_twin("x", "e1")


@pytest.mark.slow
def test_every_item_has_twenty_twins() -> None:
    few = []
    for item in packaged_items():
        seen = {packaged_twin(item.id, f"s{number}").question for number in range(50)}
        number = 50
        while len(seen) < 20 and number < 400:
            seen.add(packaged_twin(item.id, f"s{number}").question)
            number += 1
        if len(seen) < 20:
            few.append(item.id)
    assert not few


def test_the_same_twins_in_another_process_with_another_hash_seed() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", DRAW],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout.strip()
        for seed in ("1", "77")
    ]
    assert told == [DRAWN, DRAWN]


@pytest.mark.slow
@pytest.mark.parametrize("python", interpreters())
def test_the_same_twins_on_every_python(python: str) -> None:
    if not can(python, "import yaml"):
        pytest.skip(f"{python} has no PyYAML; name others in {OTHERS}")
    assert {printed(python, DRAW, seed) for seed in HASH_SEEDS} == {DRAWN}


def test_ids_of_questions_ignore_white_space_at_the_ends() -> None:
    assert question_id("How many?") == question_id(" How many?\n") == "ba352e24c64c7137"
    assert question_id("How  many?") != question_id("How many?")


def test_the_random_source_is_sha_256_of_key_and_counter() -> None:
    rng = HashRandom("k")
    first = int.from_bytes(hashlib.sha256(b"k:0").digest(), "big")
    assert rng.getrandbits(32) == first >> 224
    assert 0 <= rng.random() < 1
    assert [HashRandom("k").randint(1, 6) for _ in range(3)] == [HashRandom("k").randint(1, 6)] * 3
    with pytest.raises(ValueError, match="give 0 to 256 bits"):
        rng.getrandbits(257)
