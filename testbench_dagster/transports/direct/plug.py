"""The transport ``direct``: suppliers that are listed with the URL of their API, asked over plain HTTP."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from testbench_dagster.config import Config
from testbench_dagster.core.faults import Way, faults_on
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.relay import DEFAULT_TRANSPORT, Endpoint, Transport
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.transports.direct.rosters import RosterSource
from testbench_dagster.transports.discovery import Source
from testbench_dagster.transports.endpoints import asking_of, authorization, endpoint_of
from testbench_dagster.transports.payload import Api
from testbench_dagster.transports.plug import (
    About,
    KnownOperators,
    KnownSessions,
    PlainFactory,
    RelayHistory,
    TransportFactory,
)
from testbench_dagster.transports.stored import Shown, StoredSignature


class DirectPlug:
    """Plain HTTP; see :class:`~testbench_dagster.transports.plug.TransportPlug`."""

    name = DEFAULT_TRANSPORT
    rules = None
    sends_only_in_sessions = False
    about = About(
        summary="Plain HTTP to the OpenAI-style API at the supplier's own `base_url`.",
        suppliers="those of `suppliers`, and those that `supplier_sources` list",
        keys=("suppliers", "supplier_sources"),
        quotas="nothing",
        check="that the supplier answers a short question, with which settings, and which models it lists",
        faults=faults_on(Way.PLAIN),
        more="reference.md",
    )

    def sources(self, config: Config, services: Sequence[str], known: KnownOperators) -> Mapping[str, Source]:
        """Those of ``supplier_sources``."""
        listed = config.settings.supplier_sources
        return {source.label: RosterSource.from_settings(source, config.base) for source in listed}

    def endpoint(self, config: Config, supplier: Supplier) -> Endpoint:
        """The supplier's own URL, with its API key."""
        asking, where = asking_of(config, supplier), f"supplier {supplier.key}: api_key_env"
        return endpoint_of(
            config,
            supplier,
            asking=asking,
            headers=authorization(where, supplier.api_key_env, asking.key_header),
            private_allowed=supplier.trusted,
        )

    def key_problem(self, config: Config, service: str) -> str | None:
        """Nothing is signed."""
        return None

    def prepare(self, config: Config, services: Collection[str], history: RelayHistory) -> TransportFactory:
        """There is nothing to prepare."""
        return PlainFactory(_opened)

    def waiting(self, supplier: Supplier, known: KnownSessions, spent_until: int | None) -> str | None:
        """It never waits."""
        return None

    def shown(
        self, attempt: AttemptRecord, request: Mapping[str, Any], api: Api, error: str | None
    ) -> Shown | None:
        """It has no rules but those of answers."""
        return None

    def signature(self, attempt: AttemptRecord, *, answered: bool) -> StoredSignature | None:
        """Its answers carry none."""
        return None

    def lists_models(self, endpoint: Endpoint) -> bool:
        """Only of a trusted one: whoever asks does not look at where a name leads."""
        return endpoint.private_allowed

    def check(self, config: Config, service: str) -> Iterator[Finding]:
        """Whether anybody is of the service."""
        settings = config.settings
        if not settings.supplier_sources and all(s.service != service for s in settings.suppliers):
            told = "no supplier is of it; correct service in suppliers, or remove the block"
            yield Finding(f"service {service}", told, ok=False, warning=True)


def _opened() -> Transport:
    from testbench_dagster.transports.direct.transport import DirectTransport  # with aiohttp: 0.2 s

    return DirectTransport()
