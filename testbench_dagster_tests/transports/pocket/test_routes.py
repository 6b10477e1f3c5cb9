"""Several endpoints of one supplier, and suppliers that move: where relays go, and what is kept of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.localnet.pocket.chain import Endpoint as Staked
from testbench_dagster.transports.pocket.chain.types import (
    Application,
    ChainSupplier,
    Session,
    SupplierEndpoint,
)
from testbench_dagster.transports.pocket.evidence import verify_evidence
from testbench_dagster.transports.pocket.messages import RpcType, SessionHeader
from testbench_dagster.transports.pocket.routes import MAX_ROUTES, Routes
from testbench_dagster_tests.transports.pocket.net import SERVICE, Setting, setting

OPERATOR = "pokt1operator"


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 60))


@contextmanager
def nobody() -> Iterator[str]:
    """A URL at which no connection can be made."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def stake(s: Setting, *urls: str, name: str = "sim-01", at_once: bool = True) -> None:
    """The supplier stakes these URLs, in this order."""
    operator = s.served(name).operator
    known = s.net.chain.stake(operator, s.net.chain.height)
    assert known is not None
    offers = {SERVICE: tuple(Staked(url, RpcType.REST) for url in urls)}
    s.net.chain.stake_supplier(operator, known.owner, known.amount, offers, at_once=at_once)


@pytest.mark.parametrize("flavour", ["classic", "ha"])
def test_the_next_endpoint_is_tried_within_the_same_attempt(flavour: str) -> None:
    async def body() -> None:
        with nobody() as dead:
            async with setting(flavour) as s:
                good = s.endpoint().base_url
                encrypted = good.replace("http:", "https:")  # it speaks no TLS
                stake(s, dead, encrypted, good)
                await s.learn()
                left = s.book.left(s.served().operator)
                attempt = await s.ask(1)
                assert attempt.fault is Fault.OK, attempt
                missed = attempt.evidence["unreached"]
                assert [one["base_url"] for one in missed] == [dead, encrypted]
                assert "connecting" in missed[0]["error"]
                assert attempt.evidence["base_url"] == good
                verify_evidence(attempt.body, attempt.evidence)
                (entry,) = s.accepted()
                assert attempt.evidence["request_sha256"] == entry["request_sha256"]
                assert s.book.left(s.served().operator) == left - 1
                # the one that answered comes first from then on
                again = await s.ask(2)
                assert again.fault is Fault.OK and "unreached" not in again.evidence
                assert again.evidence["base_url"] == good
                assert len(s.accepted()) == 2

    run(body)


def test_the_one_that_answered_comes_first_until_it_fails() -> None:
    async def body() -> None:
        with nobody() as dead:
            async with setting("ha", hosts=2) as s:
                first, second = (miner.url for miner in s.net.miners)
                operator = s.served().operator
                for miner in s.net.miners:  # both hosts serve it
                    miner.suppliers[operator] = s.served()
                stake(s, dead, second, first)
                assert (await s.ask(1)).evidence["base_url"] == second
                s.net.miners[1].suppliers.clear()
                await s.net.miners[1].stop()
                attempt = await s.ask(2)
                if attempt.fault is Fault.TRANSPORT:  # it went out on the connection that was kept
                    assert "unreached" not in attempt.evidence
                    attempt = await s.ask(3)
                assert attempt.fault is Fault.OK
                missed = [one["base_url"] for one in attempt.evidence["unreached"]]
                assert missed[0] == second and attempt.evidence["base_url"] == first
                assert "unreached" not in (await s.ask(4)).evidence

    run(body)


def test_where_none_can_be_reached_nothing_is_charged() -> None:
    async def body() -> None:
        with nobody() as dead, nobody() as other:
            async with setting("classic") as s:
                stake(s, dead, other)
                await s.learn()
                left = s.book.left(s.served().operator)
                attempt = await s.ask()
                assert attempt.fault is Fault.TRANSPORT
                assert [one["base_url"] for one in attempt.evidence["unreached"]] == [dead]
                assert attempt.evidence["base_url"] == other
                assert s.book.left(s.served().operator) == left
                assert not s.net.ledger.relays

    run(body)


def test_what_was_handed_over_is_not_sent_again_elsewhere() -> None:
    async def body() -> None:
        async with setting("ha", hosts=2) as s:
            first, second = (miner.url for miner in s.net.miners)
            miner, served = s.net.find("sim-01") or (None, None)
            assert miner is not None and served is not None
            for each in s.net.miners:
                each.suppliers[served.operator] = served
            stake(s, first, second)
            s.fault("reset")
            attempt = await s.ask()
            assert attempt.fault is Fault.TRANSPORT
            assert "unreached" not in attempt.evidence and attempt.evidence["base_url"] == first

    run(body)


def test_who_moves_is_asked_where_its_session_says() -> None:
    async def body() -> None:
        with nobody() as old:
            async with setting("classic") as s:
                new = s.endpoint().base_url
                stake(s, old)
                endpoint = s.endpoint(base_url=old)  # as the roster has it
                before = await s.transport.send(endpoint, _relay(endpoint, 1))
                assert before.fault is Fault.TRANSPORT and "base_url" not in before.evidence
                stake(s, new, at_once=False)  # from the next session on
                await s.reach(1011)
                after = await s.transport.send(endpoint, _relay(endpoint, 2))
                assert after.fault is Fault.OK
                assert after.evidence["base_url"] == new

    run(body)


def _relay(endpoint: Endpoint, number: int) -> Any:
    from testbench_dagster_tests.transports.pocket.net import relay_to

    return relay_to(endpoint, number)


# ---------------------------------------------------------------------------------- the order of routes


def session(*endpoints: tuple[str, int], number: int = 1) -> Session:
    header = SessionHeader("pokt1app", "svc", f"session {number}", 1, 10)
    supplier = ChainSupplier(OPERATOR, "", 0, tuple(SupplierEndpoint(*each) for each in endpoints))
    return Session(header, (supplier,), Application("pokt1app", 0))


def known(url: str = "https://old", private_allowed: bool = False) -> Endpoint:
    return Endpoint(
        f"{OPERATOR}@svc",
        "svc",
        url,
        "chat",
        "m",
        private_allowed=private_allowed,
        address=OPERATOR,
        rpc_type=4,
    )


def test_routes_are_those_of_the_session_by_type() -> None:
    routes = Routes(("rest", "json_rpc"))
    listed = session(("https://c", 3), ("https://a", 4), ("https://socket", 2), ("https://b", 4))
    found = routes.of(known(), listed)
    assert [(one.base_url, one.rpc_type) for one in found] == [
        ("https://a", 4),
        ("https://b", 4),
        ("https://c", 3),
    ]
    assert routes.of(known(), listed)[0].limits == known().limits
    routes.answered(found[2])
    assert [one.base_url for one in routes.of(known(), listed)] == ["https://c", "https://a", "https://b"]
    routes.failed(found[0])
    assert routes.of(known(), listed)[0].base_url == "https://a"


def test_a_route_like_the_endpoint_is_the_endpoint() -> None:
    endpoint, routes = known("https://a"), Routes(("rest",))
    (only,) = routes.of(endpoint, session(("https://a/", 4)))
    assert only is endpoint
    assert routes.of(endpoint, session(("https://a/", 4))) is routes.of(endpoint, session(("https://a", 4)))


@pytest.mark.parametrize("urls", [(), ("ftp://a",), ("https://10.0.0.1", "https://localhost:8443")])
def test_where_the_session_lists_none_that_can_be_used_the_roster_counts(urls: tuple[str, ...]) -> None:
    endpoint = known()
    assert Routes(("rest",)).of(endpoint, session(*((url, 4) for url in urls))) == (endpoint,)


def test_private_addresses_are_for_each_endpoint_alone() -> None:
    listed = session(("https://10.0.0.1", 4), ("https://a", 4))
    assert [one.base_url for one in Routes(("rest",)).of(known(), listed)] == ["https://a"]
    allowed = Routes(("rest",)).of(known(private_allowed=True), listed)
    assert [one.base_url for one in allowed] == ["https://10.0.0.1", "https://a"]


def test_no_more_than_a_few_are_tried() -> None:
    listed = session(*((f"https://a{n}", 4) for n in range(100)))
    assert len(Routes(("rest",)).of(known(), listed)) == MAX_ROUTES


def test_a_new_session_is_looked_at_anew() -> None:
    routes, endpoint = Routes(("rest",)), known()
    assert routes.of(endpoint, session(("https://a", 4)))[0].base_url == "https://a"
    assert routes.of(endpoint, session(("https://b", 4), number=2))[0].base_url == "https://b"
