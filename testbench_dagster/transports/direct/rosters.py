"""Supplier sources: a JSON file or an HTTP endpoint that lists suppliers, read within bounds, distrusted.

A roster is ``{"suppliers": [{"address", "service"?, "base_url", "api"?, "model", "price"?}, …],
"height": int?}``. Other keys of an entry are ignored, except those that look like credentials: a source
cannot name keys. The suppliers of ``testbench.yaml`` are no such source: they are typed and validated with
the configuration.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from testbench_dagster.config import SupplierConfig, SupplierSource
from testbench_dagster.config.asking import STRAIGHT_ON, Connection
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import DEFAULT_TRANSPORT
from testbench_dagster.core.text import escaped
from testbench_dagster.core.wording import counted
from testbench_dagster.transports.addresses import refusal
from testbench_dagster.transports.discovery import (
    MAX_BYTES,
    MAX_URL_CHARS,
    Entry,
    Listing,
    SourceError,
    bearer,
    fetch,
)
from testbench_dagster.transports.endpoints import connection_route

#: Longest model name taken from a source, in characters.
MAX_MODEL_CHARS = 256
_MAX_HEIGHT = 2**63 - 1
_MAX_PROBLEMS = 100  # told of one source; a listing may have thousands
_SHOWN_CHARS = 80
_TAKEN = ("address", "service", "base_url", "api", "model", "price")
_CREDENTIALS = (
    "apikey", "accesskey", "privatekey", "secret", "passw", "credential", "authorization", "bearer", "cookie",
    "header",
)  # fmt: skip
_CREDENTIAL_ENDS = ("key", "keyenv", "token", "tokenenv", "auth")


@dataclass(frozen=True)
class Roster:
    """What a source lists, not yet validated, and the block height it told, if any."""

    suppliers: Sequence[Any]
    height: int | None = None


class RosterReader(Protocol):
    """Where a roster lies."""

    def read(self, deadline: float) -> Roster:
        """Read it before ``deadline`` (``time.monotonic()`` seconds).

        Raises:
            SourceError: it cannot be read in time, or is no roster.
        """
        ...


@dataclass(frozen=True)
class RosterFile:
    """A JSON file."""

    path: Path

    def read(self, deadline: float) -> Roster:
        """Read the file; see :class:`RosterReader`."""
        try:
            with self.path.open("rb") as stream:
                body = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror}; correct file") from None
        return parse_roster(body)


@dataclass(frozen=True)
class RosterUrl:
    """An HTTP endpoint; ``token_env`` names the variable with the bearer token it wants to see.

    ``connection`` is how it is connected to, files of it relative to ``base``.
    """

    url: str
    timeout_s: float
    token_env: str | None = None
    connection: Connection = STRAIGHT_ON
    base: Path = Path()

    def read(self, deadline: float) -> Roster:
        """Fetch the roster, following no redirects; see :class:`RosterReader`."""
        seconds = min(self.timeout_s, deadline - time.monotonic())
        headers = bearer(self.token_env)
        try:
            route = connection_route(self.base, self.connection, "it")
            return parse_roster(asyncio.run(fetch(self.url, headers, seconds, route=route))[1])
        except ConfigError as error:
            raise SourceError(f"cannot be asked: {error}") from None
        except TimeoutError:
            raise SourceError(
                f"no complete answer within {max(seconds, 0):.1f} s; raise timeout_s, or ask its operator"
            ) from None


@dataclass(frozen=True)
class RosterSource:
    """A source of ``supplier_sources``: its roster, each entry of it validated."""

    settings: SupplierSource
    reader: RosterReader

    @classmethod
    def from_settings(cls, settings: SupplierSource, base: Path) -> RosterSource:
        """The source that ``supplier_sources`` describes; relative files start at ``base``."""
        if settings.file is not None:
            return cls(settings, RosterFile(base / Path(settings.file).expanduser()))
        if settings.url is None:
            raise ConfigError("supplier_sources: a source has neither file nor url; give one of them")
        reader = RosterUrl(settings.url, settings.timeout_s, settings.token_env, settings.connection, base)
        return cls(settings, reader)

    def read(self, deadline: float) -> Listing:
        """Read and validate it; see :class:`~testbench_dagster.transports.discovery.Source`."""
        roster = self.reader.read(deadline)
        found = parse_entries(roster, self.settings)
        entries = [Entry(supplier) for supplier in found.suppliers.values()]
        return Listing(entries, roster.height, frozenset(found.broken), found.problems)


def parse_roster(body: bytes) -> Roster:
    """Take a roster apart.

    Raises:
        SourceError: it is too large, no JSON (or nested too deeply), or has another shape.
    """
    if len(body) > MAX_BYTES:
        raise SourceError(f"is larger than {MAX_BYTES // 2**20} MB; split it into several sources")
    try:
        roster = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise SourceError(f"is no valid JSON: {escaped(str(error))}") from None
    if not isinstance(roster, dict) or not isinstance(roster.get("suppliers"), list):
        raise SourceError('is no roster: a JSON object with a list "suppliers" is wanted')
    height = roster.get("height")
    whole = isinstance(height, int) and not isinstance(height, bool)
    if height is not None and not (whole and 0 <= height <= _MAX_HEIGHT):
        raise SourceError(f"height {_shown(height)} is no block height; give a whole number, or leave it out")
    return Roster(roster["suppliers"], height)


@dataclass
class Entries:
    """The usable entries of a roster by supplier key.

    ``broken`` are keys whose entry cannot be used: what is known of such a supplier stays as it was.
    ``problems`` says why, by supplier key where that much is readable.
    """

    suppliers: dict[str, SupplierConfig] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)


def parse_entries(roster: Roster, source: SupplierSource) -> Entries:
    """Validate the entries of a roster; a bad one is left out and told, never an exception."""
    found = Entries()
    untold = 0
    for position, entry in enumerate(roster.suppliers):
        where = f"{source.label}: suppliers[{position}]"
        try:
            supplier = _supplier(entry, source)
            if supplier.key in found.suppliers or supplier.key in found.broken:
                raise _bad("address", supplier.key, "is listed before; keep one entry of it")
            found.suppliers[supplier.key] = supplier
        except _BadEntry as error:
            key = _key(entry)
            if key is not None and key not in found.suppliers:
                found.broken.add(key)
            if len(found.problems) < _MAX_PROBLEMS:
                what = where if key is None or key in found.problems else key
                found.problems[what] = f"{where}: {error}"
            else:
                untold += 1
    if untold:
        found.problems[f"{source.label}: further entries"] = f"{untold} more cannot be used either"
    return found


class _BadEntry(Exception):
    """An entry that cannot be used."""


def _bad(name: str, value: Any, problem: str) -> _BadEntry:
    return _BadEntry(f"{name} {_shown(value)} {problem}")


def _shown(value: Any) -> str:
    """A value for a message, escaped and short; of nested ones only the kind (their text may be endless)."""
    if isinstance(value, (dict, list)):
        return "(an object)" if isinstance(value, dict) else "(a list)"
    return escaped(repr(value), _SHOWN_CHARS)


def _key(entry: Any) -> str | None:
    """The partition key of an entry, if it has a readable one."""
    if not isinstance(entry, dict):
        return None
    named = {name: entry[name] for name in ("address", "service") if name in entry}
    try:
        return SupplierConfig.model_validate({**named, "base_url": "http://any", "model": "any"}).key
    except ValidationError:
        return None


def _is_credential(name: str) -> bool:
    """Whether the name of an entry's key is one that credentials go by (public keys are none)."""
    if name in _TAKEN:
        return False
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    if plain.endswith(("publickey", "pubkey")):
        return False
    return plain.endswith(_CREDENTIAL_ENDS) or any(word in plain for word in _CREDENTIALS)


def _supplier(entry: Any, source: SupplierSource) -> SupplierConfig:
    if not isinstance(entry, dict):
        raise _bad("entry", entry, "is no object; give address, base_url and model")
    for name in filter(_is_credential, entry):
        raise _BadEntry(
            f"{escaped(name, _SHOWN_CHARS)} may not be given by a source; remove it there, and name the "
            "variable with the key in api_key_env of supplier_sources"
        )
    if entry.get("transport", DEFAULT_TRANSPORT) != DEFAULT_TRANSPORT:
        raise _bad("transport", entry["transport"], "is not supported; leave it out")
    for name, limit in (("base_url", MAX_URL_CHARS), ("model", MAX_MODEL_CHARS)):
        value = entry.get(name)
        if value is None:
            raise _BadEntry(f"{name} is missing; add it")
        if isinstance(value, str) and not 0 < len(value) <= limit:
            raise _bad(name, value, f"has {counted(len(value), 'character')}; 1 to {limit} are allowed")
        # the message may quote no credentials, so a URL with them is left to the check below
        if isinstance(value, str) and "@" not in value and not _is_clean(value, url=name == "base_url"):
            raise _bad(name, value, "holds characters that are not allowed; correct it")
    try:
        supplier = SupplierConfig(
            **{name: entry[name] for name in _TAKEN if name in entry}, api_key_env=source.api_key_env
        )
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        text = escaped(str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"])
        if name == "base_url" and "@" in str(entry["base_url"]):
            raise _BadEntry(f"base_url is not usable: {text}") from None
        if name == "price":  # its numbers are told by their own names; what is said of them quotes them
            where = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "missing":
                text = "is required but missing"
            raise _BadEntry(f"{escaped(where, _SHOWN_CHARS)}: {text}; correct it at the source") from None
        raise _bad(name, entry.get(name), f"is not usable: {text}; correct it at the source") from None
    if not source.allow_private_networks:
        reason = refusal(urlsplit(supplier.base_url).hostname or "")
        if reason is not None:
            raise _bad("base_url", supplier.base_url, f"is refused: {reason}")
    return supplier


def _is_clean(text: str, *, url: bool) -> bool:
    return text.isprintable() and not (url and (not text.isascii() or set(text) & set(' \\"<>^`{|}')))
