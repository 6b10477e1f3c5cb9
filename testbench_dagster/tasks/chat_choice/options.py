"""Which option of a question a text is."""

from __future__ import annotations

import re
from collections.abc import Sequence

from testbench_dagster.tasks.chat_choice.phrases import DENIED, HEDGED, WORD
from testbench_dagster.tasks.chat_choice.writing import HEAD_CHARS, normal

#: So much of a line is looked at behind an option's text.
_BEHIND_CHARS = 80
#: A letter behind the text of its option.
_GLOSS = re.compile(
    rf"[\s,;–—-]{{0,4}}(?:i\.e\.,?\s)?(?:[(\[](?:(?:option|choice|answer)\s)?([A-Z])[)\]]"
    rf"|(?:which\s(?:is|corresponds\sto)\s)?(?:the\s)?(?:option|choice|answer|letter)\s[(\[]?([A-Z])[)\]]?(?![{WORD}]))"
)


class Options:
    """The options of a question: which of them a text is."""

    def __init__(self, letters: str, options: Sequence[str]) -> None:
        self.letters = letters
        self._known: list[dict[str, str]] = [{}, {}, {}]
        for letter, option in zip(letters, options, strict=False):
            for known, text in zip(self._known, _as_compared(normal(option[:HEAD_CHARS])), strict=True):
                known[text] = "" if text in known else letter
        self.longest = max((len(text) for text in self._known[0]), default=0)

    def find(self, text: str) -> str | None:
        """The letter of the option that a text is; None where it is none, or may be two.

        The writing decides between options that differ in capitals or brackets alone. A letter as a text
        says nothing.
        """
        for known, compared in zip(self._known, _as_compared(text), strict=True):
            if compared and known.get(compared) and not re.fullmatch(r"[A-Za-z]", compared):
                return known[compared]
        return None

    def begins(self, letter: str, text: str) -> bool:
        """Whether a text begins with an option's, or is its beginning."""
        its = next((one for one, known in self._known[2].items() if known == letter), "")
        said = _as_compared(text)[2]
        return bool(its and said) and (said.startswith(its) or its.startswith(said))

    def at(self, text: str, at: int) -> str | None:
        """The option whose text stands here, up to the end of a sentence or line.

        Empty where another letter is said to be that option's.
        """
        line = _LINE_END.split(text[at : at + 2 * self.longest + _BEHIND_CHARS], maxsplit=1)[0]
        glosses = list(_GLOSS.finditer(line))
        if glosses and (letter := self.find(line[: glosses[0].start()])) is not None:
            joined = len(glosses) > 1 and _JOINS.search(line[glosses[0].end() : glosses[1].start()])
            return letter if letter in glosses[0].groups() and not joined else ""
        return self.find(line) or self.find(CLAUSE_END.split(line, maxsplit=1)[0])

    def glossed(self, line: str) -> str | None:
        """The letter behind the text of its option, where a line has that once."""
        found = list(_GLOSS.finditer(line[: 2 * self.longest + 10 * _BEHIND_CHARS]))
        if len(found) != 1 or HEDGED.search(line[: found[0].start()]):
            return None
        letter = next(one for one in found[0].groups() if one)
        its = next((text for text, known in self._known[1].items() if known == letter), "")
        before = line[: found[0].start()].rstrip(" .,;:!?\"'“”")
        said = re.search(rf"(?<!\w){re.escape(its)}\Z", before, re.IGNORECASE) if its else None
        return letter if said is not None and not DENIED.match(line, found[0].end()) else None

    def result_at(self, text: str, at: int) -> str | None:
        """The same of the right side of an equation that stands here; the left one may be its letter."""
        line = _LINE_END.split(text[at : at + 2 * self.longest + _BEHIND_CHARS], maxsplit=1)[0]
        first, equals, last = CLAUSE_END.split(line, maxsplit=1)[0].rpartition("=")
        if equals and (letter := self.find(last)) is not None:
            its = first.strip()
            return letter if len(its) != 1 or not its.isupper() or its == letter else ""
        return None

    def other_behind(self, text: str, end: int, letter: str) -> bool:
        """Whether the text of another option follows a letter, as if it were its own."""
        line = _LINE_END.split(text[end : end + 2 * self.longest + _BEHIND_CHARS], maxsplit=1)[0]
        if (between := _LABEL_END.match(line)) is None:
            return False
        rest = line[between.end() :]
        its = self.find(rest) or self.find(CLAUSE_END.split(rest, maxsplit=1)[0])
        return its is not None and its != letter


_JOINS = re.compile(r"\s*(?:,|/|&|and|or|und|oder|y|et|ou)\s")
_LINE_END = re.compile(r"[\n\ue001]")
CLAUSE_END = re.compile(r"[.;!]\s|,\s(?:because|since|as|so)\b|\sbecause\b")
_LABEL_END = re.compile(r"[)\]]\s{0,3}(?=\w)|[)\]\"'”]{0,2}(?:\s?[.:,=–—-]\s{0,3}|\s(?=[(\[]))")
_ARTICLE = re.compile(r"(?:the|an?)\s(?=\S)")


def _as_compared(text: str) -> tuple[str, str, str]:
    """A text as it is written, without marks around it, and without what makes no other option of it."""
    written = " ".join(text.split())
    marked = written.strip(" .,;:!?\"'“”")
    bare = written.casefold().strip(" .,;:!?\"'“”()[]{}")
    return written, marked, _ARTICLE.sub("", bare, count=1) if _ARTICLE.match(bare) else bare
