"""What a simulated model says: recognises the question a prompt asks and renders a right or wrong answer.

Whether an answer is right depends on seed, backend and doc alone, so a backend repeats itself exactly,
through whichever supplier and in whichever order it is asked.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from testbench_dagster.core.workloads import HIDDEN_QUESTION, HIDDEN_WORDS, LONG_ANSWER
from testbench_dagster.localnet.chance import pick, unit
from testbench_dagster.localnet.letters import Lettered, lettered
from testbench_dagster.localnet.personas import Backend, Style
from testbench_dagster.tasks.starter import TASKS
from testbench_dagster.tasks.starter.loader import read_docs

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


def squeeze(text: str) -> str:
    """``text`` with every run of white space as one space, as questions are compared."""
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Known:
    """A question that is recognised: a starter doc, or a recorded answer.

    Then ``recorded`` is its text, and ``right`` whether that is said to be right.
    """

    text: str
    task: str = ""
    doc_id: str = ""
    answer: str = ""
    wrong: tuple[str, ...] = ()
    recorded: str | None = None
    right: bool = True


class QuestionIndex:
    """Finds which known question ends last in a prompt; few-shot examples stand before the real one."""

    # Enough to tell almost all endings apart and short enough to keep the tree small.
    _DEPTH = 12

    def __init__(self, questions: Iterable[Known]) -> None:
        """Index ``questions``; of several with one text the first counts, empty ones are left out."""
        # A tree over the last characters, read backwards; "" holds the questions that a path leads to.
        self._tree: dict[str, Any] = {}
        known: set[str] = set()
        for question in questions:
            text = squeeze(question.text)
            if not text or text in known:
                continue
            known.add(text)
            node = self._tree
            for letter in text[: -self._DEPTH - 1 : -1]:
                node = node.setdefault(letter, {})
            node.setdefault("", []).append((text, question))
        self._size = len(known)

    def __len__(self) -> int:
        """Number of different questions."""
        return self._size

    def find(self, prompt: str) -> Known | None:
        """The known question that ends last in ``prompt``; the longest where several end at one place."""
        text = squeeze(prompt)
        tree = self._tree
        for end in range(len(text), 0, -1):
            if text[end - 1] in tree and (best := self._ending_at(text, end)) is not None:
                return best
        return None

    def _ending_at(self, text: str, end: int) -> Known | None:
        best: tuple[str, Known] | None = None
        node = self._tree
        for at in range(end - 1, -1, -1):
            if text[at] not in node:
                break
            node = node[text[at]]
            for candidate in node.get("", ()):
                if text.endswith(candidate[0], 0, end) and (best is None or len(candidate[0]) > len(best[0])):
                    best = candidate
        return best[1] if best else None


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
    rows = []
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                match, response = row["match"], row["response"]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{path}:{number}: want an object with match and response: {error!r}"
                ) from None
            if not (isinstance(match, str) and isinstance(response, str)):
                raise ValueError(f"{path}:{number}: match and response must be strings")
            rows.append(Known(match, recorded=response, right=row.get("right") is not False))
    return rows


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
        # one prompt goes to many suppliers, and its recognition costs most of an answer
        self._find = lru_cache(maxsize=4096)(self._index.find)
        self._learned: dict[str, Known] = {}

    def learn(self, questions: Iterable[Known]) -> None:
        """Know further questions from now on, each the whole text of a prompt.

        Nobody could: it is for questions that are drawn while a simulation runs, and for no cheating.
        """
        self._learned.update((squeeze(one.text), one) for one in questions)

    def find(self, prompt: str) -> Known | None:
        """The known question ``prompt`` asks."""
        if self._learned and (learned := self._learned.get(squeeze(prompt))) is not None:
            return learned
        return self._find(prompt)

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
