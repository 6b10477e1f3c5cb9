"""The models a supplier says it serves (`GET /models`): told to the operator, never trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.text import escaped
from testbench_dagster.core.workloads import MAX_CONTEXT, MIN_CONTEXT
from testbench_dagster.transports.http import Exchange, HttpClient
from testbench_dagster.transports.prepared import PreparedRequest
from testbench_dagster.transports.redaction import redacted_body

_MAX_MB = 1.0
_TIMEOUT_S = 10.0
_MAX_NAME = 80
#: Where servers write how long a context may be, as paths: vLLM and SGLang; OpenRouter, Together and others;
#: Groq; Mistral; LM Studio; llama.cpp, which tells beside it what the model was trained with.
_CONTEXT_FIELDS = (
    ("max_model_len",),
    ("context_length",),
    ("context_window",),
    ("max_context_length",),
    ("loaded_context_length",),
    ("max_sequence_length",),
    ("top_provider", "context_length"),
    ("meta", "n_ctx"),
)


async def served_models(http: HttpClient, target: Endpoint) -> list[str] | None:
    """Names the supplier lists, escaped and bounded; None where it lists none or the list is unusable.

    Asked as relays are: with its headers and parameters, by its route, within bounds.
    """
    listed = await _listed(http, target)
    try:
        return None if listed is None else [escaped(str(model["id"]), _MAX_NAME) for model in listed]
    except (KeyError, TypeError):
        return None


async def claimed_context(http: HttpClient, target: Endpoint) -> int | None:
    """Tokens that the supplier lists as the context of the model it is asked for; None where it tells none.

    Of several models the one that is named as it is asked for counts. Asked as :func:`served_models` asks.
    """
    listed = await _listed(http, target)
    if not isinstance(listed, list):
        return None
    entries = [one for one in listed if isinstance(one, dict)]
    named = [one for one in entries if one.get("id") == target.model]
    chosen = named[0] if named else entries[0] if len(entries) == 1 else {}
    return context_of(chosen)


def context_of(entry: Mapping[str, Any]) -> int | None:
    """Tokens of the context that an entry of a list of models names; the least where it names several."""
    found = []
    for path in _CONTEXT_FIELDS:
        value: Any = entry
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, str) and len(value) <= 10 and value.isdecimal():
            value = int(value)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and MIN_CONTEXT <= value <= MAX_CONTEXT:
            found.append(int(value))
    return min(found, default=None)


async def _listed(http: HttpClient, target: Endpoint) -> Any:
    """What stands in the list of models; None where there is no such page, or it cannot be read."""
    limits = replace(target.limits, total_s=_TIMEOUT_S, max_response_mb=_MAX_MB)
    exchange = Exchange()
    try:
        request = PreparedRequest.from_url(
            f"{target.base_url}/models",
            "GET",
            {"Accept": "application/json", "Accept-Encoding": "identity"},
            secret_headers=target.headers,
            connect_s=limits.connect_s,
            private_allowed=target.private_allowed,
            route=target.route,
        )
        await http.run(exchange, request, b"", limits)
        if exchange.error is not None or exchange.status != 200:
            return None
        return orjson.loads(redacted_body(exchange.body, request.secrets))["data"]
    except (ValueError, KeyError, TypeError):  # many servers have no such page
        return None
