"""The models a supplier says it serves (`GET /models`): told to the operator, never trusted."""

from __future__ import annotations

import httpx
import orjson

from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.text import escaped

_MAX_BYTES = 1 << 20
_TIMEOUT_S = 10.0
_MAX_NAME = 80


async def served_models(client: httpx.AsyncClient, target: Endpoint) -> list[str] | None:
    """Names the supplier lists, escaped and bounded; None where it lists none or the list is unusable."""
    try:
        async with client.stream(
            "GET", f"{target.base_url}/models", headers=dict(target.headers), timeout=_TIMEOUT_S
        ) as response:
            if response.status_code != httpx.codes.OK:
                return None
            body = b""
            async for part in response.aiter_bytes():
                body += part
                if len(body) > _MAX_BYTES:
                    return None
        listed = orjson.loads(body)["data"]
        return [escaped(str(model["id"]), _MAX_NAME) for model in listed]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None  # many servers have no such page
