"""The models a supplier says it serves (`GET /models`): told to the operator, never trusted."""

from __future__ import annotations

from dataclasses import replace

import orjson

from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.text import escaped
from testbench_dagster.transports.http import Exchange, HttpClient
from testbench_dagster.transports.prepared import PreparedRequest
from testbench_dagster.transports.redaction import redacted_body

_MAX_MB = 1.0
_TIMEOUT_S = 10.0
_MAX_NAME = 80


async def served_models(http: HttpClient, target: Endpoint) -> list[str] | None:
    """Names the supplier lists, escaped and bounded; None where it lists none or the list is unusable.

    Asked as relays are: with its headers and parameters, by its route, within bounds.
    """
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
        listed = orjson.loads(redacted_body(exchange.body, request.secrets))["data"]
        return [escaped(str(model["id"]), _MAX_NAME) for model in listed]
    except (ValueError, KeyError, TypeError):  # many servers have no such page
        return None
