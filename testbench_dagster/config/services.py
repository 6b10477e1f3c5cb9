"""The block ``services`` of `testbench.yaml`: what the suppliers of a service have in common.

Most are services of Pocket Network, whose suppliers are found on a chain or by a gateway. With
``transport: direct`` a block only says what suppliers listed elsewhere inherit.

Keys are never part of it: ``key_env`` names the variable, ``key_file`` the file that holds one. Limits of
services and addresses are those of the protocol (poktroll ``x/service``; bech32 with the prefix ``pokt``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)

from testbench_dagster.config.asking import AskingSettings
from testbench_dagster.config.fields import (
    KEY_MATERIAL,
    NO_KEY,
    RelayOverrides,
    Variable,
    http_url,
    no_number,
)
from testbench_dagster.config.pace import ServicePace
from testbench_dagster.core.bech32 import is_address
from testbench_dagster.core.rules import Strict

SERVICE_SOURCE = "service:"
"""What the roster's names of these sources begin with."""

RpcName = Literal["rest", "json_rpc", "comet_bft"]
Discovery = Literal["sessions", "staked", "ready"]

_RPC_TYPES: tuple[RpcName, ...] = ("rest", "json_rpc")
_SERVICE_ID = re.compile(r"[A-Za-z0-9_-]{1,42}")


def _address(value: str) -> str:
    if KEY_MATERIAL.fullmatch(value):
        raise ValueError(
            "is a private key, not an address; keys are never written in the file: name the variable or the "
            "file that holds it"
        )
    if not is_address(value) or value != value.lower():
        raise ValueError(
            f"{value[:80]!r} is no address of Pocket Network (pokt1 and 38 characters, the last six a "
            "checksum); copy it again"
        )
    return value


def _key_file(value: str) -> str:
    if KEY_MATERIAL.fullmatch(value):
        raise ValueError(NO_KEY)
    if not value.strip():
        raise ValueError("is empty; name the file that holds the key")
    return value


def _node_url(value: str) -> str:
    return http_url(
        value, example="https://host:port", credentials="name a node that wants none, or a proxy of your own"
    )


def _gateway_url(value: str) -> str:
    return http_url(
        value, example="https://host/v1", credentials="name the variable holding a token in token_env"
    )


Address = Annotated[str, BeforeValidator(no_number), AfterValidator(_address)]
KeyFile = Annotated[str, BeforeValidator(no_number), AfterValidator(_key_file)]


class NodeSettings(Strict):
    """The nodes the chain is read from, in the order in which they are tried.

    ``rest``: REST (gRPC gateway, port 1317), ``rpc``: CometBFT RPC (port 26657); one kind is enough.
    ``timeout_s``: seconds one query may take. ``poll_s``: seconds between two looks at the height.
    """

    rest: list[Annotated[str, AfterValidator(_node_url)]] = Field(default_factory=list)
    rpc: list[Annotated[str, AfterValidator(_node_url)]] = Field(default_factory=list)
    timeout_s: float = Field(default=10, gt=0, le=60)
    poll_s: float = Field(default=10, gt=0, le=600)

    @model_validator(mode="after")
    def _any(self) -> NodeSettings:
        if not self.rest and not self.rpc:
            raise ValueError("names no node; give rest or rpc, such as {rest: ['https://host:1317']}")
        for name, urls in (("rest", self.rest), ("rpc", self.rpc)):
            for position, url in enumerate(urls):
                if url in urls[:position]:
                    raise ValueError(f"{name}[{position}] stands there twice; remove one")
        return self


class AppConfig(Strict):
    """An application staked for the service, and where the key that signs for it is.

    The key is the application's own, or with ``gateway`` that of the gateway the application delegates to.
    """

    address: Address
    gateway: Address | None = None
    key_env: Variable | None = None
    key_file: KeyFile | None = None

    @model_validator(mode="after")
    def _of_another(self) -> AppConfig:
        if self.gateway == self.address:
            raise ValueError("gateway is the application itself; leave gateway out to sign with its own key")
        return self

    @property
    def signer(self) -> str:
        """Address whose key signs."""
        return self.gateway or self.address


class GatewayConfig(Strict):
    """A PATH gateway: ``url`` with its ``/v1``, and what it wants to be told.

    ``token_env`` names the variable with its bearer token, ``app_address`` the application it is to use
    (gateways in delegated mode need it), ``rpc_type`` the endpoints it is to choose from.
    """

    url: Annotated[str, AfterValidator(_gateway_url)]
    token_env: Variable | None = None
    app_address: Address | None = None
    rpc_type: Literal["rest", "json_rpc"] | None = None


@dataclass(frozen=True)
class ServiceRules:
    """What a transport asks of the configuration of the services it reaches.

    ``problem`` says what is wrong with a service for it, with the remedy, or None. ``lists_ready``: it can
    ask who is ready, so that suppliers may come from there (``discover: ready``). ``listed_elsewhere``: its
    suppliers are those of ``suppliers`` and ``supplier_sources`` that name the service.
    """

    transport: str
    problem: Callable[[ServiceConfig], str | None]
    lists_ready: bool = False
    listed_elsewhere: bool = False


def admit_transport(rules: ServiceRules) -> None:
    """Let services be configured with a transport; its rules replace what was known of it."""
    _RULES[rules.transport] = rules


def _known_transport(value: Any) -> str:
    if isinstance(value, str) and value in _RULES:
        return value
    *others, last = (repr(name) for name in _RULES)
    shown = "" if isinstance(value, (dict, list)) else f" (it is {value!r})"
    raise ValueError(f"input should be {', '.join(others)}{' or ' if others else ''}{last}{shown}")


class ServiceConfig(AskingSettings):
    """One service: how its suppliers are asked; of Pocket Network also how they are found and paid for.

    ``transport``: ``shannon`` signs relays itself with the keys of ``apps``, ``path`` sends through a
    gateway; what each asks for is in its :class:`ServiceRules`. ``direct``: its suppliers are those of
    ``suppliers`` and ``supplier_sources`` that name it. ``discover``: from the sessions of the apps, from all
    that staked, or from what a gateway calls ready. ``ring``: whom a signature could be of, ``full`` (the
    application and its gateways) or ``self``. ``prefix``: what stands between a staked URL and
    ``/chat/completions``. ``rpc_types``: which of several endpoints is taken, before any other http(s) one.
    ``max_relays_per_session``: per supplier, on top of what the application's stake allows. ``pace``: how
    fast its suppliers may be asked, together or each.
    """

    transport: Annotated[str, PlainValidator(_known_transport)]
    model: Annotated[str, Field(max_length=256, validate_default=True)] = ""
    api: Literal["chat", "completions"] = "chat"
    nodes: NodeSettings | None = None
    apps: list[AppConfig] = Field(default_factory=list)
    ring: Literal["full", "self"] = "full"
    discover: Discovery | None = None
    gateway: GatewayConfig | None = None
    only: list[Address] | None = None
    prefix: str = "/v1"
    rpc_types: list[RpcName] = Field(default_factory=lambda: list(_RPC_TYPES))
    stream: bool = False
    allow_private_networks: bool = False
    max_relays_per_session: int | None = Field(default=None, ge=1)
    relays: RelayOverrides = RelayOverrides()
    pace: ServicePace | None = None

    @field_validator("model")
    @classmethod
    def _of_who_is_discovered(cls, value: str, info: ValidationInfo) -> str:
        rules = _RULES.get(info.data.get("transport", ""))
        if not value and rules is not None and not rules.listed_elsewhere:
            raise ValueError("is required but missing; add it")
        return value

    @field_validator("prefix")
    @classmethod
    def _path_prefix(cls, value: str) -> str:
        value = value.rstrip("/")
        if value and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", value):
            raise ValueError(f"{value[:80]!r} is no path; write it like /v1, or '' for none")
        if "/.." in value or "/./" in f"{value}/":
            raise ValueError(f"{value[:80]!r} leads elsewhere; write it without '.' and '..'")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ServiceConfig:
        for problem in (
            self._rules.problem(self),
            self._of_discovery(),
            self._of_lists(),
        ):
            if problem:
                raise ValueError(problem)
        return self

    @property
    def _rules(self) -> ServiceRules:
        return _RULES[self.transport]

    @property
    def listed_elsewhere(self) -> bool:
        """Whether its suppliers are those of ``suppliers`` and ``supplier_sources`` that name it."""
        return self._rules.listed_elsewhere

    def reached_by(self, transport: str) -> bool:
        """Whether this transport reaches its suppliers."""
        return self._rules is _RULES.get(transport)

    def _of_discovery(self) -> str | None:
        if self.discover == "ready" and not self._rules.lists_ready:
            return (
                f"discover: ready asks a gateway, which transport {self.transport} has none of; use sessions "
                "or staked"
            )
        if self.discover in ("sessions", "staked") and self.nodes is None:
            return f"discover: {self.discover} reads the chain; add nodes, or use discover: ready"
        if self.discover == "sessions" and not self.session_apps:
            return "discover: sessions needs apps whose sessions are read; add apps, or use discover: staked"
        return None

    def _of_lists(self) -> str | None:
        for name in ("only", "rpc_types"):
            if getattr(self, name) == []:
                return f"{name} is empty; name at least one, or remove it"
            values: list[str] = getattr(self, name) or []
            for position, value in enumerate(values):
                if value in values[:position]:
                    return f"{name}[{position}]: {value!r} stands there twice; remove one"
        return None

    @property
    def discovery(self) -> Discovery:
        """Where suppliers come from: ``discover``, or by default the best source that is configured."""
        if self.discover is not None:
            return self.discover
        if self.nodes is None:
            return "ready"
        return "sessions" if self.session_apps else "staked"

    @property
    def session_apps(self) -> tuple[str, ...]:
        """Addresses of the applications whose sessions matter, in configured order."""
        if self.apps:
            return tuple(app.address for app in self.apps)
        named = self.gateway.app_address if self.gateway else None
        return (named,) if named else ()


def _listed_problem(service: ServiceConfig) -> str | None:
    meant = {"transport", "relays", *AskingSettings.model_fields}
    for name in ServiceConfig.model_fields:
        if name in service.model_fields_set and name not in meant:
            remedy = "give it there" if name == "pace" else "remove it"
            return (
                f"{name} means nothing to transport direct, whose suppliers are listed in suppliers and "
                f"supplier_sources; {remedy}"
            )
    return None


def _unsent_problem(service: ServiceConfig) -> str | None:
    """Miners are sent what any gateway sends, and what is sent is kept: nothing secret may be in it."""
    for name in ("headers", "query", "query_env", "key_header"):
        if getattr(service, name):
            return (
                f"{name} means nothing to transport shannon (relays are signed, and look like any "
                "gateway's); remove it"
            )
    return None


def _signed_relays_problem(service: ServiceConfig) -> str | None:
    if (problem := _unsent_problem(service)) is not None:
        return problem
    if service.nodes is None:
        return "transport shannon needs nodes; add nodes: {rest: ['https://host:1317']}"
    if not service.apps:
        return "transport shannon needs apps; add apps: [{address: pokt1…, key_env: POCKET_APP_KEY}]"
    if service.gateway is not None:
        return (
            "gateway is for transport path; remove it, or for an app that delegates write "
            "gateway: pokt1… in its entry of apps"
        )
    for position, app in enumerate(service.apps):
        given = [name for name in ("key_env", "key_file") if getattr(app, name) is not None]
        if len(given) != 1:
            return (
                f"apps[{position}]: {'both key_env and key_file' if given else 'no key'} of "
                f"{app.signer}; give either key_env or key_file"
            )
    return None


#: What a gateway is told in headers of these names says the relay itself.
_GATEWAYS_OWN = frozenset({"target-service-id", "target-suppliers", "rpc-type", "app-address"})


def _gateway_problem(service: ServiceConfig) -> str | None:
    if service.gateway is None:
        return "transport path needs gateway; add gateway: {url: 'https://host/v1'}"
    for name in service.headers:
        if name.lower() in _GATEWAYS_OWN:
            return f"headers: {name} says what each relay says itself; remove it"
    for name, why in (("ring", "the gateway signs"), ("stream", "gateways buffer answers")):
        if name in service.model_fields_set and getattr(service, name) not in ("full", False):
            return f"{name} means nothing to transport path ({why}); remove it"
    for position, app in enumerate(service.apps):
        if app.key_env or app.key_file or app.gateway:
            return f"apps[{position}]: transport path needs no key: the gateway signs; leave only address"
    if service.apps and service.nodes is None:
        return "apps are read from the chain; add nodes, or remove apps"
    return None


#: Relays signed here with the keys of applications.
SIGNED_RELAYS = ServiceRules("shannon", _signed_relays_problem)
#: Relays that a PATH gateway signs.
THROUGH_GATEWAY = ServiceRules("path", _gateway_problem, lists_ready=True)

#: Suppliers that `suppliers` and `supplier_sources` list.
LISTED = ServiceRules("direct", _listed_problem, listed_elsewhere=True)

_RULES = {rules.transport: rules for rules in (SIGNED_RELAYS, THROUGH_GATEWAY, LISTED)}


def service_problem(services: dict[str, ServiceConfig]) -> str | None:
    """What is wrong with the services taken together, with the key it is about and the remedy, or None."""
    owner: dict[str, str] = {}
    for name, service in services.items():
        if not _SERVICE_ID.fullmatch(name):
            return (
                f"services: {name[:80]!r} is no id of a service; use 1 to 42 letters, digits, '_' or '-', "
                "as it stands on the chain"
            )
        for position, app in enumerate(service.session_apps):
            where = f"services.{name}.apps[{position}]" if service.apps else f"services.{name}.gateway"
            if app in owner:
                return (
                    f"{where}: {app} is named by {owner[app]} already; an application stakes for one "
                    "service, so name another"
                )
            owner[app] = where
    return None
