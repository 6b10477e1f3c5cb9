"""The HTTP request of a relay: for text, what lm-eval 0.4.13's own API clients would send.

Parity is the point: a supplier must not be able to tell our questions from lm-eval's, and scores of both
must be comparable. The tests compare every payload with lm-eval's; this module never imports it. Where a
supplier wants to be asked otherwise (:class:`~testbench_dagster.core.generation.SupplierGeneration`), only
that differs. Pages that suppliers serve about themselves are asked for by plain GET.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import orjson

from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, NOT_EXTRA, SupplierGeneration
from testbench_dagster.core.prompt import GENERATED

Api = Literal["chat", "completions"]

CHAT_PATH = "/chat/completions"
COMPLETIONS_PATH = "/completions"
SEED = 1234
DEFAULT_MAX_TOKENS = 256
#: What a request of kind ``chat`` may carry beside its messages.
OFFERED = ("tools", "tool_choice", "response_format")
#: OpenAI's chat API takes no more stop sequences than this.
MAX_CHAT_STOPS = 4
#: Generation arguments that are not passed on as they are.
_TAKEN = frozenset({"do_sample", "max_gen_toks", "temperature", "until"})
_TAKEN_WITH_MAX_TOKENS = _TAKEN - {"max_gen_toks"} | {"max_tokens"}
_VERSION = re.compile(r"/v\d+$")


class RequestError(TestbenchError, ValueError):
    """A stored request cannot be sent through the supplier's API: our own mistake, never the supplier's."""


def build_payload(
    request: Mapping[str, Any],
    api: Api,
    model: str,
    generation: SupplierGeneration = AS_THE_TASK_SAYS,
) -> tuple[str, dict[str, Any]]:
    """Return the path relative to the supplier's base URL and the JSON body of ``request``.

    ``request`` is one of the stored shapes of :class:`~testbench_dagster.core.relay.Relay` and is not
    changed. ``generation`` is how the supplier wants to be asked: budget, effort and stop strings concern
    requests for texts alone, all else those for log-probabilities, too.

    Raises:
        RequestError: the request does not fit ``api``, or ``generation`` does not fit the request.
    """
    path, body = _plain_payload(request, api, model)
    if generation is not AS_THE_TASK_SAYS:
        body = _as_wanted(body, generation, for_text=request.get("type") in GENERATED)
    return path, body


def unsendable(request: Mapping[str, Any], api: Api) -> str | None:
    """Why a stored request cannot be sent to anybody through an API, in words; None where it can.

    Raises nothing: what another package built may hold anything.
    """
    try:
        if request.get("type") == "get":
            page_path(request)
        else:
            orjson.dumps(build_payload(request, api, "model")[1])
    except (RequestError, TypeError, ValueError, AttributeError, LookupError, RecursionError) as error:
        return str(error) if isinstance(error, RequestError) else f"{type(error).__name__}: {error}"
    return None


def asked_otherwise(
    request: Mapping[str, Any], api: Api, generation: SupplierGeneration
) -> dict[str, Any] | None:
    """What evidence says of a request that is sent otherwise than the task says; None where it is not.

    Raises what :func:`build_payload` raises.
    """
    if generation is AS_THE_TASK_SAYS:
        return None
    plain, wanted = (build_payload(request, api, "", how)[1] for how in (AS_THE_TASK_SAYS, generation))
    # as bytes: 0 and 0.0 are equal, and not the same request
    return generation.settings() if orjson.dumps(plain) != orjson.dumps(wanted) else None


def task_stops(request: Mapping[str, Any], api: Api) -> list[str]:
    """The strings at which the answer to a request for a text ends: those the task's own request sends."""
    stop = _generation(request)[0]
    return stop[:MAX_CHAT_STOPS] if api == "chat" else list(stop)


def answer_tokens(request: Mapping[str, Any], generation: SupplierGeneration = AS_THE_TASK_SAYS) -> int:
    """Most tokens that the answer to a stored request may have: the task's limit and the supplier's budget.

    0 for pages, and where the task's limit is no number.
    """
    if request.get("type") not in GENERATED:
        return 0 if request.get("type") == "get" else 1
    limit = _token_limit(request.get("generation") or {})
    if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < 1e9:
        return 0
    return int(limit) + generation.budget


def request_shape(request: Mapping[str, Any], api: Api) -> str:
    """The form of a stored request as it is sent: API, kind and the names of its parameters.

    What a supplier cannot take of a form it takes of no request of that form, whatever the values: so two
    requests that differ only in what is not sent, or has its default, have one form. No stop string at all is
    a form of its own: some servers refuse the empty list.
    """
    kind = str(request.get("type"))
    if kind == "get":
        return f"{api} {kind}"
    parameters = set(_plain_payload(request, api, "")[1]) - {"model", "messages", "prompt"}
    if kind == "generate_until" and not _generation(request)[0]:
        parameters.discard("stop")
    return " ".join((api, kind, *sorted(parameters)))


def as_stream(payload: Mapping[str, Any], *, usage: bool = True) -> dict[str, Any]:
    """Return the body of :func:`build_payload` asking for the same answer as an event stream.

    ``usage``: and for the number of its tokens, in an event at the end.
    """
    streamed = {**payload, "stream": True}
    return {**streamed, "stream_options": {"include_usage": True}} if usage else streamed


def page_path(request: Mapping[str, Any]) -> str:
    """Return the path of a ``get`` request, relative to :func:`service_root`.

    Raises :class:`RequestError` unless it is a plain absolute path.
    """
    path = _field(request, "path")
    if not isinstance(path, str) or not re.fullmatch(r"(/[A-Za-z0-9_.-]+)+", path) or ".." in path:
        raise RequestError(f"path {path!r} is no plain absolute path such as /pokt/config")
    return path


def service_root(base_url: str) -> str:
    """Where a supplier's pages beside its OpenAI API begin: its base URL without the version at its end.

    ``https://host/v1`` gives ``https://host``, ``https://host/some/where/v1`` gives
    ``https://host/some/where``, and a base URL without a version is its own root.
    """
    return _VERSION.sub("", base_url.rstrip("/"))


def _plain_payload(request: Mapping[str, Any], api: Api, model: str) -> tuple[str, dict[str, Any]]:
    kind = request.get("type")
    if kind == "generate_until":
        if api == "chat":
            return CHAT_PATH, _chat(request, model)
        return COMPLETIONS_PATH, _completion(request, model)
    if kind == "chat":
        if api != "chat":
            raise RequestError("requests with tools or a response format need `api: chat`")
        return CHAT_PATH, _message(request, model)
    if kind == "loglikelihood":
        if api == "chat":
            raise RequestError("loglikelihood requests need `api: completions`; chat answers carry no prompt")
        return COMPLETIONS_PATH, _loglikelihood(request, model)
    raise RequestError(
        f"request type {kind!r} has no JSON body; use 'generate_until', 'chat' or 'loglikelihood' "
        "('get' has none)"
    )


def _as_wanted(body: Mapping[str, Any], wanted: SupplierGeneration, *, for_text: bool) -> dict[str, Any]:
    """The body with what a supplier wants otherwise, its other fields in their order."""
    found: dict[str, Any] = {}
    for name, value in body.items():
        if name == "max_tokens":
            if wanted.token_field != "omit":  # noqa: S105  no secret
                found[wanted.token_field] = _limit(value, wanted.budget) if for_text else value
        elif name == "temperature" and wanted.temperature is not None:
            if wanted.temperature != "omit":
                found[name] = wanted.temperature
        elif name == "seed" and wanted.seed is not None:
            if wanted.seed != "omit":
                found[name] = wanted.seed
        elif name == "stop" and wanted.stop is not None and for_text:
            sent = [] if wanted.stop == "client" else value[: wanted.stop]
            if sent:  # servers refuse an empty list; none at all means the same
                found[name] = sent
        else:
            found[name] = value
    if for_text and wanted.effort is not None:
        found["reasoning_effort"] = wanted.effort
    if taken := NOT_EXTRA.intersection(wanted.extra_body):
        raise RequestError(f"extra_body may not hold {', '.join(sorted(taken))}")
    return found | dict(wanted.extra_body)


def _limit(tokens: Any, budget: int) -> Any:
    if not budget:
        return tokens
    if not isinstance(tokens, int) or isinstance(tokens, bool):
        raise RequestError(
            f"the task's token limit is {type(tokens).__name__}, to which no budget can be added"
        )
    return tokens + budget


def _chat(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    stop, max_tokens, temperature, rest = _generation(request)
    return {
        "messages": _field(request, "messages"),
        "model": model,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stop": stop[:MAX_CHAT_STOPS],
        "seed": SEED,
        **rest,
    }


def _message(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A chat request with what it offers beside the messages; lm-eval has none of the kind.

    No stop strings is no field: some servers refuse the empty list.
    """
    body = _chat(request, model)
    if not body["stop"]:
        del body["stop"]
    return body | {name: request[name] for name in OFFERED if name in request}


def _completion(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    stop, max_tokens, temperature, rest = _generation(request)
    return {
        "prompt": _field(request, "prompt"),
        "model": model,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "stop": stop,
        "seed": SEED,
        **rest,
    }


def _loglikelihood(request: Mapping[str, Any], model: str) -> dict[str, Any]:
    return {
        "model": model,
        "prompt": _field(request, "context") + _field(request, "continuation"),
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": SEED,
        "echo": True,
    }


def _generation(request: Mapping[str, Any]) -> tuple[list[str], Any, Any, dict[str, Any]]:
    """Split lm-eval's generation arguments into stop list, token limit, temperature and what is passed on."""
    given = request.get("generation") or {}
    # `max_tokens` wins and then leaves `max_gen_toks` among the rest, as in lm-eval
    taken = _TAKEN_WITH_MAX_TOKENS if "max_tokens" in given else _TAKEN
    rest = {} if taken.issuperset(given) else {k: v for k, v in given.items() if k not in taken}
    until = given.get("until")
    if until is None:
        stop = []
    elif isinstance(until, str):
        stop = [until]
    elif isinstance(until, list):
        stop = until
    else:
        raise RequestError(f"generation.until must be text or a list of texts, not {type(until).__name__}")
    return stop, _token_limit(given), given.get("temperature", 0), rest


def _token_limit(given: Mapping[str, Any]) -> Any:
    """The token limit among generation arguments, or lm-eval's."""
    if "max_tokens" in given:
        return given["max_tokens"]
    return given.get("max_gen_toks", DEFAULT_MAX_TOKENS)


def _field(request: Mapping[str, Any], name: str) -> Any:
    try:
        return request[name]
    except KeyError:
        raise RequestError(f"the request has no {name!r}, which this type and api need") from None
