"""Public questions that come with the package, the starter catalog's, and fresh questions of the same makers.

A question of the catalog is one draw of a maker, and a twin is another draw of it with the same shape:
difficulty, numbers of digits, lengths of words. Question and twin are therefore exchangeable for whoever has
not seen the catalog. Of multiple choice the twin is the same question with its options in another order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from testbench_dagster.tasks.starter import CHOICE_TASK
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.tasks.starter.questions import Draft, Maker, arithmetic, dates, logic, strings, units
from testbench_dagster.tasks.twins.sources.drawing import HashRandom
from testbench_dagster.tasks.twins.sources.item import Item

OPTION_ORDER = "option_order"

# The sort of question and the makers of each task. Reading and instructions are left out: in a passage little
# but names is fresh, and an instruction has no single right answer.
_TASKS: Mapping[str, tuple[str, tuple[Maker, ...]]] = {
    "starter_arithmetic": ("arithmetic", arithmetic.KINDS),
    "starter_calendar": ("dates", dates.KINDS),
    "starter_units": ("units", units.KINDS),
    "starter_strings": ("strings", strings.KINDS),
    "starter_logic": ("logic", logic.KINDS),
}
# Little stories, which stand in the catalog's files of sums and of units.
_WORD_PROBLEMS = frozenset({"change", "stamps", "rope"})

# Most draws have another shape; a question whose shape is rarer than this is not offered (a test draws all).
_MAX_DRAWS = 20_000
# Lengths of phrases of several words that count as one, in letters.
_LENGTH_STEP = 3

# Makers and questions of which a shape leaves fewer than 20 twins (a test draws them), so that the same ones
# would come again and again: few glasses, speeds and words, "What is 5% of 40?".
_NARROW = frozenset({"jugs", "ride", "reverse", "sorted_letters"})
_NARROW_ITEMS = frozenset({"arithmetic-test-0098", "units-test-0069", "strings-test-0046"})

_DIGITS = re.compile(r"\d+")
_ONE_WORD = frozenset({"without_letter", "nth_letter"})


def _digit_lengths(text: str) -> tuple[int, ...]:
    return tuple(len(digits) for digits in _DIGITS.findall(text))


def _shape_of_numbers(draft: Draft) -> tuple[object, ...]:
    return draft.level, _digit_lengths(draft.question), _digit_lengths(draft.answer)


def _shape_of_strings(draft: Draft) -> tuple[object, ...]:
    length = len(draft.question)
    if draft.kind not in _ONE_WORD:
        return len(draft.question.split()), length // _LENGTH_STEP
    return len(draft.question.split()), length


def _shape_of_logic(draft: Draft) -> tuple[object, ...]:
    # not the verdict: a remembered answer would be right for the twin too
    return draft.level, draft.question.count(".")


_SHAPES: Mapping[str, Callable[[Draft], tuple[object, ...]]] = {
    "starter_strings": _shape_of_strings,
    "starter_logic": _shape_of_logic,
}


@cache
def _public() -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    """The catalog's test questions that have twins enough, by id, with their task."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for task in (*_TASKS, CHOICE_TASK):
        for doc in read_docs(task, "test"):
            if doc["kind"] not in _NARROW and doc["id"] not in _NARROW_ITEMS:
                found[doc["id"]] = (task, doc)
    return found


@cache
def _taken() -> frozenset[str]:
    """Questions that anybody can read in the catalog, those of its train splits too."""
    return frozenset(doc["question"] for task in (*_TASKS, CHOICE_TASK) for doc in read_docs(task))


@cache
def _makers() -> Mapping[tuple[str, str], Maker]:
    """The maker of each task's kind."""
    return {
        (task, maker(HashRandom(f"kind of {maker.__name__}")).kind): maker
        for task, (_, makers) in _TASKS.items()
        for maker in makers
    }


def _item(task: str, doc: Mapping[str, Any], question: str, answer: str) -> Item:
    if task == CHOICE_TASK:
        kind = OPTION_ORDER
    else:
        kind = "word_problems" if doc["kind"] in _WORD_PROBLEMS else _TASKS[task][0]
    return Item(doc["id"], question, answer, f"{task}:{doc['kind']}", kind)


@cache
def packaged_items() -> Sequence[Item]:
    """The public questions that come with the package, in the order of their files.

    Kinds: ``arithmetic``, ``word_problems``, ``dates``, ``units``, ``strings``, ``logic`` and
    ``option_order``.
    """
    return tuple(_item(task, doc, doc["question"], doc["answer"]) for task, doc in _public().values())


def _as_draft(doc: Mapping[str, Any]) -> Draft:
    return Draft(doc["kind"], doc["level"], doc["question"], doc["answer"], ())


def _reordered(doc: Mapping[str, Any], rng: HashRandom) -> str:
    """The question with its options in another order."""
    options: list[str] = list(doc["choices"])
    while options == doc["choices"]:
        rng.shuffle(options)
    stem: str = doc["question"][: -len(_options(doc["choices"]))]
    return stem + _options(options)


def _options(options: Sequence[str]) -> str:
    return f"{', '.join(options[:-1])} or {options[-1]}?"


def packaged_twin(item_id: str, seed: str) -> Item:
    """A fresh variant of a public question, drawn by SHA-256 of ``seed`` and the question's id.

    It has the same id, kind and template, and is never a question of the catalog. Of multiple choice it is
    the same question with its options in another order.

    Raises:
        KeyError: there is no such question.
    """
    if item_id not in _public():
        raise KeyError(f"there is no packaged question {item_id!r}; packaged_items() lists them")
    task, doc = _public()[item_id]
    rng = HashRandom(f"{seed}:twin:{item_id}")
    if task == CHOICE_TASK:
        return _item(task, doc, _reordered(doc, rng), doc["answer"])
    maker = _makers()[task, doc["kind"]]
    shape_of = _SHAPES.get(task, _shape_of_numbers)
    wanted = shape_of(_as_draft(doc))
    for _ in range(_MAX_DRAWS):
        draft = maker(rng)
        if shape_of(draft) == wanted and draft.question not in _taken():
            return _item(task, doc, draft.question, draft.answer)
    raise RuntimeError(f"no twin of {item_id} in {_MAX_DRAWS} draws")
