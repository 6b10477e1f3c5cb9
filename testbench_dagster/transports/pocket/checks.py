"""What `testbench check` says of a service of Pocket Network: nodes, applications, keys."""

from __future__ import annotations

from collections.abc import Iterator

from testbench_dagster.config import Config, ServiceConfig
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.wording import counted
from testbench_dagster.transports.pocket.access import app_key, chain_client
from testbench_dagster.transports.pocket.applications import AppState, app_states
from testbench_dagster.transports.pocket.chain.errors import ChainError
from testbench_dagster.transports.pocket.chain.types import UNLIMITED


def chain_findings(config: Config, name: str, *, signed: bool) -> Iterator[Finding]:
    """The nodes of a service, its applications and their sessions; ``signed``: also whose keys may sign."""
    service, client = config.settings.services[name], chain_client(config, name)
    what = f"service {name}"
    try:
        reports = client.nodes()
        best = max((report.height or 0 for report in reports), default=0)
        usable = any(report.problem is None for report in reports)
        for report in reports:
            node = f"{what}, node {report.url}"
            if report.problem is not None:
                yield Finding(node, report.problem, ok=False, warning=usable)
            else:
                behind = best - (report.height or 0)
                lag = f", {behind} behind" if behind else ""
                yield Finding(node, f"answers ({report.api}), at block {report.height}{lag}")
        height, shared = client.height(), client.shared_params()
        staked = len(client.suppliers(name))
        yield Finding(
            what,
            f"block {height}, {counted(shared.num_blocks_per_session, 'block')} per session; "
            f"{counted(staked, 'supplier')} staked, {client.suppliers_per_session()} per session at most",
            ok=staked > 0,
        )
        for state in app_states(client, name, service, signed=signed, fresh=True):
            yield from _app(f"{what}, app {state.address}", state, service, height)
    except ChainError as error:
        yield Finding(what, str(error), ok=False)


def _app(what: str, state: AppState, service: ServiceConfig, height: int) -> Iterator[Finding]:
    for problem in state.problems:
        yield Finding(what, problem, ok=False)
    for warning in state.warnings:
        yield Finding(what, warning, ok=False, warning=True)
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
        f"{counted(len(suppliers), 'supplier')}"
    )
    if state.budget is not None:
        parts.append(_budget(state.budget, service.max_relays_per_session, len(suppliers)))
    yield Finding(what, "; ".join(parts))


def _budget(by_stake: int, configured: int | None, suppliers: int) -> str:
    budget = by_stake if configured is None else min(by_stake, configured)
    if budget >= UNLIMITED:
        return "relays cost nothing"
    by = "stake" if budget == by_stake else "max_relays_per_session"
    relays = "relay" if budget == 1 else "relays"
    return f"up to {budget:,} {relays} per supplier and session by {by}, {budget * suppliers:,} in all"


def key_findings(config: Config, name: str) -> Iterator[Finding]:
    """The keys that sign for the applications of a service."""
    service = config.settings.services[name]
    for app in service.apps:
        what = f"service {name}, key of {app.signer}"
        try:
            app_key(config, name, app)
        except ConfigError as error:
            yield Finding(what, str(error), ok=False)
            continue
        held = f"key_env {app.key_env}" if app.key_env else f"key_file {app.key_file}"
        yield Finding(what, f"{held} holds it; ring {service.ring}")
