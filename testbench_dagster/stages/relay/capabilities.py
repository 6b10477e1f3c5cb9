"""Finding out what suppliers can do before they are planned: whether they echo log-probabilities."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.prompt import TEXT_KINDS
from testbench_dagster.core.quota import Quota
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.relays.money import MoneyQuota
from testbench_dagster.relays.pace import Pacing
from testbench_dagster.stages.discover.roster import remember_echo_logprobs
from testbench_dagster.stages.relay.probe import ECHO_REQUEST, echo_verdict, probe_relay
from testbench_dagster.stages.relay.targets import Targets
from testbench_dagster.stages.relay.writer import AttemptWriter
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore
from testbench_dagster.transports.plug import TransportFactory

_PROBE_AGAIN = timedelta(days=1)  # after a supplier was found unable to echo log-probabilities


def learn_capabilities(
    workspace: Workspace,
    targets: Targets,
    tasks: Iterable[tuple[TaskSpec, Registration]],
    transports: TransportFactory,
    quota: Quota,
    pacing: Pacing,
    money: MoneyQuota | None,
) -> None:
    """Ask suppliers whether they echo log-probabilities, where a task of theirs needs it and it is not known.

    All at once; the answers are remembered in the roster. Where the network, not the supplier, stood in the
    way nothing is learnt. The attempts are kept like all others, under a task of their own.
    """
    needing = [spec for spec, registration in tasks if needs_echo(registration)]
    if not needing:
        return
    unknown = [
        target.endpoint
        for target in targets
        if target.supplier.api == "completions"
        and any(spec.asked_of(target.supplier) for spec in needing)
        and not _echo_is_known(target.supplier)
        and not quota.refused(target.endpoint)
    ]
    found = (
        _probe_echo_logprobs(workspace.documents, unknown, transports, quota, pacing, money)
        if unknown
        else {}
    )
    for key, supported in found.items():
        remember_echo_logprobs(workspace, key, supported)
    targets.learn(found)


def needs_echo(registration: Registration) -> bool:
    """Whether a task is for suppliers that echo log-probabilities."""
    return registration.flags.output_type not in TEXT_KINDS


def _echo_is_known(supplier: Supplier) -> bool:
    """Whether what a probe found still holds: a yes for good, a no for a day."""
    if supplier.echo_logprobs is None:
        return False
    now = datetime.now(UTC)
    return supplier.echo_logprobs or (
        supplier.probed_at is not None
        and now - supplier.probed_at <= _PROBE_AGAIN
        and not is_ahead(supplier.probed_at, now)
    )


def _probe_echo_logprobs(
    documents: DocumentStore,
    endpoints: Sequence[Endpoint],
    transports: TransportFactory,
    quota: Quota,
    pacing: Pacing,
    money: MoneyQuota | None,
) -> dict[str, bool]:
    """Which of the suppliers echo log-probabilities; those that stayed unknown are left out."""
    # with aiohttp: 0.2 s
    from testbench_dagster.relays.engine import run_relays

    found: dict[str, bool | None] = {}
    with AttemptWriter(documents) as writer:

        def sink(relay: Relay, number: int, attempt: Attempt) -> Awaitable[None] | None:
            found[relay.supplier] = echo_verdict(attempt)
            return writer.add(relay, number, attempt)

        run_relays(
            [(_once_more(endpoint), [probe_relay(endpoint, ECHO_REQUEST)]) for endpoint in endpoints],
            sink,
            open_transport=transports.open,
            quota=quota,
            pacing=pacing,
            money=money,
        )
    return {key: verdict for key, verdict in found.items() if verdict is not None}


def _once_more(endpoint: Endpoint) -> Endpoint:
    """The endpoint with one further attempt at most: everybody's relays wait for this."""
    return replace(endpoint, limits=replace(endpoint.limits, retries=min(endpoint.limits.retries, 1)))
