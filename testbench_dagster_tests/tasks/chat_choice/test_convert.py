"""From a doc's text, choices and target to a question, or the reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.tasks.chat_choice.convert import (
    LETTERS,
    Question,
    Refused,
    question_of,
    speaks_of_others,
)
from testbench_dagster.tasks.chat_choice.definition import task_refusal
from testbench_dagster.tasks.chat_choice.prompt import asked
from testbench_dagster.tasks.chat_choice.shuffle import shuffled
from testbench_dagster_tests.tasks.layouts import shared_rows

PETS = ("a cat", "a dog", "a fish")


def made(text: Any, choices, target, continuation=None) -> Question:
    found = question_of(text, choices, target, continuation)
    assert isinstance(found, Question), found
    return found


# --- forms of templates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "labels"),
    [
        ("A. a cat\nB. a dog\nC. a fish", "ABC"),
        ("A: a cat\nB: a dog\n C: a fish", "ABC"),
        ("(A) a cat\n(B) a dog\n(C) a fish", ("(A)", "(B)", "(C)")),
        ("a) a cat\nb) a dog\nc) a fish", "abc"),
        ("1. a cat\n2. a dog\n3. a fish", "123"),
        ("Option A: a cat\nOption B: a dog\nOption C: a fish", "ABC"),
        ("А. a cat\nБ. a dog\nВ. a fish", "АБВ"),
        ("Α. a cat\nΒ. a dog\nΓ. a fish", "ΑΒΓ"),
        ("أ. a cat\nب. a dog\nج. a fish", "أبج"),
        ("A．a cat\nB．a dog\nC．a fish", "ABC"),
        ("A. a cat\n\nB. a dog\n\nC. a fish", "ABC"),
    ],
)
@pytest.mark.parametrize("cue", ["", "\nAnswer:", "\n答案：", "\nRespuesta:", "\n\nAnswer: "])
@pytest.mark.parametrize("head", ["", "\nChoices:", "\nOptions:"])
def test_lettered_lines_are_cut(listed, labels, head, cue):
    found = made(f"Which pet barks?{head}\n{listed}{cue}", list(labels), 1)
    assert found == Question("Which pet barks?", PETS, (1,))


def test_lines_are_cut_where_the_choices_are_the_texts_themselves():
    text = "Which pet barks?\nA. a cat\nB. a dog\nC. a fish\nAnswer:"
    assert made(text, PETS, 1) == Question("Which pet barks?", PETS, (1,))
    bullets = "Which pet barks?\nOptions:\n- a fish\n- a cat\n- a dog\nAnswer:"
    assert made(bullets, PETS, "a dog") == Question("Which pet barks?", PETS, (1,))


def test_an_option_of_several_lines_stays_whole():
    text = "What prints 1?\nA. def f():\n    print(1)\nB. def f():\n    return 1\nAnswer:"
    found = made(text, ["A", "B"], 0)
    assert found.options == ("def f():\n    print(1)", "def f():\n    return 1")


def test_only_the_last_list_is_that_of_the_options():
    text = "A. is a letter.\nB. is one too.\nWhich is a vowel?\nA. this\nB. that\nC. none\nAnswer:"
    found = made(text, list("ABC"), 0)
    assert found.text == "A. is a letter.\nB. is one too.\nWhich is a vowel?"
    assert found.options == ("this", "that", "none")


def test_a_text_may_list_fewer_or_more_than_the_task_knows():
    fewer = "Q?\nA. x\nB. y\nC. z\nAnswer:"
    assert made(fewer, list("ABCDE"), 2).options == ("x", "y", "z")
    assert question_of(fewer, list("ABCDE"), 4) is Refused.NO_RIGHT_OPTION
    more = "Q?\nA. x\nB. y\nC. z\nAnswer:"
    assert made(more, ["A", "B"], 0).options == ("x", "y")


def test_a_text_may_label_otherwise_than_the_task_knows():
    text = "Which barks?\n1: a cat\n2: a dog\n3: a fish\nChoose one of them:"
    found = made(text, list("ABC"), "B")
    assert found == Question("Which barks?\n\nChoose one of them:", PETS, (1,))
    statements = "1. Cats bark.\n2. Dogs bark.\nWhich is true? (A) the first (B) the second\nAnswer:"
    assert made(statements, ["(A)", "(B)"], 1).as_is


def test_examples_in_the_text_are_no_options():
    text = "Q: How many legs has a cat?\nA: Four.\n\nQ: Which pet barks?\nA:"
    assert made(text, PETS, 1).text == "Q: How many legs has a cat?\nA: Four.\n\nQ: Which pet barks?"


def test_a_line_that_says_what_is_asked_is_kept():
    assert made("He slept.\nAnswer: all day\nPlausible:", ["no", "yes"], 1).text.endswith("Plausible:")


def test_letters_without_lines_are_asked_as_they_are():
    found = made("Which barks? A: a cat B: a dog\nAnswer:", ["A", "B"], "B")
    assert found == Question("Which barks? A: a cat B: a dog", ("A", "B"), (1,), ordered=True, as_is=True)
    shown = asked(found, "seed", 0)
    assert shown.right == ("B",) and "A)" not in shown.text and "A, B" in shown.text


def test_one_text_per_option_with_a_common_ending():
    found = made(1, ["The cup", "The box"], 1, continuation="is full.")
    assert found == Question("", ("The cup is full.", "The box is full."), (1,))
    assert made(0, ["He saw Tom", "He saw Tim"], 0, continuation=".").options[0] == "He saw Tom."


@pytest.mark.parametrize("target", [1, "1", "a dog", " a dog", [1], ["a dog"], "B", "(B)"])
def test_the_right_option_by_number_text_or_label(target):
    text = "Which pet barks?\nA. a cat\nB. a dog\nC. a fish\nAnswer:"
    given = int(target) if target == "1" else target  # as lm-eval turns digits into numbers
    assert made(text, PETS, given).right == (1,)


def test_several_right_options():
    assert made("Which has fur?", PETS, [1, 0]).right == (0, 1)
    shown = asked(made("Which has fur?", PETS, [0, 1]), "seed", 3)
    assert {shown.options["ABC".index(letter)] for letter in shown.right} == {"a cat", "a dog"}


# --- order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option",
    [
        "All of the above", "none of the above.", "None of these", "both A and B", "A and C only",
        "A, B, and C", "Both", "All of the options given are correct", "(A) and (C)",
        "either A or B", "all the above", "Option B", "None",
        "The above are all true; all of the above are correct", "Todas las anteriores",
        "以上都对", "Keine der genannten",
    ],
)  # fmt: skip
def test_an_option_that_speaks_of_others_keeps_the_order(option):
    found = made("Which?", ["a cat", "a dog", "a fish", option], 3)
    assert found.ordered
    assert asked(found, "any seed", 1).options == ("a cat", "a dog", "a fish", option)


@pytest.mark.parametrize(
    "option",
    ["I and II", "all of the sailors", "vitamin A", "some of the water", "both parents", "any other planet",
     "X and Y", "A monoclonal antibody", "most of these birds fly", "Both of the interventions"],
)  # fmt: skip
def test_other_options_do_not(option):
    assert not speaks_of_others(option, 4)


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "target", "reason"),
    [
        (["a cat"], 0, Refused.FEW_OPTIONS),
        ([f"pet {n}" for n in range(27)], 0, Refused.MANY_OPTIONS),
        (["a cat", " "], 0, Refused.EMPTY_OPTION),
        (["a cat", "a  cat", "a dog"], 2, Refused.EQUAL_OPTIONS),
        (["A", "~A", "B", "~B"], 0, Refused.LETTER_OPTIONS),
        (PETS, 3, Refused.NO_RIGHT_OPTION),
        (PETS, -1, Refused.NO_RIGHT_OPTION),
        (PETS, "a bird", Refused.NO_RIGHT_OPTION),
        (PETS, None, Refused.NO_RIGHT_OPTION),
        (PETS, [], Refused.NO_RIGHT_OPTION),
        (PETS, [0, 1, 2], Refused.ALL_RIGHT),
        (["A", "B", "C"], 1, Refused.NO_OPTIONS),
    ],
)
def test_a_doc_is_refused_with_a_reason(choices, target, reason):
    assert question_of("Which pet barks?", choices, target) is reason


def test_options_that_name_others_by_figures_are_refused():
    text = "Which bark?\n1. cats\n2. dogs\n3. both 1 and 2\nAnswer:"
    assert question_of(text, list("123"), 1) is Refused.NAMED_LABELS


def _metrics(*names: str) -> dict[str, Any]:
    return {"output_type": "multiple_choice", "metric_list": [{"metric": name} for name in names]}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (_metrics("acc", "f1"), None),
        (_metrics("acc_norm"), None),
        ({"output_type": "multiple_choice"}, None),
        ({**_metrics("acc"), "process_results": "own"}, None),
        (_metrics("mcc"), "its metric is not accuracy (mcc)"),
        ({**_metrics("acc", "bias"), "process_results": "own"}, "its metric is not accuracy alone (bias)"),
        ({"output_type": "generate_until"}, "its output_type is generate_until, not multiple_choice"),
        ({}, "its output_type is generate_until, not multiple_choice"),
        ({**_metrics("acc"), "doc_to_choice": None}, "it has no doc_to_choice"),
    ],
)
def test_a_task_is_refused_by_its_definition(config, reason):
    assert task_refusal({"doc_to_choice": ["a", "b"], **config}) == reason


_OPTIONS = st.lists(st.text(max_size=20), max_size=30)


@given(
    text=st.text() | st.integers(),
    choices=_OPTIONS,
    target=st.integers(-2, 30) | st.text(max_size=5) | st.none(),
)
def test_whatever_a_doc_holds_it_is_a_sound_question_or_refused(text, choices, target):
    found = question_of(text, choices, target)
    if isinstance(found, Question):
        assert 2 <= len(found.options) <= 26 and all(found.options)
        assert found.right and all(0 <= number < len(found.options) for number in found.right)


@given(
    options=st.lists(
        st.sampled_from([f"option {n}" for n in range(60)]), min_size=2, max_size=26, unique=True
    ),
    data=st.data(),
)
def test_cutting_gives_back_what_a_template_listed(options, data):
    right = data.draw(st.integers(0, len(options) - 1))
    letters = LETTERS[: len(options)]
    listed = "".join(f"\n{letter}. {option}" for letter, option in zip(letters, options, strict=True))
    assert made(f"Which?{listed}\nAnswer:", list(letters), right) == Question(
        "Which?", tuple(options), (right,)
    )


# --- real data -------------------------------------------------------------------------------------------


def _real() -> Iterator[tuple[str, Any, list[str], int, str | None, list[str] | None]]:
    """Set, text, choices, gold and ending of each doc, as lm-eval's templates make them; its options."""

    def lettered(options: list[str]) -> str:
        return (
            "".join(f"\n{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))
            + "\nAnswer:"
        )

    for row in shared_rows("mmlu/test.jsonl.gz"):
        options = row["choices"]
        yield "mmlu", row["question"].strip() + lettered(options), list("ABCD"), row["answer"], None, options
    for row in shared_rows("mmlu_pro/questions.jsonl.gz"):
        options = row["options"]
        letters = list(LETTERS[: len(options)])
        yield (
            "mmlu_pro",
            row["question"].strip() + lettered(options),
            letters,
            row["answer_index"],
            None,
            options,
        )
    for name in ("arc_challenge", "arc_easy", "boolq", "commonsense_qa", "copa", "openbook_qa", "piqa"):
        for row in shared_rows(f"mc_datasets/{name}.jsonl.gz"):
            yield name, row["query"], row["choices"], row["gold"], None, None
    for row in shared_rows("mc_datasets/winogrande.jsonl.gz"):
        yield "winogrande", row["gold"], row["context_options"], 0, row["continuation"], None


#: Chi-squared below which 99.9 % of even draws stay, by degrees of freedom.
_EVEN = {1: 10.8, 2: 13.8, 3: 16.3, 4: 18.5, 5: 20.5, 6: 22.5, 7: 24.3, 8: 26.1, 9: 27.9}


@pytest.mark.slow
def test_real_data_convert_and_the_right_letters_are_even(shared):
    refused: Counter[Refused] = Counter()
    kept: Counter[str] = Counter()
    places: dict[tuple[str, int], Counter[int]] = {}
    total = 0
    for number, (name, text, choices, gold, ending, options) in enumerate(_real()):
        total += 1
        found = question_of(text, choices, gold, ending)
        if isinstance(found, Refused):
            refused[found] += 1
            continue
        assert not found.as_is
        assert options is None or found.options == tuple(option.strip() for option in options)
        if found.ordered:
            kept[name] += 1
        else:
            place = shuffled("an epoch", number, len(found.options)).index(found.right[0])
            places.setdefault((name, len(found.options)), Counter())[place] += 1
    assert (total, sum(refused.values())) == (37_818, 35)
    assert refused == {Refused.EQUAL_OPTIONS: 33, Refused.LETTER_OPTIONS: 2}
    assert 600 <= kept["mmlu"] <= 720 and 150 <= kept["mmlu_pro"] <= 250
    assert kept.total() - kept["mmlu"] - kept["mmlu_pro"] <= 30
    for (name, n), counts in places.items():
        if counts.total() >= 20 * n:
            mean = counts.total() / n
            chi2 = sum((counts[place] - mean) ** 2 / mean for place in range(n))
            assert chi2 < _EVEN[n - 1], (name, n, counts)
