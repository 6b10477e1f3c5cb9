"""Suggests templates for GSM8K: ``python -m testbench_dagster_tests.tasks.twins.make_templates [FILE]``.

A development tool. It reads the data set's worked solutions, whose steps are annotated ``<<2*3=6>>``, and
writes a line for each question whose every number it can place: a number of a step that equals one number of
the question varies with it, one that equals an earlier result is that result, others are constants of the
world (a week's days, a dozen). What could be two of these is left out, and told why on standard error. Every
suggestion is then read by a person: whether it is right for other numbers is not to be seen from one example.
With ``--show`` it prints question, suggestion and a few twins side by side for this reading.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from testbench_dagster.tasks.twins.sources.item import question_id
from testbench_dagster.tasks.twins.sources.numbers import NumberToken, number_tokens
from testbench_dagster.tasks.twins.sources.templates import Fitted, TemplateError, fit, read_template
from testbench_dagster_tests.tasks.layouts import SHARED

TEST_FILE = SHARED / "data" / "gsm8k" / "test.jsonl.gz"

ENOUGH_TWINS = 20

_STEP = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")
_LEAF = re.compile(r"\d+(?:\.\d+)?|\.\d+")

# Words whose number stands in no digits: a constant that equals a number of the question is ambiguous.
_SPOKEN = {
    "2": r"twice|doubl|half|halv|pair|couple|both|two|twin|again|round trip|second",
    "3": r"tripl|thrice|third|three",
    "4": r"quarter|quadrupl|four|square",
    "5": r"fifth|weekday|nickel",
    "6": r"sixth",
    "7": r"week|dail|every day|each day",
    "10": r"dime|tenth|decade",
    "12": r"dozen|year|annual|month|foot|feet|inch",
    "24": r"day|hour",
    "30": r"month|half an hour|half-hour",
    "52": r"year|week",
    "60": r"minute|hour|second",
    "100": r"percent|cent|dollar|century|meter",
    "1000": r"kilo|thousand|km|kg|liter",
}
_CONSTANTS = {Fraction(n) for n in (1, 2, 3, 4, 5, 7, 8, 10, 12, 16, 24, 25, 30, 52, 60, 100, 365, 1000)} | {
    Fraction(1, 2),
    Fraction(1, 4),
}


class Dropped(Exception):
    """Why there is no suggestion."""


# What makes a number part of something else: an ordinal, a fraction, a time, a range, a bank note.
_AFTER = re.compile(
    r"(st|nd|rd|th)\b|/\s?\d|:\d|-\d|\s*[ap]\.?m\b|'s\b|\s+bill"
    r"|[\s-](third|half|halves|quarter|fifth|fourth|sixth|eighth|tenth|seventh)|\s(hundred|thousand|million)",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"[\d:/#-]$")


def stays(token: NumberToken, text: str) -> bool:
    """Whether a number cannot vary alone, for it is 1 or a part of something else."""
    before = text[max(0, token.start - 4) : token.start]
    return bool(token.value <= 1 or _AFTER.match(text, token.end) or _BEFORE.search(before))


def said(number: str, text: str) -> bool:
    """Whether a word of the text stands for a number that a step may have from it, as "week" for 7."""
    words = _SPOKEN.get(number)
    signs = "|%|\\$" if number == "100" else ""
    return words is not None and re.search(rf"\b(?:{words}){signs}", text, re.I) is not None


@dataclass
class Suggestion:
    """What was found for a question."""

    numbers: dict[int, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    results: list[Fraction] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)

    def line(self) -> str:
        numbers = " ".join(f"{name}{place}" for place, name in self.numbers.items())
        return f"{numbers} | {', '.join(self.steps)}"


def suggest(question: str, answer: str) -> Suggestion:
    """A template's parts.

    Raises:
        Dropped: something is missing or ambiguous.
    """
    tokens = number_tokens(question)
    found = Suggestion()
    steps = _STEP.findall(answer)
    if not steps:
        raise Dropped("no annotated step")
    for left, right in steps:
        try:
            result = Fraction(right.replace(",", "").strip())
        except (ValueError, ZeroDivisionError):
            raise Dropped("result unreadable") from None
        if re.search(r"[^-\d.,+*/() ]", left):
            raise Dropped("step unreadable")
        found.steps.append(_step(left.replace(",", "").replace(" ", ""), question, tokens, found))
        found.results.append(result)
    gold = Fraction(answer.rpartition("####")[2].strip().replace(",", ""))
    if found.results[-1] != gold:
        raise Dropped("last step is not the answer")
    used = {f"s{n}" for n in range(1, len(found.steps))} - set(re.findall(r"s\d+", " ".join(found.steps)))
    if used:
        raise Dropped("a step is used by none")
    if not found.numbers:
        raise Dropped("no number varies")
    return found


def _step(left: str, question: str, tokens: list[NumberToken], found: Suggestion) -> str:
    return _LEAF.sub(lambda match: _leaf(match[0], question, tokens, found), left)


def _leaf(text: str, question: str, tokens: list[NumberToken], found: Suggestion) -> str:
    value = Fraction(text)
    earlier = [n for n, result in enumerate(found.results, 1) if result == value]
    plain = [p for p, token in enumerate(tokens) if token.value == value]
    percent = [
        p
        for p, token in enumerate(tokens)
        if token.value == value * 100 and re.match(r"\s*(%|percent)", question[token.end :])
    ]
    if len(earlier) + len(plain) + len(percent) > 1:
        raise Dropped("a value that could be two things")
    if earlier:
        if value > 2 and said(text, question):
            raise Dropped("a result or a constant")
        return f"s{earlier[0]}"
    if plain or percent:
        place = (plain or percent)[0]
        token = tokens[place]
        if stays(token, question):
            found.constants.append(f"{text} (stays)")
            return _plain(text)
        # its own word may be what was found
        around = question if not token.is_word else f"{question[: token.start]} {question[token.end :]}"
        if said(text, around):
            raise Dropped("a number or a constant")
        name = found.numbers.setdefault(place, "abcdefghijklmnopqrtuvwxyz"[len(found.numbers)])
        return f"({name}/100)" if percent else name
    if value not in _CONSTANTS:
        raise Dropped("a constant that nothing explains")
    found.constants.append(text)
    return _plain(text)


def _plain(number: str) -> str:
    """A number as formulas have it: with a digit before its point."""
    return f"0{number}" if number[0] == "." else number


def judged(question: str, answer: str) -> tuple[str, Fitted, Suggestion, int]:
    """A suggestion that reproduces the answer and has twins enough, with their number among 80 draws.

    Raises:
        Dropped: it does not, or has not.
    """
    suggestion = suggest(question, answer)
    try:
        fitted = fit(read_template(suggestion.line()), question)
    except TemplateError as error:
        raise Dropped("does not fit: " + str(error)[-60:]) from None
    if list(fitted.results) != suggestion.results:
        raise Dropped("steps compute something else")
    try:
        twins = len({fitted.draw(f"review{n}")[0] for n in range(80)})
    except TemplateError:
        raise Dropped("no twin found") from None
    if twins < ENOUGH_TWINS:
        raise Dropped("too few twins")
    return suggestion.line(), fitted, suggestion, twins


def shown(question: str, line: str, fitted: Fitted, suggestion: Suggestion) -> str:
    """Question with its numbers named, the suggestion, and the numbers of a twin."""
    parts, last = [], 0
    for place, token in enumerate(number_tokens(question)):
        name = suggestion.numbers.get(place)
        parts += [question[last : token.start], f"[{name}={token.written}]" if name else f"<{token.written}>"]
        last = token.end
    text = " ".join("".join((*parts, question[last:])).split())
    values = " ".join(str(result) for result in fitted.results)
    twin, answer = fitted.draw("show")
    numbers = " ".join(token.written for token in number_tokens(twin))
    constants = f"  const {','.join(suggestion.constants)}" if suggestion.constants else ""
    return f"{text}\n  {line}  = {values}{constants}\n  twin {numbers} -> {answer}"


def main() -> None:
    """Prints suggestions, and on standard error how many questions were left out for which reason."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, default=TEST_FILE)
    parser.add_argument("--show", action="store_true", help="question and twins as well")
    options = parser.parse_args()
    reasons: Counter[str] = Counter()
    with gzip.open(options.file, "rt", encoding="utf-8") as rows:
        for row in map(json.loads, rows):
            try:
                line, fitted, suggestion, _ = judged(row["question"], row["answer"])
            except Dropped as dropped:
                reasons[str(dropped)] += 1
                continue
            reasons["suggested"] += 1
            name = question_id(row["question"])
            if options.show:
                print(f"{name} {shown(row['question'], line, fitted, suggestion)}\n")
            else:
                print(f"{name}: {line}")
    for reason, count in reasons.most_common():
        print(f"{count:5} {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
