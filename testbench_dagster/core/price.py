"""What a supplier's tokens cost, in the one currency that the operator writes all prices in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

#: Tokens that a price is for, as suppliers publish it.
PER_TOKENS = 1_000_000
#: Parts of one unit of the currency that amounts of money are kept in, as whole numbers.
MICROS = 1_000_000


@dataclass(frozen=True, slots=True)
class Price:
    """Money per million tokens of prompts, and of completions, thinking included.

    Which currency is nowhere said and nowhere converted: it is the same for all suppliers.
    """

    prompt: float
    completion: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / PER_TOKENS

    def micros_of(self, prompt_tokens: int, completion_tokens: int) -> int:
        """What so many tokens cost in millionths of the currency, rounded up, without an error of floats."""
        # at so much per million tokens one token costs as many millionths
        cost = prompt_tokens * Fraction(repr(self.prompt)) + completion_tokens * Fraction(
            repr(self.completion)
        )
        return ceil(cost * MICROS / PER_TOKENS)

    @classmethod
    def from_document(cls, document: Mapping[str, float] | None) -> Price | None:
        """The price that :meth:`to_document` wrote."""
        return None if document is None else cls(document["prompt"], document["completion"])

    def to_document(self) -> dict[str, float]:
        """Plain values, for JSON and the roster."""
        return {"prompt": self.prompt, "completion": self.completion}


def in_micros(amount: float) -> int:
    """An amount of money in millionths of the currency, rounded down: a cap never grows by it."""
    return floor(Fraction(repr(amount)) * MICROS)


def from_micros(micros: int) -> float:
    """Millionths of the currency as an amount that people read."""
    return micros / MICROS
