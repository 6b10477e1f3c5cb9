"""Echoed log-probabilities of the simulated models, as pure functions of seed, backend and text.

The server puts :func:`echo_logprobs` into its answers; whoever wants to know what a client must find there
calls :func:`loglikelihood`. All values are multiples of 2**-12, so sums of them are exact: bit for bit the
same in any order and with any summation algorithm (Python's ``sum`` changed its own in 3.12).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from testbench_dagster.localnet.answers import chosen_answer, starter_index
from testbench_dagster.localnet.personas import Backend
from testbench_dagster.tasks.starter import CHOICE_TASK

#: Most alternatives per position a request may ask for, as in OpenAI's legacy API.
MAX_TOP = 5

#: What the models "generate" after an echoed prompt.
GENERATED = "\n"

_QUANTUM = 2.0**-12

# Pieces of words, numbers and signs, each with the space before it, as byte-pair tokenizers cut; other white
# space stands alone, so that a token never reaches across a line break.
_TOKEN = re.compile(r" ?[^\W\d_]{1,7}| ?\d{1,3}| ?(?:[^\s\w]|_){1,4}|\s")

# Alternatives shown beside the actual token; more than MAX_TOP + 1, so that enough remain when one of them
# is the actual token.
_OTHERS = (" the", " a", " of", " and", " to", " in", " is", " it")

# How the prompt of a choice task goes on after the question.
_ANSWER_CUE = "\nAnswer:"


def tokenize(text: str) -> list[tuple[str, int]]:
    """Tokens of ``text`` with their character offsets; joined they are the text again."""
    return [(found.group(), found.start()) for found in _TOKEN.finditer(text)]


# a prompt goes to many suppliers and is as long as all its examples
@lru_cache(maxsize=4096)
def count_tokens(text: str) -> int:
    """Number of tokens of ``text``."""
    return len(_TOKEN.findall(text))


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """One token in its place: its log-probability, and the most likely token there with its own."""

    token: str
    offset: int
    logprob: float
    best: str
    best_logprob: float

    def top(self, count: int) -> dict[str, float]:
        """The ``count`` likeliest tokens, and the actual one if it is not among them, as OpenAI does."""
        table = {self.best: self.best_logprob, self.token: self.logprob}
        floor = min(table.values())
        for place, other in enumerate(other for other in _OTHERS if other not in table):
            if len(table) >= count:
                break
            table[other] = floor - (place + 1) * 0.5
        return table


def _scored(digest: bytes, token: str, offset: int) -> ScoredToken:
    """A token's probabilities from the hash of everything up to and including it: half are greedy."""
    high = -(1 + int.from_bytes(digest[:2], "big") % 2048) * _QUANTUM  # above -0.5
    if digest[2] < 128:
        return ScoredToken(token, offset, high, token, high)
    low = -(4096 + int.from_bytes(digest[3:5], "big") % 32768) * _QUANTUM  # from -9 to -1
    best = _OTHERS[digest[5] % len(_OTHERS)]
    if best == token:
        best = _OTHERS[(digest[5] + 1) % len(_OTHERS)]
    return ScoredToken(token, offset, low, best, high)


def _steered(digest: bytes, token: str, offset: int, wanted: str) -> ScoredToken:
    """Like :func:`_scored`, where the model is sure that ``wanted`` comes next."""
    high = -(1 + int.from_bytes(digest[:2], "big") % 512) * _QUANTUM  # above -0.13
    if token == wanted:
        return ScoredToken(token, offset, high, token, high)
    low = -(5 * 4096 + int.from_bytes(digest[3:5], "big") % 16384) * _QUANTUM  # from -9 to -5
    return ScoredToken(token, offset, low, wanted, high)


def _chain(state: bytes, token: str) -> bytes:
    """Hash of the text so far: the hash before ``token``, and the token."""
    return blake2b(state + token.encode("utf-8", "surrogatepass"), digest_size=16).digest()


# The options of one question share all but the last line; few are in flight at a time, and each entry holds
# a scored token per few characters.
@lru_cache(maxsize=64)
def _score_head(seed: int, backend_name: str, head: str) -> tuple[tuple[ScoredToken, ...], bytes]:
    """Scores of text that no choice steers, and the hash state after it."""
    state = blake2b(f"{seed}\0{backend_name}".encode(), digest_size=16).digest()
    scored = []
    for token, offset in tokenize(head):
        state = _chain(state, token)
        scored.append(_scored(state, token, offset))
    return tuple(scored), state


def _choice(seed: int, backend: Backend, text: str) -> tuple[int, str] | None:
    """Where the answer to the choice question asked last in ``text`` begins, and the option preferred."""
    known = starter_index().find(text)
    if known is None or known.task != CHOICE_TASK:
        return None
    at = text.rfind(known.text)
    start = at + len(known.text) + len(_ANSWER_CUE)
    if at < 0 or not text.startswith(_ANSWER_CUE, start - len(_ANSWER_CUE)):
        return None
    return start, " " + chosen_answer(seed, backend, known)


def score_tokens(seed: int, backend: Backend, text: str) -> list[ScoredToken]:
    """Every token of ``text`` with its probabilities under ``backend``.

    They depend on seed, backend and all text up to the token. Behind a question of ``starter_choice`` the
    option the backend prefers (the right one with its accuracy on that task) gets by far the highest sum,
    also per character; everywhere else they are noise.
    """
    choice = _choice(seed, backend, text)
    # cut before a line break: tokens never reach across one, so both parts tokenize as the whole does
    # (not the very last character: an echoed prompt ends with a generated line break, and differs before it)
    cut = max(text.rfind("\n", 0, choice[0] if choice else len(text) - 1), 0)
    head, state = _score_head(seed, backend.speaking(seed, text[:cut]).name, text[:cut])
    scored = list(head)
    start, wanted = (choice[0], [token for token, _ in tokenize(choice[1])]) if choice else (len(text), [])
    for token, offset in tokenize(text[cut:]):
        state = _chain(state, token)
        place = cut + offset
        if place >= start and wanted:
            scored.append(_steered(state, token, place, wanted[0]))
            # off the preferred option, what follows says nothing about it any more
            wanted = wanted[1:] if token == wanted[0] else []
        else:
            scored.append(_scored(state, token, place))
    return scored


def echo_logprobs(
    seed: int, backend: Backend, prompt: str, top: int = 1, max_tokens: int = 1
) -> dict[str, Any]:
    """``text`` and ``logprobs`` of a choice answering ``echo: true, logprobs: top, max_tokens: 0 or 1``.

    The shape is OpenAI's legacy one: parallel lists ``tokens``, ``token_logprobs``, ``top_logprobs`` (null
    when ``top`` is 0) and ``text_offset`` (characters); the first token has null in both lists of
    probabilities, as nothing precedes it. With ``max_tokens`` 1 one generated token ends the text.
    """
    text = prompt + (GENERATED if max_tokens else "")
    scored = score_tokens(seed, backend, text)
    rest = scored[1:]
    first: list[Any] = [None] if scored else []
    return {
        "text": text,
        "logprobs": {
            "tokens": [item.token for item in scored],
            "token_logprobs": first + [item.logprob for item in rest],
            "top_logprobs": first + [item.top(top) for item in rest] if top else None,
            "text_offset": [item.offset for item in scored],
        },
    }


def loglikelihood(seed: int, backend: Backend, context: str, continuation: str) -> tuple[float, bool]:
    """Log-probability of ``continuation`` after ``context``, and whether every token of it is the likeliest.

    Equal, bit for bit, to what a client gets that asks to echo ``context + continuation`` and sums the
    tokens whose offset is not inside the context. Raises ValueError where no client could: on an empty
    context or continuation, and when a token straddles the boundary.
    """
    if not context or not continuation:
        raise ValueError("a log-likelihood needs a context and a continuation, neither empty")
    scored = score_tokens(seed, backend, context + continuation)
    tail = [item for item in scored if item.offset >= len(context)]
    if not tail or tail[0].offset != len(context):
        raise ValueError(
            f"a token straddles the boundary between {context[-20:]!r} and {continuation[:20]!r}"
        )
    return sum(item.logprob for item in tail), all(item.logprob == item.best_logprob for item in tail)
