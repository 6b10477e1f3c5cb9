"""The letter an answer names: phrasings, hostile texts, and what real models wrote."""

from __future__ import annotations

import re
import runpy
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from testbench_dagster.tasks.chat_choice.convert import LETTERS
from testbench_dagster.tasks.chat_choice.extract import flexible, strict
from testbench_dagster.tasks.chat_choice.writing import HEAD_CHARS, TAIL_CHARS
from testbench_dagster_tests.tasks.chat_choice.hostile_phrasings import ANSWERS
from testbench_dagster_tests.tasks.chat_choice.phrasings import CITIES, LATER, OPTIONS, PHRASINGS
from testbench_dagster_tests.tasks.layouts import SHARED, shared_rows


@pytest.mark.parametrize(("text", "letter"), PHRASINGS)
def test_an_answer_means(text, letter):
    assert flexible(text, "ABCDE", OPTIONS) == letter


@pytest.mark.parametrize(("text", "letter"), LATER)
def test_an_answer_to_the_other_question_means(text, letter):
    assert flexible(text, "ABCD", CITIES) == letter


@pytest.mark.parametrize("options", ANSWERS, ids=lambda options: options[0])
def test_many_answers_mean(options):
    letters = LETTERS[: len(options)]
    wrong = [
        (text, letter, found)
        for letter, texts in ANSWERS[options].items()
        for text in texts
        if (found := flexible(text, letters, options)) != letter
    ]
    assert not wrong
    by_form = [
        (text, letter, found)
        for letter, texts in ANSWERS[options].items()
        for text in texts
        if (found := strict(text, letters)) not in (None, letter)
    ]
    assert not by_form


def test_there_are_enough_of_them():
    assert sum(len(texts) for by_letter in ANSWERS.values() for texts in by_letter.values()) > 1_000


def test_options_that_differ_in_marks_or_capitals_alone_are_told_apart_or_refused():
    assert flexible("The answer is -5", "AB", ["5", "-5"]) == "B"
    assert flexible("The answer is -5", "AB", ["5", "-7"]) is None, "the other number is none of them"
    assert flexible("Tt", "ABC", ["TT", "Tt", "tt"]) == "B"
    assert flexible("tT", "ABC", ["TT", "Tt", "tt"]) is None
    assert flexible("[0, 1)", "AB", ["[0, 1]", "[0, 1)"]) == "B"
    assert flexible("0, 1", "AB", ["[0, 1]", "(0, 1)"]) is None


@pytest.mark.parametrize("text", ["(a) and (b)", "The answer is (a) or (b).", "Option B > Option A"])
def test_two_letters_are_two_things_in_small_letters_too(text):
    assert flexible(text, "ABCD", CITIES) is None


@pytest.mark.parametrize(
    "text", ["答えはAです", "정답은 A입니다", "答案是A选项", "คำตอบคือ A ครับ", "Ответ: A, потому что"]
)
def test_an_a_is_a_letter_where_no_word_is_written_so(text):
    assert flexible(text, "ABCD", CITIES) == "A"


def test_strict_takes_the_form_alone_and_never_another_letter():
    found = {text: strict(text, "ABCDE") for text, _ in PHRASINGS}
    assert found["ANSWER: C"] == found["ANSWER: $C$"] == found["ＡＮＳＷＥＲ：Ｃ"] == "C"
    assert found["C is the correct answer."] is found["ANSWER: C or D"] is found["ANSWER: F"] is None
    wrong = {text for text, letter in PHRASINGS if found[text] not in (letter, None)}
    assert not wrong


def test_the_last_line_of_the_form_counts():
    assert strict("ANSWER: A\nno\nANSWER: B\nmy reasons", "AB") == "B"
    assert strict("ANSWER: A\nANSWER: B, or C", "ABC") is None, "what says more takes back what is above"
    assert strict("ANSWER: A\n\nCorrection: ANSWER: C", "ABC") is None
    assert strict("ANSWER: C\n\nThe answer follows from the second law.", "ABC") == "C"


def test_the_phrasings_that_were_measured_first():
    path = SHARED / "tools/frameworks/chat_choice_phrasings.py"
    if not path.is_file():
        pytest.skip(f"{path} is absent (set TESTBENCH_SHARED)")
    given_there = runpy.run_path(str(path))
    wrong = [
        (text, letter, found)
        for text, letter in given_there["P"]
        if (found := flexible(text, "ABCD", given_there["O"])) != letter
    ]
    assert len(given_there["P"]) == 44 and not wrong


@pytest.mark.slow(minutes=0.5)
def test_recorded_answers_give_the_letters_that_lm_eval_finds(shared):
    """Of 36,096 answers to MMLU-Pro at most 15 give another letter: that of the last statement."""
    of_lm_eval = re.compile(r"answer is \(?([ABCDEFGHIJ])\)?")
    questions = {row["question_id"]: row for row in shared_rows("mmlu_pro/questions.jsonl.gz")}
    compared = others = refused = found_more = 0
    for model in ("Mistral-7B-v0.1", "Meta-Llama-3_1-8B-Instruct", "jamba-1.5-large"):
        for row in shared_rows(f"mmlu_pro/outputs_{model}.jsonl.gz"):
            options = questions[row["question_id"]]["options"]
            match = of_lm_eval.search(row["output"])
            found = flexible(row["output"], LETTERS[: len(options)], options)
            compared += 1
            if match is None:
                found_more += found is not None
            elif found is None:
                refused += 1
            else:
                others += found != match.group(1)
    assert compared == 36_096
    assert others <= 15
    assert refused <= 60, "several letters, names, Roman numbers"
    assert found_more >= 50


# --- hostile answers -------------------------------------------------------------------------------------

_SIZE = 1 << 20
_REPEATED = (
    "answer ", "the answer is ", "answer: ", "ANSWER: B x\n", "A or ", "answer is A or B ", "is ",
    "not ", " ", "\n", "(", "[", "<", "<think>", "</think>", "<a>", "\\boxed{", "\\text{", "*", "_",
    "#", "$ ", "A ", "A)\n", "so ", "therefore, the ", "choose ", "option is ",
    "A is the most likely ", "В ", "\u200b", "\u0301", "\ufdfa", "\0", "\ud800", "选", '"', "'",
    "ANSWER:\n", "answer: a copper wire ", "which is option ", "it's ", "> ",
    "\\boxed{A}", "{", "}", "✅ A\n", "A ✅\n", "(A) ", "Iodine (B) ", "~~", "=", "if ", "B is correct. ",
    "B would be correct if ", "-", "['A', ", "the answer that we get from this ", "答案", "A and ", "(A)(",
    "but ", "<|a|>", "'", "option A ", "is A; B, C, ",
)  # fmt: skip


@pytest.mark.parametrize("part", _REPEATED)
def test_a_megabyte_of_anything_is_read_quickly(part):
    text = part * (_SIZE // len(part))
    before = time.process_time()
    flexible(text, "ABCDE", OPTIONS)
    strict(text, "ABCDE")
    assert time.process_time() - before < 10  # of CPU time; at most 0.15 s, and by its square hours


def test_long_options_do_not_make_it_slow():
    options = [f"answer is {number} " * 5_000 for number in range(10)]
    before = time.process_time()
    flexible("the answer is " * 50_000, LETTERS[:10], options)
    assert time.process_time() - before < 4  # 0.05 s


def test_of_a_long_answer_beginning_and_end_are_read():
    filler = "words that say nothing. " * 100_000
    assert flexible(f"{filler}\nANSWER: C", "ABCDE", OPTIONS) == "C"
    assert flexible(f"The answer is C.\n{filler}", "ABCDE", OPTIONS) == "C"
    assert flexible(f"{filler}The answer is C.\n{filler}", "ABCDE", OPTIONS) is None
    assert len(filler) > 10 * (HEAD_CHARS + TAIL_CHARS)


_PARTS = st.sampled_from(
    [
        *"ABCDEXIab", "answer", "ANSWER:", "is", "the", "option", "not", "or", "and", "(", ")", "**",
        "\\boxed{", "}", "<think>", "</think>", "\n", " ", ".", ":", "a copper wire", "Iodine",
        "correct", "В", "Ａ", "选", "\u200b", "\ud800",
    ]
)  # fmt: skip
_TEXTS = st.text() | st.lists(_PARTS, max_size=40).map("".join) | st.lists(_PARTS, max_size=40).map(" ".join)


@given(text=_TEXTS, n=st.integers(2, 26), options=st.lists(st.text(max_size=30), min_size=26, max_size=26))
def test_whatever_is_answered_a_letter_of_an_option_or_none_is_found(text, n, options):
    letters = LETTERS[:n]
    for found in (strict(text, letters), flexible(text, letters, options[:n])):
        assert found is None or found in tuple(letters)


@given(before=_TEXTS, letter=st.sampled_from("ABCDE"))
@example(before="<think>", letter="C")
def test_the_form_on_the_last_line_decides_whatever_stands_before(before, letter):
    text = f"{before}</think>\nANSWER: {letter}"
    assert strict(text, "ABCDE") == flexible(text, "ABCDE", OPTIONS) == letter


@given(thought=_TEXTS.filter(lambda text: "</" not in text))
def test_an_unclosed_thought_says_nothing(thought):
    assert flexible(f"<think>{thought}", "ABCDE", OPTIONS) is None
