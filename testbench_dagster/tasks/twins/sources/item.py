"""One question with its answer, and how questions are told apart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

#: Raise when another twin is drawn from the same seed, or an answer or a template changed.
SOURCES_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its only right answer.

    ``id`` is the same for a public question and its twins. ``template`` names what they share: twins of one
    template are no independent evidence. ``kind`` is the sort of question, such as ``dates``.
    """

    id: str
    question: str
    answer: str
    template: str
    kind: str


def question_id(question: str) -> str:
    """What a public question is known by: the first 16 hexadecimal digits of its SHA-256, as UTF-8.

    White space at both ends does not count, for files of the same data set differ in it.
    """
    return hashlib.sha256(question.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]
