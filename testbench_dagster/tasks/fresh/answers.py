"""Reads the final answer out of a reply, and compares it with an item's without any code of others."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from testbench_dagster.tasks.chat_choice.writing import read

#: How a reply has to end; stands behind each question.
INSTRUCTION = (
    "End your reply with the final answer alone between <answer> and </answer>, without any explanation "
    "inside, in the form that the question asks for."
)
#: Characters of an answer; a longer one is wrong. The longest of an item's own has a third of them.
MOST_CHARS = 1_000
_OPEN, _CLOSE = "<answer>", "</answer>"
_SPACE = re.compile(r"\s+")
#: Pairs that may stand around an answer and say nothing.
_AROUND = (("**", "**"), ("`", "`"), ("$", "$"), ('"', '"'), ("'", "'"), ("\\(", "\\)"), ("\\boxed{", "}"))
_SIGNS = str.maketrans(
    {"\u2212": "-", "\u2010": "-", "\u2011": "-", "\u00ad": None, "\u200b": None, "\ufeff": None}
)
#: Values of floating point that compare oddly: never an answer.
_NO_NUMBER = re.compile(r"[-+]?(?:s?nan\d*|inf(?:inity)?)")
#: Decimal numbers and fractions that Fraction reads in no time.
_NUMBER = re.compile(r"[-+]?\d{0,40}(?:\.\d{0,40}|/\d{1,40})?", re.ASCII)
_WORD = re.compile(r"\w+")
_CLOCK = r"\d{1,3}:\d{1,2}(?::\d{1,2}(?:\.\d{1,6})?)?"
#: What an answer that their check takes for right has to be as a whole.
_FORMS = {
    "time_intervals": re.compile(rf"\+?\d{{1,7}}(?: days?)?(?:, ?{_CLOCK})?|\+?{_CLOCK}", re.ASCII),
    "fraction_simplification": re.compile(
        r"\\d?frac ?\{ ?\d{1,30} ?\} ?\{ ?\d{1,30} ?\}|\d{1,30} ?/ ?\d{1,30}", re.ASCII
    ),
}
#: The check of coin_flip lets an error of this much pass, however small the probability is; of it no more
#: than a hundredth may be wrong besides.
_COIN_ERROR, _COIN_SHARE = Fraction(1, 10_000), Fraction(1, 100)


def final_answer(reply: str) -> str | None:
    """What stands in the last ``<answer>`` pair of a reply, thoughts removed; None without a pair."""
    text = read(reply)
    lowered = text.lower()
    if len(lowered) != len(text):  # of a letter that is two in lower case: places would shift
        lowered = text
    end = lowered.rfind(_CLOSE)
    start = lowered.rfind(_OPEN, 0, end) if end >= 0 else -1
    return None if start < 0 else text[start + len(_OPEN) : end].strip()


def normal(text: str) -> str:
    """One writing of an answer: widths, capitals, white space, what stands around it, a final full stop."""
    text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).casefold()
    text = _SPACE.sub(" ", text).strip()
    for _ in range(3):
        text = text.removesuffix(".").strip()
        for left, right in _AROUND:
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                text = text[len(left) : -len(right)].strip()
    return text


def is_equal(found: str, answer: str) -> bool:
    """Whether an answer is the item's own in another writing."""
    return normal(found) == normal(answer)


def may_be_right(generator: str, found: str, answer: str) -> bool:
    """Whether an answer that the generator's check takes for right can be; some of them are too kind.

    That of coin_flip takes the beginning of the right number, so that "0" is right everywhere; that of
    word_sorting any words after the right ones; those of knights_knaves, time_intervals and
    fraction_simplification what they look for beside anything else ("… or not").
    """
    said = normal(found)
    if _NO_NUMBER.fullmatch(said):
        return False
    if generator == "coin_flip":
        given, right = _number(said), _number(normal(answer))
        if given is None or right is None:
            return False
        return abs(given - right) <= min(_COIN_ERROR, _COIN_SHARE * right)
    if generator == "word_sorting":
        return found.count(",") == answer.count(",")
    if generator == "knights_knaves":
        return set(_WORD.findall(said)) <= {*_WORD.findall(normal(answer)), "a", "an", "and", "is"}
    form = _FORMS.get(generator)
    return form is None or form.fullmatch(said) is not None


def _number(text: str) -> Fraction | None:
    text = text.replace(",", "").replace(" ", "")
    if _NUMBER.fullmatch(text) is None:
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
