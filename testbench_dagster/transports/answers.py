"""What an HTTP answer says: classification of status and body, and the text or log-probability in it.

Pure functions of the stored evidence, so transports (while relaying) and scoring (any time later) come to
the same result. Suppliers are hostile until proven otherwise: nothing in a body makes :func:`parse_answer`
raise, and nothing from it reaches an ``error`` text unescaped or unbounded.

What an answer's text is follows lm-eval 0.4.13 (``LocalChatCompletion.parse_generations``), with two
differences: an answer without text is ``""``, and what a model thought is no part of what it answered.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import orjson

from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, SupplierGeneration
from testbench_dagster.core.ids import canonical_json
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.event_streams import StreamError, assemble, is_event_stream
from testbench_dagster.transports.json_values import Invalid as _Invalid
from testbench_dagster.transports.json_values import kind as _kind
from testbench_dagster.transports.lenient_json import Unreadable, read_json
from testbench_dagster.transports.logprobs import NotMeasurable, continuation_logprob
from testbench_dagster.transports.payload import MAX_CHAT_STOPS, Api
from testbench_dagster.transports.reasoning import reasoning_of, split_parts, split_text
from testbench_dagster.transports.statuses import (
    error_without_choices,
    fault_of_error,
    fault_of_status,
    fault_with_error,
    is_error,
    message_of,
    status_line,
)

#: Why an answer ended, as :func:`_told_reason` writes it: at a token limit (OpenAI; Anthropic, Gemini,
#: Cohere; Mistral; TGI, Watson; Zhipu).
_CUT_REASONS = frozenset(
    {
        *("length", "max_length", "max_tokens", "max_output_tokens", "max_new_tokens", "model_length"),
        *("token_limit", "length_limit", "model_context_window_exceeded"),
    }
)
#: By a filter (OpenAI, Azure; Gemini; Zhipu; Anthropic; Bedrock).
_FILTER_REASONS = frozenset(
    {
        *("content_filter", "content_filtered", "safety", "prohibited_content", "blocklist", "sensitive"),
        *("recitation", "spii", "refusal", "guardrail_intervened", "moderation"),
    }
)
#: It came to nothing at the supplier (SGLang, vLLM, OpenRouter; Zhipu; DeepSeek, which lacks the capacity).
_FAILED_REASONS = {
    "error": Fault.SUPPLIER_HTTP,
    "abort": Fault.SUPPLIER_HTTP,
    "cancelled": Fault.SUPPLIER_HTTP,
    "canceled": Fault.SUPPLIER_HTTP,
    "failed": Fault.SUPPLIER_HTTP,
    "timeout": Fault.SUPPLIER_HTTP,
    "internal_error": Fault.SUPPLIER_HTTP,
    "server_error": Fault.SUPPLIER_HTTP,
    "network_error": Fault.SUPPLIER_HTTP,
    "insufficient_system_resource": Fault.UNAVAILABLE,
}
#: What some clients of these APIs write before a reason, or between its words.
_REASON_PREFIX = re.compile(r"finish_?reason[._]")
_WORD_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|-")
_MAX_FINISH_REASON_CHARS = 64
_MAX_COUNT = 2**31 - 1
#: More in one answer is no attempt to answer: OpenAI allows 128 tools in all.
_MAX_TOOL_CALLS = 512

_log = logging.getLogger(__name__)


@dataclass(slots=True)  # one is made per relay, and frozen ones take three times as long to make
class Answer:
    """Outcome of parsing one response.

    ``text`` belongs to generate_until, to chat, where it is that of a
    :class:`~testbench_dagster.core.chat_message.ChatMessage`, and to get, where it is the page's JSON,
    compact and with sorted keys.
    ``logprob`` (sum over the continuation, natural logarithm; minus infinity where a token is impossible) and
    ``greedy`` (None where the answer does not show it) belong to loglikelihood.
    ``reasoning`` is what the model thought, in fields, parts or between tags, ``reasoning_chars`` its
    characters, ``reasoning_tokens`` what the supplier says it counted of them; None where there is nothing.
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
    reasoning_tokens: int | None = None
    reasoning_chars: int | None = None
    reasoning: str | None = None


def parse_answer(
    request: Mapping[str, Any],
    api: Api,
    status: int,
    body: bytes,
    *,
    charset: str | None = None,
    generation: SupplierGeneration = AS_THE_TASK_SAYS,
    tags: bool = True,
) -> Answer:
    """Classify one complete HTTP response to ``request`` and extract what it answers.

    Never raises for anything in ``status`` or ``body``.

    Args:
        request: the stored request; its ``think_end_token`` is the task's rule for what was thought.
        api: the form in which it was sent.
        status: of HTTP.
        body: the decoded (not compressed) body: JSON, or an event stream of it.
        charset: what :func:`~.lenient_json.declared_charset` found in its Content-Type.
        generation: how the supplier was asked: where it was not sent all stop strings of the request, the
            answer is cut at them here, once what was thought is taken away.
        tags: whether thoughts between tags are looked for where the task has no rule for them.
    """
    page = request["type"] == "get"
    if not 200 <= status <= 299:
        return _by_status(status, body, page=page)
    try:
        if not page and is_event_stream(body):
            data: Any = assemble(body, api, charset)
        else:
            data = read_json(body, charset)
        answer = _page(data) if page else _parse_200(request, api, data, generation, tags=tags)
    except (Unreadable, StreamError, _Invalid) as exc:
        answer = _protocol(str(exc))
    except Exception as exc:
        # a mistake of ours, but whoever finds it could send such answers where it would be wrong: a fault of
        # ours counts nowhere
        _log.exception("an answer that could not be read")
        answer = _protocol(f"{type(exc).__name__} while it was read")
    if status != 200 and answer.error is not None and not answer.error.startswith("HTTP "):
        return replace(answer, error=escaped(f"HTTP {status}: {answer.error}"))
    return answer


def _by_status(status: int, body: bytes, *, page: bool) -> Answer:
    """Classify by status, and by the error's code where that says more.

    A ``page`` that is not served to us says nothing of key, model or supplier.
    """
    fault = fault_of_status(status) if page else fault_with_error(status, body)
    if page and status in (401, 403, 404, 501):
        fault = Fault.CLIENT_REQUEST
    return Answer(fault, error=escaped(status_line(status, body)))


def _error_in_200(error: Any, *beside: Any, page: bool = False) -> Answer:
    """What an error inside an answer 200 is: what the HTTP status in it would be, where one is in it.

    ``beside`` are values next to the error that may be that status.
    """
    text = f"HTTP 200 with an error: {message_of(error)}"
    found = fault_of_error(error, *beside)
    if found is None:
        return _protocol(text)
    fault, status = found
    if page and fault is Fault.CREDENTIALS:
        fault = Fault.CLIENT_REQUEST
    return Answer(fault, error=escaped(f"{text} ({status})"))


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
    except orjson.JSONEncodeError:  # it writes no more than 254 levels, and no integer beyond 64 bits
        raise _Invalid("the page's JSON is nested too deeply, or holds too large a number") from None


def _parse_200(
    request: Mapping[str, Any], api: Api, data: Any, generation: SupplierGeneration, *, tags: bool
) -> Answer:
    if isinstance(data, list) and data:
        data = data[0]  # lm-eval takes a list of answers for what it is; Google's errors come so
    if not isinstance(data, dict):
        raise _Invalid(f"the answer is {_kind(data)}, not an object")
    error, choices = data.get("error"), data.get("choices")
    if not error or not is_error(error):
        error = None if choices else error_without_choices(data)
    if error is not None:
        return _error_in_200(error, data.get("code"), data.get("status"))
    choice = _first_choice(choices)
    reason, failure = _finish_reason(choice.get("finish_reason"))
    ended = _told_reason(reason) if reason else ""
    if ended in _FAILED_REASONS:
        return _failed(choice, reason or "", _FAILED_REASONS[ended], failure)
    text: str | None = None
    logprob: float | None = None
    greedy: bool | None = None
    thought = ""
    problem: str | None = None
    if ended in _FILTER_REASONS:
        fault, problem = Fault.SUPPLIER_REFUSED, f"finish_reason {reason}"
    elif request["type"] == "loglikelihood":
        fault, logprob, greedy, problem = _loglikelihood(request, choice)
    else:
        rule = _think_end_token(request, tags=tags)
        fault, text, thought, problem = _generated(request, choice, api, ended, generation, rule)
        if request["type"] == "chat" and text is not None:
            text = ChatMessage(text or None, _tool_calls(choice), reason).text
    usage = data.get("usage")
    if not isinstance(usage, dict):
        usage = {}
    return Answer(
        fault,
        text,
        logprob,
        greedy,
        reason,
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        problem,
        _reasoning_tokens(usage),
        len(thought) or None,
        thought or None,
    )


def _finish_reason(value: Any) -> tuple[str | None, Any]:
    """Why an answer ended, escaped and bounded, and the error in that; SGLang's is an object."""
    failure = None
    if isinstance(value, dict):
        value, failure = value.get("type"), value
    return (escaped(value, _MAX_FINISH_REASON_CHARS) if isinstance(value, str) else None), failure


@lru_cache(maxsize=256)
def _told_reason(reason: str) -> str:
    """A finish reason in small letters, its words joined by ``_``, without ``FINISH_REASON_`` before it.

    It has to be a short one, as some are kept.
    """
    return _REASON_PREFIX.sub("", _WORD_BREAK.sub("_", reason).lower(), count=1)


def _generated(
    request: Mapping[str, Any],
    choice: dict[str, Any],
    api: Api,
    ended: str,
    generation: SupplierGeneration,
    rule: str | bool | None,
) -> tuple[Fault, str | None, str, str | None]:
    """Return fault, text, what was thought and error of what a model wrote."""
    text, beside, refusal = _said(choice, api)
    if refusal:
        return Fault.SUPPLIER_REFUSED, None, beside, escaped(f"refusal: {refusal}")
    was_cut = ended in _CUT_REASONS
    if not text and not was_cut and "tools" not in request and _calls_tools(choice, ended):
        raise _Invalid("tool calls instead of a text, though no tools were offered")
    # an answer without text is one: what the task makes of "" is its score
    thoughts, answer = split_text(text, rule)
    if generation.stop is not None:
        stopped = _before_stops(answer, _unsent_stops(request, api, generation))
        # a server would have ended it there, within the limit
        was_cut, answer = was_cut and stopped == answer, stopped
    return (Fault.TRUNCATED if was_cut else Fault.OK), answer, beside + thoughts, None


def _think_end_token(request: Mapping[str, Any], *, tags: bool) -> str | bool | None:
    """The task's rule for what was thought, see :func:`~.reasoning.split_text`."""
    rule = request.get("think_end_token")
    if rule is None:
        return None if tags else False
    return rule if rule is False or (isinstance(rule, str) and rule) else None if tags else False


def _unsent_stops(request: Mapping[str, Any], api: Api, generation: SupplierGeneration) -> list[str]:
    """The stop strings that the task's own request sends, where the supplier was not sent all of them."""
    if generation.stop is None:
        return []
    until = (request.get("generation") or {}).get("until")
    found = [until] if isinstance(until, str) else until
    if not isinstance(found, list):
        return []
    stops = found[:MAX_CHAT_STOPS] if api == "chat" else found
    if isinstance(generation.stop, int) and generation.stop >= len(stops):
        return []
    return [stop for stop in stops if isinstance(stop, str) and stop]


def _before_stops(text: str, stops: Iterable[str]) -> str:
    """The text before the first of some stop strings in it."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(found)] if found else text


def _calls_tools(choice: dict[str, Any], ended: str) -> bool:
    message = choice.get("message")
    calls = message.get("tool_calls") or message.get("function_call") if isinstance(message, dict) else None
    return bool(calls) or ended in ("tool_calls", "function_call")


def _tool_calls(choice: dict[str, Any]) -> tuple[ToolCall, ...]:
    """The calls that a message asks for, its older ``function_call`` as the one; arguments as they were sent.

    Some servers send arguments as an object: then they are its JSON.
    """
    message = choice.get("message")
    if not isinstance(message, dict):
        return ()
    calls = message.get("tool_calls")
    if not calls:
        older = message.get("function_call")
        calls = [{"function": older}] if older else []
    if not isinstance(calls, list):
        raise _Invalid(f"tool_calls is {_kind(calls)}")
    if len(calls) > _MAX_TOOL_CALLS:
        raise _Invalid(f"the answer has {len(calls)} tool calls, of which at most {_MAX_TOOL_CALLS} are read")
    found = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _Invalid("a tool call names no function")
        arguments = function.get("arguments")
        if isinstance(arguments, (dict, list)):
            arguments = canonical_json(arguments)
        elif arguments is None:
            arguments = ""
        if not isinstance(arguments, str):
            raise _Invalid(f"the arguments of a tool call are {_kind(arguments)}, not a text")
        found.append(ToolCall(function["name"], arguments))
    return tuple(found)


def _failed(choice: dict[str, Any], reason: str, fault: Fault, failure: Any) -> Answer:
    """An answer that the supplier says it could not finish; the choice may hold the error it met."""
    error = choice.get("error") or failure
    found = None if error is None else fault_of_error(error)
    text = f"finish_reason {reason}" if error is None else f"finish_reason {reason}: {message_of(error)}"
    return Answer(fault if found is None else found[0], finish_reason=reason, error=escaped(text))


def _loglikelihood(
    request: Mapping[str, Any], choice: dict[str, Any]
) -> tuple[Fault, float | None, bool | None, str | None]:
    """Return fault, log-probability, greediness and error of a loglikelihood answer."""
    if not request["continuation"]:
        return Fault.INTERNAL, None, None, "the continuation is empty: nothing to score"
    try:
        logprob, greedy = continuation_logprob(choice, request["context"], request["continuation"])
    except NotMeasurable as error:
        return Fault.UNSUPPORTED, None, None, escaped(str(error))
    return Fault.OK, logprob, greedy, None


def _first_choice(choices: Any) -> dict[str, Any]:
    """Return the choice with index 0; one without index counts by its place, a single one always."""
    if not isinstance(choices, list) or not choices:
        raise _Invalid("choices is missing or empty" if not choices else f"choices is {_kind(choices)}")
    if len(choices) == 1 and isinstance(choices[0], dict):
        return choices[0]
    for place, choice in enumerate(choices):
        if not isinstance(choice, dict):
            raise _Invalid(f"a choice is {_kind(choice)}")
        index = choice.get("index", place)
        if index is None or _count(index) == 0:
            return choice
    raise _Invalid("no choice has index 0")


def _said(choice: dict[str, Any], api: Api) -> tuple[str, str, str]:
    """Return text, reasoning beside the text and refusal of a choice, each empty when absent.

    Some servers answer in the form of the other API.
    """
    message = choice.get("message")
    if isinstance(message, dict) and (api == "chat" or "text" not in choice):
        text, thoughts, told = _content(message.get("content"), "message.content")
        if not told and isinstance(refusal := message.get("refusal"), str):
            told = refusal
        return text, thoughts or reasoning_of(message), told.strip()
    if api == "chat" and "text" not in choice:
        raise _Invalid(f"message is {_kind(message)}")
    text, thoughts, _ = _content(choice.get("text"), "text")
    return text, thoughts or reasoning_of(choice), ""


def _content(value: Any, name: str) -> tuple[str, str, str]:
    """Return text, reasoning and refusal in a content: a text, or parts of several types."""
    if value is None or isinstance(value, str):
        return value or "", "", ""
    parts = split_parts(value if isinstance(value, list) else [value])
    if parts.other and not (parts.text or parts.reasoning or parts.refusal):
        raise _Invalid(f"{name} is {_kind(value)} without a text")
    return parts.text, parts.reasoning, parts.refusal


def _count(value: Any) -> int | None:
    """Token count as reported; anything implausible counts as not reported (stores hold 64-bit integers)."""
    if type(value) is int:  # nearly always
        return value if 0 <= value <= _MAX_COUNT else None
    if isinstance(value, str) and len(value) <= 10 and value.isdecimal():
        value = int(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
        return None
    return int(value) if value == int(value) else None


def _reasoning_tokens(usage: dict[str, Any]) -> int | None:
    """Tokens that a model thought, as the supplier counts them (OpenAI's shape, or beside the others)."""
    details = usage.get("completion_tokens_details")
    said = details.get("reasoning_tokens") if isinstance(details, dict) else None
    if said is None:
        said = usage.get("reasoning_tokens")
    return None if said is None else _count(said)
