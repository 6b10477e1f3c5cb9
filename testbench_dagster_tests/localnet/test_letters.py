"""Choices on chat: the simulated models read the options by letter, and answer as they do without."""

from __future__ import annotations

from testbench_dagster.localnet.answers import Answers, chosen_answer, starter_questions
from testbench_dagster.localnet.letters import lettered
from testbench_dagster.localnet.personas import STYLES, Backend
from testbench_dagster.tasks.chat_choice.convert import Question
from testbench_dagster.tasks.chat_choice.extract import flexible, strict
from testbench_dagster.tasks.chat_choice.prompt import asked, messages
from testbench_dagster.tasks.starter import CHOICE_TASK
from testbench_dagster.tasks.starter.loader import read_docs

DOCS = read_docs(CHOICE_TASK)
KNOWN = {one.doc_id: one for one in starter_questions()}


def prompts(doc, seed="s"):
    """A doc as it is asked behind two others, all turns in one text, and the texts by letter."""
    turns = [
        asked(Question(one["question"], tuple(one["choices"]), (one["gold"],)), seed, one["id"])
        for one in (*DOCS[:2], doc)
    ]
    text = "\n".join(turn["content"] for turn in messages("Choose.", turns[:2], turns[2]))
    return text, turns[2]


def test_the_letter_is_that_of_the_answer_in_any_order():
    for number, doc in enumerate(DOCS[2:80]):
        backend = Backend("b", 0.5, style=STYLES[number % 3])
        wanted = chosen_answer(0, backend, KNOWN[doc["id"]])
        letters = set()
        for seed in "abcd":
            prompt, question = prompts(doc, seed)
            said = Answers(0).reply(backend, prompt)
            letter = strict(said, question.letters)
            assert letter == flexible(said, question.letters, question.options)
            assert question.options[question.letters.index(letter)] == wanted
            letters.add(letter)
        assert number or letters


def test_an_unknown_choice_gets_the_same_option_in_any_order():
    options = ("red", "green", "blue", "grey")
    answers = Answers(0)
    chosen = set()
    for name in "abcdefgh":
        picked = set()
        for seed in "abcdef":
            turn = asked(Question("Which colour is it?", options, (0,)), seed, 1)
            letter = strict(answers.reply(Backend(name), turn.text), turn.letters)
            picked.add(turn.options[turn.letters.index(letter)])
        assert len(picked) == 1, "an option, not a letter"
        chosen |= picked
    assert len(chosen) > 1


def test_other_prompts_ask_for_no_letter():
    assert lettered("Question: which?\nA) one\nB) two\nAnswer:") is None
    text, question = prompts(DOCS[5])
    found = lettered(text)
    assert found.form == "ANSWER:" and tuple(found.options.values()) == question.options
    assert found.letter_of("nothing of these") is None
