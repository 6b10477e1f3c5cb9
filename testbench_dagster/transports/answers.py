"""What an HTTP answer says: classification of status and body, and the text or log-probability in it.

Pure functions of the stored evidence, so transports (while relaying) and scoring (any time later) come to
the same result. Suppliers are hostile until proven otherwise: nothing in a body makes :func:`parse_answer`
raise, and nothing from it reaches an ``error`` text unescaped or unbounded.

Log-probabilities follow lm-eval 0.4.13 (``LocalCompletionsAPI.parse_logprobs``) with its context length
found in the answer's ``text_offset`` instead of by a local tokenizer, and with the checks it lacks: a server
that ignores ``echo`` would otherwise score every choice ``(0, True)``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import orjson

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.text import MAX_ERROR_CHARS, escaped
from testbench_dagster.transports.event_streams import StreamError, assemble, is_event_stream
from testbench_dagster.transports.payload import Api

#: Log-probabilities may exceed zero by this much: servers round, and some compute in half precision.
POSITIVE_TOLERANCE = 1e-3
#: The fault that an HTTP status other than 200 means, as first and last status of a range; the first row that
#: holds counts. A status in none is no answer of HTTP.
STATUS_FAULTS: tuple[tuple[int, int, Fault], ...] = (
    (401, 401, Fault.CREDENTIALS),
    (402, 402, Fault.QUOTA),
    (403, 404, Fault.CREDENTIALS),
    (408, 409, Fault.UNAVAILABLE),
    (425, 425, Fault.UNAVAILABLE),
    (429, 429, Fault.RATE_LIMITED),
    (451, 451, Fault.SUPPLIER_REFUSED),
    (400, 499, Fault.CLIENT_REQUEST),
    (300, 399, Fault.SUPPLIER_HTTP),
    (502, 504, Fault.UNAVAILABLE),
    (520, 529, Fault.UNAVAILABLE),
    (500, 599, Fault.SUPPLIER_HTTP),
)
#: Statuses that may stand for a quota that is used up; which it is, the error's ``code`` or ``type`` says.
_QUOTA_STATUSES = (403, 429)
#: What suppliers write there: OpenAI and its like, Moonshot, One API, DeepSeek, Together, Anthropic.
_QUOTA_WORDS = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "exceeded_current_quota_error",
        "insufficient_user_quota",
        "insufficient_balance",
        "insufficient_credits",
        "credit_limit",
        "billing_error",
    }
)
#: An error that says why is short; no more of a body is looked into.
MAX_ERROR_BYTES = 64 * 1024
#: Why an answer ended that came to nothing at the supplier (SGLang, vLLM, OpenRouter).
_FAILED_REASONS = frozenset({"error", "abort"})
_MAX_FINISH_REASON_CHARS = 64
_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Answer:
    """Outcome of parsing one response.

    ``text`` belongs to generate_until, and to get, where it is the page's JSON, compact and with sorted keys.
    ``logprob`` (sum over the continuation, natural logarithm) and ``greedy`` belong to loglikelihood.
    ``error`` is set for every fault but ok and truncated.
    """

    fault: Fault
    text: str | None = None
    logprob: float | None = None
    greedy: bool | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


class _Invalid(Exception):
    """The body breaks the protocol; the message is ours, or already escaped."""


def parse_answer(request: Mapping[str, Any], api: Api, status: int, body: bytes) -> Answer:
    """Classify one complete HTTP response to ``request`` and extract what it answers.

    ``body`` is the decoded (not compressed) body: JSON, or an event stream of it. Never raises for anything
    in ``status`` or ``body``.
    """
    page = request["type"] == "get"
    if status != 200:
        return _by_status(status, body, page=page)
    try:
        if not page and is_event_stream(body):
            data: Any = assemble(body, api)
        else:
            data = orjson.loads(body)
    except orjson.JSONDecodeError as exc:  # invalid UTF-8 and nesting beyond 1,024 levels included
        return _protocol(f"invalid JSON: {escaped(str(exc))}")
    except StreamError as exc:
        return _protocol(str(exc))
    try:
        return _page(data) if page else _parse_200(request, api, data)
    except _Invalid as exc:
        return _protocol(str(exc))


def context_length(context: str) -> int:
    """Characters of the context once its trailing white space counts as part of the continuation.

    lm-eval moves it there before tokenising, because tokens usually carry their leading space.
    """
    return len(context.rstrip())


def fault_of_status(status: int) -> Fault:
    """The fault that an HTTP status other than 200 means, of a server that speaks for itself."""
    found = (fault for first, last, fault in STATUS_FAULTS if first <= status <= last)
    return next(found, Fault.SUPPLIER_PROTOCOL)


def _by_status(status: int, body: bytes, *, page: bool) -> Answer:
    """Classify by status, and by the error's code where that says more.

    A ``page`` that is not served to us says nothing of key, model or supplier.
    """
    fault = fault_of_status(status)
    if page:
        if fault is Fault.CREDENTIALS or status == 501:
            fault = Fault.CLIENT_REQUEST
    elif status in _QUOTA_STATUSES and _names_quota(body):
        fault = Fault.QUOTA
    detail = body[: 4 * MAX_ERROR_CHARS].decode("utf-8", "replace").strip()
    message = f"HTTP {status}: {detail}" if detail else f"HTTP {status}"
    return Answer(fault, error=escaped(message))


def error_object(body: bytes) -> dict[str, Any]:
    """The JSON object of an error; empty where a body is none, or longer than any error is."""
    if len(body) > MAX_ERROR_BYTES:
        return {}
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(data, list) and data:  # Google's way
        data = data[0]
    return data if isinstance(data, dict) else {}


def _names_quota(body: bytes) -> bool:
    """Whether the JSON of an error says that a quota is used up: ``{"error": {"code", "type"}}`` or flat."""
    data = error_object(body)
    return any(_is_quota(part) for part in (data, data.get("error"), data.get("detail")))


def _is_quota(error: Any) -> bool:
    words = [error.get("code"), error.get("type")] if isinstance(error, dict) else [error]
    return any(isinstance(word, str) and word.lower() in _QUOTA_WORDS for word in words)


def _error_in_200(error: Any, *beside: Any, page: bool = False) -> Answer:
    """What an error inside an answer 200 is: what the HTTP status in it would be, where one is in it.

    ``beside`` are values next to the error that may be that status.
    """
    text = f"HTTP 200 with an error: {_message(error)}"
    inside = (
        [error.get(name) for name in ("code", "status", "status_code")] if isinstance(error, dict) else []
    )
    status = next((found for value in (*inside, *beside) if (found := _status(value)) is not None), None)
    if status is None:
        return _protocol(text)
    fault = fault_of_status(status)
    if page and fault is Fault.CREDENTIALS:
        fault = Fault.CLIENT_REQUEST
    elif status in _QUOTA_STATUSES and _is_quota(error):
        fault = Fault.QUOTA
    return Answer(fault, error=escaped(f"{text} ({status})"))


def _status(value: Any) -> int | None:
    """A value as the status of an HTTP error, 400 to 599; None for any other."""
    if isinstance(value, str) and len(value) == 3 and value.isdecimal():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599 else None


def _protocol(error: str) -> Answer:
    return Answer(Fault.SUPPLIER_PROTOCOL, error=escaped(error))


def _page(data: Any) -> Answer:
    """Return a page's JSON object as text in the one form that equal objects share."""
    if not isinstance(data, dict):
        raise _Invalid(f"the page is {_kind(data)}, not an object")
    if data.get("error") is not None:
        return _error_in_200(data["error"], data.get("code"), data.get("status"), page=True)
    try:
        return Answer(Fault.OK, orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode())
    except orjson.JSONEncodeError:  # it writes no more than 254 levels
        raise _Invalid("the page's JSON is nested too deeply") from None


def _parse_200(request: Mapping[str, Any], api: Api, data: Any) -> Answer:
    if not isinstance(data, dict):
        raise _Invalid(f"the answer is {_kind(data)}, not an object")
    error = data.get("error")
    if error is not None:
        return _error_in_200(error, data.get("code"), data.get("status"))
    choice = _first_choice(data.get("choices"))
    reason = choice.get("finish_reason")
    if reason is not None and not isinstance(reason, str):
        raise _Invalid(f"finish_reason is {_kind(reason)}")
    if reason is not None:
        reason = escaped(reason, _MAX_FINISH_REASON_CHARS)
    if reason in _FAILED_REASONS:
        return _failed(choice, reason)
    text: str | None = None
    logprob: float | None = None
    greedy: bool | None = None
    problem: str | None = None
    if reason == "content_filter":
        fault, problem = Fault.SUPPLIER_REFUSED, "finish_reason content_filter"
    elif request["type"] == "loglikelihood":
        fault, logprob, greedy, problem = _loglikelihood(request, choice)
    else:
        fault, text, problem = _generation(choice, api, reason)
    usage = data.get("usage")
    if not isinstance(usage, dict):
        usage = {}
    prompt_tokens = _count(usage.get("prompt_tokens"))
    completion_tokens = _count(usage.get("completion_tokens"))
    return Answer(fault, text, logprob, greedy, reason, prompt_tokens, completion_tokens, problem)


def _generation(choice: dict[str, Any], api: Api, reason: str | None) -> tuple[Fault, str | None, str | None]:
    """Return fault, text and error of a generate_until answer."""
    text, refusal = _text(choice, api)
    if refusal:
        return Fault.SUPPLIER_REFUSED, None, escaped(f"refusal: {refusal}")
    if not text and reason != "length" and _calls_tools(choice, reason):
        raise _Invalid("tool calls instead of a text, though no tools were offered")
    # an answer without text is one: what the task makes of "" is its score
    return (Fault.TRUNCATED if reason == "length" else Fault.OK), text or "", None


def _calls_tools(choice: dict[str, Any], reason: str | None) -> bool:
    message = choice.get("message")
    calls = message.get("tool_calls") or message.get("function_call") if isinstance(message, dict) else None
    return bool(calls) or reason in ("tool_calls", "function_call")


def _failed(choice: dict[str, Any], reason: str) -> Answer:
    """An answer that the supplier says it could not finish; the choice may hold the error it met."""
    error = choice.get("error")
    found = None if error is None else _error_in_200(error)
    if found is not None and found.fault is not Fault.SUPPLIER_PROTOCOL:
        return Answer(found.fault, finish_reason=reason, error=found.error)
    text = f"finish_reason {reason}" if error is None else f"finish_reason {reason}: {_message(error)}"
    return Answer(Fault.SUPPLIER_HTTP, finish_reason=reason, error=escaped(text))


def _loglikelihood(
    request: Mapping[str, Any], choice: dict[str, Any]
) -> tuple[Fault, float | None, bool | None, str | None]:
    """Return fault, log-probability, greediness and error of a loglikelihood answer."""
    if not request["continuation"]:
        return Fault.INTERNAL, None, None, "the continuation is empty: nothing to score"
    logprob, greedy = _logprob(choice, request["context"], request["continuation"])
    return Fault.OK, logprob, greedy, None


def _first_choice(choices: Any) -> dict[str, Any]:
    """Return the choice with index 0; a choice that leaves its index out counts by its place."""
    if not isinstance(choices, list) or not choices:
        raise _Invalid("choices is missing or empty" if not choices else f"choices is {_kind(choices)}")
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise _Invalid(f"a choice is {_kind(choice)}")
        index = choice.get("index", place)
        if isinstance(index, int) and not isinstance(index, bool) and index == 0:
            return choice
    raise _Invalid("no choice has index 0")


def _text(choice: dict[str, Any], api: Api) -> tuple[str | None, str | None]:
    """Return text and refusal of a choice, each None when absent."""
    if api == "completions":
        return _optional_text(choice.get("text"), "text"), None
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _Invalid(f"message is {_kind(message)}")
    content = _optional_text(message.get("content"), "message.content")
    return content, _optional_text(message.get("refusal"), "message.refusal")


def _optional_text(value: Any, name: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise _Invalid(f"{name} is {_kind(value)}")


def _logprob(choice: dict[str, Any], context: str, continuation: str) -> tuple[float, bool]:
    """Sum the continuation's log-probabilities and tell whether each token was the likeliest."""
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        raise _Invalid(f"logprobs is {_kind(found)}")
    tokens, logprobs, tops, offsets = (
        _list(found, name) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    )
    if not len(tokens) == len(logprobs) == len(tops) == len(offsets):
        raise _Invalid("the lists of logprobs differ in length")
    start = _continuation_start(tokens, offsets, context, continuation)
    values = [_logprob_value(value) for value in logprobs[start:-1]]
    bests = [_best(top) for top in tops[start:-1]]
    # the built-in sum, in list order, is what lm-eval computes
    return float(sum(values)), all(value == best for value, best in zip(values, bests, strict=True))


def _list(found: dict[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    if not isinstance(value, list):
        raise _Invalid(f"logprobs.{name} is {_kind(value)}")
    return value


def _continuation_start(tokens: list[Any], offsets: list[Any], context: str, continuation: str) -> int:
    """Find the index of the continuation's first token.

    The last entry must be the one generated token: its offset is where the echoed prompt ends, which also
    proves that the prompt was echoed completely.
    """
    if not all(isinstance(token, str) for token in tokens):
        raise _Invalid("logprobs.tokens holds something that is no text")
    if not all(isinstance(offset, int) and not isinstance(offset, bool) for offset in offsets):
        raise _Invalid("logprobs.text_offset holds something that is no integer")
    if len(tokens) < 2:
        raise _Invalid("log-probabilities of the prompt are missing (echo ignored)")
    if all(offset == -1 for offset in offsets):
        # SGLang's way of saying that it does not compute offsets
        offsets = [0, *accumulate(len(token) for token in tokens[:-1])]
    if any(later < earlier for earlier, later in pairwise(offsets)):
        raise _Invalid("logprobs.text_offset decreases")
    prompt = context + continuation
    # what stands before the prompt in the server's count: 0, or the text of a BOS token it put in front
    shift = offsets[-1] - len(prompt)
    if shift != 0 and not _is_bos(tokens, offsets, prompt, shift):
        raise _Invalid(
            f"{offsets[-1]} characters stand before the generated token, but the prompt has {len(prompt)}"
        )
    boundary = context_length(context) + shift
    # an empty-text BOS shares offset 0 with the first real token
    first = 1 if tokens[0] == "" and len(tokens) > 2 else 0
    for index in range(first, len(tokens) - 1):
        if offsets[index] == boundary:
            return index
        if offsets[index] > boundary:
            break
    raise _Invalid("a token straddles the boundary between context and continuation")


def _is_bos(tokens: list[str], offsets: list[int], prompt: str, shift: int) -> bool:
    """Whether the first token stands before the prompt and explains the shift of all offsets."""
    if not (offsets[0] == 0 and offsets[1] == shift == len(tokens[0])):
        return False
    return not prompt.startswith(tokens[0]) or "".join(tokens[1:-1]) == prompt


def _logprob_value(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Invalid(f"a log-probability of the continuation is {_kind(value)}")
    number = float(value)
    if not math.isfinite(number) or number > POSITIVE_TOLERANCE:
        raise _Invalid(f"a log-probability of the continuation is {number!r}")
    return number


def _best(top: Any) -> float:
    if not isinstance(top, dict) or not top:
        raise _Invalid("top_logprobs of a continuation token are missing")
    return max(_logprob_value(value) for value in top.values())


def _count(value: Any) -> int | None:
    """Token count as reported; anything implausible counts as not reported (stores hold 64-bit integers)."""
    plausible = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT
    return value if plausible else None


def _message(error: Any) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        error = error["message"]
    # nothing else is printed: `repr` of a deeply nested value would overflow the stack
    return escaped(error) if isinstance(error, str) else _kind(error)


def _kind(value: Any) -> str:
    """JSON name of a value's type."""
    if value is None:
        return "null or missing"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")
