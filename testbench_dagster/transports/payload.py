"""The HTTP request of a relay: for text, what lm-eval 0.4.13's own API clients would send.

Parity is the point: a supplier must not be able to tell our questions from lm-eval's, and scores of both
must be comparable. The tests compare every payload with lm-eval's; this module never imports it. Pages that
suppliers serve about themselves are asked for by plain GET.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from testbench_dagster.core.errors import TestbenchError

Api = Literal["chat", "completions"]

CHAT_PATH = "/chat/completions"
COMPLETIONS_PATH = "/completions"
SEED = 1234
DEFAULT_MAX_TOKENS = 256
#: OpenAI's chat API takes no more stop sequences than this.
MAX_CHAT_STOPS = 4
_VERSION = re.compile(r"/v\d+$")


class RequestError(TestbenchError, ValueError):
    """A stored request cannot be sent through the supplier's API: our own mistake, never the supplier's."""


def build_payload(request: Mapping[str, Any], api: Api, model: str) -> tuple[str, dict[str, Any]]:
    """Return the path relative to the supplier's base URL and the JSON body of ``request``.

    ``request`` is one of the stored shapes of :class:`~testbench_dagster.core.relay.Relay` and is not
    changed. Raises :class:`RequestError` when it does not fit ``api``.
    """
    kind = request.get("type")
    if kind == "generate_until":
        if api == "chat":
            return CHAT_PATH, _chat(request, model)
        return COMPLETIONS_PATH, _completion(request, model)
    if kind == "loglikelihood":
        if api == "chat":
            raise RequestError("loglikelihood requests need `api: completions`; chat answers carry no prompt")
        return COMPLETIONS_PATH, _loglikelihood(request, model)
    raise RequestError(
        f"request type {kind!r} has no JSON body; use 'generate_until' or 'loglikelihood' ('get' has none)"
    )


def as_stream(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of :func:`build_payload` asking for the same answer as an event stream, with usage."""
    return {**payload, "stream": True, "stream_options": {"include_usage": True}}


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
    rest = dict(request.get("generation") or {})
    rest.pop("do_sample", None)
    # `max_tokens` wins and then leaves `max_gen_toks` among the rest, as in lm-eval
    if "max_tokens" in rest:
        max_tokens = rest.pop("max_tokens")
    else:
        max_tokens = rest.pop("max_gen_toks", DEFAULT_MAX_TOKENS)
    temperature = rest.pop("temperature", 0)
    until = rest.pop("until", None)
    if until is None:
        stop = []
    elif isinstance(until, str):
        stop = [until]
    elif isinstance(until, list):
        stop = until
    else:
        raise RequestError(f"generation.until must be text or a list of texts, not {type(until).__name__}")
    return stop, max_tokens, temperature, rest


def _field(request: Mapping[str, Any], name: str) -> Any:
    try:
        return request[name]
    except KeyError:
        raise RequestError(f"the request has no {name!r}, which this type and api need") from None
