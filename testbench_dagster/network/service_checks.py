"""What `testbench check` says of a service of Pocket Network: nodes, applications, keys, gateway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from testbench_dagster.config import Config, ServiceConfig
from testbench_dagster.errors import ConfigError
from testbench_dagster.network.applications import AppState, app_states
from testbench_dagster.network.chain.client import ChainClient
from testbench_dagster.network.chain.errors import ChainError
from testbench_dagster.network.chain.types import UNLIMITED
from testbench_dagster.network.gateways import check_gateway
from testbench_dagster.network.pocket import app_key, chain_client


@dataclass(frozen=True)
class ServiceFinding:
    """One thing that was looked at; neither ``ok`` nor a ``warning`` means that relays fail."""

    what: str
    detail: str
    ok: bool = True
    warning: bool = False


def check_service(config: Config, name: str) -> Iterator[ServiceFinding]:
    """Look at everything that relays for a service need; sends no relay and raises for nothing it finds."""
    service = config.settings.services[name]
    if service.nodes is not None:
        yield from _chain(name, service, chain_client(config, name))
    if service.transport == "shannon":
        yield from _keys(config, name, service)
    if service.gateway is not None:
        yield from _gateway(name, service)


def _chain(name: str, service: ServiceConfig, client: ChainClient) -> Iterator[ServiceFinding]:
    what = f"service {name}"
    try:
        reports = client.nodes()
        best = max((report.height or 0 for report in reports), default=0)
        usable = any(report.problem is None for report in reports)
        for report in reports:
            node = f"{what}, node {report.url}"
            if report.problem is not None:
                yield ServiceFinding(node, report.problem, ok=False, warning=usable)
            else:
                behind = best - (report.height or 0)
                lag = f", {behind} behind" if behind else ""
                yield ServiceFinding(node, f"answers ({report.face}), at block {report.height}{lag}")
        height, shared = client.height(), client.shared_params()
        staked = len(client.suppliers(name))
        yield ServiceFinding(
            what,
            f"block {height}, {shared.num_blocks_per_session} blocks per session; {staked} suppliers staked, "
            f"{client.suppliers_per_session()} per session at most",
            ok=staked > 0,
        )
        for state in app_states(client, name, service, fresh=True):
            yield from _app(f"{what}, app {state.address}", state, service, height)
    except ChainError as error:
        yield ServiceFinding(what, str(error), ok=False)


def _app(what: str, state: AppState, service: ServiceConfig, height: int) -> Iterator[ServiceFinding]:
    for problem in state.problems:
        yield ServiceFinding(what, problem, ok=False)
    for warning in state.warnings:
        yield ServiceFinding(what, warning, ok=False, warning=True)
    if state.application is None or state.session is None or state.problems:
        return
    header, suppliers = state.session.header, state.session.suppliers
    gateways = state.application.ring_addresses(header.end_height)
    parts = [f"stake {state.application.stake_upokt:,} uPOKT"]
    if gateways:
        parts.append(f"delegates to {', '.join(gateways)}")
    left = header.end_height - height + 1
    parts.append(
        f"session of blocks {header.start_height} to {header.end_height} ({left} left) with "
        f"{len(suppliers)} suppliers"
    )
    if state.budget is not None:
        parts.append(_budget(state.budget, service.max_relays_per_session, len(suppliers)))
    yield ServiceFinding(what, "; ".join(parts))


def _budget(by_stake: int, configured: int | None, suppliers: int) -> str:
    budget = by_stake if configured is None else min(by_stake, configured)
    if budget >= UNLIMITED:
        return "relays cost nothing"
    by = "stake" if budget == by_stake else "max_relays_per_session"
    return f"up to {budget:,} relays per supplier and session by {by}, {budget * suppliers:,} in all"


def _keys(config: Config, name: str, service: ServiceConfig) -> Iterator[ServiceFinding]:
    for app in service.apps:
        what = f"service {name}, key of {app.signer}"
        try:
            app_key(config, name, app)
        except ConfigError as error:
            yield ServiceFinding(what, str(error), ok=False)
            continue
        held = f"key_env {app.key_env}" if app.key_env else f"key_file {app.key_file}"
        yield ServiceFinding(what, f"{held} holds it; ring {service.ring}")


def _gateway(name: str, service: ServiceConfig) -> Iterator[ServiceFinding]:
    if service.gateway is None:
        raise ConfigError(f"services.{name}: transport path needs a gateway")
    what = f"service {name}, gateway {service.gateway.url}"
    report = check_gateway(name, service)
    for problem in report.problems:
        yield ServiceFinding(what, problem, ok=False)
    for warning in report.warnings:
        yield ServiceFinding(what, warning, ok=False, warning=True)
    if report.reachable:
        yield ServiceFinding(what, f"answers; it calls {report.suppliers} suppliers ready")
