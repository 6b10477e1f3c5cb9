"""The most tokens that a request may be billed for, and about how many it was where nobody counted them.

Tokenizers of language models split bytes: a text has no more tokens than bytes in UTF-8. What templates put
around messages is bounded by an allowance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.core.pace import CHARS_PER_TOKEN, DEFAULT_MAX_TOKENS, estimated_parts

#: Tokens that a server's template may add to a request: a system prompt of its own, marks of roles.
TEMPLATE_TOKENS = 512
#: Tokens that an answer may have whose request carries no limit (``token_field: omit``).
UNLIMITED_TOKENS = 32_768
#: Fields of a request that a model reads.
_READ = ("messages", "prompt", "context", "continuation", "tools", "tool_choice", "response_format")
_LIMITS = ("max_tokens", "max_completion_tokens")
#: Parameters that have a server write several answers, all of which are billed.
_ANSWERS = ("n", "best_of", "num_return_sequences")


def most_tokens(request: Mapping[str, Any], generation: SupplierGeneration) -> tuple[int, int]:
    """The most tokens that the prompt of a request, and its answer, can have; pages (``get``) have none.

    Args:
        request: one of the stored shapes of :class:`~testbench_dagster.core.relay.Relay`.
        generation: how its supplier wants to be asked.
    """
    kind = request.get("type")
    if kind == "get":
        return 0, 0
    extra = generation.extra_body
    # JSON holds every text as its bytes in UTF-8, or longer
    texts = [{name: request[name] for name in _READ if name in request}, dict(extra)]
    prompt = len(orjson.dumps(texts, default=str, option=orjson.OPT_NON_STR_KEYS)) + TEMPLATE_TOKENS
    asked = request.get("generation") or {}
    answers = 1
    for name in _ANSWERS:
        answers = max(answers, _whole(extra.get(name, asked.get(name)), 1))
    if kind == "loglikelihood":
        return prompt, max(1, *(_whole(extra.get(name), 1) for name in _LIMITS)) * answers
    own = [_whole(extra[name], UNLIMITED_TOKENS) for name in _LIMITS if name in extra]
    if own:
        most = max(own)
    elif generation.token_field == "omit":  # noqa: S105  no secret
        most = UNLIMITED_TOKENS
    else:
        most = _whole(asked.get("max_tokens", asked.get("max_gen_toks", DEFAULT_MAX_TOKENS)), 0)
        most = (most or UNLIMITED_TOKENS) + generation.budget
    return prompt, most * answers


def likely_tokens(request: Mapping[str, Any], answer_chars: int) -> tuple[int, int]:
    """About how many tokens the prompt of a request and its answer had: their characters by four."""
    prompt, _ = estimated_parts(request)
    return prompt, -(-answer_chars // CHARS_PER_TOKEN)


def _whole(value: Any, otherwise: int) -> int:
    """A number of tokens or answers from 0 on; ``otherwise`` where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10**9:
        return otherwise
    return int(value)
