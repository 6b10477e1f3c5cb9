"""Supplier sources: a JSON file or an HTTP endpoint that lists suppliers, read within bounds, distrusted.

A roster is ``{"suppliers": [{"address", "service"?, "base_url", "api"?, "model"}, …], "height": int?}``.
Other keys of an entry are ignored, except those that look like credentials: a source cannot name keys. The
suppliers of ``testbench.yaml`` are no such source: they are typed and validated with the configuration.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

import orjson
from pydantic import ValidationError

from testbench_dagster.config import SupplierConfig, SupplierSource
from testbench_dagster.errors import ConfigError, TestbenchError
from testbench_dagster.network.addresses import refusal
from testbench_dagster.relays.answers import escaped

if TYPE_CHECKING:
    from testbench_dagster.network.chain.types import Session

#: Largest roster that is read, in bytes.
MAX_BYTES = 32 * 1024 * 1024
#: Longest base URL and model name taken from a source, in characters.
MAX_URL_CHARS, MAX_MODEL_CHARS = 2048, 256
#: How a supplier is reached: over plain HTTP, by signed relays, or through a PATH gateway.
TransportName = Literal["direct", "shannon", "path"]
_MAX_HEIGHT = 2**63 - 1
_MAX_PROBLEMS = 100  # told of one source; a listing may have thousands
_SHOWN_CHARS = 80
_AT_ONCE = 16  # sources read at a time
_TAKEN = ("address", "service", "base_url", "api", "model")
_CREDENTIALS = (
    "apikey", "accesskey", "privatekey", "secret", "passw", "credential", "authorization", "bearer", "cookie",
    "header",
)  # fmt: skip
_CREDENTIAL_ENDS = ("key", "keyenv", "token", "tokenenv", "auth")


class SourceError(TestbenchError):
    """A source could not be read, or what it gave is no roster."""


@dataclass(frozen=True)
class Listing:
    """What a source lists, not yet validated, and the block height it told, if any."""

    entries: Sequence[Any]
    height: int | None = None


class Source(Protocol):
    """Where a listing comes from."""

    def read(self, deadline: float) -> Listing:
        """Read it before ``deadline`` (``time.monotonic()`` seconds).

        Raises:
            SourceError: it cannot be read in time, or is no roster.
        """
        ...


@dataclass(frozen=True)
class FileSource:
    """A JSON file."""

    path: Path

    def read(self, deadline: float) -> Listing:
        """Read the file; see :class:`Source`."""
        try:
            with self.path.open("rb") as stream:
                body = stream.read(MAX_BYTES + 1)
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror}; correct file") from None
        return parse_listing(body)


@dataclass(frozen=True)
class HttpSource:
    """An HTTP endpoint; ``token_env`` names the variable with the bearer token it wants to see."""

    url: str
    timeout_s: float
    token_env: str | None = None

    def read(self, deadline: float) -> Listing:
        """Fetch the roster, following no redirects; see :class:`Source`."""
        seconds = min(self.timeout_s, deadline - time.monotonic())
        headers = bearer(self.token_env)
        try:
            return parse_listing(asyncio.run(fetch(self.url, headers, seconds))[1])
        except TimeoutError:
            raise SourceError(
                f"no complete answer within {max(seconds, 0):.1f} s; raise timeout_s, or ask its operator"
            ) from None


def bearer(token_env: str | None) -> dict[str, str]:
    """The header with the token that the variable holds; empty without a variable.

    Raises:
        SourceError: the variable holds nothing a header can carry.
    """
    if token_env is None:
        return {}
    token = os.environ.get(token_env)
    if not token or not (token.isascii() and token.isprintable()):
        raise SourceError(f"token_env names {token_env}, which holds no usable token; export it")
    return {"Authorization": f"Bearer {token}"}


async def fetch(
    url: str, headers: Mapping[str, str], seconds: float, *, statuses: Sequence[int] = (200,)
) -> tuple[int, bytes]:
    """Get a JSON document: status, and at most one byte more than :data:`MAX_BYTES` of it.

    Redirects are not followed, and compression is refused.

    Raises:
        TimeoutError: the whole exchange took longer than ``seconds``.
        SourceError: it is not reachable, or answers with a status other than ``statuses``.
    """
    import httpx  # 60 ms, and a code location that only defines assets need not pay them

    headers = {"Accept": "application/json", "Accept-Encoding": "identity", **headers}
    # a proxy configured for the outside world must not see requests to this machine
    ours = refusal(urlsplit(url).hostname or "") is not None
    body = bytearray()
    try:
        # of the whole exchange: httpx's own timeouts start anew with every byte
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(follow_redirects=False, trust_env=not ours, timeout=None) as client,  # noqa: S113
            client.stream("GET", url, headers=headers) as response,
        ):
            status = response.status_code
            if status not in statuses:
                where = (
                    "; redirects are not followed, write the final address" if response.is_redirect else ""
                )
                raise SourceError(f"answers HTTP {status}{where or '; check url and token_env'}")
            encoding = response.headers.get("Content-Encoding", "identity")
            if encoding != "identity":
                raise SourceError(
                    f"answers compressed ({escaped(encoding, 40)}), which was not asked for; "
                    "have it answer plainly"
                )
            async for part in response.aiter_raw():
                body += part
                if len(body) > MAX_BYTES:
                    break
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = escaped(str(error)) or type(error).__name__
        raise SourceError(f"is not reachable: {reason}; start it, or correct url") from None
    return status, bytes(body)


def source_of(settings: SupplierSource, base: Path) -> Source:
    """The source that ``supplier_sources`` describes; relative files start at ``base``."""
    if settings.file is not None:
        return FileSource(base / Path(settings.file).expanduser())
    if settings.url is None:
        raise ConfigError("supplier_sources: a source has neither file nor url; give one of them")
    return HttpSource(settings.url, settings.timeout_s, settings.token_env)


def parse_listing(body: bytes) -> Listing:
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
    return Listing(roster["suppliers"], height)


def read_sources(sources: Mapping[str, Source], deadline_s: float) -> dict[str, Listing | SourceError]:
    """Read all sources at once within ``deadline_s`` seconds; what went wrong stands in a listing's place."""
    if not sources:
        return {}
    deadline = time.monotonic() + deadline_s

    def read(source: Source) -> Listing | SourceError:
        try:
            return source.read(deadline)
        except SourceError as error:
            return error

    pool = ThreadPoolExecutor(min(_AT_ONCE, len(sources)), thread_name_prefix="supplier-source")
    try:
        reading = {label: pool.submit(read, source) for label, source in sources.items()}
        done, _ = wait(reading.values(), timeout=max(0.0, deadline - time.monotonic()))
    finally:
        pool.shutdown(
            wait=False, cancel_futures=True
        )  # a file system or resolver may hang longer than we wait
    late = SourceError(f"was not read within {deadline_s:g} s; lower timeout_s of the other sources")
    return {label: task.result() if task in done else late for label, task in reading.items()}


@dataclass(frozen=True)
class Entry:
    """A usable entry of any source: the supplier, and what a Pocket network tells of it.

    ``rpc_type`` is the type its endpoint was staked with, ``stake_upokt`` its stake in uPOKT, ``host``
    (``name:port``) the machine it shares with every other supplier of the same host, ``public_key`` its
    operator's (33 bytes in hexadecimal). None where nothing tells.
    """

    config: SupplierConfig
    transport: TransportName = "direct"
    rpc_type: int | None = None
    stake_upokt: int | None = None
    host: str | None = None
    public_key: str | None = None


@dataclass(frozen=True)
class ServiceListing(Listing):
    """What a service's source found; ``entries`` are usable :class:`Entry` objects.

    ``broken`` are keys of suppliers that staked but cannot be used: they stay as they were. ``warnings`` say
    what works but should not stay so. ``sessions`` are the current ones of the applications.
    """

    broken: frozenset[str] = frozenset()
    problems: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    sessions: tuple[Session, ...] = ()
    blocks_per_session: int | None = None


@dataclass
class Entries:
    """The usable entries of a listing by supplier key.

    ``broken`` are keys whose entry cannot be used: what is known of such a supplier stays as it was.
    ``problems`` says why, by supplier key where that much is readable.
    """

    suppliers: dict[str, SupplierConfig] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)


def parse_entries(listing: Listing, source: SupplierSource) -> Entries:
    """Validate the entries of a listing; a bad one is left out and told, never an exception."""
    found = Entries()
    untold = 0
    for position, entry in enumerate(listing.entries):
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
    if entry.get("transport", "direct") != "direct":
        raise _bad("transport", entry["transport"], "is not supported; leave it out")
    for name, limit in (("base_url", MAX_URL_CHARS), ("model", MAX_MODEL_CHARS)):
        value = entry.get(name)
        if value is None:
            raise _BadEntry(f"{name} is missing; add it")
        if isinstance(value, str) and not 0 < len(value) <= limit:
            raise _bad(name, value, f"has {len(value)} characters; 1 to {limit} are allowed")
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
        raise _bad(name, entry.get(name), f"is not usable: {text}; correct it at the source") from None
    if not source.allow_private_networks:
        reason = refusal(urlsplit(supplier.base_url).hostname or "")
        if reason is not None:
            raise _bad("base_url", supplier.base_url, f"is refused: {reason}")
    return supplier


def _is_clean(text: str, *, url: bool) -> bool:
    return text.isprintable() and not (url and (not text.isascii() or set(text) & set(' \\"<>^`{|}')))
