"""The score of an answer, from what the request and the prompt's target say: no doc, no lm-eval."""

from __future__ import annotations

from testbench_dagster.core.extracted import bounded_extract
from testbench_dagster.core.prompt import Answered, DocScore
from testbench_dagster.tasks.chat_choice.convert import LETTERS
from testbench_dagster.tasks.chat_choice.extract import flexible, strict

#: The metrics: whether the answer names a right option, and whether it names any.
METRIC, ANSWERED = "letter_acc", "answered_letter"
#: The filters: however an answer says it, and by the form that was asked for alone.
FLEXIBLE, STRICT = "flexible", "strict"


def scored(answer: Answered) -> DocScore:
    """The score of one answer."""
    options = answer.requests[0]["options"]
    letters = LETTERS[: len(options)]
    right = answer.target if isinstance(answer.target, list) else [answer.target]
    text = answer.responses[0][0]
    text = text if isinstance(text, str) else ""
    found = {FLEXIBLE: flexible(text, letters, options), STRICT: strict(text, letters)}
    return DocScore(
        answer.doc_id,
        {
            name: {METRIC: float(letter in right), ANSWERED: float(letter is not None)}
            for name, letter in found.items()
        },
        # the option, for its letter is another one in each epoch, and answers of several epochs are compared
        extracted={
            name: bounded_extract(options[letters.index(letter)]) if letter else ""
            for name, letter in found.items()
        },
    )
