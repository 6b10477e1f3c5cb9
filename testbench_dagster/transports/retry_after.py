"""When a server that refused a request wants to be asked again, as its headers say; pure functions.

``Retry-After`` is RFC 9110's (seconds or a date), ``retry-after-ms`` Azure's and OpenAI's. Of rate limits,
``x-ratelimit-reset…`` (OpenAI, GitHub, OpenRouter), ``ratelimit-reset`` (the IETF's draft) and
``anthropic-ratelimit-…-reset`` tell when the next requests or tokens are granted: as seconds, as a duration
such as ``1m30s``, as an instant in seconds or milliseconds since 1970, or as a date. What the body says is
prose, and not believed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Longest wait that is understood, in seconds; whoever names more is taken to have named this.
MAX_RETRY_AFTER_S = 3600.0
_MAX_CHARS = 64
_MAX_HEADERS = 200  # of which names are looked at
_UNIT_S = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|µs|ns|[dhms]))+", re.ASCII)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|us|µs|ns|[dhms])", re.ASCII)
_RESET = re.compile(r"(x-|anthropic-)?ratelimit-(?:(?P<before>[a-z-]+)-)?reset(?:-(?P<after>[a-z-]+))?")
#: Numbers from here on are instants: in seconds since 1970, those from the second on in milliseconds.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12


def retry_after_s(headers: Mapping[str, str], now: datetime, *, limited: bool) -> float | None:
    """Seconds a server asks to wait, 0 to :data:`MAX_RETRY_AFTER_S`; None where it names none.

    Of several waits the longest. ``limited``: the request was refused for its rate, so that the reset of an
    exhausted limit counts besides. Instants are compared with the server's own clock (``Date``) where it
    tells it, else with ``now``. Never raises.
    """
    now = _date(headers.get("Date")) or now
    found = [_wait(headers.get("Retry-After"), now)]
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = _number(headers.get(name))
        found.append(None if milliseconds is None else milliseconds / 1000)
    if limited:
        found += _resets(headers, now)
    waits = [wait for wait in found if wait is not None]
    return min(max(0.0, *waits), MAX_RETRY_AFTER_S) if waits else None


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
