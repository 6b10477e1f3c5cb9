"""What several blocks of `testbench.yaml` share: their base, the relay bounds, the check of URLs."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from testbench_dagster.core.applicability import EXCEPT, Patterns, matches_any, plain_pattern
from testbench_dagster.core.relay import FOLLOWING, Limits
from testbench_dagster.core.rules import Strict

HEX_KEY = re.compile(r"[0-9A-Fa-f]{48,}")
"""What may be a private key, whole or nearly so, within any text."""
KEY_MATERIAL = re.compile(r"\s*(0[xX])?[0-9A-Fa-f]{32,}\s*")
"""Also a key that lost some digits when it was copied, or came twice: too much of it to be shown."""
NO_KEY = "is a key itself, which is never written in the file: name the variable or the file that holds it"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: How keys of the usual providers begin.
_KEY_PREFIX = re.compile(r"(?i:bearer |basic )|sk-|pk-|rk-|hf_|gsk_|xai-|gh[pousr]_|AIza|eyJ|xox[abpr]-|AKIA")
_OPAQUE = re.compile(r"[A-Za-z0-9]{28,}={0,2}")

_DEFAULTS = Limits()
_LISTED = 20  # names told in a message


def _usable_patterns(patterns: Patterns) -> Patterns:
    """Patterns that may be about something.

    Raises:
        ValueError: there are none, or one is empty or stands there twice; says how to mend it.
    """
    if not patterns:
        raise ValueError("the list is empty: nothing would match; name patterns such as '*', or remove it")
    for position, pattern in enumerate(patterns):
        if not plain_pattern(pattern).strip() or pattern != pattern.strip():
            raise ValueError(
                f"{pattern!r} is no pattern; write a name, or one with *, ? or [ab] in it, and "
                f"'{EXCEPT}' in front (in quotes) to leave out"
            )
        if pattern in patterns[:position]:
            raise ValueError(f"{pattern!r} stands there twice; remove one")
    return patterns


def _listed_patterns(value: Any) -> Any:
    """The same, where it is a list as YAML writes one."""
    if value is not None and not isinstance(value, (list, tuple)):
        raise ValueError(f"{value!r} is no list of patterns; write it like ['{value}']")
    return value


PatternList = Annotated[Patterns, BeforeValidator(_listed_patterns), AfterValidator(_usable_patterns)]
"""A list of patterns as configured."""


def _of_supplier_keys(patterns: Patterns) -> Patterns:
    for pattern in patterns:
        if "@" not in pattern and not any(wild in pattern for wild in "*?["):
            raise ValueError(
                f"{pattern!r} can match no key of a supplier, which is <address>@<service>; "
                f"write '{pattern}@*'"
            )
    return patterns


SupplierPatternList = Annotated[PatternList, AfterValidator(_of_supplier_keys)]
"""A list of patterns of supplier keys."""


def unmatched_pattern(patterns: Sequence[str] | None, names: Collection[str], what: str) -> str | None:
    """What is wrong with the first pattern that matches none of the names, with the remedy; None: nothing is.

    ``what`` says in the plural what the names are, for the message.
    """
    for pattern in patterns or ():
        if not matches_any(pattern, names):
            known = list(dict.fromkeys(names))
            more = ", ..." if len(known) > _LISTED else ""
            listed = f"; there are: {', '.join(known[:_LISTED])}{more}" if known else ""
            return f"{pattern!r} matches none of the {what}{listed}; correct it, or remove it"
    return None


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
        """The same as the value that transports take; deadlines that are not set follow the answers."""
        return Limits(**self.model_dump(), following=frozenset(FOLLOWING) - self.model_fields_set)


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


def looks_like_key(text: str) -> bool:
    """Whether a text may be a key: hexadecimal digits, a provider's prefix, or a long mixture."""
    if KEY_MATERIAL.fullmatch(text) or HEX_KEY.search(text):
        return True
    if len(text) >= 16 and _KEY_PREFIX.match(text):
        return True
    kinds = (str.isupper, str.islower, str.isdigit)
    return _OPAQUE.fullmatch(text) is not None and all(any(map(kind, text)) for kind in kinds)


def no_number(value: Any) -> Any:
    """Refuse numbers without showing them: YAML takes a key such as 0x2d00… for one."""
    if isinstance(value, (int, float)):
        raise ValueError("is a number, not a text; write it in quotes")
    return value


def _variable(value: str) -> str:
    if looks_like_key(value):
        raise ValueError(NO_KEY)
    if not _VARIABLE.fullmatch(value):
        raise ValueError(
            "is no name of an environment variable; use letters, digits and '_', such as POCKET_APP_KEY"
        )
    return value


#: Name of an environment variable; what may be a key in its place is not shown.
Variable = Annotated[str, BeforeValidator(no_number), AfterValidator(_variable)]


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
