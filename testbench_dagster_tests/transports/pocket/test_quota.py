"""Relays are allowed within sessions: by themselves, and as the engine keeps to them over a network."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.quota import FixedQuota, QuotaDecision
from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.localnet.pocket.node import NodeFaults
from testbench_dagster.relays.engine import relay_all
from testbench_dagster.relays.report import LaneEnding
from testbench_dagster.transports.pocket.messages import SessionHeader
from testbench_dagster.transports.pocket.quota import SessionQuota
from testbench_dagster.transports.pocket.sessions import AWAITED_S, MIN_REFRESH_S
from testbench_dagster_tests.transports.pocket.net import FAST, SERVICE, Setting, relay_to, setting
from testbench_dagster_tests.transports.pocket.test_sessions import BLOCK, LENGTH, Chain, a_book

DIRECT = Endpoint("a@other", "other", "http://127.0.0.1:1", "chat", "m")


def target(operator: str) -> Endpoint:
    return Endpoint(
        f"{operator}@svc", "svc", "http://miner", "chat", "m", transport="shannon", address=operator
    )


@pytest.fixture
def chain() -> Chain:
    return Chain()


def test_unknown_then_granted_then_refused(chain: Chain):
    book = a_book(chain, max_relays=2)
    quota = SessionQuota(None, {"svc": book})
    one = target("s1")
    assert quota.take(one) is QuotaDecision.UNKNOWN and not quota.refused(one)
    quota.refill(one)
    assert [quota.take(one) for _ in range(3)] == [
        QuotaDecision.GRANTED,
        QuotaDecision.LOW,
        QuotaDecision.REFUSED,
    ]
    assert quota.refused(one) and not quota.refused(target("s2"))
    quota.refund(one)
    assert not quota.refused(one) and quota.take(one) is QuotaDecision.LOW
    assert quota.take(target("s9")) is QuotaDecision.REFUSED and quota.refused(target("s9"))
    assert quota.take(DIRECT) is QuotaDecision.GRANTED and not quota.refused(DIRECT)


def test_both_quotas_are_spent_or_neither(chain: Chain):
    book = a_book(chain, max_relays=5)
    book.refresh()
    inner = FixedQuota({"svc": 2})
    quota = SessionQuota(inner, {"svc": book})
    one = target("s1")
    assert quota.take(one) is QuotaDecision.GRANTED
    assert quota.take(one) is QuotaDecision.LOW  # the inner one's last
    assert quota.take(one) is QuotaDecision.REFUSED and book.left("s1") == 3
    assert quota.refused(one)
    quota.refund(one)
    assert book.left("s1") == 4 and not inner.refused(one)


def test_what_the_store_counts_is_part_of_it(chain: Chain):
    asked: list[tuple[str, str]] = []

    def counted(endpoint: Endpoint, header: SessionHeader) -> int:
        asked.append((endpoint.address, header.session_id))
        return 3

    book = a_book(chain, max_relays=5)
    quota = SessionQuota(None, {"svc": book}, counted=counted)
    two = target("s2")
    book.refresh()
    assert quota.take(two) is QuotaDecision.UNKNOWN
    quota.refill(two)
    quota.refill(two)
    assert sorted(asked) == [("s2", "app-1@1"), ("s2", "app-2@1")]
    assert book.left("s2") == 4
    chain.pass_blocks(LENGTH)
    assert quota.take(two) is QuotaDecision.UNKNOWN
    quota.refill(two)
    assert len(asked) == 4 and book.left("s2") == 4


def test_a_session_that_ends_has_the_chain_asked(chain: Chain):
    book = a_book(chain, max_relays=1)
    quota = SessionQuota(None, {"svc": book})
    one = target("s1")
    quota.refill(one)
    assert quota.take(one) is QuotaDecision.LOW and quota.take(one) is QuotaDecision.REFUSED
    chain.pass_blocks(LENGTH)
    assert quota.take(one) is QuotaDecision.UNKNOWN
    quota.refill(one)
    assert quota.take(one) is QuotaDecision.LOW


@pytest.mark.parametrize("refreshes", [3, 1000])
def test_the_session_that_follows_is_awaited_for_a_while(chain: Chain, refreshes: int):
    """A node tells the height before the session: nobody is sent home for that, nor kept for ever."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        chain.now += seconds
        if len(slept) == refreshes:
            chain.lagging = set()

    book = a_book(chain)
    quota = SessionQuota(None, {"svc": book}, sleep=sleep)
    one = target("s1")
    quota.refill(one)
    assert quota.take(one) is QuotaDecision.GRANTED
    chain.lagging = {"app-1"}
    chain.pass_blocks(LENGTH)
    book.refresh()
    assert quota.take(one) is QuotaDecision.UNKNOWN and not quota.refused(one)
    assert quota.take(target("s3")) is QuotaDecision.GRANTED, "the other application's session is known"
    quota.refill(one)
    if refreshes == 3:
        assert len(slept) == 3 and quota.take(one) is QuotaDecision.GRANTED
    else:
        assert sum(slept) <= AWAITED_S + MIN_REFRESH_S
        assert quota.take(one) is QuotaDecision.REFUSED and quota.refused(one)


def test_without_nodes_what_is_known_is_allowed_and_nothing_raised(chain: Chain):
    book = a_book(chain)
    quota = SessionQuota(None, {"svc": book})
    one = target("s1")
    chain.down = "all"
    quota.refill(one)
    assert quota.take(one) is QuotaDecision.REFUSED and quota.refused(one)
    chain.down = None
    chain.now += BLOCK
    assert quota.take(one) is QuotaDecision.UNKNOWN
    quota.refill(one)
    chain.down = "all"
    chain.now += BLOCK
    quota.refill(one)
    assert quota.take(one) is QuotaDecision.GRANTED


# ------------------------------------------------------------------------------------- in the engine


class Sink:
    def __init__(self) -> None:
        self.attempts: list[tuple[Relay, Attempt]] = []

    def __call__(self, relay: Relay, number: int, attempt: Attempt) -> None:
        self.attempts.append((relay, attempt))

    def faults(self) -> Counter[Fault]:
        return Counter(attempt.fault for _, attempt in self.attempts)


def run(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 60))


async def relay_through(
    s: Setting, counts: dict[str, int], *, counted: Any = None, retries: int = 2, first: int = 0
) -> tuple[Sink, Any]:
    """Relay so many questions to each supplier within what sessions allow."""
    sink = Sink()
    limits = replace(FAST, retries=retries)
    work = []
    for name, count in counts.items():
        endpoint = s.endpoint(name, limits=limits)
        work.append((endpoint, [relay_to(endpoint, first + number) for number in range(count)]))
    quota = SessionQuota(None, {SERVICE: s.book}, counted=counted)
    report = await relay_all(work, s.transport, sink, quota=quota)
    return sink, report


def test_the_engine_stops_where_the_session_does():
    async def body() -> None:
        async with setting("ha", 2, max_relays=5, poll_s=30.0) as s:
            sink, report = await relay_through(s, {"sim-01": 20, "sim-02": 3})
            assert sink.faults() == {Fault.OK: 8}
            assert report.suppliers[s.endpoint("sim-01").supplier].unsent == 15
            assert report.lanes[s.endpoint("sim-01").supplier].end is LaneEnding.CAPPED, "by our own count"
            assert len(s.net.ledger.relays) == 8  # nothing was posted that would be refused
            again, _ = await relay_through(s, {"sim-01": 20})
            assert not again.attempts
            s.book._min_refresh_s = 0.0
            await asyncio.to_thread(s.net.chain.clock.reach, 1011)
            await asyncio.to_thread(s.book.refresh, fresh=True)
            later, _ = await relay_through(s, {"sim-01": 20}, first=100)
            assert later.faults() == {Fault.OK: 5}

    run(body)


def test_the_miners_word_stops_the_engine_too():
    async def body() -> None:
        async with setting("classic") as s:
            s.served().budget = 4
            sink, report = await relay_through(s, {"sim-01": 30})
            faults = sink.faults()
            assert faults[Fault.OK] == 4 and set(faults) == {Fault.OK, Fault.QUOTA}
            assert faults[Fault.QUOTA] <= 4  # what was in flight when the miner said so
            assert report.total.abandoned >= 20 and not report.total.unsent
            (end,) = report.lanes.values()
            assert (end.end, end.fault) == (LaneEnding.LEFT, Fault.QUOTA), "it would pay to stop while ahead"
            _, again = await relay_through(s, {"sim-01": 30})
            (end,) = again.lanes.values()
            assert (again.total.sent, end.end, end.fault) == (0, LaneEnding.LEFT, Fault.QUOTA)

    run(body)


def test_suppliers_in_no_session_are_left_alone():
    async def body() -> None:
        async with setting("classic", 2) as s:
            gone = s.endpoint("sim-01")
            s.net.chain.unstake_supplier(gone.address, at_once=True)
            s.net.chain.clock.reach(1011)
            sink, report = await relay_through(s, {"sim-01": 5, "sim-02": 5})
            assert sink.faults() == {Fault.OK: 5}
            assert report.suppliers[gone.supplier].unsent == 5
            assert {entry["supplier"] for entry in s.accepted()} == {s.served("sim-02").operator}

    run(body)


def test_a_rollover_is_retried_in_the_fresh_session():
    async def body() -> None:
        async with setting("ha", grace=0, poll_s=30.0) as s:
            s.book._min_refresh_s = 0.0
            first, _ = await relay_through(s, {"sim-01": 1})
            assert first.faults() == {Fault.OK: 1}
            s.net.chain.clock.reach(1011)  # nobody told us
            sink, report = await relay_through(s, {"sim-01": 6}, first=10)
            assert report.total.final == 6
            assert sink.faults()[Fault.OK] == 6 and sink.faults()[Fault.ROLLOVER] >= 1
            sessions = {a.session.start_height for _, a in sink.attempts if a.session and a.fault is Fault.OK}
            assert sessions == {1011}
            assert len(s.accepted()) == 7

    run(body)


def test_the_engine_ends_soon_when_no_node_answers():
    async def body() -> None:
        async with setting("ha") as s:
            s.net.nodes[0].faults = NodeFaults(down=True)
            began = time.monotonic()
            sink, report = await relay_through(s, {"sim-01": 1000})
            assert not sink.attempts and report.total.unsent == 1000
            assert time.monotonic() - began < 20

    run(body)
