"""The transport ``path``: suppliers of a Pocket service, reached through a PATH gateway that signs relays."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbench_dagster.config import SERVICE_SOURCE, THROUGH_GATEWAY, Config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Way, faults_on
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Endpoint, Transport
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.transports.addresses import host_of
from testbench_dagster.transports.discovery import Source
from testbench_dagster.transports.endpoints import asking_of, authorization, endpoint_of
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.plug import (
    About,
    KnownOperators,
    KnownSessions,
    PlainFactory,
    RelayHistory,
    SessionLookup,
    TransportFactory,
)
from testbench_dagster.transports.pocket.waiting import waiting_for_session
from testbench_dagster.transports.stored import Shown, StoredSignature


class PathPlug:
    """Through a gateway; see :class:`~testbench_dagster.transports.plug.TransportPlug`."""

    name = THROUGH_GATEWAY.transport
    rules = THROUGH_GATEWAY
    #: The gateway is asked all the same. That it has the supplier in no session may be so for ever, so such a
    #: supplier is asked ever more rarely.
    sends_only_in_sessions = False
    about = About(
        summary="Through a PATH gateway, which is told the supplier, signs, and says who answered.",
        suppliers="per service those the gateway calls ready, or with `nodes` those the chain knows",
        keys=("gateway", "nodes", "apps", "discover", "only", "prefix", "rpc_types"),
        quotas="nothing here: the gateway's applications pay",
        check="nodes and applications where they are configured; that the gateway answers, knows the "
        "service, and neither hedges nor retries",
        faults=faults_on(Way.GATEWAY),
        more="pocket.md",
    )

    def sources(self, config: Config, services: Sequence[str], known: KnownOperators) -> Mapping[str, Source]:
        """What the gateway of each service calls ready, or the chain where nodes are configured."""
        # with the chain, which only those need who have services
        from testbench_dagster.transports.path.gateways import ReadySource
        from testbench_dagster.transports.pocket.discovery import ChainSource

        found: dict[str, Source] = {}
        for name in services:
            service = config.settings.services[name]
            ready = service.discovery == "ready"
            if ready:
                found[f"{SERVICE_SOURCE}{name}"] = ReadySource(name, service, base=config.base)
            else:
                found[f"{SERVICE_SOURCE}{name}"] = ChainSource(config, name, known(name))
        return found

    def endpoint(self, config: Config, supplier: Supplier) -> Endpoint:
        """The gateway of the service: it is configured, hence trusted, and all its suppliers share it."""
        # with the codec, which a roster needs not
        from testbench_dagster.transports.pocket.messages import RpcType

        service = config.settings.services[supplier.service]
        gateway = service.gateway
        if gateway is None:
            raise ConfigError(f"services.{supplier.service}: transport path needs a gateway")
        where = f"supplier {supplier.key}: services.{supplier.service}.gateway.token_env"
        asking = asking_of(config, supplier)
        headers = authorization(where, gateway.token_env, asking.key_header)
        if gateway.app_address is not None:
            headers["App-Address"] = gateway.app_address
        return endpoint_of(
            config,
            supplier,
            asking=asking,
            base_url=gateway.url,
            headers=headers,
            address=supplier.address,
            # what it was staked with is the gateway's business, unless it is to be told
            rpc_type=None if gateway.rpc_type is None else int(RpcType[gateway.rpc_type.upper()]),
            prefix=service.prefix,
            host=host_of(gateway.url),
        )

    def key_problem(self, config: Config, service: str) -> str | None:
        """The gateway signs."""
        return None

    def prepare(self, config: Config, services: Collection[str], history: RelayHistory) -> TransportFactory:
        """Where nodes are configured, attempts carry the session that the gateway names."""
        return PlainFactory(_Opening(config, tuple(services), history))

    def waiting(self, supplier: Supplier, known: KnownSessions, spent_until: int | None) -> str | None:
        """What is known of the gateway's applications is all there is to go by; it knows better itself."""
        if known.silent_since is not None or not known.current:
            return None
        return waiting_for_session(supplier.address, known, spent_until)

    def shown(
        self, attempt: AttemptRecord, request: Mapping[str, Any], api: Api, error: str | None
    ) -> Shown | None:
        """A gateway's answer is judged again."""
        if attempt.status is None or "gateway" not in attempt.evidence:
            return None
        from testbench_dagster.transports.path.stored import shown_by_gateway  # with aiohttp: 0.2 s

        return shown_by_gateway(attempt, attempt.status, request, api, error)

    def signature(self, attempt: AttemptRecord, *, answered: bool) -> StoredSignature | None:
        """Its answers carry none."""
        return None

    def lists_models(self, endpoint: Endpoint) -> bool:
        """What lies there is the gateway."""
        return False

    def check(self, config: Config, service: str) -> Iterator[Finding]:
        """Nodes and applications, where they are configured, and the gateway."""
        # with the codecs of a chain: 50 ms
        from testbench_dagster.transports.path.checks import gateway_findings
        from testbench_dagster.transports.pocket.checks import chain_findings

        if config.settings.services[service].nodes is not None:
            yield from chain_findings(config, service, signed=False)
        yield from gateway_findings(config, service)


@dataclass(frozen=True)
class _Opening:
    """Opens the transport of a run."""

    config: Config
    services: tuple[str, ...]
    history: RelayHistory

    def __call__(self) -> Transport:
        from testbench_dagster.transports.path.transport import PathTransport  # with aiohttp: 0.2 s

        configured = self.config.settings.services
        known: SessionLookup | None = None
        if any(configured[name].nodes is not None for name in self.services):
            known = self.history.sessions()
        return PathTransport(known)
