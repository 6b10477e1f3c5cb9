"""How many tokens an answer had: as its supplier counts them where that can be, else estimated from its text.

Speed is tokens over time, and the supplier tells the tokens: it is not to be believed more than what arrived.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbench_dagster.core.relay import Attempt
from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.stages.service.prompts import BYTES_PER_TOKEN

USAGE, ESTIMATED = "usage", "estimated"
#: Tokens that may leave no trace in a text: those that begin and end messages and thoughts.
_UNSEEN = 16
_MOST = 2**31 - 1
#: Where servers tell the tokens of a prompt that they had kept: OpenAI, vLLM and llama.cpp; DeepSeek.
_CACHED = (("prompt_tokens_details", "cached_tokens"), ("prompt_cache_hit_tokens",))


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """Tokens of an answer: all of them, who counted, and those behind the first arrival.

    ``disbelieved`` is a count of the supplier's that cannot be.
    """

    completion: int | None = None
    source: str | None = None
    after_first: int | None = None
    disbelieved: int | None = None


def answer_tokens(attempt: Attempt, watch: StreamWatch, limit: int | None) -> AnswerTokens:
    """Count the tokens of an attempt.

    A supplier's own count is taken where it fits what arrived. No token is less than a byte of text, so more
    tokens than bytes cannot be, but for a few that leave no trace and for thoughts that are counted and not
    shown (``reasoning_tokens``). Nor can there be more than were asked for. In its place, and where there is
    no count, stand the bytes of text and thoughts by :data:`~.prompts.BYTES_PER_TOKEN`: events are no tokens,
    for some servers send several of them in one.

    ``after_first`` are those that came after the read that brought the first token: of the tokens that were
    shown, as large a share as the bytes that came later. Thoughts that were not shown came before it.

    Args:
        attempt: what came of the request.
        watch: what was seen of its stream.
        limit: tokens that the answer may have at most, None where no limit was sent.
    """
    shown = watch.shown_bytes
    if not watch.arrivals:
        shown = len((attempt.text or "").encode("utf-8", "surrogatepass")) + (attempt.reasoning_chars or 0)
    claimed, unseen = attempt.completion_tokens, 0
    if claimed is not None:
        thought = min(attempt.reasoning_tokens or 0, claimed)
        unseen = max(0, thought - watch.thought_bytes if watch.arrivals else thought)
    if claimed is not None and _fits(claimed, claimed - unseen, shown, limit):
        return AnswerTokens(claimed, USAGE, _after_first(claimed - unseen, watch))
    if not shown:
        return AnswerTokens(disbelieved=claimed)
    estimated = -(-shown // BYTES_PER_TOKEN)
    return AnswerTokens(estimated, ESTIMATED, _after_first(estimated, watch), claimed)


def cached_tokens(usage: Mapping[str, Any] | None) -> int | None:
    """Tokens of the prompt that the supplier says it had kept from before; None where it does not say."""
    for path in _CACHED:
        value: Any = usage
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if type(value) is int and 0 <= value <= _MOST:
            return value
    return None


def _fits(claimed: int, seen: int, shown: int, limit: int | None) -> bool:
    if not claimed and shown:
        return False
    return seen <= shown + _UNSEEN and (limit is None or claimed <= limit + _UNSEEN)


def _after_first(shown_tokens: int, watch: StreamWatch) -> int | None:
    if watch.arrivals < 2 or not watch.shown_bytes:
        return None
    return round(shown_tokens * (watch.shown_bytes - watch.first_bytes) / watch.shown_bytes)
