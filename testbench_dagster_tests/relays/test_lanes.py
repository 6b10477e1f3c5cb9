"""How a supplier's turn goes and ends in the engine: probes, second occasions, leaving, who is told of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.faults import Fault, Pause
from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.relays import engine
from testbench_dagster.relays.circuit import PATIENCE, LanePatience
from testbench_dagster.relays.queues import CanaryPool, SupplierQueue
from testbench_dagster.relays.report import LaneEnding, Progress
from testbench_dagster_tests.endpoints import relay
from testbench_dagster_tests.relays.quick import QUICK, run_relays
from testbench_dagster_tests.relays.test_engine import Sink, some
from testbench_dagster_tests.relays.test_engine import target as made

#: Its shortest wait is twenty seconds: what ends within that has not waited.
SLOW = PATIENCE.scaled(20)
AT_ONCE_S = 20.0
#: Says how an attempt ends: the relay, how often its doc was asked before, and seconds since the first relay.
Behaviour = Callable[[Relay, int, float], Fault]


class Acting:
    """A transport whose suppliers behave as told; answers take ``delay_s``."""

    def __init__(self, delay_s: float = 0.001, told_s: float | None = None, **behaviours: Behaviour) -> None:
        self.behaviours = behaviours
        self.delay_s, self.told_s = delay_s, told_s
        self.asked: Counter[tuple[str, str]] = Counter()
        self.began: float | None = None
        self.log: list[tuple[float, Relay, Fault]] = []

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        self.began = self.began or time.monotonic()
        started = datetime.now(UTC)
        at = time.monotonic() - self.began
        behaviour = self.behaviours.get(endpoint.supplier.split("@")[0], fine)
        fault = behaviour(relay, self.asked[endpoint.supplier, relay.prompt_id], at)
        self.asked[endpoint.supplier, relay.prompt_id] += 1
        self.log.append((at, relay, fault))
        await asyncio.sleep(self.delay_s)
        told_s = None if fault.answered else self.told_s
        return Attempt(fault, started, datetime.now(UTC), 1.0, retry_after_s=told_s)

    async def close(self) -> None:
        pass


def fine(relay: Relay, asked: int, at: float) -> Fault:
    return Fault.OK


def always(fault: Fault) -> Behaviour:
    return lambda relay, asked, at: fault


def down(fault: Fault, start_s: float, end_s: float) -> Behaviour:
    return lambda relay, asked, at: fault if start_s <= at < end_s else Fault.OK


def some_docs(fault: Fault, *docs: int) -> Behaviour:
    return lambda relay, asked, at: fault if relay.doc_id in docs else Fault.OK


def target(supplier: str = "a@test", **limits: Any) -> Endpoint:
    return made(supplier, **{"retries": 5, "max_in_flight": 4, **limits})


# ---------------------------------------------------------------------------------- outages


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.TRANSPORT, Fault.SUPPLIER_HTTP])
def test_a_restart_in_mid_run_costs_no_doc(fault: Fault) -> None:
    """Twenty seconds, compressed: all are answered in this run, whatever was in flight when it went down."""
    transport = Acting(a=down(fault, 0.02, 0.22))
    patient = replace(QUICK, alone_s=20.0, silence_s=60.0, total_s=60.0)  # a busy machine is no outage
    report = run_relays(
        [(target(start_in_flight=8), some(100))], Sink(), transport=transport, patience=patient
    )
    assert report.total.answered == 100 and report.lanes["a@test"].end is LaneEnding.DONE
    assert report.total.sent - report.total.canaries < 140


def test_an_outage_burns_no_docs_and_leaves_the_rest_unasked() -> None:
    transport = Acting(a=down(Fault.UNAVAILABLE, 0.02, 1e9))
    report = run_relays([(target(), some(400))], Sink(), transport=transport)
    counts = report.total
    assert report.lanes["a@test"].end is LaneEnding.LEFT
    assert report.lanes["a@test"].fault is Fault.UNAVAILABLE
    assert counts.abandoned > 250 and counts.still_due < 20
    assert counts.answered + counts.still_due + counts.abandoned == counts.relays == 400
    assert QUICK.alone_s <= report.lanes["a@test"].waited_s + 0.01 < QUICK.silence_s


def test_probes_of_who_answered_before_are_canaries_one_at_a_time() -> None:
    transport = Acting(a=always(Fault.UNAVAILABLE))
    before = [replace(relay(n), attempt=7, occasion=2) for n in (500, 501)]
    sink = Sink()
    report = run_relays([(target(), some(50))], sink, transport=transport, canaries={"a@test": before})
    asked = [item.doc_id for item, _, _ in sink.attempts if item.canary]
    assert asked and set(asked) <= {500, 501}
    assert len(asked) == report.total.canaries
    for doc in (500, 501):
        numbers = [number for item, number, _ in sink.attempts if item.doc_id == doc]
        assert numbers == list(range(7, 7 + len(numbers))), "canaries are numbered on"
    assert sum(report.total.faults.values()) == report.total.sent - report.total.canaries


def test_who_refuses_each_doc_once_is_found_to_answer() -> None:
    """Without canaries a probe is by turns a new doc and one that was asked before."""
    transport = Acting(a=lambda relay, asked, at: Fault.RATE_LIMITED if asked == 0 else Fault.OK)
    report = run_relays([(target(), some(40))], Sink(), transport=transport)
    assert report.total.answered == 40


def test_a_doc_that_brings_the_supplier_down_is_not_in_the_way_of_others() -> None:
    transport = Acting(a=some_docs(Fault.UNAVAILABLE, 0, 1, 2))
    report = run_relays([(target(), some(40))], Sink(), transport=transport)
    assert report.total.answered == 37 and report.lanes["a@test"].end is LaneEnding.DONE


# ---------------------------------------------------------------------------------- key, quota, refusals


@pytest.mark.parametrize("fault", [f for f in Fault if f.row.pause is Pause.PROBE])
def test_a_wrong_key_or_a_used_up_quota_ends_the_turn_at_once(fault: Fault) -> None:
    transport = Acting(a=always(fault))
    report = run_relays([(target(), some(500))], Sink(), transport=transport, patience=SLOW)
    assert (report.lanes["a@test"].end, report.lanes["a@test"].fault) == (LaneEnding.LEFT, fault)
    assert report.total.sent <= 2 + QUICK.probes and report.seconds < AT_ONCE_S


def test_a_quota_that_runs_out_in_mid_run_is_found_out_by_canaries() -> None:
    transport = Acting(a=down(Fault.QUOTA, 0.05, 1e9))
    sink = Sink()
    report = run_relays([(target(), some(500))], sink, transport=transport, patience=SLOW)
    assert report.lanes["a@test"].fault is Fault.QUOTA and report.seconds < AT_ONCE_S
    assert report.total.canaries == QUICK.probes
    assert all(item.canary for item, _, _ in sink.attempts[-QUICK.probes :])


def test_who_withholds_docs_by_401_is_asked_on_as_its_canaries_show_that_the_key_is_good() -> None:
    hard = (3, 9, 10, 20)
    report = run_relays(
        [(target(), some(40))], Sink(), transport=Acting(a=some_docs(Fault.CREDENTIALS, *hard))
    )
    assert report.lanes["a@test"].end is LaneEnding.DONE
    assert (report.total.answered, report.total.still_due) == (36, 4)


def test_a_parameter_that_is_refused_everywhere_ends_the_turn_at_once() -> None:
    transport = Acting(a=always(Fault.CLIENT_REQUEST))
    report = run_relays([(target(), some(500))], Sink(), transport=transport, patience=SLOW)
    assert report.lanes["a@test"].end is LaneEnding.LEFT and report.seconds < AT_ONCE_S
    assert report.total.sent <= 2 * QUICK.trip


def test_a_supplier_that_filters_everything_is_asked_all_of_it_without_a_wait() -> None:
    """A filter is no outage: its turn ends when each doc had its attempts, not when patience does."""
    transport = Acting(a=always(Fault.SUPPLIER_REFUSED))
    sink = Sink()
    report = run_relays([(target(), some(40))], sink, transport=transport)
    assert report.lanes["a@test"].end is LaneEnding.DONE
    assert {item.doc_id for item, _, _ in sink.attempts} == set(range(40))
    assert (report.total.sent, report.total.still_due) == (80, 40)


# ---------------------------------------------------------------------------------- second occasions

TWO = [fault for fault in Fault if fault.row.occasions == 2]


@pytest.mark.parametrize("fault", TWO)
def test_docs_have_their_second_occasion_in_the_same_run_once_a_canary_was_answered(fault: Fault) -> None:
    transport = Acting(a=some_docs(fault, 3, 9))
    sink = Sink()
    report = run_relays([(target(), some(30))], sink, transport=transport)
    assert (report.total.answered, report.total.final, report.total.still_due) == (28, 30, 0)
    first, later = fault.row.in_run
    for doc in (3, 9):
        own = [(at, item) for at, item, _ in transport.log if item.doc_id == doc and not item.canary]
        assert [item.occasion for _, item in own] == [1] * (1 + first) + [2] * (1 + later)
        ended, began = own[first][0], own[first + 1][0]
        assert began - ended >= QUICK.again_s
        assert any(ended < at < began and item.canary and f.answered for at, item, f in transport.log)
        numbers = [n for item, n, _ in sink.attempts if item.doc_id == doc and not item.canary]
        assert numbers == list(range(1, 1 + len(own)))


def test_a_bad_minute_at_the_end_closes_nothing() -> None:
    """Unreadable pages for everybody, canaries included: the second occasion is left to the next run."""
    transport = Acting(delay_s=0.002, a=down(Fault.SUPPLIER_PROTOCOL, 0.01, 1e9))
    report = run_relays([(target(), some(60))], Sink(), transport=transport)
    assert report.total.final == report.total.answered < 60
    assert all(item.occasion == 1 for _, item, _ in transport.log)


def test_without_an_answer_nothing_has_a_second_occasion() -> None:
    transport = Acting(a=always(Fault.SUPPLIER_REFUSED))
    report = run_relays([(target(), some(4))], Sink(), transport=transport)
    assert report.total.still_due == 4 and {item.occasion for _, item, _ in transport.log} == {1}


def test_pages_that_are_not_served_are_not_waited_for() -> None:
    page = replace(relay(99), request={"type": "get", "idx": 0, "path": "/x"})
    transport = Acting(a=some_docs(Fault.CLIENT_REQUEST, 99))
    report = run_relays([(target(), [page, *some(9)])], Sink(), transport=transport, patience=SLOW)
    assert report.seconds < AT_ONCE_S and (report.total.sent, report.total.still_due) == (10, 1)


def test_docs_that_wait_for_their_second_occasion_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_AGAIN", 5)
    transport = Acting(a=lambda relay, asked, at: Fault.SUPPLIER_REFUSED if relay.doc_id % 2 else Fault.OK)
    report = run_relays([(target(), some(40))], Sink(), transport=transport)
    assert (report.total.answered, report.total.final, report.total.still_due) == (20, 25, 15)


# ---------------------------------------------------------------------------------- nobody waits


def test_one_that_only_answers_429_keeps_nobody_waiting() -> None:
    """Seven others: each turn ends with its own last relay, and the run once no other works any more."""
    names = [f"s{n}@test" for n in range(7)]
    transport = Acting(delay_s=0.005, limited=always(Fault.RATE_LIMITED))
    ended: dict[str, float] = {}
    events: list[tuple[str, str]] = []
    seen: list[Progress] = []

    def sink(item: Relay, number: int, attempt: Attempt) -> None:
        assert item.supplier not in ended, "its turn ended before its last attempt was taken"
        events.append(("attempt", item.supplier))

    def on_lane_end(supplier: str) -> None:
        assert supplier not in ended
        ended[supplier] = time.monotonic()
        events.append(("end", supplier))

    work = [(target(name), some(40, name)) for name in [*names, "limited@test"]]
    patient = replace(QUICK, silence_s=60.0, total_s=600.0)
    report = run_relays(
        work, sink, transport=transport, on_lane_end=on_lane_end, on_progress=seen.append, patience=patient
    )
    assert set(ended) == {*names, "limited@test"}
    for name in names:
        assert events[events.index(("end", name)) - 1] == ("attempt", name), "at once"
    others = max(ended[name] for name in names)
    assert ended["limited@test"] - others < patient.silence_s / 3, "a minute, compressed to half a second"
    assert report.lanes["limited@test"].end is LaneEnding.LEFT
    waits = [wait for progress in seen for wait in progress.waits]
    assert {(wait.supplier, wait.fault) for wait in waits} == {("limited@test", Fault.RATE_LIMITED)}


def test_a_turn_that_a_cap_ends_is_told_so() -> None:
    ended: list[str] = []
    report = run_relays(
        [(target(), some(9))], Sink(), transport=Acting(), max_relays=3, on_lane_end=ended.append
    )
    assert ended == ["a@test"] and report.lanes["a@test"].end is LaneEnding.CAPPED
    assert report.lanes["a@test"].fault is None


def test_an_error_of_who_is_told_ends_the_run() -> None:
    def broken(supplier: str) -> None:
        raise LookupError(supplier)

    with pytest.raises(LookupError, match="a@test"):
        run_relays([(target(), some(2))], Sink(), transport=Acting(), on_lane_end=broken)


def test_a_wish_to_stop_is_followed_within_two_seconds() -> None:
    stop = threading.Event()
    transport = Acting(delay_s=30.0, b=always(Fault.UNAVAILABLE))
    work: list[tuple[Endpoint, Any]] = [(target(), some(50)), (target("b@test"), some(50, "b@test"))]
    threading.Timer(0.2, stop.set).start()
    started = time.monotonic()
    report = run_relays(work, Sink(), transport=transport, stop=stop, patience=PATIENCE)
    assert time.monotonic() - started < 15, "the calls under way take thirty"
    assert report.interrupted and report.total.sent == 0
    assert {end.end for end in report.lanes.values()} == {LaneEnding.CAPPED}


def test_what_arrives_in_the_moment_of_stopping_is_kept() -> None:
    stop = threading.Event()
    sink = Sink()

    def behave(relay: Relay, asked: int, at: float) -> Fault:
        stop.set()
        return Fault.OK

    report = run_relays([(target(), some(50))], sink, transport=Acting(delay_s=0.3, a=behave), stop=stop)
    assert report.total.answered == len(sink.attempts) == 2
    assert report.total.unsent == 48 and report.interrupted


class Stalling(Acting):
    """Holds some docs for as long as anybody waits, and answers the others at once."""

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        if relay.doc_id % 5 == 3:
            await asyncio.sleep(60.0)
        return await super().send(endpoint, relay)


@pytest.mark.parametrize("least_s", [0.1, 60.0])
def test_what_a_supplier_held_when_the_run_was_stopped_is_told(least_s: float) -> None:
    """Where it held it for long."""
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    report = run_relays(
        [(target(start_in_flight=4), some(50))],
        Sink(),
        transport=Stalling(),
        stop=stop,
        patience=replace(PATIENCE, stalled_s=least_s),
    )
    end = report.lanes["a@test"]
    assert end.end is LaneEnding.CAPPED and report.total.answered > 4
    assert [one.doc_id for one in end.stalled] == ([3, 8, 13, 18] if least_s < 1 else [])


@pytest.mark.parametrize("delay_s", [60.0, 0.2])
def test_who_answered_nothing_yet_or_all_in_time_stalled_nothing(delay_s: float) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    patience = replace(PATIENCE, stalled_s=0.0)
    transport = Acting(delay_s)
    report = run_relays([(target(), some(50))], Sink(), transport=transport, stop=stop, patience=patience)
    assert report.interrupted and report.lanes["a@test"].stalled == ()


# ---------------------------------------------------------------------------------- whatever happens

FAULTS = [Fault.OK, Fault.OK, *(fault for fault in Fault if fault.row.ways)]
#: Five thousand times as fast: a turn is over in a tenth of a second.
FASTEST = PATIENCE.scaled(1 / 5000)


@dataclass
class Scripts:
    """A transport that ends attempts by a script, and watches the supplier queues meanwhile."""

    scripts: dict[str, list[Fault]]
    queues: list[SupplierQueue] = field(default_factory=list)
    attempts: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        queue = next(q for q in self.queues if q.endpoint.supplier == endpoint.supplier)
        if queue.circuit.open and queue.in_flight > 1:
            self.violations.append(f"{queue.in_flight} probes at once")
        if not relay.canary:
            self.attempts[relay.supplier, relay.prompt_id, relay.occasion] += 1
        started = datetime.now(UTC)
        await asyncio.sleep(0)
        script = self.scripts[endpoint.supplier]
        fault = script.pop(0) if len(script) > 1 else script[0]
        return Attempt(fault, started, datetime.now(UTC), 1.0)

    async def close(self) -> None:
        pass


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=40), min_size=1, max_size=3),
    st.integers(1, 30),
    st.integers(0, 9),
    st.booleans(),
)
def test_whatever_suppliers_do_turns_end_and_docs_are_not_asked_too_often(
    scripts: list[list[Fault]], docs: int, retries: int, known: bool
) -> None:
    names = [f"s{n}@test" for n in range(len(scripts))]
    transport = Scripts(dict(zip(names, scripts, strict=True)))
    make = engine.supplier_queues

    def watched(*args: Any) -> list[SupplierQueue]:
        transport.queues = make(*args)
        return transport.queues

    before = {name: [replace(relay(900, name), attempt=3)] for name in names} if known else {}
    ended: Counter[str] = Counter()
    sink = Sink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "supplier_queues", watched)
        report = run_relays(
            [(target(name, retries=retries, start_in_flight=3), iter(some(docs, name))) for name in names],
            sink,
            transport=transport,
            canaries=before,
            patience=FASTEST,
            on_lane_end=lambda supplier: ended.update([supplier]),
        )
    assert not transport.violations
    assert ended == dict.fromkeys(names, 1)
    assert report.total.relays == docs * len(names)
    assert report.total.sent == len(sink.attempts)
    most = max(max(fault.row.in_run) for fault in Fault)
    if known:  # then probes are canaries, and no doc has more than its further attempts
        assert all(n <= 1 + min(most, retries) for n in transport.attempts.values())
    keys = [(item.supplier, item.prompt_id, number) for item, number, _ in sink.attempts]
    assert len(set(keys)) == len(keys), "no two attempts have the same number"
    last: dict[tuple[str, str], int] = {}
    for item, number, _ in sink.attempts:
        assert number > last.get((item.supplier, item.prompt_id), 0)
        last[item.supplier, item.prompt_id] = number


def test_every_answered_doc_may_become_a_canary() -> None:
    import random

    drawn: Counter[int] = Counter()
    for seed in range(400):
        pool = CanaryPool((), random.Random(seed))
        assert not pool
        for n in range(40):
            pool.add(relay(n), 2)
        drawn.update([pool.draw().relay.doc_id])
    assert len(drawn) == 40 and max(drawn.values()) < 30
    page = replace(relay(1), request={"type": "get", "idx": 0, "path": "/x"})
    pool = CanaryPool((), random.Random(1))
    pool.add(page, 2)
    assert not pool, "pages are not asked again"


def test_a_lane_reads_no_further_than_it_sends_while_its_circuit_is_open() -> None:
    pulled = 0

    def relays() -> Iterator[Relay]:
        nonlocal pulled
        for n in range(10_000):
            pulled += 1
            yield relay(n)

    transport = Acting(a=always(Fault.UNAVAILABLE))

    async def main() -> None:
        run = engine.relay_all([(target(), relays())], transport, Sink(), patience=slow)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.5)

    slow: LanePatience = replace(QUICK, alone_s=99.0, silence_s=99.0)
    asyncio.run(main())
    assert pulled <= len(transport.log) + 1 < 40
