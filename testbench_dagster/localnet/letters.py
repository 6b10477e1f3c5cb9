"""How a simulated model reads a choice on chat: options by letter, and a line to end its answer with.

It reads what a request says, as a real model would, whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# what the line begins with, and which letters there are
_FORM = re.compile(
    r'a line of the form "([^"\n]{1,40}) X", where X is one of the letters ([A-Z](?:, [A-Z])*)'
)
_OPTION = re.compile(r"^([A-Z])\) (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Lettered:
    """What an answer has to end with: ``form``, and one of ``letters``; ``options`` are their texts."""

    form: str
    letters: tuple[str, ...]
    options: Mapping[str, str]

    def letter_of(self, text: str) -> str | None:
        """The letter of the option with this text."""
        wanted = text.strip().casefold()
        return next(
            (one for one, option in self.options.items() if option.strip().casefold() == wanted), None
        )

    def ending(self, letter: str) -> str:
        """The line that names a letter."""
        return f"{self.form} {letter}"


def lettered(prompt: str) -> Lettered | None:
    """The last choice that a prompt asks for; None where it asks for none."""
    every = list(_FORM.finditer(prompt)) if "a line of the form" in prompt else []
    if not every:
        return None
    asked = every[-1]
    letters = tuple(asked.group(2).split(", "))
    found = {one.group(1): one.group(2) for one in _OPTION.finditer(prompt, asked.end())}
    return Lettered(asked.group(1), letters, {one: found[one] for one in letters if one in found})
