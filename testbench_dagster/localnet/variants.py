"""How simulated models read variants of public questions: the same words with other numbers.

What follows from the numbers is worked out by the template of the public question, where it has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from testbench_dagster.localnet.questions import Known, QuestionIndex, squeeze
from testbench_dagster.localnet.solving import wrong_answers
from testbench_dagster.tasks.twins.sources import gsm8k_answer_of_twin
from testbench_dagster.tasks.twins.sources.numbers import number_tokens

#: Stands for any number; one character, so that places are easily found again.
_ANY = "\0"


def _without_numbers(text: str) -> str:
    parts, last = [], 0
    for token in number_tokens(text):
        parts += [text[last : token.start], _ANY]
        last = token.end
    return "".join((*parts, text[last:]))


@dataclass(frozen=True, slots=True)
class Variants:
    """Public questions by their words; ``find`` looks for the one whose variant ends last in a text."""

    index: QuestionIndex

    @classmethod
    def of(cls, questions: Iterable[Known]) -> Variants:
        """Variants of those of the questions that have a template."""
        templated = (one for one in questions if one.template)
        return cls(
            QuestionIndex(
                Known(_without_numbers(squeeze(one.text)), one.task, template=one.template)
                for one in templated
            )
        )

    def find(self, text: str) -> tuple[Known | None, int]:
        """The variant that ends last in a text that is squeezed, and how many characters follow it."""
        if not len(self.index):
            return None, 0
        plain = _without_numbers(text)
        of, end = self.index.place(plain)
        if of is None:
            return None, 0
        tokens = number_tokens(text)

        def place(at: int) -> int:
            return at + sum(len(token.written) - 1 for token in tokens[: plain.count(_ANY, 0, at)])

        variant = text[place(end - len(of.text)) : place(end)]
        answer = gsm8k_answer_of_twin(of.template, variant)
        if answer is None:
            return None, 0
        found = Known(variant, of.task, variant, answer, wrong_answers(answer), public=False)
        return found, len(text) - place(end)
