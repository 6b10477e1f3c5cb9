"""The numbers that relaying promises: limits, waits, quotas, shares of slots, counts of a run."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.quota import FixedQuota, QuotaDecision
from testbench_dagster.core.relay import Attempt, Endpoint, Limits, Relay
from testbench_dagster.relays.circuit import PATIENCE
from testbench_dagster.relays.limits import AdaptiveLimit
from testbench_dagster.relays.queues import Host, Job, SupplierQueue, supplier_queues
from testbench_dagster.relays.quotas import LedgerQuota, service_account, supplier_account
from testbench_dagster.relays.report import Counts, LatencyHistogram, Progress, Report
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster_tests.relays.quick import QUICK, run_relays
from testbench_dagster_tests.relays.test_engine import Scripted, Sink, some, target

GRANTED, LOW, UNKNOWN, REFUSED = (
    QuotaDecision.GRANTED,
    QuotaDecision.LOW,
    QuotaDecision.UNKNOWN,
    QuotaDecision.REFUSED,
)


class Drawn(random.Random):
    """Draws the part of a range that the test names."""

    def __init__(self, part: float) -> None:
        super().__init__()
        self.part = part

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.part


# ---------------------------------------------------------------------------------------------------- limits


def test_a_limit_has_room_for_one_and_no_more_than_its_ceiling() -> None:
    assert [AdaptiveLimit(ceiling, start).value for ceiling, start in ((0, 0), (5, 0), (5, 9), (5, 5))] == [
        1,
        1,
        5,
        5,
    ]
    assert AdaptiveLimit(9).value == 2
    limit = AdaptiveLimit(3, 1)
    grown = []
    for _ in range(8):
        limit.succeeded()
        grown.append(limit.value)
    assert grown == [2, 2, 3, 3, 3, 3, 3, 3]  # one success at 1, two at 2


def test_a_limit_halves_once_a_second_and_counts_anew() -> None:
    limit = AdaptiveLimit(64, 9)
    for _ in range(8):
        limit.succeeded()
    limit.congested(10.0)
    assert limit.value == 4
    limit.congested(10.999)
    assert limit.value == 4
    limit.congested(11.0)
    assert limit.value == 2
    limit.congested(12.0)
    limit.congested(13.0)
    assert limit.value == 1
    limit.succeeded()
    assert limit.value == 2
    limit.succeeded()
    limit.congested(13.5)  # within the second: nothing is halved, but successes count from the start
    limit.succeeded()
    assert limit.value == 2


def test_further_attempts_follow_after_2_8_and_32_seconds_less_up_to_half() -> None:
    longest = [PATIENCE.retry_s(n, Drawn(1.0)) for n in (0, 1, 2, 3, 4, 5, 6, 10**6)]
    assert longest == [2.0, 2.0, 8.0, 32.0, 32.0, 32.0, 32.0, 32.0]
    assert [PATIENCE.retry_s(n, Drawn(0.0)) for n in (1, 2, 3)] == [1.0, 4.0, 16.0]


def test_patience_has_the_times_of_the_rules_and_scales() -> None:
    assert [PATIENCE.pause_s(n) for n in range(7)] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    assert (PATIENCE.trip, PATIENCE.probes) == (5, 3)
    assert (PATIENCE.silence_s, PATIENCE.alone_s, PATIENCE.total_s) == (600.0, 60.0, 3600.0)
    assert PATIENCE.again_s == 20.0
    half = PATIENCE.scaled(0.5)
    assert (half.retries_s, half.pauses_s) == ((1.0, 4.0, 16.0, 16.0, 16.0), (2.5, 5.0, 10.0, 20.0, 30.0))
    assert (half.trip, half.probes, half.silence_s, half.alone_s) == (5, 3, 300.0, 30.0)
    assert (half.total_s, half.again_s) == (1800.0, 10.0)


# -----------------------------------------------------------------------------------------------------
# supplier queues


def test_a_host_gives_way_to_what_it_says_itself() -> None:
    host = Host(8)
    host.in_flight = 5
    assert host.capacity == 3
    for fault in (Fault.SUPPLIER_TIMEOUT, Fault.SUPPLIER_HTTP, Fault.CLIENT_REQUEST):
        host.record_outcome(fault, 10.0)
    assert host.capacity == 3
    host.record_outcome(Fault.TRANSPORT, 10.0)
    assert host.capacity == -1
    host.record_outcome(Fault.RATE_LIMITED, 11.0)
    assert host.limit.value == 2
    for _ in range(2):
        host.record_outcome(Fault.OK, 11.0)
    assert host.limit.value == 3


def queue(count: int = 9, **limits: Any) -> SupplierQueue:
    return lane(some(count), **{"start_in_flight": 2, "max_in_flight": 4} | limits)


def lane(relays: Any, **limits: Any) -> SupplierQueue:
    return SupplierQueue(target(**limits), [relays], patience=QUICK, rng=random.Random(1))


def test_a_lane_sends_within_its_limit_and_not_while_it_pauses() -> None:
    one = queue()
    assert one.may_send(0.0)
    one.in_flight = 1
    assert one.may_send(0.0)
    one.in_flight = 2
    assert not one.may_send(0.0)
    one.in_flight = 0
    for n in range(5):
        one.circuit.unanswered(Fault.TRANSPORT, n, n + 0.5, None, alone=False)
    pause = 4.5 + QUICK.pauses_s[0]
    assert not one.may_send(pause - 0.001) and one.may_send(pause)
    one.in_flight = 1
    assert not one.may_send(9.0), "one probe at a time"
    one.in_flight = 0
    one.asking = True
    assert not one.may_send(9.0)
    one.asking, one.stopped = False, "unsent"
    assert not one.may_send(9.0)


@pytest.mark.parametrize(("limit", "waiting"), [(1, 2), (2, 2), (3, 3)])
def test_no_new_relay_is_taken_while_too_many_wait(limit: int, waiting: int) -> None:
    one = queue(start_in_flight=limit)
    first = one.next_job()
    assert first is not None
    for number in range(waiting):
        assert one.may_send(0.0)
        one.waiting[number] = (first, None)  # type: ignore[assignment]
    assert not one.may_send(0.0)
    one.due.append(first)  # a retry may always be sent
    assert one.may_send(0.0)


def test_a_lane_is_idle_when_nothing_can_come_any_more() -> None:
    one = queue(1)
    assert not one.idle
    job = one.next_job()
    assert isinstance(job, Job) and job.failures == 0 and not one.idle
    assert one.next_job() is None and one.exhausted and one.idle
    one.in_flight = 1
    assert not one.idle
    one.in_flight = 0
    one.due.append(job)
    assert not one.idle and one.next_job() is job and one.idle
    one.waiting[0] = (job, None)  # type: ignore[assignment]
    assert not one.idle
    one.stopped = "abandoned"
    assert one.idle
    one.in_flight = 1
    assert not one.idle


async def rest(one: SupplierQueue) -> int:
    return await one.count_rest()


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize(("count", "pulled"), [(0, 0), (1, 0), (5, 2), (1500, 3)])
def test_what_was_never_sent_is_counted(sized: bool, count: int, pulled: int) -> None:
    relays = some(count)
    one = lane(relays if sized else iter(relays))
    for _ in range(pulled):
        one.next_job()
    assert asyncio.run(rest(one)) == count - pulled
    while one.next_job():
        pass
    assert asyncio.run(rest(one)) == 0


def test_counting_what_was_never_sent_lets_others_work() -> None:
    """After every few hundred relays, and not after each."""
    counted, seen = 0, [0]

    def relays() -> Iterator[Relay]:
        nonlocal counted
        for item in some(5_000):
            counted += 1
            yield item

    async def main() -> None:
        counting = asyncio.create_task(rest(lane(relays())))
        while not counting.done():
            await asyncio.sleep(0)
            seen.append(counted)

    asyncio.run(main())
    assert seen[-1] == 5_000
    assert max(later - before for before, later in pairwise(seen)) <= 512
    assert len(set(seen)) <= 12


def test_suppliers_of_one_host_share_its_limit() -> None:
    def at(supplier: str, host: str | None) -> Endpoint:
        limits = Limits(max_per_host=7)
        return Endpoint(supplier, "test", "http://127.0.0.1:9", "chat", "m", limits, host=host)

    rng = random.Random(1)
    work = [(at("a", "h"), some(1)), (at("b", "h"), some(1)), (at("c", None), []), (at("a", "h"), some(2))]
    queues = supplier_queues(work, {}, QUICK, rng)
    assert [one.endpoint.supplier for one in queues] == ["a", "b", "c"]
    assert queues[0].host is queues[1].host is not None and queues[2].host is None
    assert queues[0].host.capacity == 7
    assert [queues[0].next_job() is not None for _ in range(4)] == [True, True, True, False]
    with pytest.raises(ValueError, match="'a' appears with two different endpoints"):
        supplier_queues([(at("a", "h"), []), (at("a", "i"), [])], {}, QUICK, rng)


def test_the_limits_of_a_relay_that_are_documented() -> None:
    found = Limits()
    assert (found.connect_s, found.first_byte_s, found.idle_s, found.total_s) == (5.0, 60.0, 30.0, 120.0)
    assert (found.retries, found.max_response_mb, found.max_per_host) == (5, 8.0, 64)
    assert (found.max_in_flight, found.start_in_flight) == (256, 2)


# ---------------------------------------------------------------------------------------------------- quotas


def test_a_fixed_number_to_the_last_relay() -> None:
    quota = FixedQuota({"test": 2})
    one = target()
    assert not quota.refused(one)
    assert [quota.take(one) for _ in range(3)] == [GRANTED, LOW, REFUSED]
    assert quota.refused(one)
    quota.refund(one)
    assert not quota.refused(one) and quota.take(one) is LOW
    other = Endpoint("b@other", "other", "http://127.0.0.1:9", "chat", "m")
    quota.refund(other)
    assert not quota.refused(other) and quota.take(other) is GRANTED


NOON = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
DAY, HOUR = NOON.replace(hour=0, minute=0), NOON.replace(minute=0)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    documents = SqliteDocuments(tmp_path / "documents.sqlite")
    yield BudgetLedger(documents)
    documents.close()


def granted(ledger: BudgetLedger, cap: int, suppliers: int = 1, spent: int = 0, **shares: int) -> int:
    """How many relays of a service's day the first refill asks for."""
    if spent:
        ledger.grant(service_account("test"), DAY, cap, spent)
    quota = LedgerQuota(ledger, lambda service: cap, clock=NOON.timestamp)
    quota.limit(shares)
    endpoints = [target(f"{name}@test") for name in "abcdefghijklmnop"[:suppliers]]
    for endpoint in endpoints:
        assert quota.take(endpoint) in (UNKNOWN, REFUSED)
    quota.refill(endpoints[0])
    found = ledger.spent(service_account("test"), DAY)
    assert found is not None
    return found - spent


@pytest.mark.parametrize(
    ("cap", "suppliers", "spent", "chunk"),
    [
        (100_000, 1, 0, 32),  # 32 a supplier
        (100_000, 3, 0, 96),
        (100_000, 8, 0, 256),
        (100_000, 9, 0, 256),  # and no more than that at once
        (160, 1, 0, 20),  # an eighth of what is left
        (160, 1, 80, 10),
        (15, 1, 0, 1),
        (7, 1, 0, 1),  # and one at least
        (5, 1, 5, 0),
    ],
)
def test_a_services_day_is_asked_for_in_chunks(
    ledger: BudgetLedger, cap: int, suppliers: int, spent: int, chunk: int
) -> None:
    assert granted(ledger, cap, suppliers, spent) == chunk


@pytest.mark.parametrize(
    ("shares", "chunk"),
    [({"a@test": 5, "b@test": 4}, 9), ({"a@test": 0, "b@test": 3}, 3), ({"a@test": 5}, 64)],
)
def test_no_more_is_asked_for_than_the_shares_of_a_run(
    ledger: BudgetLedger, shares: dict[str, int], chunk: int
) -> None:
    """Who has no share may want anything."""
    assert granted(ledger, 100_000, 2, **shares) == chunk


@pytest.mark.parametrize(("cap", "chunk"), [(100, 16), (16, 16), (10, 10), (1, 1)])
def test_an_hour_is_asked_for_in_chunks_of_sixteen(ledger: BudgetLedger, cap: int, chunk: int) -> None:
    quota = LedgerQuota(ledger, lambda service: None, supplier_hour_cap=cap, clock=NOON.timestamp)
    one = target()
    assert quota.take(one) is UNKNOWN
    quota.refill(one)
    assert ledger.spent(supplier_account("a@test"), HOUR) == chunk
    answers = [quota.take(one) for _ in range(chunk)]
    # the next is asked for once a quarter is left, or when all is spent of the last
    low = answers.index(LOW)
    assert chunk - (low + 1) == (chunk // 4 if chunk < cap or cap == 16 else low and chunk - low - 1)
    assert answers.count(LOW) == 1 and UNKNOWN not in answers


def test_a_period_ends_on_the_second(ledger: BudgetLedger) -> None:
    now = [NOON]
    quota = LedgerQuota(ledger, lambda service: 80, clock=lambda: now[0].timestamp())
    one = target()
    quota.refill(one)
    assert ledger.spent(service_account("test"), DAY) == 10
    assert quota.take(one) is GRANTED
    now[0] = DAY + timedelta(days=1, seconds=-0.001)
    assert quota.take(one) is GRANTED
    now[0] = DAY + timedelta(days=1)
    assert quota.take(one) is UNKNOWN and not quota.refused(one)
    quota.refund(one)  # of yesterday: it goes back with the rest
    quota.refill(one)
    assert ledger.spent(service_account("test"), DAY) == 1
    assert ledger.spent(service_account("test"), DAY + timedelta(days=1)) == 10
    quota.close()
    assert ledger.spent(service_account("test"), DAY + timedelta(days=1)) == 0
    assert quota.take(one) is REFUSED and quota.refused(one)


def test_a_day_that_is_used_up_refuses_until_it_is_over(ledger: BudgetLedger) -> None:
    now = [NOON]
    quota = LedgerQuota(ledger, lambda service: 1, clock=lambda: now[0].timestamp())
    one = target()
    quota.refill(one)
    assert not quota.refused(one) and quota.take(one) is LOW
    quota.refill(one)
    assert quota.refused(one) and quota.take(one) is REFUSED
    now[0] = DAY + timedelta(days=1, seconds=-0.001)
    assert quota.refused(one) and quota.take(one) is REFUSED
    now[0] = DAY + timedelta(days=1)
    assert not quota.refused(one) and quota.take(one) is UNKNOWN


def test_a_share_is_hard_and_a_refund_returns_to_it(ledger: BudgetLedger) -> None:
    quota = LedgerQuota(ledger, lambda service: None, clock=NOON.timestamp)
    quota.limit({"a@test": 2})
    one, other = target(), target("b@test")
    assert [quota.take(one) for _ in range(3)] == [GRANTED, LOW, REFUSED]
    assert quota.refused(one) and not quota.refused(other) and quota.take(other) is GRANTED
    quota.refund(one)
    assert not quota.refused(one) and quota.take(one) is LOW


# ------------------------------------------------------------------------------------------------ whole runs


def test_a_run_needs_a_slot_and_a_transport() -> None:
    with pytest.raises(ValueError, match="max_in_flight must be at least 1, not 0"):
        run_relays([], Sink(), transport=Scripted(), max_in_flight=0)
    with pytest.raises(ValueError, match="needs a transport, or open_transport"):
        run_relays([], Sink())
    assert run_relays([(target(), some(3))], Sink(), transport=Scripted(), max_in_flight=1).total.final == 3


@pytest.mark.parametrize(("cap", "sent"), [(0, 0), (1, 1), (5, 5), (6, 6), (7, 6)])
def test_a_cap_on_the_run_is_hard(cap: int, sent: int) -> None:
    report = run_relays([(target(), some(6))], Sink(), transport=Scripted(), max_relays=cap)
    assert (report.total.sent, report.total.unsent, report.total.relays) == (sent, 6 - sent, 6)


@pytest.mark.parametrize(("slots", "queues", "most"), [(8, 1, 8), (8, 2, 5), (16, 2, 11), (16, 4, 9)])
def test_a_quarter_of_the_slots_is_for_who_is_below_its_share(slots: int, queues: int, most: int) -> None:
    """Who wants all slots gets three quarters, less what the others use, until these are done."""
    names = [f"{chr(97 + n)}@test" for n in range(queues)]
    transport = Scripted(delay={names[0]: 0.12, **dict.fromkeys(names[1:], 0.3)})
    flying: Counter[str] = Counter()
    peak = 0
    send = transport.send

    async def counted(endpoint: Endpoint, relay: Any) -> Attempt:
        nonlocal peak
        flying[endpoint.supplier] += 1
        if all(flying[name] for name in names):
            peak = max(peak, flying[names[0]])
        try:
            return await send(endpoint, relay)
        finally:
            flying[endpoint.supplier] -= 1

    transport.send = counted  # type: ignore[method-assign]
    work = [(target(names[0], start_in_flight=64, max_in_flight=64), some(2 * slots, names[0]))]
    work += [(target(name, start_in_flight=1, max_in_flight=1), some(1, name)) for name in names[1:]]
    report = run_relays(work, Sink(), transport=transport, max_in_flight=slots)
    assert report.total.final == 2 * slots + queues - 1
    assert peak == most


def test_a_run_does_not_wait_for_retries_it_may_not_send() -> None:
    """The only relay that is allowed is limited for a minute: nothing else can come, so the run ends."""
    transport = Scripted({"a@test": [Fault.RATE_LIMITED]}, delay={"a@test": 0.1}, retry_after_s=0.5)
    report = run_relays([(target(retries=2), some(3))], Sink(), transport=transport, quota={"test": 1})
    assert (report.total.sent, report.total.still_due, report.total.unsent) == (1, 1, 2)
    assert report.seconds < 20


def test_nothing_waits_or_is_under_way_at_the_end() -> None:
    seen: list[Progress] = []
    faults = {"a@test": [Fault.TRANSPORT, Fault.TRANSPORT, Fault.TRANSPORT]}
    run_relays([(target(retries=2), some(2))], Sink(), transport=Scripted(faults), on_progress=seen.append)
    last = seen[-1]
    assert (last.waiting, last.in_flight) == (0, 0) and last.sent >= 4 and last.seconds > 0


def test_counts_of_a_run_add_up() -> None:
    one, two = Counts(1, 6, 1, 2, 3, 4, 5), Counts(10, 60, 10, 20, 30, 40, 50)
    one.canaries_answered, two.canaries_answered = 1, 2
    one.faults[Fault.OK] = 2
    two.faults[Fault.OK] = 3
    two.latency.add(100.0)
    one.add(two)
    assert (one.sent, one.final, one.still_due, one.unsent, one.abandoned) == (11, 22, 33, 44, 55)
    assert (one.canaries, one.canaries_answered, one.answered) == (66, 3, 11)
    assert one.reached and Counts(canaries_answered=1).reached and not Counts(sent=9).reached
    assert one.relays == 22 + 33 + 44 + 55 and one.faults[Fault.OK] == 5
    assert one.p50_ms == pytest.approx(100, rel=0.011)
    assert Report(2.0, one, {}).relays_per_s == 5.5
    assert Report(0.5, one, {}).relays_per_s == 22.0
    assert Report(0.0, one, {}).relays_per_s == 0.0


def test_latencies_are_right_within_one_percent() -> None:
    generator = random.Random(4)
    values = sorted(math.exp(generator.uniform(math.log(0.002), math.log(1e6))) for _ in range(999))
    found = LatencyHistogram()
    assert found.quantile(0.5) is None
    for value in values:
        found.add(value)
    for q in (0.0, 0.001, 0.5, 0.95, 1.0):
        assert found.quantile(q) == pytest.approx(values[max(1, math.ceil(q * 999)) - 1], rel=0.0101)
    for step in range(300):  # wherever in its bucket a latency lies
        one = LatencyHistogram()
        one.add(math.exp(step * 0.00371))
        assert one.quantile(0.5) == pytest.approx(math.exp(step * 0.00371), rel=0.01006)
    least = LatencyHistogram()
    least.add(0.0)
    assert least.quantile(0.5) == pytest.approx(1e-3, rel=0.0101)
    two = LatencyHistogram()
    two.add(10.0)
    two.add(1000.0)
    assert two.quantile(0.5) == pytest.approx(10, rel=0.0101) and two.quantile(0.51) == pytest.approx(
        1000, rel=0.0101
    )
