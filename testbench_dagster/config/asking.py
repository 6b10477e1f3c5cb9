"""How suppliers are asked: the keys that a supplier and its service share in `testbench.yaml`.

What a supplier leaves out it inherits from the block of its service, setting by setting; ``null`` sets one
back to what it is by default. Secrets are never part of it: variables are named that hold them.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from testbench_dagster.config.fields import Variable, http_url, looks_like_key
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, NOT_EXTRA, SupplierGeneration, TokenField
from testbench_dagster.core.rules import Strict
from testbench_dagster.core.workloads import MAX_CONTEXT, MIN_CONTEXT

#: Bytes of ``extra_body`` as JSON at most, and how deep it may be nested.
MAX_EXTRA_BYTES = 65_536
MAX_EXTRA_DEPTH = 20
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # a token of HTTP (RFC 9110)
_EFFORT = re.compile(r"[a-z][a-z_-]{0,31}")
#: Headers that say where a request goes and how long it is, or belong to a connection.
_NOT_SENT = frozenset(
    {
        "host", "content-length", "transfer-encoding", "content-type", "content-encoding", "accept-encoding",
        "connection", "keep-alive", "te", "trailer", "upgrade", "expect", "proxy-authorization",
        "proxy-authenticate", "proxy-connection",
    }
)  # fmt: skip
_INT64 = 1 << 63


def _header_name(value: Any) -> Any:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or looks_like_key(value):
        raise ValueError("is no name of a header; use letters, digits and '-', such as X-Organization")
    if value.lower() in _NOT_SENT:
        raise ValueError(f"{value} is set by what sends the request and cannot be configured; remove it")
    return value


def _query_name(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.~-]{1,100}", value):
        raise ValueError("is no name of a parameter of a URL; use letters, digits, '-' and '_'")
    return value


def _query_value(value: Any) -> Any:
    if isinstance(value, dt.date):  # what YAML makes of 2024-10-21
        value = value.isoformat()
    elif isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, (int, float)):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable() or len(value) > 1000:
        raise ValueError("is no value of a parameter; write a text of up to 1,000 characters in one line")
    if looks_like_key(value):
        raise ValueError(
            "looks like a key, which is never written in the file: name the variable that holds it in "
            "query_env"
        )
    return value


def _proxy(value: str) -> str:
    example = "http://host:port"
    url = http_url(value, example=example, credentials="name the variable with the whole URL in proxy_env")
    if urlsplit(url).scheme != "http" or urlsplit(url).path:
        raise ValueError(f"{value!r} is no HTTP proxy; write it like {example}")
    return url


def _or_omit(value: Any, kind: type, what: str) -> Any:
    wanted = (int, float) if kind is float else (int,)
    if value is None or value == "omit":
        return value
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise ValueError(f"{value!r} is neither {what} nor omit; write e.g. 0 or omit")
    return value


class GenerationSettings(Strict):
    """What requests for texts carry otherwise than the task says.

    See :class:`~testbench_dagster.core.generation.SupplierGeneration`; what is unset is inherited.
    """

    token_field: TokenField | None = None
    budget: int | None = Field(default=None, ge=0, le=1_000_000)
    effort: str | None = None
    temperature: Annotated[Any, BeforeValidator(lambda v: _or_omit(v, float, "a number"))] = None
    seed: Annotated[Any, BeforeValidator(lambda v: _or_omit(v, int, "a whole number"))] = None
    stop: Any = None
    extra_body: dict[str, Any] | None = None

    @field_validator("effort")
    @classmethod
    def _one_word(cls, value: str | None) -> str | None:
        if value is not None and not _EFFORT.fullmatch(value):
            raise ValueError(f"{value[:40]!r} is no effort; write one word, such as low")
        return value

    @field_validator("temperature")
    @classmethod
    def _in_range(cls, value: Any) -> Any:
        if isinstance(value, (int, float)) and not 0 <= value <= 10:
            raise ValueError(f"{value!r} is no temperature; write a number from 0 to 10, or omit")
        return value

    @field_validator("seed")
    @classmethod
    def _in_64_bits(cls, value: Any) -> Any:
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise ValueError("does not fit 64 bits; write a smaller number, or omit")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _client_or_number(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value not in (None, "client") and not (whole and 0 <= value <= 1000):
            raise ValueError(
                f"{str(value)[:40]!r} is neither client nor a number of stop strings (0 to 1000); "
                "write e.g. 4"
            )
        return value

    @field_validator("extra_body", mode="before")
    @classmethod
    def _plain_json(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError("must be a mapping, such as {provider: {order: [a]}}")
        if taken := sorted(NOT_EXTRA.intersection(value)):
            raise ValueError(
                f"may not hold {', '.join(taken)}: the task and its requests decide that; remove it"
            )
        _check_json(value, 1)
        if len(orjson.dumps(value)) > MAX_EXTRA_BYTES:
            raise ValueError(f"takes more than {MAX_EXTRA_BYTES} bytes as JSON; say less")
        return value

    def given(self) -> dict[str, Any]:
        """The settings that stand here, ``null`` ones included."""
        return {
            name: getattr(self, name)
            for name in GenerationSettings.model_fields
            if name in self.model_fields_set
        }


def _check_json(value: Any, depth: int) -> None:
    """Raises ValueError for what JSON or a store cannot hold, and for what may be a key."""
    if depth > MAX_EXTRA_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_EXTRA_DEPTH} levels; say it flatter")
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not name or "\0" in name:
                raise ValueError("has a key that is no text; write keys in quotes")
            _check_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_json(item, depth + 1)
    elif isinstance(value, str):
        if looks_like_key(value):
            raise ValueError("holds what looks like a key; send it in a header: name its variable in headers")
    elif isinstance(value, (int, float)):
        if not math.isfinite(value) or (isinstance(value, int) and not -_INT64 <= value < _INT64):
            raise ValueError("holds a number that JSON cannot carry; write another")
    elif value is not None:
        raise ValueError(f"holds a {type(value).__name__}, which JSON has not; write it in quotes")


class TlsSettings(Strict):
    """``ca_file``: PEM file with the authorities that are trusted in place of the system's."""

    ca_file: Annotated[str, Field(min_length=1)]


HeaderName = Annotated[str, BeforeValidator(_header_name)]
QueryName = Annotated[str, BeforeValidator(_query_name)]
QueryValue = Annotated[str, BeforeValidator(_query_value)]
ProxyUrl = Annotated[str, AfterValidator(_proxy)]


class ProxySettings(Strict):
    """How connections are made: through an HTTP proxy, with an authority of one's own.

    ``proxy`` is its URL, ``proxy_env`` the variable with one that holds user name and password.
    """

    proxy: ProxyUrl | None = None
    proxy_env: Variable | None = None
    tls: TlsSettings | None = None

    @model_validator(mode="after")
    def _one_proxy(self) -> ProxySettings:
        if self.proxy is not None and self.proxy_env is not None:
            raise ValueError("both proxy and proxy_env are given; give one of them")
        return self

    @property
    def connection(self) -> Connection:
        """The same as a value."""
        return Connection(self.proxy, self.proxy_env, self.tls.ca_file if self.tls else None)


class AskingSettings(ProxySettings):
    """What a supplier and its service share.

    ``headers``: name → variable with the value. ``query``: parameters of every URL; ``query_env``: name →
    variable with a secret one. ``key_header``: the header that takes the bare key, in place of
    ``Authorization: Bearer``. ``context_tokens``: how long prompt and answer may be together, for service
    probes that see whether that is so.
    """

    generation: GenerationSettings = GenerationSettings()
    headers: dict[HeaderName, Variable | None] = Field(default_factory=dict)
    query: dict[QueryName, QueryValue | None] = Field(default_factory=dict)
    query_env: dict[QueryName, Variable | None] = Field(default_factory=dict)
    key_header: HeaderName | None = None
    context_tokens: int | None = Field(default=None, ge=MIN_CONTEXT, le=MAX_CONTEXT)

    @model_validator(mode="after")
    def _each_once(self) -> AskingSettings:
        for name in self.query_env:
            if name in self.query:
                raise ValueError(f"{name!r} stands in both query and query_env; remove one")
        seen: set[str] = set()
        for name in self.headers:
            if name.lower() in seen:
                raise ValueError(f"headers: {name!r} stands there twice; remove one")
            seen.add(name.lower())
        if self.key_header is not None and self.key_header.lower() in seen:
            raise ValueError(f"{self.key_header!r} stands in headers and in key_header; remove one")
        return self

    def sent_variables(self) -> Iterator[str]:
        """Names of the variables whose values are secrets."""
        for named in (*self.headers.values(), *self.query_env.values(), self.proxy_env):
            if named is not None:
                yield named


@dataclass(frozen=True)
class Connection:
    """How connections are made: ``ca_file`` is relative to the folder of the configuration."""

    proxy: str | None = None
    proxy_env: str | None = None
    ca_file: str | None = None


#: Without a proxy, with the authorities of the system.
STRAIGHT_ON = Connection()


@dataclass(frozen=True)
class Asking:
    """How one supplier is asked: its own settings over those of its service.

    ``headers`` and ``query_env`` name variables; ``named`` tells of each which block names it, for messages.
    """

    generation: SupplierGeneration = AS_THE_TASK_SAYS
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    query_env: Mapping[str, str] = field(default_factory=dict)
    key_header: str | None = None
    connection: Connection = STRAIGHT_ON
    context_tokens: int | None = None

    @property
    def secret(self) -> bool:
        """Whether requests carry values that only the operator and the supplier may know."""
        return bool(self.headers or self.query_env)


def merged(*blocks: AskingSettings) -> Asking:
    """What several blocks say together, each over those before it."""
    generation: dict[str, Any] = {}
    headers: dict[str, tuple[str, str | None]] = {}  # by name in lower case
    query: dict[str, tuple[Literal["query", "query_env"], str | None]] = {}
    key_header: str | None = None
    connection: dict[str, Any] = {}
    context: int | None = None
    for block in blocks:
        if "context_tokens" in block.model_fields_set:
            context = block.context_tokens
        generation |= block.generation.given()
        headers |= {name.lower(): (name, variable) for name, variable in block.headers.items()}
        query |= {name: ("query", value) for name, value in block.query.items()}
        query |= {name: ("query_env", variable) for name, variable in block.query_env.items()}
        if "key_header" in block.model_fields_set:
            key_header = block.key_header
        if block.model_fields_set & {"proxy", "proxy_env"}:
            connection |= {"proxy": block.proxy, "proxy_env": block.proxy_env}
        if "tls" in block.model_fields_set:
            connection["ca_file"] = block.tls.ca_file if block.tls else None
    return Asking(
        _generation(generation),
        {name: variable for name, variable in headers.values() if variable is not None},
        {name: value for name, (where, value) in query.items() if where == "query" and value is not None},
        {name: value for name, (where, value) in query.items() if where == "query_env" and value is not None},
        key_header,
        Connection(**connection),
        context,
    )


def _generation(given: Mapping[str, Any]) -> SupplierGeneration:
    said = {name: value for name, value in given.items() if value is not None}
    found = SupplierGeneration(**said)
    return AS_THE_TASK_SAYS if found == AS_THE_TASK_SAYS else found
