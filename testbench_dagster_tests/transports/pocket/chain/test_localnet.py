"""The client on the simulated network: what that tells by either API is what it has staked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from testbench_dagster.localnet.personas import default_population
from testbench_dagster.localnet.pocket.network import PocketNet
from testbench_dagster.localnet.pocket.node import NodeFaults
from testbench_dagster.transports.pocket.chain import (
    ChainClient,
    ChainError,
    NotFound,
    SessionTerms,
    SessionUnavailable,
    relay_cost,
    session_budget_upokt,
)
from testbench_dagster_tests.transports.pocket.chain.conftest import address

APP = "app-simulation"


@pytest.fixture
def net() -> Iterator[PocketNet]:
    """A network with two nodes whose blocks come only when told, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> PocketNet:
        return await PocketNet(default_population(8), block_s=None, nodes=2, page_cap=3).__aenter__()

    running = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    yield running
    asyncio.run_coroutine_threadsafe(running.__aexit__(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


def client_of(api: str, urls: Sequence[str]) -> ChainClient:
    return ChainClient(rest=urls, timeout_s=5.0) if api == "rest" else ChainClient(rpc=urls, timeout_s=5.0)


@pytest.mark.parametrize("api", ["rest", "rpc"])
def test_what_is_staked_arrives(net: PocketNet, api: str) -> None:
    chain, paid = net.chain, net.apps[APP]
    with client_of(api, [net.url]) as client:
        assert client.height() == chain.height
        params = chain.params(chain.height)
        shared = client.shared_params()
        assert shared.num_blocks_per_session == params.num_blocks_per_session
        assert client.suppliers_per_session() == params.num_suppliers_per_session

        found = {s.operator: s for s in client.suppliers(paid.service)}
        staked = {o.operator for o in chain.offers() if o.service == paid.service and o.active(chain.height)}
        assert found.keys() == staked and len(staked) > 3, "more than a page"
        for operator, supplier in found.items():
            stake = chain.supplier(operator, chain.height).stake
            assert (supplier.owner, supplier.stake_upokt) == (stake.owner, stake.amount)
            assert {e.url for e in supplier.endpoints} <= {m.url for m in net.miners}
            assert {e.rpc_type for e in supplier.endpoints} == {4}
            assert client.public_key(operator) == net.public_keys[operator]
            assert client.supplier(operator, paid.service) == supplier

        session = client.session(paid.address, paid.service)
        assert session.header == chain.session(paid.address, paid.service, chain.height).header
        assert {s.operator for s in session.suppliers} == staked
        assert session.application == client.application(paid.address)
        assert session.application.ring_addresses(session.header.end_height) == tuple(net.gateways.values())

        service = client.service(paid.service)
        known = chain.service(paid.service)
        assert relay_cost(service, shared) == params.relay_cost(known.compute_units_per_relay)
        budget = session_budget_upokt(session.application.stake_upokt, shared, 50)
        assert budget == int(params.session_budget(session.application.stake_upokt))


@pytest.mark.parametrize("api", ["rest", "rpc"])
def test_its_refusals_are_understood(net: PocketNet, api: str) -> None:
    paid, stranger = net.apps[APP], address("stranger")
    with client_of(api, [net.url]) as client:
        for app, service, reason in (
            (stranger, paid.service, "app_not_found"),
            (paid.address, "another", "app_not_staked"),
        ):
            with pytest.raises(SessionUnavailable) as caught:
                client.session(app, service)
            assert caught.value.reason == reason
        with pytest.raises(NotFound):
            client.application(stranger)
        with pytest.raises(NotFound):
            client.supplier(stranger, paid.service)
        with pytest.raises(NotFound):
            client.service("another")
        assert client.public_key(stranger) is None


@pytest.mark.parametrize("api", ["rest", "rpc"])
def test_faults_of_a_node_leave_the_other(net: PocketNet, api: str) -> None:
    paid, node = net.apps[APP], net.nodes[0]
    for fault in (
        NodeFaults(status=503),
        NodeFaults(lag_blocks=500),
        NodeFaults(catching_up=True),
        NodeFaults(truncate=True),
        NodeFaults(garbage=True),
        NodeFaults(down=True),
    ):
        net.chain.clock.advance(1000 if net.chain.height < 2000 else 1)
        with client_of(api, net.node_urls) as client:
            node.faults = fault
            session = client.session(paid.address, paid.service)
            assert session.header.end_height >= net.chain.height == client.height()
            first, second = client.nodes()
            assert first.problem is not None and second.problem is None, fault
        node.faults = NodeFaults()


def test_sessions_roll_over_and_members_change(net: PocketNet) -> None:
    paid, clock = net.apps[APP], net.chain.clock
    with ChainClient(rest=[net.url], timeout_s=5.0, height_ttl_s=0.0) as client:
        first = client.session(paid.address, paid.service)
        leaver = first.suppliers[0].operator
        net.chain.unstake_supplier(leaver)
        net.chain.undelegate(paid.address, net.gateways["gateway"])
        assert client.session(paid.address, paid.service) == first
        clock.reach(first.header.end_height)
        assert client.session(paid.address, paid.service) == first
        clock.advance(1)
        second = client.session(paid.address, paid.service)
        assert second.header.start_height == first.header.end_height + 1
        assert leaver not in {s.operator for s in second.suppliers}
        app = client.application(paid.address)
        assert app.ring_addresses(first.header.end_height) == tuple(net.gateways.values())
        assert app.ring_addresses(second.header.end_height) == ()
        past = client.session(paid.address, paid.service, height=first.header.start_height)
        assert past.header == first.header
        assert replace(first, application=past.application) == replace(past, suppliers=first.suppliers)


# ------------------------------------------------------------------ parameters that change within a session


def change(net: PocketNet) -> None:
    """Governance doubles the price of a compute unit, and the service's owner triples what a relay takes."""
    chain, service = net.chain, net.apps[APP].service
    params = chain.params(chain.height)
    chain.change_params(
        compute_units_to_tokens_multiplier=2 * params.compute_units_to_tokens_multiplier,
        num_suppliers_per_session=7,
    )
    known = chain.service(service)
    chain.add_service(replace(known, compute_units_per_relay=3 * known.compute_units_per_relay))


def priced(terms: SessionTerms) -> tuple[int, int, int]:
    shared, service = terms.shared, terms.service
    return (
        shared.compute_units_to_tokens_multiplier,
        terms.suppliers_per_session,
        service.compute_units_per_relay,
    )


OLD, NEW = (145_990, 50, 1000), (291_980, 7, 3000)


@pytest.mark.parametrize("api", ["rest", "rpc"])
def test_what_changes_within_a_session_does_not_price_it(net: PocketNet, api: str) -> None:
    chain, service = net.chain, net.apps[APP].service
    start, end, _ = chain.session_at(chain.height)
    chain.clock.reach(start + 3)
    change(net)
    chain.clock.advance(1)
    with client_of(api, [net.url]) as client:
        # what nodes tell of now shows the change at once
        assert client.shared_params().compute_units_to_tokens_multiplier == NEW[0]
        assert (client.suppliers_per_session(), client.service(service).compute_units_per_relay) == NEW[1:]
        terms = client.terms(service, start)
        assert (priced(terms), terms.doubts) == (OLD, ())
        chain.clock.reach(end + 1)
    with client_of(api, [net.url]) as client:
        assert priced(client.terms(service, end + 1)) == NEW
        assert priced(client.terms(service, start)) == OLD


@pytest.mark.parametrize("api", ["rest", "rpc"])
@pytest.mark.parametrize(
    ("faults", "found", "doubts"),
    [
        # the queries for a height need no history of states
        (NodeFaults(no_history=True), (OLD[0], NEW[1], OLD[2]), ()),
        # the state of the first block still shows what a relay took then
        (NodeFaults(old=True), (NEW[0], OLD[1], OLD[2]), ("the shared parameters",)),
        (
            NodeFaults(old=True, no_history=True),
            NEW,
            ("the shared parameters", "the compute units of a relay"),
        ),
    ],
)
def test_what_no_node_tells_of_then_is_that_of_now(
    net: PocketNet,
    api: str,
    faults: NodeFaults,
    found: tuple[int, int, int],
    doubts: tuple[str, ...],
) -> None:
    chain, service = net.chain, net.apps[APP].service
    start, _, _ = chain.session_at(chain.height)
    chain.clock.reach(start + 3)
    change(net)
    chain.clock.advance(1)
    net.nodes[0].faults = faults
    with client_of(api, [net.url]) as client:
        terms = client.terms(service, start)
        assert (priced(terms), terms.doubts) == (found, doubts)
        # nothing is wrong with a node that does not tell of the past
        assert [report.problem for report in client.nodes()] == [None]
    with client_of(api, net.node_urls) as client:  # the other node knows
        terms = client.terms(service, start)
        assert (priced(terms), terms.doubts) == (OLD, ())
        assert [report.problem for report in client.nodes()] == [None, None]


def test_a_node_that_knows_again_is_believed_again(net: PocketNet) -> None:
    chain, service = net.chain, net.apps[APP].service
    start, _, _ = chain.session_at(chain.height)
    net.nodes[0].faults = NodeFaults(old=True, no_history=True)
    chain.clock.advance(2)
    with client_of("rest", [net.url]) as client:
        assert client.terms(service, start).doubts
        net.nodes[0].faults = NodeFaults()
        assert not client.terms(service, start).doubts
        net.nodes[0].faults = NodeFaults(old=True, no_history=True)
        assert not client.terms(service, start).doubts, "what held then is remembered"


def test_terms_of_no_height_and_no_service(net: PocketNet) -> None:
    with client_of("rest", [net.url]) as client:
        for height in (0, net.chain.height + 1):
            with pytest.raises(ChainError, match="the chain's height; give one that is"):
                client.terms("simulation", height)
        with pytest.raises(NotFound):
            client.terms("another", net.chain.height)
