"""When a server that refused a request wants to be asked again, as headers and error say; pure functions.

``Retry-After`` is RFC 9110's (seconds or a date), ``retry-after-ms`` Azure's and OpenAI's. Of rate limits,
``x-ratelimit-reset…`` (OpenAI, GitHub, OpenRouter), ``ratelimit-reset`` (the IETF's draft) and
``anthropic-ratelimit-…-reset`` tell when the next requests or tokens are granted: as seconds, as a duration
such as ``1m30s``, as an instant in seconds or milliseconds since 1970, or as a date. Of a body the fields of
its error count: ``retryDelay`` of Google's ``RetryInfo``, ``retry_after`` in its spellings, Hugging Face's
``estimated_time`` of a model that is loading, the upstream's headers in OpenRouter's ``metadata``. Its
messages are prose, and not believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from testbench_dagster.transports.statuses import error_object

#: Longest wait that is understood, in seconds; whoever names more is taken to have named this.
MAX_RETRY_AFTER_S = 3600.0
_MAX_CHARS = 64
_MAX_HEADERS = 200  # of which names are looked at
_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|[dhms]))+", re.ASCII)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|[dhms])", re.ASCII)
_RESET = re.compile(r"(x-|anthropic-)?ratelimit-(?:(?P<before>[a-z-]+)-)?reset(?:-(?P<after>[a-z-]+))?")
#: Fields of an error, in letters alone, and how many of them make a second.
_FIELDS = {
    "retrydelay": 1.0,
    "retryafter": 1.0,
    "retryafterseconds": 1.0,
    "retryafters": 1.0,
    "retryafterms": 1000.0,
    "estimatedtime": 1.0,
}
_MAX_DETAILS = 20
#: Numbers from here on are instants: in seconds since 1970, those from the second on in milliseconds.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12


def retry_after_s(
    headers: Mapping[str, str], now: datetime, *, limited: bool, body: bytes = b""
) -> float | None:
    """Seconds a server asks to wait, 0 to :data:`MAX_RETRY_AFTER_S`; None where it names none.

    Of several waits the longest. ``limited``: the request was refused for its rate, so that the reset of an
    exhausted limit counts besides. Instants are compared with the server's own clock (``Date``) where it
    tells it, else with ``now``. ``body`` is that of the refusal. Never raises.
    """
    now = _date(headers.get("Date")) or now
    found = _of_headers(headers, now, limited=limited)
    for part in _parts(error_object(body)) if body else ():
        if isinstance(part.get("headers"), dict):
            quoted = {str(name).lower(): str(value) for name, value in part["headers"].items()}
            found += _of_headers(quoted, now, limited=limited)
        for name, value in part.items():
            per_second = _FIELDS.get(_letters(name))
            wait = None if per_second is None or isinstance(value, bool) else _wait(_text(value), now)
            if wait is not None:
                found.append(wait / (per_second or 1.0))
    waits = [wait for wait in found if wait is not None]
    return min(max(0.0, *waits), MAX_RETRY_AFTER_S) if waits else None


def _of_headers(headers: Mapping[str, str], now: datetime, *, limited: bool) -> list[float | None]:
    """The waits that headers name."""
    found = [_wait(headers.get("Retry-After", headers.get("retry-after")), now)]
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(headers.get(name))
        found.append(None if milliseconds is None else milliseconds / 1000)
    if limited:
        found += _resets(headers, now)
    return found


def _parts(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of an error in which a wait may stand: itself, what is under ``error``, its details."""
    error = data.get("error")
    parts = [data, error] if isinstance(error, dict) else [data]
    found: list[Any] = list(parts)
    for part in parts:
        details = part.get("details")
        found += details[:_MAX_DETAILS] if isinstance(details, list) else [details]
        found.append(part.get("metadata"))
    return [part for part in found if isinstance(part, dict)]


def _letters(name: str) -> str:
    return "".join(c for c in name[:_MAX_CHARS].lower() if c.isalpha())


def _text(value: Any) -> str | None:
    """A number or text of JSON as a header would have it."""
    return str(value) if isinstance(value, (int, float, str)) else None


def _resets(headers: Mapping[str, str], now: datetime) -> list[float | None]:
    """When each limit is reset, but for those of which something is left."""
    found = []
    for seen, (header, value) in enumerate(headers.items()):
        if seen >= _MAX_HEADERS:
            break
        name = header.lower()
        if "ratelimit" not in name:
            continue
        match = _RESET.fullmatch(name)
        if match is None:
            continue
        left = _number(headers.get(name.replace("reset", "remaining")))
        if left is None or left <= 0:
            found.append(_wait(value, now))
    return found


def _wait(value: str | None, now: datetime) -> float | None:
    """Seconds until what a header names; None where it cannot be read."""
    if value is None or len(value) > _MAX_CHARS:
        return None
    value = value.strip()
    number = _number(value)
    if number is not None:
        if number >= _EPOCH_MS:
            number /= 1000
        return number - now.timestamp() if number >= _EPOCH_S else number
    if _DURATION.fullmatch(value):
        return sum(float(amount) * _UNIT_S[unit] for amount, unit in _PIECE.findall(value))
    moment = _date(value)
    return None if moment is None else (moment - now).total_seconds()


def _number(value: str | None) -> float | None:
    if value is None or len(value) > _MAX_CHARS:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _date(value: str | None) -> datetime | None:
    """A date of HTTP or of ISO 8601, in UTC where it does not say."""
    if value is None or len(value) > _MAX_CHARS:
        return None
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
