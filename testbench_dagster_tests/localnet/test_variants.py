"""Variants of public questions of a file: known by their words, worked out by the question's template."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from testbench_dagster.localnet.answers import Answers, read_questions
from testbench_dagster.localnet.personas import Backend
from testbench_dagster.localnet.questions import Known
from testbench_dagster.localnet.variants import Variants
from testbench_dagster.tasks.twins.sources import gsm8k_item, gsm8k_twin
from testbench_dagster_tests.tasks.layouts import SHARED

TEST_SPLIT = SHARED / "data" / "gsm8k" / "test.jsonl.gz"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    if not TEST_SPLIT.exists():
        pytest.skip(f"no GSM8K at {TEST_SPLIT}: the package has none of its text")
    lines = gzip.decompress(TEST_SPLIT.read_bytes()).splitlines()[:80]
    read = [json.loads(line) for line in lines]
    found = [row for row in read if gsm8k_item(row["question"], row["answer"]) is not None]
    assert len(found) >= 20
    return found


def test_twins_are_worked_out_and_their_public_questions_known(
    rows: list[dict[str, str]], tmp_path: Path
) -> None:
    path = tmp_path / "public.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    answers = Answers(0, read_questions(path))
    for number, row in enumerate(rows[:20]):
        shot, question = rows[number - 1], row["question"]
        twin = gsm8k_twin(question, row["answer"], "seed")
        for before in ("", f"Question: {shot['question']}\nAnswer: {shot['answer']}\n\n"):
            public = answers.find(f"{before}Question: {question}\nAnswer:")
            fresh = answers.find(f"{before}Question: {twin.question}\nAnswer:")
            assert public is not None and public.public and public.text == " ".join(question.split())
            assert fresh is not None and not fresh.public and fresh.answer == twin.answer, twin.question
    says = answers.reply(Backend("b", 1.0), f"Question: {twin.question}\nAnswer:")
    assert says.rstrip(".").endswith(twin.answer)


def test_a_question_without_a_template_has_no_variants() -> None:
    variants = Variants.of([Known("Ann has 3 pears and eats 1. How many are left?", answer="2")])
    assert variants.find("Ann has 5 pears and eats 1. How many are left?") == (None, 0)
