"""All transports by name, and several of them as one: nothing outside this package asks which one it is.

A further transport is a :class:`~testbench_dagster.transports.plug.TransportPlug` that is registered here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from testbench_dagster.config import SERVICE_SOURCE, Config, admit_transport
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.quota import Quota
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Attempt, Endpoint, Relay, Transport, TransportName
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.transports.direct.plug import DirectPlug
from testbench_dagster.transports.discovery import Source
from testbench_dagster.transports.path.plug import PathPlug
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.plug import (
    KnownOperators,
    RelayHistory,
    TransportFactory,
    TransportPlug,
)
from testbench_dagster.transports.pocket.plug import PocketPlug
from testbench_dagster.transports.stored import Shown, StoredSignature, shown_by_answer

_PLUGS: dict[TransportName, TransportPlug] = {
    plug.name: plug for plug in (DirectPlug(), PathPlug(), PocketPlug())
}


def register(plug: TransportPlug) -> None:
    """Make a transport known, before any configuration is read that names it.

    Raises:
        ValueError: there is one of that name, or its rules are those of another.
    """
    if plug.name in _PLUGS:
        raise ValueError(f"there is a transport {plug.name!r} already; choose another name")
    if plug.rules is not None and plug.rules.transport != plug.name:
        raise ValueError(f"the rules of transport {plug.name!r} are those of {plug.rules.transport!r}")
    _PLUGS[plug.name] = plug
    if plug.rules is not None:
        admit_transport(plug.rules)


def transports() -> tuple[TransportPlug, ...]:
    """All transports."""
    return tuple(_PLUGS.values())


def transport(name: TransportName) -> TransportPlug:
    """The transport of a name.

    Raises:
        ConfigError: there is none.
    """
    plug = _PLUGS.get(name)
    if plug is None:
        raise ConfigError(
            f"there is no transport {name!r}, but {', '.join(_PLUGS)}; install what provides it, or remove "
            "the suppliers it reaches from the roster"
        )
    return plug


def sources(config: Config, known: KnownOperators) -> dict[str, Source]:
    """Where suppliers come from beside those of testbench.yaml, by what the roster calls each source."""
    services = config.settings.services
    found: dict[str, Source] = {}
    for plug in _PLUGS.values():
        named = [name for name, service in services.items() if service.transport == plug.name]
        found.update(plug.sources(config, named, known))
    return found


def supplier_endpoint(config: Config, supplier: Supplier) -> Endpoint:
    """The endpoint of a supplier; its API key or its gateway's token is read from the environment here.

    Raises:
        ConfigError: the variable that should hold it is not set, or holds what no header can carry; or the
            service it belongs to is no longer configured.
    """
    plug = transport(supplier.transport)
    if plug.rules is not None:
        service = config.settings.service_of(supplier.source)
        if service is None or service.transport != plug.name:
            name = supplier.source.removeprefix(SERVICE_SOURCE)
            raise ConfigError(
                f"supplier {supplier.key} is reached by transport {plug.name}, but {config.path} has no "
                f"service {name!r} with it; configure it, or refresh the roster (testbench check)"
            )
    return plug.endpoint(config, supplier)


def check_service(config: Config, name: str) -> Iterator[Finding]:
    """Look at everything that relays for a service need; sends no relay and raises for nothing it finds."""
    return transport(config.settings.services[name].transport).check(config, name)


def shown(attempt: AttemptRecord, request: Mapping[str, Any], api: Api, error: str | None) -> Shown:
    """What the evidence of an attempt at a request shows; ``error`` is the text that it was given.

    Whose attempt it was, only its evidence says. The signed transport is asked first: what was signed goes
    before what a gateway is said to have said.
    """
    for plug in reversed(_PLUGS.values()):
        found = plug.shown(attempt, request, api, error)
        if found is not None:
            return found
    return shown_by_answer(attempt, request, api, error)


def signature(attempt: AttemptRecord, *, answered: bool) -> StoredSignature | None:
    """The verified signature of a stored answer; None where no transport claims that it carries one.

    ``answered``: whether it is said to have brought an answer.

    Raises:
        Unsigned: an answer that should carry one does not.
        BadSignature: it does not hold.
    """
    found = (plug.signature(attempt, answered=answered) for plug in reversed(_PLUGS.values()))
    return next((one for one in found if one is not None), None)


class Transports:
    """Several opened transports as one (a :class:`~testbench_dagster.core.relay.Transport`)."""

    def __init__(self, opened: Mapping[TransportName, Transport]) -> None:
        self._by_name = dict(opened)

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        """Send through the endpoint's transport; raises KeyError where that was not opened."""
        return await self._by_name[endpoint.transport].send(endpoint, relay)

    async def close(self) -> None:
        """Close every transport, whatever goes wrong with one."""
        errors = []
        for opened in self._by_name.values():
            try:
                await opened.close()
            except Exception as error:  # the others hold connections too
                errors.append(error)
        if errors:
            raise errors[0]


class RunTransports:
    """The transports to some endpoints, prepared for one run.

    A :class:`~testbench_dagster.transports.plug.TransportFactory` over those of each. Nodes are asked for the
    sessions that relays are bound to, which blocks.
    """

    def __init__(self, config: Config, endpoints: Iterable[Endpoint], history: RelayHistory) -> None:
        services: dict[TransportName, set[str]] = {}
        for endpoint in endpoints:
            services.setdefault(endpoint.transport, set()).add(endpoint.service)
        self._factories: dict[TransportName, TransportFactory] = {
            name: transport(name).prepare(config, sorted(of), history) for name, of in services.items()
        }

    @property
    def unread(self) -> Mapping[str, str]:
        """Why sessions could not be read, by service."""
        return {name: why for made in self._factories.values() for name, why in made.unread.items()}

    def problem(self, endpoint: Endpoint) -> str | None:
        """Why nothing can be sent to an endpoint in this run, or None."""
        return self._factories[endpoint.transport].problem(endpoint)

    def open(self) -> Transport:
        """Open them all."""
        return Transports({name: made.open() for name, made in self._factories.items()})

    def quota(self, inner: Quota) -> Quota:
        """Bound a quota by what each of them allows."""
        for made in self._factories.values():
            inner = made.quota(inner)
        return inner

    def used_up(self, endpoint: Endpoint) -> int | None:
        """Last height of the sessions in which the relays of an endpoint are used up, or None."""
        return self._factories[endpoint.transport].used_up(endpoint)
