"""What several blocks of `testbench.yaml` share: their base, the relay bounds, the check of URLs."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from testbench_dagster.core.relay import Limits
from testbench_dagster.core.rules import Strict

HEX_KEY = re.compile(r"[0-9A-Fa-f]{48,}")
"""What may be a private key, whole or nearly so, within any text."""

_DEFAULTS = Limits()


class RelaySettings(Strict):
    """Bounds on relays; see :class:`testbench_dagster.core.relay.Limits` for the units."""

    connect_s: float = Field(default=_DEFAULTS.connect_s, gt=0, le=600)
    first_byte_s: float = Field(default=_DEFAULTS.first_byte_s, gt=0, le=86_400)
    idle_s: float = Field(default=_DEFAULTS.idle_s, gt=0, le=86_400)
    total_s: float = Field(default=_DEFAULTS.total_s, gt=0, le=86_400)
    retries: int = Field(default=_DEFAULTS.retries, ge=0, le=20)
    max_response_mb: float = Field(default=_DEFAULTS.max_response_mb, gt=0, le=15)
    max_in_flight: int = Field(default=_DEFAULTS.max_in_flight, ge=1, le=100_000)
    max_per_host: int = Field(default=_DEFAULTS.max_per_host, ge=1, le=100_000)

    def limits(self) -> Limits:
        """The same as the value that transports take."""
        return Limits(**self.model_dump())


class RelayOverrides(Strict):
    """The same bounds as :class:`RelaySettings` for one supplier or service; what is unset is inherited."""

    connect_s: float | None = Field(default=None, gt=0, le=600)
    first_byte_s: float | None = Field(default=None, gt=0, le=86_400)
    idle_s: float | None = Field(default=None, gt=0, le=86_400)
    total_s: float | None = Field(default=None, gt=0, le=86_400)
    retries: int | None = Field(default=None, ge=0, le=20)
    max_response_mb: float | None = Field(default=None, gt=0, le=15)
    max_in_flight: int | None = Field(default=None, ge=1, le=100_000)
    max_per_host: int | None = Field(default=None, ge=1, le=100_000)

    def overrides(self) -> dict[str, Any]:
        """The bounds that are set here."""
        return {n: getattr(self, n) for n in RelayOverrides.model_fields if getattr(self, n) is not None}


def http_url(value: str, *, example: str, credentials: str) -> str:
    """A plain http(s) URL without query, fragment and credentials, and without slashes at its end.

    Args:
        value: what was configured.
        example: how such a URL looks, for the message.
        credentials: where credentials belong instead, for the message (which does not quote them).

    Raises:
        ValueError: says what is wrong and how to write it.
    """
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a malformed host or port
        usable = False
    if "@" in (parts.netloc if usable else value):  # said first: the other messages quote the value
        raise ValueError(f"a URL may not hold credentials; {credentials}")
    if not usable:
        raise ValueError(f"{value!r} is no http(s) URL; write it like {example}")
    if parts.query or parts.fragment:
        plain = re.split("[?#]", value)[0]  # what follows may be a key
        raise ValueError(f"{plain!r} may not have a query or fragment after it; write it like {example}")
    return value.rstrip("/")
