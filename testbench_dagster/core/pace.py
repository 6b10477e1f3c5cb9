"""How fast suppliers may be asked: what a provider's rate limit allows, and what a request counts for.

Requests and tokens are promised per span of a minute, wherever it begins; requests of a day likewise for any
24 hours. How that is kept over processes is :mod:`testbench_dagster.coordination.pace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbench_dagster.core.wording import counted

#: Characters that count as one token where nothing better is known (OpenAI's rule of thumb for English).
CHARS_PER_TOKEN = 4
#: Tokens an answer may have where a request names no limit (lm-eval's default).
DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Pace:
    """What may be asked of whoever shares ``account``; None is no bound.

    ``account`` is what the requests are counted under: suppliers with the same one share the pace.
    """

    account: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None

    @property
    def words(self) -> str:
        """The pace as people say it, such as "20 requests a minute, 200 a day"."""
        parts = []
        if self.requests_per_minute is not None:
            parts.append(f"{counted(self.requests_per_minute, 'request', ',')} a minute")
        if self.tokens_per_minute is not None:
            parts.append(f"{counted(self.tokens_per_minute, 'token', ',')} a minute")
        if self.requests_per_day is not None:
            unit = "" if self.requests_per_minute is not None else " requests"
            parts.append(f"{self.requests_per_day:,}{unit} a day")
        return ", ".join(parts)

    def tokens_of(self, request: Mapping[str, Any], budget: int = 0) -> int:
        """Tokens that a request of a prompt counts for before its answer tells; 0 where tokens have no pace.

        Args:
            request: one of the stored shapes of :class:`~testbench_dagster.core.relay.Relay`.
            budget: tokens that the supplier is granted on top of the task's limit.
        """
        if self.tokens_per_minute is None:
            return 0
        # one that is larger than the whole minute has a minute of its own: more can nobody promise
        return min(estimated_tokens(request, budget), self.tokens_per_minute)


def estimated_tokens(request: Mapping[str, Any], budget: int = 0) -> int:
    """Tokens of a request before it is sent, those of its answer included; see :func:`estimated_parts`."""
    return sum(estimated_parts(request, budget))


def estimated_parts(request: Mapping[str, Any], budget: int = 0) -> tuple[int, int]:
    """Tokens of a request before it is sent: its characters by four, and the most its answer may have.

    Pages (``get``) cost none. See :meth:`Pace.tokens_of` for the arguments.
    """
    kind = request.get("type")
    if kind == "get":
        return 0, 0
    chars = _characters(
        [request.get(name) for name in ("messages", "prompt", "context", "continuation") if name in request]
    )
    prompt = -(-chars // CHARS_PER_TOKEN)
    if kind == "loglikelihood":
        return prompt, 1
    generation = request.get("generation") or {}
    limit = generation.get("max_tokens", generation.get("max_gen_toks", DEFAULT_MAX_TOKENS))
    if isinstance(limit, bool) or not isinstance(limit, (int, float)):
        limit = DEFAULT_MAX_TOKENS
    return prompt, max(0, int(limit)) + budget


def _characters(value: Any) -> int:
    """Characters of all texts in a value but those that are keys or roles."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_characters(inner) for name, inner in value.items() if name not in ("role", "type"))
    if isinstance(value, (list, tuple)):
        return sum(map(_characters, value))
    return 0
