"""How a choice is put to a chat model: the question, options by letter, the form of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from testbench_dagster.tasks.chat_choice.convert import LETTERS, Question
from testbench_dagster.tasks.chat_choice.shuffle import shuffled

#: Beginning of the line that an answer is asked to end with.
FORM = "ANSWER:"
_ASK = "Choose the option that answers the question, or continues the text, best."
_ASK_BARE = (
    "The options below are texts on their own. Choose the one that is best: well formed if they differ in "
    "language, sensible and true if they differ in content."
)
_ASK_AS_IS = "Answer the question below with the letter of one of the options that it names."
_FORM_TEXT = (
    'You may reason first. End your answer with a line of the form "{form} X", where X is one of the letters '
    "{letters}."
)


@dataclass(frozen=True)
class Asked:
    """A question as one epoch shows it: ``options`` in the order of their letters, ``right`` the letters."""

    text: str
    options: tuple[str, ...]
    right: tuple[str, ...]

    @property
    def letters(self) -> str:
        """The letters of the options."""
        return LETTERS[: len(self.options)]


def asked(question: Question, seed: str, doc: int | str) -> Asked:
    """A question with its options in the order that an epoch's seed gives them for this doc."""
    n = len(question.options)
    order = list(range(n)) if question.ordered else shuffled(seed, doc, n)
    options = tuple(question.options[number] for number in order)
    right = tuple(LETTERS[place] for place, number in enumerate(order) if number in question.right)
    return Asked(_user_text(question, options), options, right)


def messages(system: str, examples: Sequence[Asked], last: Asked) -> list[dict[str, Any]]:
    """The turns of a chat: examples are asked and answered in the form, then comes the question."""
    turns = [{"role": "system", "content": system}] if system else []
    for example in examples:
        turns.append({"role": "user", "content": example.text})
        turns.append({"role": "assistant", "content": f"{FORM} {example.right[0]}"})
    return [*turns, {"role": "user", "content": last.text}]


def _user_text(question: Question, options: Sequence[str]) -> str:
    letters = LETTERS[: len(options)]
    listed = "" if question.as_is else "\n".join(f"{a}) {b}" for a, b in zip(letters, options, strict=True))
    ask = _ASK_AS_IS if question.as_is else _ASK if question.text else _ASK_BARE
    form = _FORM_TEXT.format(form=FORM, letters=", ".join(letters))
    return "\n\n".join(part for part in (f"{ask} {form}", question.text, listed) if part)
