"""Questions that simulated models recognise, and how they are found in a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def squeeze(text: str) -> str:
    """``text`` with every run of white space as one space, as questions are compared."""
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class Known:
    """A question that is recognised: a starter doc, a recorded answer, or a fresh one that was worked out.

    Of a recorded answer ``recorded`` is its text, and ``right`` whether that is said to be right. ``public``:
    it could be read before it was asked, so that it may be remembered. ``template`` is what its variants
    are worked out by, an id of :mod:`~testbench_dagster.tasks.twins.sources`; empty for none.
    """

    text: str
    task: str = ""
    doc_id: str = ""
    answer: str = ""
    wrong: tuple[str, ...] = ()
    recorded: str | None = None
    right: bool = True
    public: bool = True
    template: str = ""


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
        return self.place(squeeze(prompt))[0]

    def place(self, text: str) -> tuple[Known | None, int]:
        """The same of a text that is squeezed, and where the question ends in it; 0 where there is none."""
        tree = self._tree
        for end in range(len(text), 0, -1):
            if text[end - 1] in tree and (best := self._ending_at(text, end)) is not None:
                return best, end
        return None, 0

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
