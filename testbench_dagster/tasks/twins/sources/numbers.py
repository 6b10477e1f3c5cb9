"""Numbers in a text: where they stand, what they are worth, and how another one is written in their place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_SMALL = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
#: Number words that are read; larger ones are mostly several words, and rare.
WORDS: Mapping[str, int] = {word: value for value, word in enumerate(_SMALL, 1)}
_WORD_OF = {value: word for word, value in WORDS.items()}

# Digits that are part of a name ("B12") are no number. A full stop after digits ends the sentence.
_NUMBER = re.compile(
    r"(?<![\w.,])(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)|\b(?:" + "|".join(WORDS) + r")\b",
    re.ASCII | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class NumberToken:
    """A number in a text: ``text[start:end]`` is ``written`` and worth ``value``."""

    start: int
    end: int
    written: str
    value: Fraction

    @property
    def is_word(self) -> bool:
        """Whether it is written in letters."""
        return self.written[0].isalpha()

    @property
    def decimals(self) -> int:
        """Digits after its point."""
        return len(self.written.partition(".")[2]) if not self.is_word else 0

    @property
    def digits(self) -> int:
        """The number without its point, so many digits long after leading zeros."""
        return len(str(self.scaled))

    @property
    def scaled(self) -> int:
        """The number without its point: 150 for ``1.50``."""
        return int(self.value * 10**self.decimals)

    def rewritten(self, value: Fraction) -> str:
        """Another number as this one is written: in letters or digits, with commas and decimals like it."""
        if self.is_word:
            word = _WORD_OF[int(value)]
            return word.capitalize() if self.written[0].isupper() else word
        scaled = str(int(value * 10**self.decimals)).rjust(self.decimals + 1, "0")
        whole, part = (scaled[: -self.decimals], scaled[-self.decimals :]) if self.decimals else (scaled, "")
        if "," in self.written:
            whole = f"{int(whole):,}"
        if self.written[0] == ".":
            whole = ""
        return f"{whole}.{part}" if part else whole


def number_tokens(text: str) -> list[NumberToken]:
    """The numbers of a text in their order: digits with commas and decimals, and words up to twenty."""
    found = []
    for match in _NUMBER.finditer(text):
        written = match[0]
        value = WORDS.get(written.lower())
        worth = Fraction(value) if value is not None else Fraction(written.replace(",", ""))
        found.append(NumberToken(match.start(), match.end(), written, worth))
    return found


def replaced(text: str, values: Mapping[int, Fraction]) -> str:
    """The text with some of its numbers, named by their place in the order, replaced by others."""
    parts, last = [], 0
    for place, token in enumerate(number_tokens(text)):
        if place in values:
            parts += [text[last : token.start], token.rewritten(values[place])]
            last = token.end
    return "".join((*parts, text[last:]))
