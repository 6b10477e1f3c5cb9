"""Reading and comparing answers: nothing of the package is needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.tasks.fresh.answers import final_answer, is_equal, may_be_right, normal


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("<answer>5</answer>", "5"),
        ("First <answer>4</answer>, no: <answer> 5 </answer>. Done.", "5"),
        ("<ANSWER>Five</ANSWER>", "Five"),
        ("<think>is it <answer>4</answer>?</think> <answer>5</answer>", "5"),
        ("<answer>5</answer> <think>or <answer>6</answer>", "5"),
        ("so <answer>4</answer></think><answer>5</answer>", "5"),
        ("<answer>a <answer>b</answer>", "b"),
        ("<answer>5", None),
        ("5</answer>", None),
        ("</answer>5<answer>", None),
        ("5", None),
        ("", None),
        ("<answer></answer>", ""),
        ("<think><answer>5</answer>", None),
        ("İ" * 9 + "<answer>5</answer>", "5"),
    ],
)
def test_the_last_pair_counts(reply: str, found: str | None) -> None:
    assert final_answer(reply) == found


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5", " 5. "),
        ("Yes", "**yes**"),
        ("-3", "−3"),
        ("$\\frac{1}{2}$", "\\(\\frac{1}{2}\\)"),
        ("12", "\\boxed{12}"),
        ("THE GOOD", '"the  good"'),
        ("a, b", "a,\nb"),
        ("５", "5"),
    ],
)
def test_writings_of_the_same(one: str, other: str) -> None:
    assert is_equal(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("5", "5.0"), ("5", "-5"), ("5", "55"), ("5", ""), ("a b", "ab"), ("1,2", "12")]
)
def test_what_is_not_the_same(one: str, other: str) -> None:
    assert not is_equal(one, other)


@pytest.mark.parametrize(
    ("generator", "found", "answer", "may"),
    [
        ("coin_flip", "0", "0.375", False),
        ("coin_flip", "0.3", "0.375", False),
        ("coin_flip", "0.3752", "0.375", False),
        ("coin_flip", "0.37501", "0.375", True),
        ("coin_flip", "3/8", "0.375", True),
        ("coin_flip", "0", "0.00006103515625", False),
        ("coin_flip", "1/16384", "0.00006103515625", True),
        ("coin_flip", "1e999999999", "0.375", False),
        ("coin_flip", "1/0", "0.375", False),
        ("coin_flip", "nan", "0.375", False),
        ("coin_flip", "probably 3/8", "0.375", False),
        ("word_sorting", "a, b", "a, b", True),
        ("word_sorting", "a, b, c", "a, b", False),
        ("knights_knaves", "Ann is a fool and Bo is a sage", "Ann is a fool, and Bo is a sage.", True),
        ("knights_knaves", "Ann is a fool, Bo is a sage or not", "Ann is a fool, and Bo is a sage.", False),
        ("time_intervals", "56", "56 days", True),
        ("time_intervals", "1 day", "1 days", True),
        ("time_intervals", "17 days, 11:44:0", "17 days, 11:44:00", True),
        ("time_intervals", "+05:19:58.25", "05:19:58.250", True),
        ("time_intervals", "56 or 57 days", "56 days", False),
        ("time_intervals", "17 days, 11:44, or 12:00", "17 days, 11:44", False),
        ("fraction_simplification", "1/2", "$1/2$", True),
        ("fraction_simplification", "$\\dfrac{1}{2}$", "\\frac{1}{2}", True),
        ("fraction_simplification", "\\frac{1}{2} or \\frac{1}{3}", "\\frac{1}{2}", False),
        ("chain_sum", "nan", "5", False),
        ("chain_sum", "-Infinity", "5", False),
        ("chain_sum", "sNaN123", "5", False),
        ("chain_sum", "5.0", "5", True),
    ],
)
def test_checks_that_are_too_kind_do_not_decide_alone(generator, found, answer, may) -> None:
    assert may_be_right(generator, found, answer) is may


@given(st.text(max_size=300), st.text(max_size=60))
def test_no_text_breaks_it(reply: str, answer: str) -> None:
    found = final_answer(f"{reply}<answer>{answer}</answer>{reply}")
    assert found is None or isinstance(found, str)
    assert normal(normal(answer)) is not None
    assert is_equal(answer, answer)
    assert may_be_right("coin_flip", answer, "0.5") in (True, False)


@given(st.text("<>/answer think", max_size=200))
def test_tags_in_any_order(reply: str) -> None:
    found = final_answer(reply)
    assert found is None or "</answer>" not in found.lower()


def test_long_replies_are_read_at_once() -> None:
    hostile = "<answer>" * 200_000 + "<think>" * 100_000 + "</answer>" * 200_000
    assert final_answer(hostile) is None or len(final_answer(hostile)) < 30_000
