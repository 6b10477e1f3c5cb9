"""Probes of the context length: how long a prompt is sent, and what the answer to it says.

A supplier that lists a context of so many tokens is sent a prompt of nine tenths of that, and has to return
words from the middle of it. Prompts are made by bytes; how many tokens it makes of them its other probes told
(:func:`tokens_per_estimate`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from testbench_dagster.core.faults import Closing, Fault
from testbench_dagster.core.relay import Attempt
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.service.prompts import BYTES_PER_TOKEN, HIDDEN_ANSWER_TOKENS, Prompt

#: What part of a context is asked for: the rest is left to the answer and to what a chat template adds.
SHARE = 0.9
#: Longest prompt that is sent, in tokens: 4 MB, half of what an answer may be by default.
MAX_PROMPT_TOKENS = 1_000_000
#: What a supplier may make of our estimate: a token is a byte at least (byte-level models), and no vocabulary
#: has many words that English has, whatever it says.
_LEAST_RATE, _MOST_RATE = 0.5, float(BYTES_PER_TOKEN)
#: What a chat template may add to a short prompt, as a factor.
_TEMPLATE = 1.25
#: How servers say that a prompt is too long: vLLM, SGLang, OpenAI; llama.cpp; TGI; Anthropic, Mistral.
_TOO_LONG = re.compile(
    rb"context[ _-]?(?:length|window|size)|maximum (?:context|input|prompt)|too (?:long|large|many tokens)"
    rb"|max_(?:model_len|seq_len|input_tokens|num_tokens)|exceed\w*.{0,80}token|token.{0,80}exceed",
    re.IGNORECASE | re.DOTALL,
)
_TOO_LONG_STATUS = 413
_JUDGED_BYTES = 4096


class Claim(NamedTuple):
    """So many tokens of context, said by the supplier (``listed``) or by the operator."""

    tokens: int
    listed: bool


class Counted(NamedTuple):
    """Tokens of a prompt as we estimated them, and as the supplier counted them."""

    sent_tokens: int
    prompt_tokens: int | None


@dataclass(frozen=True, slots=True)
class ContextVerdict:
    """What an attempt at a context probe says: its ``fault``, in words, and whether the hidden was found."""

    fault: Fault
    error: str | None
    found: bool | None


def tokens_per_estimate(earlier: Iterable[Counted]) -> float | None:
    """Tokens that a supplier makes of one that we estimate, by its longest earlier prompt.

    None where it counted none, or what cannot be: then no prompt of ours is known to fit.
    """
    known = [one for one in earlier if one.prompt_tokens is not None and one.sent_tokens > 0]
    if not known:
        return None
    longest = max(known, key=lambda one: one.sent_tokens)
    rate = (longest.prompt_tokens or 0) / longest.sent_tokens
    return rate if _LEAST_RATE <= rate <= _MOST_RATE * _TEMPLATE else None


def prompt_tokens(claim: Claim, rate: float | None, budget: int) -> int:
    """How long a prompt to send, in tokens as we estimate them.

    ``rate`` is that of :func:`tokens_per_estimate`, ``budget`` what the supplier is granted for thinking.
    """
    wanted = min(claim.tokens * SHARE, claim.tokens - HIDDEN_ANSWER_TOKENS - budget)
    return max(1, min(int(wanted / (rate or 1.0)), MAX_PROMPT_TOKENS))


def context_verdict(attempt: Attempt, prompt: Prompt, claim: Claim, rate: float | None) -> ContextVerdict:
    """Judge an attempt at a context probe.

    An answer says by itself whether the hidden words were found, but for one that was cut off before it
    began. A refusal for the length is the supplier's fault where it lists a longer context itself and has
    counted prompts of ours, so that this one is known to fit; else our request was wrong, or what the
    operator wrote, and nothing is found out.
    """
    fault, error = attempt.fault, attempt.error
    if fault.answered:
        text = (attempt.text or "").casefold()
        silent = fault.row.cut_short and not text.strip()
        return ContextVerdict(fault, error, None if silent else (prompt.hidden or "").casefold() in text)
    if not refuses_length(attempt):
        return ContextVerdict(fault, error, None)
    said = f"refuses a prompt of about {counted(round(prompt.tokens * (rate or 1.0)), 'token', ',')}"
    if claim.listed and rate is not None:
        why = f"{said} and lists a context of {claim.tokens:,}: {error}"
        return ContextVerdict(Fault.SUPPLIER_REFUSED, why, False)
    who = "it lists" if claim.listed else "context_tokens says"
    return ContextVerdict(Fault.CLIENT_REQUEST, f"{said}, {who} {claim.tokens:,}: {error}", None)


def refuses_length(attempt: Attempt) -> bool:
    """Whether an attempt was refused because its prompt is too long."""
    if attempt.fault.row.closes is not Closing.REFUSED:
        return False
    said = attempt.body[:_JUDGED_BYTES]
    return attempt.status == _TOO_LONG_STATUS or _TOO_LONG.search(said) is not None
