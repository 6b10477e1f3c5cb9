"""What a simulated model says: recognises the question a prompt asks and renders a right or wrong answer.

Whether an answer is right depends on seed, backend and doc alone, so a backend repeats itself exactly,
through whichever supplier and in whichever order it is asked.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from testbench_dagster.core.workloads import HIDDEN_QUESTION, HIDDEN_WORDS, LONG_ANSWER
from testbench_dagster.localnet.chance import pick, unit
from testbench_dagster.localnet.letters import Lettered, lettered
from testbench_dagster.localnet.personas import Backend, Style
from testbench_dagster.localnet.questions import Known, QuestionIndex, squeeze
from testbench_dagster.localnet.solving import solved, wrong_answers
from testbench_dagster.localnet.variants import Variants
from testbench_dagster.tasks.starter import TASKS
from testbench_dagster.tasks.starter.loader import read_docs
from testbench_dagster.tasks.twins.sources import gsm8k_item

#: Tasks whose answers are judged as they stand, so that no phrase may be put around them.
_VERBATIM = frozenset({"starter_instructions"})

# Each phrase ends with the answer, as the answer extraction of the tasks looks at what is said last.
_PHRASES: dict[Style, tuple[str, ...]] = {
    "terse": ("{}", "{}.", "= {}"),
    "sentence": ("The answer is {}.", "It is {}.", "That would be {}.", "I get {}.", "Answer: {}"),
    "reasoned": (
        "Let me go through it step by step. Putting it all together, the answer is {}.",
        "I look at each part in turn and combine them. So the result is {}.",
        "First I collect what is given, then I derive what follows. Therefore: {}",
        "Working it out carefully, I arrive at {}.",
    ),
}

_DEVIATION_TRIES = 16

#: Words of an answer to who asks for one as long as it may be.
LONG_WORDS = 4_096
#: Characters at the end of a prompt in which it says that; what stands before is not searched.
_LOOKED_AT = 400
_SIGN = re.compile(rf"{re.escape(HIDDEN_WORDS)} (\S+)\.")

# Words of the reply to an unknown prompt: no digits, verdicts or names a task could take for an answer.
_FILLER = (
    "simulated", "reply", "without", "recorded", "content", "about", "this", "prompt", "made", "from",
    "plain", "words", "only", "here", "stands", "filler", "text", "instead", "of", "real", "thought",
    "and", "meaning",
)  # fmt: skip


def starter_questions() -> list[Known]:
    """Every question of the starter catalog, both splits."""
    return [
        Known(doc["question"], task, doc["id"], doc["answer"], tuple(doc["wrong"]))
        for task in TASKS
        for doc in read_docs(task)
    ]


@lru_cache(maxsize=1)
def starter_index() -> QuestionIndex:
    """Index of the starter catalog, made once per process."""
    return QuestionIndex(starter_questions())


def read_recorded(path: Path) -> list[Known]:
    """Recorded answers from JSON lines ``{"match", "response"}``, plain or ``.gz``; ``right`` may be false.

    Raises ValueError naming file and line where a row is not such an object.
    """
    return [
        Known(row["match"], recorded=row["response"], right=row.get("right") is not False)
        for row in _rows(path, "match", "response")
    ]


def read_questions(path: Path) -> list[Known]:
    """Public questions from JSON lines ``{"question", "answer"}``, plain or ``.gz``, as GSM8K has them.

    Of an answer with ``####`` what follows it counts. Simulated models know them as well as all others: with
    their accuracy, on the task that ``task`` names if it is there.

    Raises ValueError naming file and line where a row is not such an object.
    """
    return [_question(row) for row in _rows(path, "question", "answer")]


def _question(row: Mapping[str, Any]) -> Known:
    text, answer = squeeze(row["question"]), row["answer"].rpartition("####")[2].strip().replace(",", "")
    task = row.get("task")
    item = gsm8k_item(row["question"], row["answer"])
    template = "" if item is None else item.id
    task = task if isinstance(task, str) else ""
    return Known(text, task, text, answer, wrong_answers(answer), template=template)


def _rows(path: Path, *texts: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, each with these texts."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                values = [row[name] for name in texts]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{path}:{number}: want an object with {' and '.join(texts)}: {error!r}"
                ) from None
            if not all(isinstance(value, str) for value in values):
                raise ValueError(f"{path}:{number}: {' and '.join(texts)} must be strings")
            yield row


def is_right(seed: int, backend: Backend, known: Known, variant: str = "") -> bool:
    """Whether ``backend`` answers rightly: fixed for the doc, or for each ``variant`` of a sampled answer."""
    model = backend.speaking(seed, known.doc_id)
    return unit(seed, model.name, "right", known.doc_id, variant) < model.accuracy_of(known.task)


def chosen_answer(seed: int, backend: Backend, known: Known, variant: str = "") -> str:
    """The bare answer the backend gives: the right one, or one of the doc's plausible wrong ones."""
    if is_right(seed, backend, known, variant):
        return known.answer
    model = backend.speaking(seed, known.doc_id)
    return pick(known.wrong, seed, model.name, "wrong", known.doc_id, variant)


class Answers:
    """Answers prompts for any backend under one seed; recorded answers are given as they are, by everyone."""

    def __init__(self, seed: int = 0, recorded: Iterable[Known] = ()) -> None:
        """Recorded questions take precedence over a starter question with the same text."""
        self.seed = seed
        extra = list(recorded)
        self._index = QuestionIndex([*extra, *starter_questions()]) if extra else starter_index()
        self._variants = Variants.of(extra)
        # one prompt goes to many suppliers, and its recognition costs most of an answer
        self._find = lru_cache(maxsize=4096)(self._recognised)
        self._learned: dict[str, Known] = {}

    def learn(self, questions: Iterable[Known]) -> None:
        """Know further questions from now on, each the whole text of a prompt.

        Nobody could: it is for questions that are drawn while a simulation runs, and for no cheating.
        """
        self._learned.update((squeeze(one.text), one) for one in questions)

    def find(self, prompt: str) -> Known | None:
        """The question ``prompt`` asks, last of all: a known one, or a fresh one that can be worked out."""
        if self._learned and (learned := self._learned.get(squeeze(prompt))) is not None:
            return learned
        return self._find(prompt)

    def _recognised(self, prompt: str) -> Known | None:
        text = squeeze(prompt)
        known, end = self._index.place(text)
        # examples that stand before the question may be known ones
        fresh = solved(text[end:])
        if fresh is not None:
            return Known(fresh.question, fresh.task, fresh.question, fresh.answer, fresh.wrong, public=False)
        variant, after = self._variants.find(text)
        return variant if variant is not None and after < len(text) - end else known

    def is_right(self, backend: Backend, known: Known) -> bool:
        """Whether what ``backend`` says to a known question at temperature 0 is right."""
        return known.right if known.recorded is not None else is_right(self.seed, backend, known)

    def reply(self, backend: Backend, prompt: str, variant: str = "") -> str:
        """What ``backend`` says to ``prompt``.

        ``variant`` tells samples at a temperature above 0 apart; the empty one is the greedy answer.
        """
        if (asked := self._asked_at_length(backend, prompt, variant)) is not None:
            return asked
        known = self.find(prompt)
        choice = lettered(prompt)
        if known is None:
            return self._unknown(backend, prompt, choice, variant)
        if known.recorded is not None:
            return known.recorded
        model = backend.speaking(self.seed, known.doc_id)
        answer = chosen_answer(self.seed, model, known, variant)
        if known.task in _VERBATIM:
            return answer
        phrase = pick(_PHRASES[model.style], self.seed, model.name, "phrase", known.doc_id, variant)
        letter = choice and choice.letter_of(answer)
        said = phrase.format(answer)
        return f"{said}\n{choice.ending(letter)}" if choice and letter else said

    def deviation(self, backend: Backend, prompt: str, source: str) -> str:
        """What ``backend`` says when it does not repeat itself: as a sample would be, but another text.

        ``source`` tells deviations apart. Where it has only one thing to say, such as a recorded answer, it
        says that.
        """
        usual = self.reply(backend, prompt)
        tries = (self.reply(backend, prompt, f"{source}/{number}") for number in range(_DEVIATION_TRIES))
        return next((text for text in tries if text != usual), usual)

    def _unknown(self, backend: Backend, prompt: str, choice: Lettered | None, variant: str) -> str:
        """Words, and of a choice some option: the same one in whatever order they stand."""
        if choice is None:
            return self._filler(backend.speaking(self.seed, prompt), prompt, variant)
        texts = sorted(choice.options.values())
        subject = "\n".join(texts) or prompt
        model = backend.speaking(self.seed, subject)
        key = (self.seed, model.name, "letter", subject, variant)
        letter = choice.letter_of(pick(texts, *key)) if texts else pick(choice.letters, *key)
        return f"{self._filler(model, subject, variant)}\n{choice.ending(letter or choice.letters[0])}"

    def _asked_at_length(self, backend: Backend, prompt: str, variant: str) -> str | None:
        """A story of :data:`LONG_WORDS` words, or the words on the sign, to who asks for one of them."""
        if LONG_ANSWER in prompt[-_LOOKED_AT:]:
            rng = Random(f"{self.seed} {backend.name} {variant} {prompt}")  # noqa: S311  a simulation
            return f"{' '.join(rng.choices(_FILLER, k=LONG_WORDS))}."
        if HIDDEN_QUESTION not in prompt[-_LOOKED_AT:]:
            return None
        signs = _SIGN.findall(prompt)
        return f"It says {signs[-1]}." if signs else "I see no sign there."

    def _filler(self, backend: Backend, prompt: str, variant: str) -> str:
        key = (self.seed, backend.name, "filler", prompt, variant)
        words = [pick(_FILLER, *key, place) for place in range(8 + int(unit(*key) * 9))]
        return f"{' '.join(words).capitalize()}."
