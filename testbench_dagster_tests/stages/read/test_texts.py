"""Prompts and answers in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.task_flags import MetricFlags, TaskFlags
from testbench_dagster.stages.read.texts import (
    MAX_QUESTION_CHARS,
    answer_text,
    extracted_of,
    options_of,
    question_of,
    reasoning_text,
    target_of,
)
from testbench_dagster.transports.answers import Answer


def flags(output_type: str, *metrics: str) -> TaskFlags:
    return TaskFlags(
        output_type=output_type,
        features=[],
        multiple_input=False,
        multiple_target=False,
        repeats=1,
        num_fewshot=0,
        version="1",
        metrics={name: MetricFlags(aggregation="mean", higher_is_better=True) for name in metrics},
        filters=["none"],
    )


def choice(*options: str, context: str = "Which? ") -> list[dict[str, Any]]:
    return [
        {"type": "loglikelihood", "idx": i, "context": context, "continuation": f" {option}"}
        for i, option in enumerate(options)
    ]


def text(content: Any) -> list[dict[str, Any]]:
    return [{"type": "generate_until", "idx": 0, **content}]


@pytest.mark.parametrize(
    ("requests", "shots", "question"),
    [
        (text({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}), 2, "q"),
        (text({"messages": []}), 0, None),
        (text({"messages": [{"role": "user", "content": [{"type": "text"}]}]}), 0, '[{"type": "text"}]'),
        (text({"prompt": "one\n\ntwo\n\nthree"}), 2, "three"),
        (text({"prompt": "about\n\none\n\ntwo\n\nthree"}), 2, "three"),
        # a passage that has paragraphs itself: nobody knows where it begins
        (text({"prompt": "a\n\nb\n\nc\n\nd\n\ne"}), 2, "a\n\nb\n\nc\n\nd\n\ne"),
        (text({"prompt": "one\n\ntwo"}), 0, "one\n\ntwo"),
        (choice("a", "b"), 0, "Which? "),
        ([{"type": "get", "idx": 0, "path": "/pokt/height"}], 0, "GET /pokt/height"),
        ([{"type": "generate_until", "idx": 0}], 0, None),
        ([], 0, None),
    ],
)
def test_the_question_is_what_is_asked_last(requests: Any, shots: int, question: str | None) -> None:
    assert question_of(requests, shots) == question


def test_of_a_long_text_the_end_is_the_question() -> None:
    asked = question_of(text({"prompt": "x" * 5_000 + "end?"}), 0)
    assert asked is not None
    assert asked.startswith("…x")
    assert asked.endswith("end?")
    assert len(asked) == MAX_QUESTION_CHARS + 1


def test_options_are_what_differs() -> None:
    of_choice = flags("multiple_choice", "acc")
    assert options_of(choice("nickel", "grape"), of_choice) == ["nickel", "grape"]
    two = [
        {"type": "loglikelihood", "idx": i, "context": f"The dog saw {who}", "continuation": " and ran"}
        for i, who in enumerate(("Ann", "the cat"))
    ]
    assert options_of(two, of_choice) == ["Ann", "the cat"]
    twice = choice("a", "b") + choice("a", "b", context="")
    assert options_of(twice, flags("multiple_choice", "acc", "acc_mutual_info")) == ["a", "b"]
    assert options_of(choice("a", "b"), flags("loglikelihood")) == []
    assert options_of(choice("a"), of_choice) == []


@pytest.mark.parametrize(
    ("target", "options", "shown"),
    [
        (1, ["a", "b"], "b"),
        ("1", ["a", "b"], "b"),
        ("1", ["1", "2"], "1"),
        (7, ["a", "b"], "7"),
        (True, ["a", "b"], "true"),
        ([0, 1], ["a", "b"], "a | b"),
        (["x", "y"], [], "x | y"),
        ("34", [], "34"),
        ({"answer": "é"}, [], '{"answer": "é"}'),
        (None, [], None),
    ],
)
def test_targets_in_words(target: Any, options: list[str], shown: str | None) -> None:
    assert target_of(target, options) == shown


def test_the_chosen_option_is_what_was_extracted() -> None:
    assert extracted_of("1", ["a", "b"]) == "b"
    assert extracted_of("5", ["a", "b"]) == "5"
    assert extracted_of("1", []) == "1"
    assert extracted_of(None, ["a"]) is None


@given(st.text(), st.lists(st.text(), max_size=4))
def test_nothing_that_was_extracted_is_an_error(extracted: str, options: list[str]) -> None:
    assert isinstance(extracted_of(extracted, options), str)
    assert isinstance(target_of(extracted, options), str)


def test_answers_of_several_calls() -> None:
    requests = text({"prompt": "p"})
    one, two = Answer(Fault.OK, text="one", reasoning="hm"), Answer(Fault.OK, text="two")
    assert answer_text(requests, [], [(0, 0, one)]) == "one"
    assert answer_text(requests, [], [(0, 0, one), (0, 1, two)]) == "[1] one\n\n[2] two"
    assert reasoning_text([(0, 0, one), (0, 1, two)]) == "hm"
    assert reasoning_text([(0, 1, two)]) is None
    assert answer_text(requests, [], []) is None
    of_choice = choice("a", "b")
    likely = [(i, 0, Answer(Fault.OK, logprob=-0.5 * i - 0.25, greedy=not i)) for i in range(2)]
    assert answer_text(of_choice, ["a", "b"], likely) == "a: -0.2500\nb: -0.7500"
    assert answer_text(of_choice[:1], [], likely[:1]) == "a: -0.2500 (likeliest)"
    impossible = [(0, 0, Answer(Fault.OK, logprob=float("-inf")))]
    assert answer_text(of_choice, ["a", "b"], impossible) == "a: -inf"


def test_choices_on_chat_show_the_option_that_a_letter_stands_for() -> None:
    request = {"type": "generate_until", "messages": [], "options": ["Rome", "Paris"]}
    options = options_of([request], flags("generate_until", "letter_acc"))
    assert options == ["Rome", "Paris"]
    assert target_of("B", options) == "Paris" and target_of(["A", "B"], options) == "Rome | Paris"
    assert extracted_of("Paris", options) == "Paris"
    assert target_of("B", ["B", "A"]) == "B", "an option of that text is meant"
