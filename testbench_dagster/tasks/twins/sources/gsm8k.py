"""GSM8K's test questions that have a template, and their twins.

The package has none of the data set's text: ``gsm8k_templates.yaml`` knows questions by their hash. Questions
and answers come from whoever has the data set, as lm-eval's task or as a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

import yaml

from testbench_dagster.tasks.twins.sources.item import Item, question_id
from testbench_dagster.tasks.twins.sources.templates import Fitted, TemplateError, fit, read_template

KIND = "gsm8k"

FILE = Path(__file__).parent / "gsm8k_templates.yaml"

# What stands before the answer of a worked solution, in the data set's own form.
_GOLD_MARK = "####"

# The parser in C where PyYAML was built with it: 6 instead of 60 ms.
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def _lines() -> Mapping[str, str]:
    """Templates as written, by the id of their question."""
    with FILE.open("rb") as file:
        lines: dict[str, str] = yaml.load(file, _LOADER)  # noqa: S506  a safe loader, the package's own file
    return lines


def gsm8k_template_ids() -> frozenset[str]:
    """The ids (:func:`question_id`) of the questions that have a template."""
    return frozenset(_lines())


@lru_cache(maxsize=512)
def _fitted(question: str) -> Fitted | None:
    line = _lines().get(question_id(question))
    try:
        return None if line is None else fit(read_template(line), question)
    except TemplateError:
        return None


def _gold(answer: str) -> str:
    """The answer alone, without the solution before it and without thousands separators."""
    return answer.rpartition(_GOLD_MARK)[2].strip().replace(",", "")


def gsm8k_item(question: str, answer: str) -> Item | None:
    """A public question as an item; None where it has no template.

    ``answer`` is the data set's, a solution that ends in ``#### 18``, or the number alone. None as well where
    it differs from what the template computes: then this is not the question the template was made for.
    """
    fitted = _fitted(question)
    if fitted is None or str(fitted.answer) != _gold(answer):
        return None
    name = question_id(question)
    return Item(name, question, _gold(answer), f"gsm8k:{name}", KIND)


def gsm8k_twin(question: str, answer: str, seed: str) -> Item:
    """The question with other numbers, drawn by SHA-256 of ``seed`` and the question's id.

    It has the same id, template and kind as the public item. Its answer is a whole number, another than the
    public one.

    Raises:
        KeyError: there is no template for this question with this answer.
    """
    item, fitted = gsm8k_item(question, answer), _fitted(question)
    if item is None or fitted is None:
        raise KeyError(f"no template for {question[:60]!r} with this answer; gsm8k_item tells which have one")
    text, twin_answer = fitted.draw(f"{seed}:twin:{item.id}")
    return Item(item.id, text, str(twin_answer), item.template, KIND)
