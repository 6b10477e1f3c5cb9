"""Log-probabilities of a continuation, as servers echo them with a prompt.

The sum is that of lm-eval 0.4.13 (``LocalCompletionsAPI.parse_logprobs``) where lm-eval is right. lm-eval
counts the context's tokens with a tokenizer of its own and takes the last token of an answer for the
generated one. So it drops or adds tokens where the server cuts otherwise, or generates none (the next one
ends the text) or several (pieces of one character). Here the tokens themselves say where the context ends
(:mod:`.spelling`), and a server that ignores ``echo``, whose choices lm-eval scores ``(0, True)``, is told.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbench_dagster.transports.json_values import Invalid, kind
from testbench_dagster.transports.spelling import (
    AcrossTheBoundary,
    Echo,
    NotThePrompt,
    continuation_tokens,
    encoded,
)

#: Log-probabilities may exceed zero by this much: servers round, and some compute in half precision.
POSITIVE_TOLERANCE = 1e-3
#: What servers write as text, JSON having no such numbers, for the log-probability of what cannot be.
_IMPOSSIBLE_TEXTS = frozenset({"nan", "-nan", "-inf", "-infinity", "null", "none"})
_IMPOSSIBLE = -math.inf
#: Tokens beyond the prompt's bytes cannot belong to it, but for special ones and those without text.
_MORE_TOKENS = 64
#: No token begins further on.
_MAX_OFFSET = 2**31


class NotMeasurable(Exception):
    """The prompt is echoed, but not what its continuation's log-probability is; the message is ours."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """One of the lists that an answer may hold its log-probabilities in, each as long as ``tokens``.

    ``values`` and ``tops`` are as they came: what is looked at is checked where it is looked at.
    """

    tokens: Sequence[Any]
    values: Sequence[Any]
    tops: Sequence[Any] | None
    raw: Sequence[bytes | None] | None = None
    offsets: Sequence[Any] | None = None


def context_length(context: str) -> int:
    """Characters of the context once its trailing white space counts as part of the continuation.

    lm-eval moves it there before tokenising, because tokens usually carry their leading space.
    """
    return len(context.rstrip())


def continuation_logprob(
    choice: Mapping[str, Any], context: str, continuation: str
) -> tuple[float, bool | None]:
    """Sum the continuation's log-probabilities and tell whether each token was the likeliest.

    The sum is minus infinity where a token is impossible: minus infinity, null, or not a number. Whether the
    tokens are the likeliest is None where the answer does not say, as without ``top_logprobs``.

    Raises:
        Invalid: log-probabilities are missing, broken, or not those of the prompt.
        NotMeasurable: they are, but a token belongs to both context and continuation, or which ones make up
            the continuation cannot be told, or nothing precedes it.
    """
    prompt = context + continuation
    rest, problem = _rest(choice, prompt), None
    for listed in _lists(choice, len(encoded(prompt)) + _MORE_TOKENS):
        for text, boundary in _normalised(prompt, context_length(context)):
            try:
                return _sum(listed, text, boundary, rest)
            except Invalid as error:
                problem = problem or error
    raise problem or Invalid(f"logprobs is {kind(choice.get('logprobs'))}")


def _normalised(prompt: str, boundary: int) -> Iterator[tuple[str, int]]:
    """The prompt and the context's length as tokenizers see them: some normalise text before they cut."""
    yield prompt, boundary
    seen = {prompt}
    for form in ("NFC", "NFKC"):
        text, context = (unicodedata.normalize(form, part) for part in (prompt, prompt[:boundary]))
        if text not in seen and text.startswith(context):
            seen.add(text)
            yield text, len(context)


def _sum(listed: _Listed, prompt: str, boundary: int, rest: str | None) -> tuple[float, bool | None]:
    if not all(token is None or isinstance(token, str) for token in listed.tokens):
        raise Invalid("logprobs.tokens holds something that is no text")
    echo = Echo(listed.tokens, listed.raw, _offsets(listed), rest)
    try:
        start, end = continuation_tokens(prompt, boundary, echo)
    except NotThePrompt as error:
        raise Invalid(str(error)) from None
    except AcrossTheBoundary as error:
        raise NotMeasurable(str(error)) from None
    if start == 0 and listed.values[0] is None:
        raise NotMeasurable(
            "nothing precedes the continuation's first token, so it has no log-probability: a whole text is "
            "measured where the server puts a token of its own, such as <s>, before it"
        )
    values = [_logprob(value) for value in listed.values[start:end]]
    tops = [None] * len(values) if listed.tops is None else listed.tops[start:end]
    # the built-in sum, in list order, is what lm-eval computes
    return float(sum(values)), _all_likeliest(values, tops)


def _rest(choice: Mapping[str, Any], prompt: str) -> str | None:
    """What the answer's text holds after the prompt; None where it does not begin with it."""
    text = choice.get("text")
    return text[len(prompt) :] if isinstance(text, str) and text.startswith(prompt) else None


def _offsets(listed: _Listed) -> list[int] | None:
    """Where the tokens begin, as far as whole numbers say it, for each; None otherwise."""
    found = listed.offsets
    if not isinstance(found, list) or len(found) != len(listed.tokens):
        return None
    # integers of any size: one of hundreds of digits is no float
    if all(isinstance(offset, (int, float)) and abs(offset) <= _MAX_OFFSET for offset in found):
        return [int(offset) for offset in found]
    return None


# -- shapes of answers ------------------------------------------------------------------------------------


def _lists(choice: Mapping[str, Any], most: int) -> Iterator[_Listed]:
    """The lists in an answer that may be the prompt's log-probabilities, each cut at ``most`` tokens.

    Raises:
        Invalid: the one that was asked for is broken.
    """
    found = choice.get("logprobs")
    if isinstance(found, dict) and found.get("tokens") is not None:
        yield _legacy(found, most)
    entries = found.get("content") if isinstance(found, dict) else found
    if isinstance(entries, list):
        yield _content(entries[:most])
    by_id = choice.get("prompt_logprobs")
    if isinstance(by_id, list):
        yield _by_id(by_id[:most])


def _legacy(found: dict[str, Any], most: int) -> _Listed:
    """OpenAI's legacy shape, as of llama-cpp-python, SGLang, text-generation-webui and vLLM: lists."""
    tokens, values = _list(found, "tokens"), _list(found, "token_logprobs")
    if len(tokens) != len(values):
        raise Invalid("the lists of logprobs differ in length")
    tops, offsets = found.get("top_logprobs"), found.get("text_offset")
    return _Listed(
        tokens[:most],
        values[:most],
        tops[:most] if isinstance(tops, list) and len(tops) == len(tokens) else None,
        offsets=offsets[:most] if isinstance(offsets, list) and len(offsets) == len(tokens) else None,
    )


def _content(entries: list[Any]) -> _Listed:
    """The shape of chats, which some servers have for completions as well: a list of objects."""
    if not all(isinstance(entry, dict) for entry in entries):
        raise Invalid("logprobs.content holds something that is no object")
    return _Listed(
        [entry.get("token") for entry in entries],
        [entry.get("logprob") for entry in entries],
        [entry.get("top_logprobs") for entry in entries],
        raw=[_bytes(entry.get("bytes")) for entry in entries],
    )


def _by_id(entries: list[Any]) -> _Listed:
    """vLLM's own ``prompt_logprobs``: objects by token id, the prompt's first; null for the first token."""
    firsts = [next(iter(entry.values()), None) if isinstance(entry, dict) else None for entry in entries]
    if not all(first is None or isinstance(first, dict) for first in firsts):
        raise Invalid("prompt_logprobs holds something that is no object")
    return _Listed(
        [None if first is None else first.get("decoded_token") for first in firsts],
        [None if first is None else first.get("logprob") for first in firsts],
        entries,
    )


def _list(found: dict[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    if not isinstance(value, list):
        raise Invalid(f"logprobs.{name} is {kind(value)}")
    return value


def _bytes(value: Any) -> bytes | None:
    try:
        return bytes(value) if isinstance(value, list) else None
    except (TypeError, ValueError):
        return None


# -- values -----------------------------------------------------------------------------------------------


def _logprob(value: Any) -> float:
    """A token's log-probability; minus infinity where it is said to be impossible."""
    if value is None or (isinstance(value, str) and value[:16].strip().lower() in _IMPOSSIBLE_TEXTS):
        return _IMPOSSIBLE
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Invalid(f"a log-probability of the continuation is {kind(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = _IMPOSSIBLE if value < 0 else math.inf
    if math.isnan(number):
        return _IMPOSSIBLE
    if number > POSITIVE_TOLERANCE:
        raise Invalid(f"a log-probability of the continuation is {number!r}")
    return number


def _all_likeliest(values: Sequence[float], tops: Sequence[Any]) -> bool | None:
    """Whether each token is the likeliest; None where of one it is not shown, and none is known not to be."""
    known = True
    for value, top in zip(values, tops, strict=True):
        best = _best(top)
        if value == _IMPOSSIBLE or (best is not None and value != best):
            return False
        known = known and best is not None
    return True if known else None


def _best(top: Any) -> float | None:
    """The largest of the log-probabilities shown for a token's place; None where none is shown.

    They come as an object of token and value, as a list of objects, or as objects by token id.
    """
    best = max(map(_logprob, _shown(top)), default=_IMPOSSIBLE)
    return None if best == _IMPOSSIBLE else best


def _shown(top: Any) -> Iterator[Any]:
    for part in top if isinstance(top, list) else [top]:
        if not isinstance(part, dict):
            continue
        if "logprob" in part and not isinstance(part.get("token", ""), (int, float)):
            yield part["logprob"]
        else:
            yield from (v.get("logprob") if isinstance(v, dict) else v for v in part.values())
