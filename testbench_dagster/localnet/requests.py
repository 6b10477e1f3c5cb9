"""Reads OpenAI-style request bodies into one typed shape; everything a simulated supplier looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from testbench_dagster.localnet.logprobs import MAX_TOP
from testbench_dagster.localnet.personas import Api

#: What OpenAI's completions API generates at most when a request does not say.
DEFAULT_COMPLETION_TOKENS = 16


class BadRequestError(Exception):
    """A request this supplier refuses; the message goes to the client with HTTP 400."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``max_tokens`` None is no limit; ``logprobs`` None is none asked for.

    ``model`` is the one it names. ``parameters`` are the names of all that it says, ``stop_given`` is the
    number of stop strings in it, the empty ones too; None where it has none, and no list of them.

    ``user`` is what the user said last in a chat; ``tools`` are those offered, without the wrapper of the
    API. ``wants_json``: in a response format, of the ``schema`` if there is one.

    ``temperature`` is 0 where the request names none: a simulation repeats itself unless told otherwise.
    """

    prompts: tuple[str, ...]
    model: str | None = None
    stop: tuple[str, ...] = ()
    stop_given: int | None = None
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    samples: int = 1
    echo: bool = False
    logprobs: int | None = None
    stream: bool = False
    stream_usage: bool = False
    parameters: frozenset[str] = frozenset()
    user: str = ""
    tools: tuple[Mapping[str, Any], ...] = ()
    wants_json: bool = False
    schema: Mapping[str, Any] = field(default_factory=dict)


def _text(content: Any) -> str:
    """Text of a chat message's content: a string, null, or a list of text parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        parts = [text for text in texts if isinstance(text, str)]
        if len(parts) == len(content):
            return "\n".join(parts)
    raise BadRequestError("message content must be a string or a list of text parts")


def _prompts(body: dict[str, Any], api: Api) -> tuple[str, ...]:
    if api == "chat":
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
            raise BadRequestError("messages must be a list of at least one message")
        return ("\n".join(_text(message.get("content")) for message in messages),)
    prompt = body.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(p, str) for p in prompts):
        raise BadRequestError("prompt must be a string or a list of strings; token ids are not simulated")
    return tuple(prompts)


def _user(body: dict[str, Any]) -> str:
    said = [_text(one.get("content")) for one in body["messages"] if one.get("role", "user") == "user"]
    return said[-1] if said else ""


def _tools(body: dict[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The tools that may be called, as their functions."""
    tools = body.get("tools")
    if tools is None:
        return ()
    if not isinstance(tools, list) or not tools:
        raise BadRequestError("tools must be a list of at least one tool")
    found = []
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRequestError(
                f'tools[{number}] must be {{"type": "function", "function": {{"name": a text, …}}}}'
            )
        if not isinstance(function.get("parameters", {}), dict):
            raise BadRequestError(f"tools[{number}].function.parameters must be a JSON Schema")
        found.append(function)
    choice = body.get("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise BadRequestError("tool_choice is simulated as 'auto' and 'none' only")
    return tuple(found) if choice == "auto" else ()


def _form(body: dict[str, Any]) -> tuple[bool, Mapping[str, Any]]:
    """Whether an answer has to be JSON, and of which schema."""
    form = body.get("response_format")
    if form is None:
        return False, {}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise BadRequestError("response_format must have a type: text, json_object or json_schema")
    if kind != "json_schema":
        return kind == "json_object", {}
    described = form.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise BadRequestError("response_format.json_schema.schema must be a JSON Schema")
    return True, schema


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise BadRequestError("stop must be a string or a list of strings")
    return stops


def _model(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise BadRequestError("model must be a string")
    return value


def _whole(body: dict[str, Any], key: str, low: int, high: int) -> int | None:
    value = body.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadRequestError(f"{key} must be a whole number from {low} to {high}")
    return value


def _flag(body: dict[str, Any], key: str) -> bool:
    value = body.get(key)
    if not isinstance(value, bool | None):
        raise BadRequestError(f"{key} must be true or false")
    return bool(value)


def parse(raw: bytes, api: Api) -> Ask:
    """The request in ``raw`` for the endpoint of ``api``; raises :class:`BadRequestError`."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body must be a JSON object")
    stream = _flag(body, "stream")
    options = body.get("stream_options")
    if not isinstance(options, dict | None):
        raise BadRequestError("stream_options must be an object")
    if options and not stream:
        raise BadRequestError("stream_options are for stream: true only")
    temperature = body.get("temperature") or 0
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        raise BadRequestError("temperature must be a number from 0 to 2")
    limit = _whole(body, "max_tokens", 0, 2**31)
    if api == "chat":
        newer = _whole(body, "max_completion_tokens", 1, 2**31)
        limit = limit if newer is None else newer
    stops = _stops(body.get("stop"))
    prompts = _prompts(body, api)
    wants_json, schema = _form(body) if api == "chat" else (False, {})
    ask = Ask(
        prompts=prompts,
        model=_model(body.get("model")),
        stop=tuple(stop for stop in stops if stop),
        stop_given=None if body.get("stop") is None else len(stops),
        max_tokens=DEFAULT_COMPLETION_TOKENS if limit is None and api == "completions" else limit,
        temperature=float(temperature),
        seed=_whole(body, "seed", -(2**63), 2**63),
        samples=_whole(body, "n", 1, 128) or 1,
        echo=bool(body.get("echo")) and api == "completions",
        logprobs=_whole(body, "logprobs", 0, MAX_TOP) if api == "completions" else None,
        stream=stream,
        stream_usage=_flag(options or {}, "include_usage"),
        parameters=frozenset(body),
        user=_user(body) if api == "chat" else "",
        tools=_tools(body) if api == "chat" else (),
        wants_json=wants_json,
        schema=schema,
    )
    if api == "chat" and (body.get("logprobs") or body.get("top_logprobs")):
        raise BadRequestError("log-probabilities are simulated for completions with echo only")
    if ask.logprobs is not None and not (ask.echo and ask.max_tokens in (0, 1)):
        raise BadRequestError("log-probabilities are simulated with echo: true and max_tokens 0 or 1 only")
    if ask.logprobs is not None and stream:
        raise BadRequestError("log-probabilities are not simulated in streams; send stream: false")
    return ask
