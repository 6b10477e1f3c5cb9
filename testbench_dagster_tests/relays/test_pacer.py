"""The engine at the pace of its suppliers: with a minute of some seconds, over a real store."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.pace import DayLedger, PaceLedger
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.pace import Pace
from testbench_dagster.core.quota import FixedQuota
from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.relays.circuit import PATIENCE
from testbench_dagster.relays.pace import PacedOut, PacedTransport, Pacing
from testbench_dagster.relays.report import LaneEnding, Progress
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster_tests.relays.quick import run_relays
from testbench_dagster_tests.relays.test_engine import Scripted, Sink, some, target

MINUTE_S = 0.6  # of these tests


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[SqliteDocuments]:
    made = SqliteDocuments(tmp_path / "documents.sqlite")
    yield made
    made.close()


@pytest.fixture
def pacing(documents: SqliteDocuments) -> Iterator[Pacing]:
    made = Pacing(PaceLedger(documents, minute_s=MINUTE_S), DayLedger(documents))
    yield made
    made.close()


def paced(supplier: str = "a@test", account: str | None = None, **bounds: int) -> Endpoint:
    return replace(target(supplier), pace=Pace(account or f"supplier:{supplier}", **bounds))


class Timed(Scripted):
    """Remembers when each relay was sent, by the machine's clock."""

    def __init__(self, *args: Any, tokens: int | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sent_at: list[tuple[str, float]] = []
        self.tokens = tokens

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        self.sent_at.append((endpoint.supplier, time.monotonic()))
        attempt = await super().send(endpoint, relay)
        return attempt if self.tokens is None else replace(attempt, prompt_tokens=self.tokens)


def test_requests_are_spaced_and_nobody_else_waits(pacing):
    transport = Timed()
    work = [(paced(requests_per_minute=6), some(5)), (target("b@test"), some(60, "b@test"))]
    report = run_relays(work, Sink(), transport=transport, pacing=pacing)
    assert {key: counts.final for key, counts in report.suppliers.items()} == {"a@test": 5, "b@test": 60}
    own = [at for key, at in transport.sent_at if key == "a@test"]
    assert own[-1] - own[0] >= 3 * MINUTE_S / 6
    assert transport.sent_at[-1][0] == "a@test"
    assert report.lanes["a@test"].waited_s == 0


def test_suppliers_that_share_a_pace_take_turns(pacing):
    names = [f"s{n}@test" for n in range(4)]
    transport = Timed()
    work = [(paced(name, "key", requests_per_minute=60), some(5, name)) for name in names]
    report = run_relays(work, Sink(), transport=transport, pacing=pacing)
    assert report.total.final == 20
    at = sorted(at for _, at in transport.sent_at)
    assert at[-1] - at[0] >= 18 * MINUTE_S / 60
    assert {key for key, _ in transport.sent_at[:8]} == set(names)


def test_a_pace_in_tokens(documents):
    pacing = Pacing(PaceLedger(documents, minute_s=1.5), DayLedger(documents))
    transport = Timed(tokens=30)
    # a question of 10 characters and 16 tokens of answer are estimated as 19, and come to 30
    endpoint = paced(tokens_per_minute=100)
    report = run_relays([(endpoint, some(5))], Sink(), transport=transport, pacing=pacing)
    assert report.total.final == 5
    at = [at for _, at in transport.sent_at]
    assert at[4] - at[0] >= 1.5


def test_who_says_that_answers_cost_a_fortune_holds_nobody_else_up(pacing):
    """What an answer came to is its supplier's word; others share the pace."""

    class Liar(Timed):
        async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
            attempt = await super().send(endpoint, relay)
            said = 2**31 - 1 if endpoint.supplier == "liar@test" else 10
            return replace(attempt, prompt_tokens=said)

    transport = Liar()
    # 20 answers of at most 4 x 19 tokens and 20 of 10 fit into a minute
    shared = [paced(name, "account:key", tokens_per_minute=2_500) for name in ("liar@test", "a@test")]
    report = run_relays(
        [(endpoint, some(20, endpoint.supplier)) for endpoint in shared],
        Sink(),
        transport=transport,
        pacing=pacing,
    )
    assert report.total.final == 40
    assert max(at for _, at in transport.sent_at) - min(at for _, at in transport.sent_at) < 4 * MINUTE_S


def test_a_day_that_is_used_up_leaves_the_rest_due(documents, pacing):
    endpoint = paced(requests_per_day=7)
    report = run_relays([(endpoint, iter(some(20)))], Sink(), transport=Timed(), pacing=pacing)
    counts = report.suppliers["a@test"]
    assert (counts.sent, counts.final, counts.unsent) == (7, 7, 13)
    assert report.lanes["a@test"].end is LaneEnding.CAPPED
    assert DayLedger(documents).left(endpoint.pace, datetime.now(UTC)) == 0


def test_retries_and_canaries_count(documents, pacing):
    endpoint = paced(requests_per_day=9)
    transport = Timed({"a@test": [Fault.TRANSPORT, Fault.TRANSPORT]})
    report = run_relays(
        [(replace(endpoint, limits=replace(endpoint.limits, retries=5)), some(20))],
        Sink(),
        transport=transport,
        pacing=pacing,
    )
    counts = report.suppliers["a@test"]
    assert len(transport.sent_at) == counts.sent == 9
    assert counts.relays == 20 and counts.final + counts.still_due + counts.unsent == 20


def test_waiting_for_a_turn_is_no_outage(pacing):
    """Six failures in a row and a slow pace: without it the lane's patience would be over long before."""
    patience = replace(PATIENCE.scaled(0.001), silence_s=0.12, alone_s=0.12)
    transport = Timed({"a@test": [Fault.UNAVAILABLE] * 8})
    endpoint = paced(requests_per_minute=10)
    endpoint = replace(endpoint, limits=replace(endpoint.limits, retries=5))
    report = run_relays([(endpoint, some(4))], Sink(), transport=transport, pacing=pacing, patience=patience)
    assert report.lanes["a@test"].end is LaneEnding.DONE
    assert report.total.final == 4
    assert transport.sent_at[-1][1] - transport.sent_at[0][1] > 9 * MINUTE_S / 10 > 4 * patience.silence_s


def test_a_budget_is_not_spent_while_in_line(pacing):
    quota = FixedQuota({"test": 10})
    report = run_relays(
        [(paced(requests_per_minute=100), some(20))], Sink(), transport=Timed(), pacing=pacing, quota=quota
    )
    assert report.total.sent == 10 and report.total.unsent == 10


def test_whoever_stops_a_run_need_not_wait_for_a_turn(pacing):
    stop = threading.Event()
    transport = Timed()

    def seen(progress: Progress) -> None:
        if progress.sent:
            stop.set()

    other = paced("b@test", requests_per_minute=1)
    report = run_relays(
        [(paced(requests_per_minute=1), some(20)), (other, some(3, "b@test"))],
        Sink(),
        transport=transport,
        pacing=pacing,
        stop=stop,
        on_progress=seen,
    )
    assert report.interrupted
    assert report.total.relays == 23
    assert report.total.final + report.total.unsent == 23
    assert report.total.sent == len(transport.sent_at)


def test_progress_tells_the_pace_and_when_it_is_done(pacing):
    seen: list[Progress] = []
    began = datetime.now(UTC)
    run_relays(
        [(paced(requests_per_minute=60), some(60))],
        Sink(),
        transport=Timed(),
        pacing=pacing,
        on_progress=seen.append,
    )
    told = [lane for progress in seen[:-1] for lane in progress.paces]
    assert told and {lane.words for lane in told} == {"60 requests a minute"}
    assert {lane.suppliers for lane in told} == {("a@test",)}
    assert all(lane.done_at is not None for lane in told)
    assert began < told[0].done_at <= datetime.now(UTC) + timedelta(seconds=2)
    assert seen[-1].paces == ()


def test_a_store_that_fails_ends_the_run(documents):
    pacing = Pacing(PaceLedger(documents, minute_s=MINUTE_S), DayLedger(documents))
    documents.close()
    with pytest.raises(Exception, match=r"closed|store"):
        run_relays([(paced(requests_per_minute=60), some(3))], Sink(), transport=Timed(), pacing=pacing)


def test_outside_a_run_requests_wait_for_their_turn_too(pacing):
    transport = PacedTransport(timed := Timed(), pacing)
    endpoint = paced(requests_per_minute=60, requests_per_day=4)

    async def ask() -> None:
        for relay in some(4):
            assert (await transport.send(endpoint, relay)).fault is Fault.OK
        with pytest.raises(PacedOut, match=r"60 requests a minute, 4 a day is used up until .* UTC"):
            await transport.send(endpoint, some(1)[0])
        assert (await transport.send(target(), some(1)[0])).fault is Fault.OK

    asyncio.run(ask())
    at = [at for _, at in timed.sent_at[:4]]
    assert at[3] - at[0] >= 2.5 * MINUTE_S / 60
