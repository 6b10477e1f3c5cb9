"""Fresh questions of the catalog's kinds: the makers' own answers, read from the questions alone."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.personas import Backend
from testbench_dagster.localnet.questions import squeeze
from testbench_dagster.localnet.solving import solved, wrong_answers
from testbench_dagster.tasks.starter import CHOICE_TASK
from testbench_dagster.tasks.starter.generate import KINDS
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.tasks.starter.questions import Maker

#: Those that need a text to be understood, or an answer to be judged by rules.
NOT_WORKED_OUT = ("starter_reading", "starter_instructions", CHOICE_TASK)
MAKERS = [(task, maker) for task in KINDS if task not in NOT_WORKED_OUT for maker in KINDS[task]]


@pytest.mark.parametrize(("task", "maker"), MAKERS, ids=[maker.__name__ for _, maker in MAKERS])
def test_what_a_maker_draws_is_worked_out(task: str, maker: Maker) -> None:
    draws = [maker(Random(f"solving {number}")) for number in range(40)]
    shot = f"Question: {draws[0].question}\nAnswer: {draws[0].answer}\n\n"
    for draft in draws:
        for text in (draft.question, f"{shot}Question: {draft.question}\nAnswer:"):
            found = solved(squeeze(text))
            assert found is not None
            assert (found.task, found.question, found.answer) == (task, draft.question, draft.answer)
        assert len(found.wrong) >= 2 and draft.answer not in found.wrong and "" not in found.wrong


def test_options_in_another_order_are_the_same_question() -> None:
    for doc in read_docs(CHOICE_TASK):
        options = doc["choices"][::-1]
        stem = doc["question"].partition(": ")[0]
        found = solved(f"Question: {stem}: {', '.join(options[:-1])} or {options[-1]}? Answer:")
        assert found is not None and (found.task, found.answer) == (CHOICE_TASK, doc["answer"])
        assert found.wrong == tuple(doc["wrong"])


def test_a_fresh_question_is_not_public_and_a_catalogs_one_is() -> None:
    answers = Answers(0)
    fresh = answers.find("Question: What is 9753 + 8642?\nAnswer:")
    assert fresh is not None and not fresh.public and fresh.answer == "18395"
    assert answers.reply(Backend("b", 1.0), fresh.text).count("18395") == 1
    doc = read_docs("starter_arithmetic")[0]
    known = answers.find(doc["question"])
    assert known is not None and known.public and known.doc_id == doc["id"]


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    solved(squeeze(text))
    assert text not in wrong_answers(text)


@pytest.mark.parametrize(
    "question",
    [
        "What is 7 divided by 0?",
        "What is 7 divided by 2?",
        "2001-02-30 is a Monday. Which day of the week is 2001-02-31?",
        "How many days does February 0000 have?",
        "How many metres are 3 litres?",
        'What is the sixth letter of the word "cat"?',
    ],
)
def test_what_has_no_answer_gets_none(question: str) -> None:
    assert solved(question) is None
