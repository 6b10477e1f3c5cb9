"""What an answer says, and whether that is right: the last number, time or date, or the last words.

The same for both halves of a pair, and for whatever kind of question: by the form of the right answer alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from testbench_dagster.core.extracted import bounded_extract
from testbench_dagster.core.prompt import Answered, DocScore
from testbench_dagster.tasks.chat_choice.writing import read

#: The metric, and the only way to read an answer.
EXACT, FLEXIBLE = "exact", "flexible"
#: What a model without a stop string goes on with: the next question of its own making.
_NEXT = re.compile(r"^\s*Question:", re.MULTILINE)
_DATE = re.compile(r"(?<!\d)\d{4}-\d{2}-\d{2}(?!\d)")
_TIME = re.compile(r"(?<![\d:])(\d{1,2}:\d{2})(?![\d:])")
_NUMBER = re.compile(
    r"(?<![\w.])[-−]?\s?\$?\s?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?!\w)|(?<![\w.])[-−]?(\.\d+)(?!\w)"
)
_DIGITS = re.compile(r"[-−]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
#: Most digits of a number that is compared as one.
_MOST_DIGITS = 60
_VERDICTS = ("yes", "no", "unknown")
_SAID = re.compile(r"(?:####|\\boxed\{|\banswer(?:\s+is)?\s*[:=]?)\s*", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def scored(answer: Answered) -> DocScore:
    """The score of one answer by its prompt's target."""
    text = answer.responses[0][0]
    found = said(text if isinstance(text, str) else "", str(answer.target))
    right = same(found, str(answer.target))
    return DocScore(
        answer.doc_id, {FLEXIBLE: {EXACT: float(right)}}, extracted={FLEXIBLE: bounded_extract(found)}
    )


def said(text: str, target: str) -> str:
    """What an answer says where one of the form of ``target`` is wanted; empty for nothing of it.

    Thoughts before it, and questions that it goes on with, are none of it.
    """
    text = unicodedata.normalize("NFKC", read(text))
    text = text[: next((found.start() for found in _NEXT.finditer(text)), len(text))]
    return _reader(target)(text, target)


def same(found: str, target: str) -> bool:
    """Whether what was said is the right answer: numbers by value, words whatever their case."""
    if not found:
        return False
    ours, theirs = _number(found), _number(target)
    if ours is not None and theirs is not None:
        return ours == theirs
    return _words(found) == _words(target)


def _reader(target: str) -> Callable[[str, str], str]:
    if _DATE.fullmatch(target):
        return _last_date
    if _TIME.fullmatch(target):
        return _last_time
    if _number(target) is not None:
        return _last_number
    return _verdict if target.casefold() in _VERDICTS else _last_words


def _last_date(text: str, target: str) -> str:
    found = _DATE.findall(text)
    return found[-1] if found else ""


def _last_time(text: str, target: str) -> str:
    found = _TIME.findall(text)
    return str(found[-1]).zfill(5) if found else ""


def _last_number(text: str, target: str) -> str:
    after = _after_mark(text, "####")
    numbers = [found.group() for found in _NUMBER.finditer(after)] or _DIGITS.findall(after)
    return re.sub(r"[\s$,]", "", numbers[-1]).replace("−", "-") if numbers else ""


def _after_mark(text: str, mark: str) -> str:
    """What follows the last mark of a final answer, as GSM8K's own solutions have it; else all."""
    at = text.rfind(mark)
    line = text[at + len(mark) :].strip().split("\n", 1)[0] if at >= 0 else ""
    return line if _DIGITS.search(line) else text


def _verdict(text: str, target: str) -> str:
    words = [word for word in _words(text) if word in _VERDICTS]
    first = _words(text[:200])[:1]
    if not words:
        return ""
    marked = [word for word in _words(_last_said(text))[:3] if word in _VERDICTS]
    if marked:
        return marked[0]
    return first[0] if first and first[0] in _VERDICTS else words[-1]


def _last_words(text: str, target: str) -> str:
    """As many words as the right answer has: after a mark of the answer, else the last ones."""
    n = len(_words(target))
    marked = [found.group() for found in _WORD.finditer(_last_said(text))]
    if marked and marked[0].casefold() in {"is", "the", "a", "an"}:
        marked = marked[1:]
    words = [found.group() for found in _WORD.finditer(text)]
    return " ".join(marked[:n] if len(marked) >= n else words[-n:])


def _last_said(text: str) -> str:
    """What follows the last words that announce an answer; empty where none does."""
    at = max((found.end() for found in _SAID.finditer(text)), default=None)
    return "" if at is None else text[at : at + 400]


def _words(text: str) -> list[str]:
    return [found.group().casefold() for found in _WORD.finditer(text)]


def _number(text: str) -> Decimal | None:
    """A number as it is written in an answer; None for what is none, or endless."""
    plain = text.replace(",", "").replace("−", "-").replace("$", "").strip()
    if len(plain) > _MOST_DIGITS or not _DIGITS.fullmatch(plain):
        return None
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None
