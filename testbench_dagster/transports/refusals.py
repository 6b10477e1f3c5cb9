"""Which parameter of a request a supplier refuses: pure functions of the request and the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from testbench_dagster.core.faults import Closing
from testbench_dagster.core.relay import Attempt
from testbench_dagster.transports.payload import Api, build_payload
from testbench_dagster.transports.statuses import MAX_ERROR_BYTES, error_object

#: What every request has to say; it is no parameter that could be left out.
_CONTENT = frozenset({"messages", "prompt", "model"})
#: Parameters that may be left out, or sent otherwise.
_VARIED = ["max_tokens", "max_completion_tokens", "temperature", "seed", "stop"]
#: Keys under which errors quote the request, or what it held.
_QUOTED_REQUEST = frozenset({"input", "input_value", "request", "body", "payload", "ctx", "headers", "url"})
#: Statuses of servers that fail at a parameter instead of refusing it.
_FAILS_AT_PARAMETERS = frozenset({404, 500, 501})
_ABOUT_PARAMETERS = re.compile(
    r"param|argument|keyword|unsupported|unexpected|unrecogni[sz]ed|unknown|invalid|extra (?:input|field)"
    r"|not (?:supported|permitted|allowed|implemented)",
    re.IGNORECASE,
)
_PATH = re.compile(r"[.\[\]/]+")
_MAX_PATH = 100
_ESCAPED_SPACE = re.compile(r"\\+[nrt]")
_MAX_LEVELS = 8


def sent_parameters(request: Mapping[str, Any], api: Api) -> list[str]:
    """Names of the parameters that a stored request is sent with, in alphabetical order; none of pages."""
    if request["type"] == "get":
        return []
    _, payload = build_payload(request, api, "")
    return sorted(payload.keys() - _CONTENT)


def named_parameters(body: bytes, sent: list[str]) -> list[str]:
    """Those of the parameters sent that a refusal names, in the order sent; empty where it names none.

    OpenAI and its like say ``error.param``, pydantic ``loc``; others write the name into their message, in
    quotes or not, in one of its spellings, or make a key of it. What they quote of the request is no naming.
    """
    raw = body[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    data = error_object(body)
    texts = [_ESCAPED_SPACE.sub(" ", text) for text in _texts(data)]
    stated = _stated(data)
    if stated:
        return [name for name in sent if name in stated]
    for says in (_is_named, _quotes, _holds):
        if found := [name for name in sent if any(says(text, name) for text in texts)]:
            return found
    if found := [name for name in sent if name in set(_keys(data))]:
        return found
    raw = _ESCAPED_SPACE.sub(" ", raw)
    for says in (_quotes, _holds):
        if found := [name for name in sent if says(raw, name)]:
            return found
    return []


def refused_parameters(attempt: Attempt, sent: list[str]) -> list[str]:
    """Those of the parameters sent that an attempt was refused for, by what the refusal names.

    What counts as a refusal is as in :func:`refuses_form`; in an answer 200 it is an error alone.
    """
    if attempt.status is None or attempt.fault.answered:
        return []
    if attempt.fault.row.closes is not Closing.REFUSED:
        failed = 200 <= attempt.status <= 299 and "error" in error_object(attempt.body)
        if not (failed or attempt.status in _FAILS_AT_PARAMETERS):
            return []
        if _ABOUT_PARAMETERS.search(attempt.body[:MAX_ERROR_BYTES].decode("utf-8", "replace")) is None:
            return []
    return named_parameters(attempt.body, sent)


def refuses_form(attempt: Attempt) -> bool:
    """Whether an attempt was refused by its supplier for what was asked, or how: then another form may do.

    Some servers fail at a parameter that they do not know, or say that there is no such page or model. That
    counts where they name one that is sent, and say that this is what they fail at.
    """
    if attempt.status is None or attempt.fault.answered:
        return False
    if attempt.fault.row.closes is Closing.REFUSED:
        return True
    if not (attempt.status in _FAILS_AT_PARAMETERS or 200 <= attempt.status <= 299):
        return False
    said = attempt.body[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    return _ABOUT_PARAMETERS.search(said) is not None and bool(named_parameters(attempt.body, _VARIED))


def _stated(data: dict[str, Any]) -> list[str]:
    """The path in ``error.param``, or in ``param``, by its parts."""
    error = data.get("error")
    param = error.get("param") if isinstance(error, dict) else data.get("param")
    return _PATH.split(param) if isinstance(param, str) else []


def _texts(value: Any, level: int = 0) -> Iterator[str]:
    """The texts of an error, but for those of the request that it quotes."""
    if isinstance(value, str):
        yield value
    elif level < _MAX_LEVELS and isinstance(value, list):
        for item in value:
            yield from _texts(item, level + 1)
    elif level < _MAX_LEVELS and isinstance(value, dict):
        for key, item in value.items():
            if key not in _QUOTED_REQUEST:
                yield from _texts(item, level + 1)


def _keys(value: Any, level: int = 0) -> Iterator[str]:
    if level < _MAX_LEVELS and isinstance(value, dict):
        for key, item in value.items():
            if key not in _QUOTED_REQUEST:
                yield key
                yield from _keys(item, level + 1)
    elif level < _MAX_LEVELS and isinstance(value, list):
        for item in value:
            yield from _keys(item, level + 1)


def _is_named(text: str, name: str) -> bool:
    """Whether a text is a name, or a path that leads to it."""
    return text == name or (len(text) <= _MAX_PATH and " " not in text and name in _PATH.split(text))


def _quotes(text: str, name: str) -> bool:
    return re.search(rf"""(['"`‘“])\\?{_spelt(name)}\\?['"`’”]""", text, re.IGNORECASE) is not None


def _holds(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){_spelt(name)}(?!\w)", text, re.IGNORECASE) is not None


@cache
def _spelt(name: str) -> str:
    """A pattern of a name in its spellings: ``max_tokens``, ``maxTokens``, ``max tokens``."""
    more = "(?:[_ -]?(?:sequence|string|word)s?)?" if name == "stop" else ""
    return "[_ -]?".join(map(re.escape, name.split("_"))) + more


def reasons_only(attempt: Attempt) -> bool:
    """Whether an answer was cut at our token limit before it began: the model reasoned, shown or not."""
    return attempt.fault.row.cut_short and not (attempt.text or "").strip()
