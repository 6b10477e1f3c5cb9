"""What simulated reasoning models think before they answer, and how their servers show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from testbench_dagster.localnet.logprobs import count_tokens, tokenize
from testbench_dagster.localnet.manners import NONSENSE, Manners

_OPEN, _CLOSE = "<think>\n", "\n</think>\n\n"
# a blank line, since many tasks end answers at one; each round of it guesses wrongly
_ROUND = (
    f"Wait, is the answer {NONSENSE}? Let me look at that again, one part at a time.\n\nNo, that is wrong. "
)
_FIELDS = ("reasoning_content", "reasoning")


@dataclass(frozen=True, slots=True)
class Thinking:
    """The thoughts before one answer: their ``text`` and ``tokens``; ``ends``: the limit came before it.

    ``field`` is the field of a message that they stand in, ``part``: they are a part of its content.
    ``rest`` is the text that follows.
    """

    text: str = ""
    tokens: int = 0
    field: str = ""
    part: bool = False
    ends: bool = False
    rest: str = ""

    def followed_by(self, text: str) -> Thinking:
        """The same before this text."""
        return replace(self, rest=text)

    def message(self) -> Mapping[str, Any]:
        """The content of a message, and the field with the thoughts."""
        content: Any = None if self.ends and (self.field or self.part) else self.rest
        if self.part:  # as Mistral's API has them
            thoughts = {"type": "thinking", "thinking": [{"type": "text", "text": self.text}]}
            content = [thoughts] if self.ends else [thoughts, {"type": "text", "text": self.rest}]
        return {"content": content, **({self.field: self.text} if self.field else {})}


@lru_cache(maxsize=256)
def _thought(tokens: int) -> str:
    """So many tokens of thoughts."""
    whole = _ROUND * (1 + 2 * tokens // count_tokens(_ROUND))  # a round has less where another follows
    return whole[: tokenize(whole)[tokens][1]]


def thinking(manners: Manners, limit: int | None) -> Thinking:
    """What a model of these manners thinks before an answer, within ``limit`` tokens for both."""
    if not manners.thinks:
        return Thinking()
    if manners.thinks_in_text:
        opened = _OPEN if manners.thoughts == "tags" else ""
        # the text is cut as a whole, so that stop strings end thoughts too
        return Thinking(opened + _thought(manners.thinks) + _CLOSE, manners.thinks)
    tokens = manners.thinks if limit is None else min(limit, manners.thinks)
    return Thinking(
        "" if manners.thoughts == "hidden" else _thought(tokens),
        tokens,
        manners.thoughts if manners.thoughts in _FIELDS else "",
        manners.thoughts == "part",
        ends=tokens == limit,
    )
