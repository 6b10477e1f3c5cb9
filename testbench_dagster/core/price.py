"""What a supplier's tokens cost, in the one currency that the operator writes all prices in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Tokens that a price is for, as suppliers publish it.
PER_TOKENS = 1_000_000


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

    @classmethod
    def from_document(cls, document: Mapping[str, float] | None) -> Price | None:
        """The price that :meth:`to_document` wrote."""
        return None if document is None else cls(document["prompt"], document["completion"])

    def to_document(self) -> dict[str, float]:
        """Plain values, for JSON and the roster."""
        return {"prompt": self.prompt, "completion": self.completion}
