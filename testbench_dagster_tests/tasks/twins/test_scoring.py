"""What an answer says, by the form of the right one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.prompt import Answered
from testbench_dagster.tasks.twins.scoring import EXACT, FLEXIBLE, said, same, scored
from testbench_dagster_tests.tasks.layouts import SHARED, shared_rows

RIGHT = [
    ("18", "18"),
    ("She makes 9 * 2 = $18 every day.", "18"),
    ("#### 1,234", "1234"),
    ("There were 12 eggs.\n#### 18\nI hope this helps with all 3 questions.", "18"),
    ("The answer is **18.00**", "18"),
    ("\\boxed{18}", "18"),
    ("<think>maybe 17</think>It is 18.", "18"),
    ("18\n\nQuestion: How many are 2 and 3?\nAnswer: 5", "18"),
    ("It is −5 degrees", "-5"),
    ("about 18.721 tonnes", "18.721"),
    ("$1,000,000", "1000000"),
    ("The train arrives at 9:05.", "09:05"),
    ("It leaves at 16:35 and arrives at 17:35", "17:35"),
    ("That is 2034-02-26.", "2034-02-26"),
    ("Today is Monday, so it will be **Tuesday**.", "Tuesday"),
    ("Yes, Ivo is richer than Rosa.", "yes"),
    ("Ivo is richer than Rosa, so the answer is yes", "yes"),
    ("We cannot tell: unknown.", "unknown"),
    ("Answer: grape", "grape"),
    ("The answer is dim, because bright means light.", "dim"),
    ("The third letter is u", "u"),
    ("**pllow**", "pllow"),
]
WRONG = [
    ("", "18"),
    ("eighteen", "18"),
    ("180", "18"),
    ("18 and then 3 more make 21", "18"),
    ("It is 1.8", "18"),
    ("2034-02-27", "2034-02-26"),
    ("No, Ivo is poorer.", "yes"),
    ("I do not know.", "unknown"),
    ("Monday", "Tuesday"),
    ("grapefruit", "grape"),
    ("<think>it is 18", "18"),
    ("9" * 5_000, "18"),
]


@pytest.mark.parametrize(("text", "target"), RIGHT)
def test_right_answers_are_found(text: str, target: str) -> None:
    assert same(said(text, target), target), said(text, target)


@pytest.mark.parametrize(("text", "target"), WRONG)
def test_wrong_ones_are_none(text: str, target: str) -> None:
    assert not same(said(text, target), target), said(text, target)


def test_a_score_says_what_was_read() -> None:
    found = scored(Answered(7, [{"type": "generate_until"}], [["So it is $1,250."]], "1250"))
    assert (found.doc_id, found.metrics, found.extracted) == (7, {FLEXIBLE: {EXACT: 1.0}}, {FLEXIBLE: "1250"})
    assert scored(Answered(7, [{}], [[None]], "1250")).metrics == {FLEXIBLE: {EXACT: 0.0}}


@settings(deadline=None, max_examples=80)
@given(
    st.text(max_size=400), st.sampled_from(["18", "-0.5", "17:35", "2034-02-26", "yes", "Tuesday", "pllow"])
)
def test_whatever_is_answered_has_a_score(text: str, target: str) -> None:
    found = scored(Answered(0, [{}], [[text]], target))
    assert found.metrics[FLEXIBLE][EXACT] in (0.0, 1.0) and len(found.extracted[FLEXIBLE]) <= 20_000


def test_a_long_answer_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("1,1" * 400_000, "####" * 300_000, "answer is " * 100_000, "- $ " * 300_000, "9" * 10**6):
        for target in ("18", "yes", "Tuesday"):
            assert not same(said(text, target), target)


@pytest.mark.slow
def test_recorded_answers_to_gsm8k_are_judged_as_they_were() -> None:
    """Solutions of models with a verdict each; what differs is read by hand."""
    path = "gsm8k/openai_model_solutions.jsonl.gz"
    if not (SHARED / "data" / path).is_file():
        pytest.skip(f"{path} is absent (set TESTBENCH_SHARED)")
    n = differ = 0
    for row in shared_rows(path):
        target = row["ground_truth"].rsplit("A: ", 1)[1].strip().replace(",", "")
        for value in row.values():
            if isinstance(value, dict) and "is_correct" in value:
                n += 1
                differ += same(said(value["solution"], target), target) is not value["is_correct"]
    assert n > 1_000 and differ / n < 0.01, json.dumps([n, differ])
