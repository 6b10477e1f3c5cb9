"""The transport ``shannon``: suppliers of a Pocket service, sent relays that are signed here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from testbench_dagster.config import SERVICE_SOURCE, SIGNED_RELAYS, Config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Way, faults_on
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.transports.discovery import Source
from testbench_dagster.transports.endpoints import endpoint_of
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.plug import (
    About,
    KnownOperators,
    KnownSessions,
    RelayHistory,
    TransportFactory,
)
from testbench_dagster.transports.pocket.waiting import waiting_for_session
from testbench_dagster.transports.stored import Shown, StoredSignature, Unsigned, shown_by_answer


class PocketPlug:
    """Signed relays; see :class:`~testbench_dagster.transports.plug.TransportPlug`."""

    name = SIGNED_RELAYS.transport
    rules = SIGNED_RELAYS
    sends_only_in_sessions = True
    about = About(
        summary="Relays on Pocket's Shannon network, signed here and sent to the URL the supplier staked; "
        "what it signed is verified.",
        suppliers="per service those in the sessions of its `apps`, or all that staked",
        keys=(
            "nodes",
            "apps",
            "ring",
            "discover",
            "only",
            "prefix",
            "rpc_types",
            "stream",
            "allow_private_networks",
            "max_relays_per_session",
        ),
        quotas="per supplier and session what the application's stake covers, `max_relays_per_session`, and "
        "the miner's own word",
        check="that the nodes answer, how each application stands (stake, delegation, session, budget), and "
        "that its key is there",
        faults=faults_on(Way.SIGNED),
        more="pocket.md",
    )

    def sources(self, config: Config, services: Sequence[str], known: KnownOperators) -> Mapping[str, Source]:
        """The chain, per service."""
        # with the chain, which only those need who have services
        from testbench_dagster.transports.pocket.discovery import ChainSource

        return {
            f"{SERVICE_SOURCE}{name}": ChainSource(config, name, known(name), signed=True)
            for name in services
        }

    def endpoint(self, config: Config, supplier: Supplier) -> Endpoint:
        """The URL the supplier staked."""
        service = config.settings.services[supplier.service]
        return endpoint_of(
            config,
            supplier,
            private_allowed=supplier.trusted,
            address=supplier.address,
            rpc_type=supplier.rpc_type,
            prefix=service.prefix,
            host=supplier.host,
            stream=service.stream,
        )

    def key_problem(self, config: Config, service: str) -> str | None:
        """A key that is missing, unreadable or another's."""
        # with the client of a chain: 20 ms
        from testbench_dagster.transports.pocket.access import service_keys

        try:
            service_keys(config, service)
        except ConfigError as error:
            return str(error)
        return None

    def prepare(self, config: Config, services: Collection[str], history: RelayHistory) -> TransportFactory:
        """Load the keys and ask the chain for the sessions of the services."""
        # with coincurve, httpx and aiohttp, which only those pay for who relay
        from testbench_dagster.transports.pocket.factory import PocketFactory

        return PocketFactory(config, services, history)

    def waiting(self, supplier: Supplier, known: KnownSessions, spent_until: int | None) -> str | None:
        """Until it is in a session, and that grants relays."""
        if known.silent_since is not None:
            since = f"{known.silent_since:%Y-%m-%d %H:%M}; is a node reachable?"
            return f"the chain told of no block since {since}"
        return waiting_for_session(supplier.address, known, spent_until)

    def shown(
        self, attempt: AttemptRecord, request: Mapping[str, Any], api: Api, error: str | None
    ) -> Shown | None:
        """A miner's refusal is read again; what was signed well is judged like any answer."""
        status = attempt.evidence.get("http_status")
        signed = attempt.session is not None and "request_hash" in attempt.evidence
        if not (isinstance(status, int) and signed):
            if "public_key" in attempt.evidence and "gateway" not in attempt.evidence:
                # its signature is over all of it
                return shown_by_answer(attempt, request, api, error, complete=True)
            return None
        from testbench_dagster.transports.pocket.stored import shown_by_miner  # with its codecs: 0.1 s

        return shown_by_miner(attempt, status, request, error)

    def signature(self, attempt: AttemptRecord, *, answered: bool) -> StoredSignature | None:
        """What a miner answered is signed by it, for the session it was asked in."""
        if "envelope" in attempt.evidence:
            # with the curve library: 0.1 s
            from testbench_dagster.transports.pocket.stored import verified_signature

            return verified_signature(attempt)
        # what quoted a key was redacted: the signature is over what it said before
        excused = "gateway" in attempt.evidence or attempt.evidence.get("redacted")
        if attempt.session is not None and answered and not excused:
            raise Unsigned
        return None

    def lists_models(self, endpoint: Endpoint) -> bool:
        """Miners list nothing."""
        return False

    def check(self, config: Config, service: str) -> Iterator[Finding]:
        """Nodes, applications, and the keys that sign for them."""
        # with the codecs of a chain: 30 ms
        from testbench_dagster.transports.pocket.checks import chain_findings, key_findings

        yield from chain_findings(config, service, signed=True)
        yield from key_findings(config, service)
