"""The engine's promises: over real HTTP where that matters, else over a transport that answers by plan."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.core.faults import Fault, Pause
from testbench_dagster.core.relay import Attempt, Endpoint, Relay
from testbench_dagster.relays.circuit import PATIENCE
from testbench_dagster.relays.report import LaneEnding, LatencyHistogram, Progress, Report
from testbench_dagster.stores.documents.collections import HEARTBEATS
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster_tests.endpoints import FAST, Supplier, endpoint, relay
from testbench_dagster_tests.relays.quick import QUICK, relay_all, run_relays
from testbench_dagster_tests.tasks.layouts import REPOSITORY


class Scripted:
    """A transport that answers by plan: ``faults[supplier]`` in turn, then ok; ``delay`` seconds each."""

    def __init__(
        self,
        faults: dict[str, list[Fault]] | None = None,
        delay: dict[str, float] | None = None,
        retry_after_s: float | None = None,
    ):
        self.faults = {k: list(v) for k, v in (faults or {}).items()}
        self.delay = delay or {}
        self.retry_after_s = retry_after_s
        self.sent: Counter[str] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        self.sent[endpoint.supplier] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        started = datetime.now(UTC)
        try:
            await asyncio.sleep(self.delay.get(endpoint.supplier, 0))
        finally:
            self.in_flight -= 1
        plan = self.faults.get(endpoint.supplier)
        fault = plan.pop(0) if plan else Fault.OK
        return Attempt(fault, started, datetime.now(UTC), 1.0, retry_after_s=self.retry_after_s)

    async def close(self) -> None:
        pass


def target(supplier: str = "a@test", **limits: Any) -> Endpoint:
    return endpoint("http://127.0.0.1:9", replace(FAST, **limits), supplier)


def some(count: int, supplier: str = "a@test") -> list[Relay]:
    return [relay(n, supplier) for n in range(count)]


class Sink:
    def __init__(self) -> None:
        self.attempts: list[tuple[Relay, int, Attempt]] = []

    def __call__(self, relay: Relay, number: int, attempt: Attempt) -> None:
        self.attempts.append((relay, number, attempt))

    def numbers(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for item, number, _ in self.attempts:
            found.setdefault(item.prompt_id, []).append(number)
        return found


def test_everything_is_relayed_once_over_http(supplier: Supplier):
    sink = Sink()
    progress: list[Progress] = []
    url = supplier.url("slowly")
    work = [
        (endpoint(url, replace(FAST, max_in_flight=8), name), some(40, name)) for name in ("a@test", "b@test")
    ]
    report = run_relays(work, sink, on_progress=progress.append, open_transport=DirectTransport)
    assert report.total.sent == report.total.final == report.total.faults[Fault.OK] == 80
    assert {name: counts.final for name, counts in report.suppliers.items()} == {"a@test": 40, "b@test": 40}
    assert sorted(n for n in sink.numbers().values()) == [[1, 1]] * 40  # two suppliers, same prompt ids
    assert 40 <= report.total.p50_ms <= report.total.p95_ms
    assert report.relays_per_s == pytest.approx(80 / report.seconds)
    assert 2 < supplier.most_in_flight <= 16
    assert progress[-1].sent == 80 and progress[-1].in_flight == 0


def test_nothing_to_do():
    assert run_relays([], Sink(), transport=Scripted()).total.relays == 0
    assert run_relays([(target(), [])], Sink(), transport=Scripted()).total.relays == 0


def test_rate_limited_relays_return_with_their_numbers(supplier: Supplier):
    sink = Sink()
    relays = some(3)
    relays[1].attempt = 4
    report = run_relays(
        [(endpoint(supplier.url("limited"), replace(FAST, retries=2)), relays)],
        sink,
        open_transport=DirectTransport,
        patience=replace(QUICK, alone_s=30.0, silence_s=30.0),
    )
    assert report.total.final == report.total.faults[Fault.OK] == 3
    for prompt, before in (("p0", 0), ("p1", 3), ("p2", 0)):
        own = [(number, attempt) for relay, number, attempt in sink.attempts if relay.prompt_id == prompt]
        assert [number for number, _ in own] == [before + 1 + n for n in range(len(own))]
        for (_, first), (_, second) in pairwise(own):
            waited = second.started_at - first.finished_at
            assert waited.total_seconds() >= 0.19 or first.fault.answered  # the server's Retry-After


def test_retries_end():
    sink = Sink()
    faults = {"a@test": [Fault.TRANSPORT] * 3}
    report = run_relays([(target(retries=2), some(1))], sink, transport=Scripted(faults))
    assert sink.numbers() == {"p0": [1, 2, 3]}
    assert (report.total.final, report.total.still_due) == (0, 1)


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("occasion", [1, 2, 3])
@pytest.mark.parametrize("retries", [0, 1, 9])
def test_a_doc_has_the_further_attempts_of_its_fault(fault: Fault, occasion: int, retries: int):
    sink = Sink()
    one = replace(relay(0), occasion=occasion, attempt=4)
    report = run_relays([(target(retries=retries), [one])], sink, transport=Scripted({"a@test": [fault] * 9}))
    further = 0 if fault.answered else min(fault.row.in_run[occasion > 1], retries)
    [numbers] = sink.numbers().values()
    assert numbers == list(range(4, 4 + len(numbers)))
    assert (report.total.final + report.total.still_due, report.total.answered) == (1, fault.answered)
    if fault.row.pause is Pause.PROBE:  # the doc itself is the probe, as nothing else was answered
        assert len(numbers) - 1 == (QUICK.probes if further else 0)
    else:
        closes = 0 < fault.row.occasions <= occasion
        # five unanswered in a row open the circuit: from then on it is a probe, which costs no attempt
        assert len(numbers) == 1 + further or (further >= QUICK.trip and len(numbers) > further)
        assert report.total.final == (fault.answered or closes) or further >= QUICK.trip


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.none() | st.integers(0, 30),
    st.none() | st.integers(0, 15),
    st.lists(st.sampled_from([Fault.OK, Fault.RATE_LIMITED, Fault.EMPTY]), max_size=3),
    st.integers(1, 8),
)
def test_caps_are_hard_and_nothing_is_lost(
    counts: list[int], most: int | None, allowed: int | None, faults: list[Fault], slots: int
):
    names = [f"{n}@{'even' if n % 2 == 0 else 'odd'}" for n in range(len(counts))]
    transport = Scripted({names[0]: faults})
    sink = Sink()
    work = [
        (target(name, retries=1, start_in_flight=4), iter(some(count, name)))
        for name, count in zip(names, counts, strict=True)
    ]
    quota = None if allowed is None else {"even": allowed}
    report = run_relays(work, sink, transport=transport, max_in_flight=slots, quota=quota, max_relays=most)
    sent = sum(transport.sent.values())
    assert sent == report.total.sent == len(sink.attempts)
    assert most is None or sent <= most
    even = sum(count for name, count in transport.sent.items() if name.endswith("@even"))
    assert allowed is None or even <= allowed
    assert transport.most_in_flight <= slots
    assert report.total.relays == sum(counts)
    assert report.total.abandoned == 0
    if most is None and allowed is None:
        assert report.total.unsent == 0


def test_caps_end_a_run_that_waits():
    """Relays waiting for a long retry are not waited for when they could not be sent anyway."""
    faults = {"a@test": [Fault.TRANSPORT] * 9}
    started = time.monotonic()
    transport = Scripted(faults, retry_after_s=0.5)
    report = run_relays([(target(retries=9), some(5))], Sink(), transport=transport, max_relays=2)
    assert time.monotonic() - started < 20
    assert (report.total.sent, report.total.still_due, report.total.unsent) == (2, 2, 3)


def test_a_service_that_is_used_up_leaves_the_last_relay_of_the_run_to_others():
    transport = Scripted(delay={"odd@odd": 0.1})
    work = [(target("odd@odd", max_in_flight=1), some(2, "odd@odd"))]
    work.append((target("even@even"), some(3, "even@even")))
    report = run_relays(work, Sink(), transport=transport, max_relays=3, quota={"even": 1})
    assert transport.sent == {"odd@odd": 2, "even@even": 1}
    assert (report.total.final, report.total.unsent) == (3, 2)


class Watched:
    """Counts how far ahead of the transport an iterable is consumed."""

    def __init__(self, count: int, transport: Scripted) -> None:
        self.count, self.transport, self.ahead = count, transport, 0

    def __iter__(self) -> Iterator[Relay]:
        for n in range(self.count):
            self.ahead = max(self.ahead, n - self.transport.sent["a@test"])
            yield relay(n)


def test_iterables_are_consumed_as_slots_become_free():
    transport = Scripted()
    relays = Watched(5_000, transport)
    report = run_relays(
        [(target(start_in_flight=50), relays)], lambda *_: None, transport=transport, max_in_flight=50
    )
    assert report.total.final == 5_000
    assert relays.ahead <= 1


def test_relays_waiting_for_retries_are_bounded():
    """A supplier that refuses everything is not given ever more relays."""
    transport = Scripted({"a@test": [Fault.TRANSPORT] * 10_000})
    pulled = 0

    def relays() -> Iterator[Relay]:
        nonlocal pulled
        for n in range(1_000):
            pulled += 1
            yield relay(n)

    async def main() -> None:
        run = relay_all([(target(retries=2, start_in_flight=8), relays())], transport, lambda *_: None)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.4)

    asyncio.run(main())
    assert pulled <= 16


def test_a_dead_supplier_is_given_up_and_starves_nobody(supplier: Supplier):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dead = endpoint(f"http://127.0.0.1:{port}/v1", FAST, "dead@test")
    alive = endpoint(supplier.url("slowly"), FAST, "alive@test")
    ended: list[str] = []
    report = run_relays(
        [(dead, some(500, "dead@test")), (alive, some(30, "alive@test"))],
        Sink(),
        open_transport=DirectTransport,
        on_lane_end=ended.append,
        patience=replace(QUICK, silence_s=60.0, total_s=600.0),
    )
    gone = report.suppliers["dead@test"]
    assert report.suppliers["alive@test"].final == 30
    assert QUICK.trip <= gone.sent <= 30
    assert gone.abandoned + gone.still_due == 500
    end = report.lanes["dead@test"]
    assert (end.end, end.fault) == (LaneEnding.LEFT, Fault.TRANSPORT)
    assert report.lanes["alive@test"].end is LaneEnding.DONE
    assert ended == ["alive@test", "dead@test"]


def test_slow_suppliers_leave_slots_to_others():
    """They could fill every slot long before the quick one appears with its second relay, and answer last."""
    names = [f"slow{n}@test" for n in range(3)]
    quick_done = threading.Event()

    class Slow(Scripted):
        async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
            for _ in range(3000 if endpoint.supplier in names else 0):
                if quick_done.is_set():
                    break
                await asyncio.sleep(0.01)
            return await super().send(endpoint, relay)

    transport = Slow()
    work: list[tuple[Endpoint, Iterable[Relay]]] = [
        (target(name, start_in_flight=64, max_in_flight=64), some(10, name)) for name in names
    ]
    work.append((target("quick@test"), some(200, "quick@test")))
    order: list[str] = []

    def sink(item: Relay, number: int, attempt: Attempt) -> None:
        order.append(item.supplier)
        if order.count("quick@test") == 200:
            quick_done.set()

    run_relays(work, sink, transport=transport, max_in_flight=16)
    assert order[:200] == ["quick@test"] * 200 and len(order) == 230


def test_one_supplier_gets_all_slots_when_alone():
    transport = Scripted(delay={"a@test": 0.01})
    work = [(target(start_in_flight=64), some(300))]
    run_relays(work, lambda *_: None, transport=transport, max_in_flight=20)
    assert transport.most_in_flight == 20


def test_an_error_of_the_sink_stops_the_run():
    transport = Scripted(delay={"a@test": 0.01})

    def sink(item: Relay, number: int, attempt: Attempt) -> None:
        if item.position == 10:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run_relays([(target(start_in_flight=4), some(10_000))], sink, transport=transport)
    assert sum(transport.sent.values()) < 30
    assert transport.in_flight == 0


def test_errors_of_iterables_and_progress_stop_the_run():
    def broken() -> Iterator[Relay]:
        yield relay(0)
        raise LookupError("prompt is gone")

    with pytest.raises(LookupError, match="prompt is gone"):
        run_relays([(target(), broken())], Sink(), transport=Scripted())

    def progress(_: Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_relays([(target(), some(1))], Sink(), transport=Scripted(), on_progress=progress)


def test_a_sink_may_make_the_engine_wait():
    waiting = 0
    most = 0

    async def store() -> None:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.02)
        waiting -= 1

    work = [(target(start_in_flight=64), some(60))]
    report = run_relays(work, lambda *_: store(), transport=Scripted(), max_in_flight=10)
    assert report.total.final == 60
    assert most == 10


def test_a_bug_in_a_transport_costs_one_relay():
    class Buggy(Scripted):
        async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
            if relay.position == 1:
                raise KeyError("oops")
            return await super().send(endpoint, relay)

    report = run_relays([(target(), some(3))], Sink(), transport=Buggy())
    assert report.total.faults == {Fault.OK: 2, Fault.INTERNAL: 1}


def test_cancellation_keeps_what_arrived(supplier: Supplier):
    sink = Sink()

    async def main() -> None:
        transport = Scripted(delay={"a@test": 0.01})
        task = asyncio.create_task(relay_all([(target(), some(10_000))], transport, sink))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.in_flight == 0

    asyncio.run(main())
    assert 5 < len(sink.attempts) < 1_000


def test_from_a_thread_and_inside_a_running_loop(supplier: Supplier):
    reports: list[Report] = []

    def run() -> None:
        reports.append(
            run_relays([(endpoint(supplier.url("ok")), some(5))], Sink(), open_transport=DirectTransport)
        )

    async def inside() -> None:
        run()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    asyncio.run(inside())
    assert [report.total.final for report in reports] == [5, 5]


def test_errors_cross_the_thread():
    async def inside() -> None:
        run_relays([(target(), some(1)), (target(retries=7), some(1))], Sink(), transport=Scripted())

    with pytest.raises(ValueError, match="two different endpoints"):
        asyncio.run(inside())


@pytest.mark.parametrize("inside_loop", [False, True])
def test_an_interrupt_ends_the_run(inside_loop: bool):
    transport = Scripted(delay={"a@test": 0.01})

    def run() -> None:
        run_relays([(target(), (relay(n) for n in range(10**9)))], lambda *_: None, transport=transport)

    async def inside() -> None:
        run()

    # a shell that starts a job in the background has it ignore interrupts: the run would go on for ever
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(inside()) if inside_loop else run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - started < 20
    assert transport.in_flight == 0


class Interrupted(BaseException):
    """What Dagster's signal handler raises is no KeyboardInterrupt either."""


def test_what_a_signal_handler_raises_ends_the_run():
    def handler(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGTERM, handler)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        relays = (relay(n) for n in range(10**9))
        with pytest.raises(Interrupted):
            run_relays([(target(), relays)], lambda *_: None, transport=Scripted())
    finally:
        signal.signal(signal.SIGTERM, before)


def test_work_of_one_supplier_is_joined():
    report = run_relays([(target(), some(3)), (target(), some(4))], Sink(), transport=Scripted())
    assert report.suppliers["a@test"].final == 7


class Mortal:
    """A transport that buries its own process's heartbeat at the ``at``-th send."""

    def __init__(self, documents: SqliteDocuments, at: int) -> None:
        self.documents, self.at = documents, at
        self.sent_when_lost = 0
        self.inner = Scripted(delay={"a@test": 0.02, "b@test": 0.02})
        self.heartbeat: Heartbeat

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        if self.heartbeat.lost:
            self.sent_when_lost += 1
        if sum(self.inner.sent.values()) == self.at:
            self.documents.purge(HEARTBEATS, {"_id": self.heartbeat.holder})
        return await self.inner.send(endpoint, relay)

    async def close(self) -> None:
        pass


@pytest.fixture
def documents(tmp_path: Path) -> Iterator[SqliteDocuments]:
    made = SqliteDocuments(tmp_path / "documents.sqlite")
    yield made
    made.close()


class Counting(Scripted):
    """Notes the most that suppliers of one host had in flight together."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.by_host: Counter[str | None] = Counter()
        self.most: Counter[str | None] = Counter()

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        self.by_host[endpoint.host] += 1
        self.most[endpoint.host] = max(self.most[endpoint.host], self.by_host[endpoint.host])
        try:
            return await super().send(endpoint, relay)
        finally:
            self.by_host[endpoint.host] -= 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["one:1", "two:2", None]), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(0, 12),
    st.lists(st.sampled_from([Fault.OK, Fault.RATE_LIMITED]), max_size=6),
    st.integers(1, 40),
)
def test_suppliers_of_one_host_share_its_limit(
    hosts: list[str | None], ceiling: int, docs: int, faults: list[Fault], slots: int
) -> None:
    """Whoever is exhausted, rate-limited or capped meanwhile: the limit holds, and nobody is left waiting."""
    names = [f"s{n}@test" for n in range(len(hosts))]
    transport = Counting(delay=dict.fromkeys(names, 0.001), faults={names[0]: faults})
    work = [
        (
            replace(target(name, max_per_host=ceiling, start_in_flight=4, retries=9), host=host),
            some(docs * (1 + n % 3), name),
        )
        for n, (name, host) in enumerate(zip(names, hosts, strict=True))
    ]
    report = run_relays(work, Sink(), transport=transport, max_in_flight=slots, quota={"test": 60})
    assert all(transport.most[host] <= ceiling for host in set(hosts) - {None})
    expected = sum(docs * (1 + n % 3) for n in range(len(hosts)))
    assert report.total.relays == expected
    if report.total.sent < 60:
        assert report.total.unsent == report.total.still_due == 0


def test_a_beating_heart_changes_nothing(documents: SqliteDocuments):
    with Heartbeat(documents, "me") as heartbeat:
        report = run_relays([(target(), some(50))], Sink(), transport=Scripted(), heartbeat=heartbeat)
    assert report.total.final == 50 and not report.lost


def test_a_lost_heart_ends_the_sending_and_nothing_else(documents: SqliteDocuments):
    transport, sink = Mortal(documents, at=20), Sink()
    names = ["a@test", "b@test"]
    # four in flight cannot be done before the heartbeat notices; six seconds outlast a pause of a busy
    # machine
    work = [(target(name, max_in_flight=4), iter(some(10_000, name))) for name in names]
    with Heartbeat(documents, "me", ttl_s=6.0) as transport.heartbeat:
        report = run_relays(work, sink, transport=transport, heartbeat=transport.heartbeat)
        assert transport.heartbeat.lost
    assert report.lost
    assert transport.sent_when_lost == transport.inner.in_flight == 0
    total = report.total
    assert 20 < total.sent == total.final == len(sink.attempts) == sum(transport.inner.sent.values())
    assert total.final + total.unsent == total.relays == 20_000


def test_without_a_heartbeat_nothing_is_sent(documents: SqliteDocuments):
    transport = Scripted()
    report = run_relays(
        [(target(), some(5))], Sink(), transport=transport, heartbeat=Heartbeat(documents, "me")
    )
    assert report.lost and report.total.unsent == 5
    assert not transport.sent


def test_a_run_that_waits_notices_the_loss_of_its_heart(documents: SqliteDocuments):
    """Nothing is due for a minute: the loss shows all the same."""

    class Later(Scripted):
        async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
            attempt = await super().send(endpoint, relay)
            documents.purge(HEARTBEATS, {"_id": "me"})
            return replace(attempt, retry_after_s=59.0)

    started = time.monotonic()
    transport = Later({"a@test": [Fault.RATE_LIMITED] * 9})
    with Heartbeat(documents, "me", ttl_s=2.0) as heartbeat:
        report = run_relays(
            [(target(retries=3), some(1))],
            Sink(),
            transport=transport,
            heartbeat=heartbeat,
            patience=PATIENCE,
        )
    assert time.monotonic() - started < 20
    assert report.lost and (report.total.sent, report.total.still_due) == (1, 1)


STOPPED = """
import sys
from pathlib import Path
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.relays.engine import run_relays
from testbench_dagster.stores.documents.sqlite import SqliteDocuments
from testbench_dagster.core.relay import Limits
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster_tests.endpoints import endpoint, relay

with Heartbeat(SqliteDocuments(Path(sys.argv[1])), "they", ttl_s=2.0) as heartbeat:
    relays = (relay(n) for n in range(10**6))
    target = endpoint(sys.argv[2], Limits(max_in_flight=4, start_in_flight=4))
    options = {"open_transport": DirectTransport, "heartbeat": heartbeat}
    report = run_relays([(target, relays)], lambda *_: None, **options)
print(report.lost)
"""


@pytest.mark.slow
def test_a_process_that_was_stopped_sends_nothing_more(supplier: Supplier, tmp_path: Path):
    root = REPOSITORY
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path / "documents.sqlite"), supplier.url("slowly")],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 120  # a busy machine takes its time to start the process
        while supplier.calls["slowly"] < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        sent = supplier.calls["slowly"]
        assert sent >= 30
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=120)[0] == "True\n"
    finally:
        process.kill()
        process.wait()
    assert supplier.calls["slowly"] <= sent + 4  # those past the check already, at most what is in flight


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=200), st.floats(0.01, 1))
def test_histogram_quantiles_are_within_1_percent(values: list[float], q: float):
    histogram = LatencyHistogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[max(0, -int(-q * len(values) // 1) - 1)]
    assert histogram.quantile(q) == pytest.approx(exact, rel=0.0101)


class Beside(Scripted):
    """Notes of each attempt the most that its host had in flight while it ran, itself included."""

    def __init__(self, delay: dict[str, float] | None = None):
        super().__init__(delay=delay)
        self.running: dict[int, tuple[str, int]] = {}
        self.most: dict[int, int] = {}

    async def send(self, endpoint: Endpoint, relay: Relay) -> Attempt:
        line, key = endpoint.host or endpoint.supplier, id(relay)
        self.running[key] = line, 1
        together = [other for other, (where, _) in self.running.items() if where == line]
        for other in together:
            self.running[other] = line, max(self.running[other][1], len(together))
        attempt = await super().send(endpoint, relay)
        self.most[id(attempt)] = self.running.pop(key)[1]
        return attempt


@given(
    hosts=st.lists(st.sampled_from([None, "h", "i"]), min_size=1, max_size=4),
    in_flight=st.integers(1, 4),
    docs=st.integers(1, 6),
    delays=st.lists(st.sampled_from([0.0, 0.001, 0.004]), min_size=4, max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_each_attempt_says_how_many_of_ours_its_host_had(
    hosts: list[str | None], in_flight: int, docs: int, delays: list[float]
) -> None:
    names = [f"s{n}@test" for n in range(len(hosts))]
    transport, sink = Beside(dict(zip(names, delays, strict=False))), Sink()
    work = [
        (
            replace(target(name, max_in_flight=in_flight, start_in_flight=in_flight), host=host),
            some(docs, name),
        )
        for name, host in zip(names, hosts, strict=True)
    ]
    asyncio.run(relay_all(work, transport, sink, max_in_flight=16))
    assert len(sink.attempts) == docs * len(hosts)
    for _, _, attempt in sink.attempts:
        most, told = transport.most[id(attempt)], attempt.own_in_flight
        assert told is not None
        assert told <= most, "never more than there were"
        assert (told == 1) is (most == 1), "alone is alone all the time"


def test_who_was_sent_meanwhile_and_is_back_was_beside_it() -> None:
    slow, quick = "slow@test", "quick@test"
    transport, sink = Scripted(delay={slow: 0.05, quick: 0.001}), Sink()
    alone = {"max_in_flight": 1, "start_in_flight": 1}
    work = [(replace(target(name, **alone), host="h"), some(1, name)) for name in (slow, quick)]
    asyncio.run(relay_all(work, transport, sink))
    assert {relay.supplier: attempt.own_in_flight for relay, _, attempt in sink.attempts} == {
        slow: 2,
        quick: 2,
    }
    apart = Sink()
    asyncio.run(
        relay_all([(target(name, **alone), some(3, name)) for name in (slow, quick)], transport, apart)
    )
    assert {attempt.own_in_flight for _, _, attempt in apart.attempts} == {1}
