"""What an HTTP status, or an error that stands in a body, means: pure functions.

Errors come in many shapes: ``{"error": {"code", "type", "message"}}``, flat, as a list (Google), with the
status as a number, a text or a name. What is believed are codes and types; messages are prose, and are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.remedies import PROXY_FAILED, PROXY_WANTS_CREDENTIALS
from testbench_dagster.core.text import MAX_ERROR_CHARS, escaped
from testbench_dagster.transports.json_values import kind
from testbench_dagster.transports.lenient_json import Unreadable, read_json

#: The fault that an HTTP status other than 2xx means, as first and last status of a range; the first row that
#: holds counts. A status in none is no answer of HTTP.
STATUS_FAULTS: tuple[tuple[int, int, Fault], ...] = (
    (401, 401, Fault.CREDENTIALS),
    (402, 402, Fault.QUOTA),
    (403, 404, Fault.CREDENTIALS),
    (
        PROXY_WANTS_CREDENTIALS,
        PROXY_WANTS_CREDENTIALS,
        Fault.CREDENTIALS,
    ),  # of a proxy on the way, which says nothing of who is behind it
    (408, 409, Fault.UNAVAILABLE),
    (423, 423, Fault.UNAVAILABLE),
    (424, 424, Fault.SUPPLIER_HTTP),  # TGI: the generation failed
    (425, 425, Fault.UNAVAILABLE),
    (429, 429, Fault.RATE_LIMITED),
    (451, 451, Fault.SUPPLIER_REFUSED),
    (498, 499, Fault.UNAVAILABLE),  # Groq: no capacity left; nginx, Google: given up on the way
    (400, 499, Fault.CLIENT_REQUEST),
    (300, 399, Fault.SUPPLIER_HTTP),
    (502, 504, Fault.UNAVAILABLE),
    (520, 530, Fault.UNAVAILABLE),
    (598, 599, Fault.UNAVAILABLE),
    (500, 599, Fault.SUPPLIER_HTTP),
)
#: Statuses that may stand for a quota that is used up; which it is, the error's ``code`` or ``type`` says.
_QUOTA_STATUSES = (400, 403, 429)
#: Statuses that may stand for a filter: Azure and others answer 400 where a prompt or answer is filtered.
_FILTER_STATUSES = (400, 403, 422)
#: What suppliers write there, letters and digits alone: OpenAI and its like, Moonshot, One API, DeepSeek,
#: Together, Anthropic, Alibaba, Volcengine.
_QUOTA_WORDS = frozenset(
    {
        "insufficientquota",
        "billinghardlimitreached",
        "billingnotactive",
        "exceededcurrentquotaerror",
        "insufficientuserquota",
        "insufficientbalance",
        "insufficientcredits",
        "insufficientfunds",
        "creditlimit",
        "creditsexhausted",
        "outofcredits",
        "billingerror",
        "paymentrequired",
        "arrearage",
        "accountoverdueerror",
    }
)
_FILTER_WORDS = frozenset(
    {
        "contentfilter",
        "contentfiltered",
        "contentpolicyviolation",
        "responsibleaipolicyviolation",
        "datainspectionfailed",
        "moderationblocked",
    }
)
#: Statuses by the names that stand in their place: those of gRPC (Google), OpenAI's and Anthropic's types,
#: names of exceptions (vLLM, LiteLLM); letters and digits alone.
_NAMED: dict[str, int] = {
    "invalidargument": 400,
    "failedprecondition": 400,
    "outofrange": 400,
    "badrequest": 400,
    "badrequesterror": 400,
    "invalidrequest": 400,
    "invalidrequesterror": 400,
    "contextlengthexceeded": 400,
    "unsupportedparameter": 400,
    "unsupportedvalue": 400,
    "unauthenticated": 401,
    "unauthorized": 401,
    "authenticationerror": 401,
    "invalidapikey": 401,
    "permissiondenied": 403,
    "permissionerror": 403,
    "permissiondeniederror": 403,
    "forbidden": 403,
    "notfound": 404,
    "notfounderror": 404,
    "modelnotfound": 404,
    "requesttimeout": 408,
    "aborted": 409,
    "conflict": 409,
    "ratelimited": 429,
    "ratelimit": 429,
    "ratelimiterror": 429,
    "ratelimitexceeded": 429,
    "ratelimitreachederror": 429,
    "resourceexhausted": 429,
    "toomanyrequests": 429,
    "throttling": 429,
    "throttlingexception": 429,
    "internal": 500,
    "internalerror": 500,
    "internalservererror": 500,
    "servererror": 500,
    "apierror": 500,
    "badgateway": 502,
    "unavailable": 503,
    "serviceunavailable": 503,
    "serviceunavailableerror": 503,
    "overloaded": 503,
    "overloadederror": 503,
    "engineoverloaded": 503,
    "engineoverloadederror": 503,
    "deadlineexceeded": 504,
    "gatewaytimeout": 504,
    "timeout": 504,
    "timeouterror": 504,
}
#: Keys of an error under which its status or kind may stand; the first that says one counts.
_KINDS = (
    *("code", "status", "status_code", "statusCode", "http_status", "httpStatus", "http_code", "httpCode"),
    *("error_code", "errorCode", "type", "error_type", "errorType", "reason"),
)
#: Keys under which an error holds another one, and how many levels of that are looked into.
_HOLDERS = ("error", "errors", "detail", "innererror")
_MAX_LEVELS = 4
#: Values there that say that all is well: some servers send an error of zeros with every answer.
_WELL = frozenset({"", "0", "200", "ok", "success", "none", "null"})
_NO_LETTERS = re.compile(r"[^a-z0-9]+")
_LEADING_STATUS = re.compile(r"\s*(?:HTTP[ _])?([45]\d\d)(?!\d)", re.IGNORECASE)
_MAX_WORD_CHARS = 100
#: An error that says why is short; no more of a body is looked into.
MAX_ERROR_BYTES = 64 * 1024


def fault_of_status(status: int) -> Fault:
    """The fault that an HTTP status other than 2xx means, of a server that speaks for itself."""
    found = (fault for first, last, fault in STATUS_FAULTS if first <= status <= last)
    return next(found, Fault.SUPPLIER_PROTOCOL)


def fault_with_error(status: int, body: bytes) -> Fault:
    """The fault of an HTTP error, by its status and by the error's code where that says more."""
    return _told(status, list(_errors(error_object(body))))


def status_line(status: int, body: bytes) -> str:
    """An HTTP error in words: its status and the beginning of its body, not escaped."""
    who = f"{PROXY_FAILED} answers " if status == PROXY_WANTS_CREDENTIALS else ""
    detail = body[: 4 * MAX_ERROR_CHARS].decode("utf-8", "replace").strip()
    return f"{who}HTTP {status}: {detail}" if detail else f"{who}HTTP {status}"


def fault_of_error(error: Any, *beside: Any) -> tuple[Fault, int] | None:
    """The fault that an error inside an answer stands for, and its status; None where it names none.

    ``beside`` are values next to the error that may be its status.
    """
    errors = list(_errors(error)) if isinstance(error, (dict, list)) else [error]
    status = next((found for each in errors for value in _kinds(each) if (found := _status(value))), None)
    if status is None:
        status = next((found for value in beside if (found := _status(value)) is not None), None)
    if status is not None:
        return _told(status, errors), status
    for words, fault, means in (
        (_QUOTA_WORDS, Fault.QUOTA, 402),
        (_FILTER_WORDS, Fault.SUPPLIER_REFUSED, 400),
    ):
        if any(_names(each, words) for each in errors):
            return fault, means
    return None


def is_error(value: Any) -> bool:
    """Whether what stands under ``error`` is one: nothing, zero, false and an object of such are none."""
    if not value:
        return False
    if isinstance(value, dict):
        return not all(_is_well(item) for item in value.values())
    return not _is_well(value)


def error_without_choices(data: dict[str, Any]) -> Any:
    """What an answer without choices says instead: the error in it under another name, or flat; else None."""
    for name in ("errors", "detail"):
        value = data.get(name)
        if isinstance(value, (dict, list)) and is_error(value):
            return value
        # a text there may be anything, but for one that begins with the status
        if isinstance(value, str) and _LEADING_STATUS.match(value):
            return value
    return data if any(_status(value) is not None for value in _kinds(data)) else None


def error_object(body: bytes) -> dict[str, Any]:
    """The JSON object of an error; empty where a body is none, or longer than any error is."""
    if len(body) > MAX_ERROR_BYTES:
        return {}
    try:
        data = read_json(body)
    except Unreadable:
        return {}
    if isinstance(data, list) and data:  # Google's way
        data = data[0]
    return data if isinstance(data, dict) else {}


def message_of(error: Any) -> str:
    """What an error says, escaped and bounded."""
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        for _ in range(_MAX_LEVELS):
            nested = error.get("error")
            if not isinstance(nested, dict):
                break
            error = nested
        for name in ("message", "msg", "detail", "error"):
            if isinstance(error.get(name), str):
                error = error[name]
                break
    # nothing else is printed: `repr` of a deeply nested value would overflow the stack
    return escaped(error) if isinstance(error, str) else kind(error)


def _told(status: int, errors: list[Any]) -> Fault:
    if status in _QUOTA_STATUSES and any(_names(each, _QUOTA_WORDS) for each in errors):
        return Fault.QUOTA
    if status in _FILTER_STATUSES and any(_names(each, _FILTER_WORDS) for each in errors):
        return Fault.SUPPLIER_REFUSED
    return fault_of_status(status)


def _errors(data: Any, level: int = 0) -> Iterator[Any]:
    """An error and what it holds of errors, each before those inside it."""
    if isinstance(data, list):
        data = data[0] if data else None
    yield data
    if isinstance(data, dict) and level < _MAX_LEVELS:
        for name in _HOLDERS:
            if data.get(name):
                yield from _errors(data[name], level + 1)


def _kinds(error: Any) -> list[Any]:
    return [error.get(name) for name in _KINDS] if isinstance(error, dict) else [error]


def _names(error: Any, words: frozenset[str]) -> bool:
    return any(_word(value) in words for value in _kinds(error))


def _status(value: Any) -> int | None:
    """A value as the status of an HTTP error, 400 to 599; None for any other."""
    if isinstance(value, str):
        found = _LEADING_STATUS.match(value[:_MAX_WORD_CHARS])
        return int(found[1]) if found else _NAMED.get(_word(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value in range(400, 600):
        return int(value)
    return None


def _word(value: Any) -> str:
    """A code as letters and digits alone; empty for what is no code."""
    if not isinstance(value, str) or len(value) > _MAX_WORD_CHARS:
        return ""
    return _NO_LETTERS.sub("", value.lower())


def _is_well(value: Any) -> bool:
    return not value or value == 200 or (isinstance(value, str) and value.strip().lower() in _WELL)
