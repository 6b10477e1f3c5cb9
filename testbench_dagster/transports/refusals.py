"""Which parameter of a request a supplier refuses: pure functions of the request and the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from testbench_dagster.transports.answers import MAX_ERROR_BYTES, error_object
from testbench_dagster.transports.payload import Api, build_payload

#: What every request has to say; it is no parameter that could be left out.
_CONTENT = frozenset({"messages", "prompt", "model"})


def sent_parameters(request: Mapping[str, Any], api: Api) -> list[str]:
    """Names of the parameters that a stored request is sent with, in alphabetical order; none of pages."""
    if request["type"] == "get":
        return []
    _, payload = build_payload(request, api, "")
    return sorted(payload.keys() - _CONTENT)


def named_parameters(body: bytes, sent: list[str]) -> list[str]:
    """Those of the parameters sent that a refusal names, in the order sent; empty where it names none.

    OpenAI and its like say ``error.param``; others write the name into their message, in quotes or not.
    """
    text = body[:MAX_ERROR_BYTES].decode("utf-8", "replace")
    stated = _stated(body)
    if stated in sent:
        return [stated]
    quoted = [name for name in sent if re.search(rf"""(['"`])\\?{re.escape(name)}\\?\1""", text)]
    return quoted or [name for name in sent if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]


def _stated(body: bytes) -> str | None:
    error = error_object(body).get("error")
    param = error.get("param") if isinstance(error, dict) else None
    return param if isinstance(param, str) else None
