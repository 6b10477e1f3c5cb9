"""Probing suppliers: workloads are asked of them, streamed, and every attempt is stored.

Nothing else of ours runs beside a probe: one request at a time goes to a host, and while a supplier is probed
its lease is held, so that no other process relays to it. Suppliers of several hosts are asked beside each
other. An attempt is stored before the next one at its host begins, so a run that is killed loses what was in
flight and no more. Probes enter no score, and nothing here reads or writes what scores are made of.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from testbench_dagster.coordination.heartbeats import Heartbeat, beating, heartbeats, is_gone
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.core.faults import Fault, Pause
from testbench_dagster.core.quota import FixedQuota, Quota, QuotaDecision
from testbench_dagster.core.records.coordination import LeaseRecord
from testbench_dagster.core.records.service_probes import CountedPrompt, ServiceProbeRecord
from testbench_dagster.core.relay import Attempt, Endpoint
from testbench_dagster.core.stream_watch import StreamWatch
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.text import escaped
from testbench_dagster.core.workloads import WORKLOADS, DueProbe, Workload
from testbench_dagster.relays.loops import run_to_end
from testbench_dagster.relays.money import MoneyQuota, send_paid
from testbench_dagster.relays.pace import PacedOut, PacedTransport, Pacing
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.relay.history import transports_to
from testbench_dagster.stages.relay.probe import probe_relay
from testbench_dagster.stages.relay.targets import Target, Targets
from testbench_dagster.stages.service.context import (
    Claim,
    Counted,
    context_verdict,
    prompt_tokens,
    tokens_per_estimate,
)
from testbench_dagster.stages.service.prompts import Prompt, hiding_prompt, long_prompt
from testbench_dagster.stages.service.tokens import answer_tokens, cached_tokens
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.transports.addresses import host_of
from testbench_dagster.transports.endpoints import asking_of
from testbench_dagster.transports.lenient_json import Unreadable, read_json
from testbench_dagster.transports.refusals import refused_parameters
from testbench_dagster.transports.registry import supplier_endpoint, transport

if TYPE_CHECKING:
    from testbench_dagster.transports.http import HttpClient

#: Hosts that are asked beside each other: few, for what one answer costs our own process delays others.
HOSTS_AT_ONCE = 16
#: How long requests in flight may still bring their answers once the run is told to stop, in seconds.
STOP_GRACE_S = 1.0
_POLL_S = 0.1
_PROGRESS_S = 0.25
#: Characters of an answer that are kept.
MAX_TEXT = 4_000
#: Options of a stream that a supplier may refuse, the one that is more often refused first.
STREAM_OPTIONS, STREAM = "stream_options", "stream"
_USAGE = (STREAM_OPTIONS, "include_usage")
#: Evidence that is no use without the body it belongs to, which is not kept.
_OF_BODIES = frozenset({"envelope", "session_header", "public_key"})
#: Attempts of the newest probes that tell how a supplier counts.
_LOOKED_AT = 20
#: What is read of an answer: so many MiB, and so many bytes for each token that it may have.
_LEAST_MB, _BYTES_OF_EVENT = 1.0, 2_048
#: Leases are asked for by their keys up to so many, all of them beyond.
_MOST_KEYS = 200

T = TypeVar("T")


@dataclass(frozen=True)
class ServiceProbeProgress:
    """How far probing is: probes that were due, those done, attempts stored and in flight, and seconds."""

    due: int
    done: int
    stored: int
    in_flight: int
    elapsed_s: float


@dataclass
class ServiceProbeReport:
    """What came of probing: of the ``due`` probes ``done`` were asked, in so many stored ``attempts``.

    ``faults`` counts these by fault. By supplier: ``problems`` are why it cannot be asked, ``held`` who else
    is relaying to it or to its host, ``put_off`` why not all was asked of it now. ``departed`` left the
    roster. ``interrupted``: it was told to stop before the end.
    """

    due: int = 0
    done: int = 0
    attempts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    put_off: dict[str, str] = field(default_factory=dict)
    departed: list[str] = field(default_factory=list)
    interrupted: bool = False
    seconds: float = 0.0

    @property
    def answered(self) -> int:
        """Attempts that brought an answer."""
        return sum(n for fault, n in self.faults.items() if Fault(fault).answered)


def probe_services(
    workspace: Workspace,
    due: Sequence[DueProbe],
    *,
    quota: Quota | None = None,
    money: MoneyQuota | None = None,
    pacing: Pacing | None = None,
    stop: threading.Event | None = None,
    on_progress: Callable[[ServiceProbeProgress], None] | None = None,
) -> ServiceProbeReport:
    """Ask suppliers the workloads that are due, and store each attempt as a :class:`ServiceProbeRecord`.

    The workloads of a supplier are asked in the order given. Once one ends in a fault that others would end
    in too (a rate limit, a key that is refused), the rest is put off. What a supplier refuses of a stream is
    asked once more without: first ``stream_options``, then ``stream``; that is remembered for this call.

    Args:
        workspace: the installation; its heartbeat, if it has one, is what the leases live by.
        due: what to ask; suppliers that are unknown, have left or are held by others are reported.
        quota: how many relays may be sent, refused tries included; None for as many as that takes. It stays
            open.
        money: the budget of money, which stays open, too; None for as much as that takes.
        pacing: the paces of suppliers; None for those of the store.
        stop: ends the call within about a second once it is set; None for that of the workspace.
        on_progress: called a few times a second.

    Raises:
        StoreError: the store failed, or this process lost its heartbeat; what was answered is stored.
        ValueError: a workload is unknown.
    """
    for probe in due:
        if probe.workload not in WORKLOADS:
            raise ValueError(f"{probe.workload!r} is no workload; use some of {', '.join(WORKLOADS)}")
    began, documents = time.monotonic(), workspace.documents
    report = ServiceProbeReport(due=len(due))
    with (
        beating(documents, workspace.heartbeat) as heartbeat,
        SupplierLeases(documents, heartbeat, brief=True) as leases,
    ):
        targets = Targets(workspace, (probe.supplier for probe in due))
        transports = transports_to(workspace, targets.endpoints)
        targets.keep_reachable(transports)
        report.problems, report.departed = targets.problems, targets.departed
        paces = Pacing.over(documents) if pacing is None else pacing
        try:
            hosts = _hosts(workspace, targets, due)
            store = _Store(workspace, heartbeat, leases)

            async def main() -> None:
                from testbench_dagster.transports.http import HttpClient  # with aiohttp: 0.2 s

                opened = PacedTransport(transports.open(), paces)
                http = HttpClient()
                try:
                    bounded = transports.quota(FixedQuota({}) if quota is None else quota)
                    run = _Run(workspace, hosts, opened, http, bounded, money, store, report, on_progress)
                    await run.execute(workspace.stop if stop is None else stop)
                finally:
                    await http.close()
                    await opened.close()

            try:
                run_to_end(main)
            finally:
                store.close()
        finally:
            if pacing is None:
                paces.close()
        report.seconds = time.monotonic() - began
        if heartbeat.lost or not heartbeat.alive:
            raise StoreError(
                "this process lost its heartbeat (it was stopped, or cut off from the store) and may not "
                "probe any more; what was answered is stored, the rest stays due"
            )
    return report


# ------------------------------------------------------------------------------------------ who is asked


@dataclass
class _Host:
    """Suppliers of one host, with what they are asked; ``others`` are its further suppliers, by key."""

    name: str
    asked: list[tuple[Target, list[Workload]]] = field(default_factory=list)
    others: set[str] = field(default_factory=set)


def _hosts(workspace: Workspace, targets: Targets, due: Iterable[DueProbe]) -> list[_Host]:
    """The suppliers by host, the hosts with most to do first."""
    workloads: defaultdict[str, list[Workload]] = defaultdict(list)
    for probe in due:
        workloads[probe.supplier].append(WORKLOADS[probe.workload])
    hosts: dict[str, _Host] = {}
    for target in targets:
        name = _host_of(target.endpoint)
        hosts.setdefault(name, _Host(name)).asked.append((target, workloads[target.key]))
    asked = {target.key for target in targets}
    for supplier in active_suppliers(workspace):
        if supplier.key not in asked and (found := hosts.get(_host_of_supplier(workspace, supplier))):
            found.others.add(supplier.key)
    for host in hosts.values():
        host.others.update(target.key for target, _ in host.asked)
    return sorted(hosts.values(), key=lambda host: -sum(len(some) for _, some in host.asked))


def _host_of(endpoint: Endpoint) -> str:
    return endpoint.host or host_of(endpoint.base_url)


def _host_of_supplier(workspace: Workspace, supplier: Supplier) -> str:
    try:
        return _host_of(supplier_endpoint(workspace.config, supplier))
    except ConfigError:  # it cannot be asked by us, but perhaps by a process that has its key
        return supplier.host or host_of(supplier.base_url)


# ------------------------------------------------------------------------------------------ the store


class _Store:
    """What a run asks of the store: in one thread, so that no answer waits for a disk."""

    def __init__(self, workspace: Workspace, heartbeat: Heartbeat, leases: SupplierLeases) -> None:
        self._documents = workspace.documents
        self._heartbeat = heartbeat
        self._leases = leases
        self._thread = ThreadPoolExecutor(1, "testbench-probes")

    @property
    def alive(self) -> bool:
        """Whether this process may still act on suppliers."""
        return self._heartbeat.alive

    async def do(self, call: Callable[..., T], *args: Any) -> T:
        """Call something in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *args))

    def take(self, key: str, host: _Host) -> str | None:
        """Take the lease of a supplier; why that cannot be, where others relay to it or beside it."""
        refused = self._leases.acquire([key]).refused
        if refused:
            return refused[key]
        if others := self.beside(host):
            self._leases.release([key])
            return f"another process relays to {others[0]}, which shares its host {host.name}"
        return None

    def give_back(self, key: str) -> None:
        """Give the lease of a supplier back."""
        self._leases.release([key])

    def beside(self, host: _Host) -> list[str]:
        """Suppliers of a host that other living processes hold."""
        where = {"_id": {"in": sorted(host.others)}} if len(host.others) <= _MOST_KEYS else None
        held = {
            lease.id: lease.holder
            for lease in typed.find(self._documents, LeaseRecord, where)
            if lease.id in host.others and lease.holder not in (None, self._heartbeat.holder)
        }
        if not held:
            return []
        beats = heartbeats(self._documents, {holder for holder in held.values() if holder})
        return sorted(key for key, holder in held.items() if holder in beats and not is_gone(beats[holder]))

    def put(self, record: ServiceProbeRecord, host: _Host) -> None:
        """Store an attempt; where others may have sent to its host meanwhile, it says so."""
        beside = len(self.beside(host))
        if not self.alive and self._leases.verify([record.supplier]):
            beside = max(beside, 1)
        if beside:
            record = replace(record, own_in_flight=record.own_in_flight + beside)
        typed.put_new(self._documents, ServiceProbeRecord, [record])

    def counted(self, supplier: str) -> list[Counted]:
        """How a supplier counted the prompts of its newest probes that were answered."""
        where = {"supplier": supplier, "fault": {"in": [fault.value for fault in Fault if fault.answered]}}
        found = typed.find(
            self._documents, CountedPrompt, where, sort=[("finished_at", -1)], limit=_LOOKED_AT
        )
        return [Counted(one.sent_tokens, one.prompt_tokens) for one in found]

    def close(self) -> None:
        """See what was begun to its end."""
        self._thread.shutdown()


# ------------------------------------------------------------------------------------------ the run


class _Run:
    """One call of :func:`probe_services`, in its event loop."""

    def __init__(
        self,
        workspace: Workspace,
        hosts: Sequence[_Host],
        opened: PacedTransport,
        http: HttpClient,
        quota: Quota,
        money: MoneyQuota | None,
        store: _Store,
        report: ServiceProbeReport,
        on_progress: Callable[[ServiceProbeProgress], None] | None,
    ) -> None:
        self._workspace = workspace
        self._hosts = deque(hosts)
        self._opened = opened
        self._http = http
        self._quota = quota
        self._money = money
        self._store = store
        self._report = report
        self._on_progress = on_progress
        self._answer_tokens = workspace.config.settings.service_probes.answer_tokens
        self._stopping = False
        self._in_flight = 0
        self._began = time.monotonic()

    async def execute(self, stop: threading.Event | None) -> None:
        """Ask all that is due, until it is done or told to stop."""
        workers = {asyncio.create_task(self._work()) for _ in range(min(HOSTS_AT_ONCE, len(self._hosts)))}
        told_at, next_at = 0.0, 0.0
        try:
            while workers:
                done, workers = await asyncio.wait(
                    workers, timeout=_POLL_S, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
                now = time.monotonic()
                if not self._stopping and stop is not None and stop.is_set():
                    self._stopping = self._report.interrupted = True
                    told_at = now
                if not self._store.alive:
                    self._stopping = True
                if told_at and now - told_at >= STOP_GRACE_S:
                    break
                if now >= next_at:
                    next_at = now + _PROGRESS_S
                    self._progress()
        finally:
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        self._progress()

    async def _work(self) -> None:
        """Ask one host after the other."""
        while self._hosts and not self._stopping:
            host = self._hosts.popleft()
            for target, workloads in host.asked:
                if self._stopping:
                    return
                held = await self._store.do(self._store.take, target.key, host)
                if held is not None:
                    self._report.held[target.key] = held
                    continue
                asking = _Asking(self._workspace, target, host)
                for place, workload in enumerate(workloads):
                    why = await self._probe(asking, workload)
                    if why is not None and (place + 1 < len(workloads) or not asking.sent):
                        self._report.put_off[target.key] = why
                    if why is not None or self._stopping:
                        break
                await self._store.do(self._store.give_back, target.key)

    def _progress(self) -> None:
        if self._on_progress is not None:
            report = self._report
            self._on_progress(
                ServiceProbeProgress(
                    report.due,
                    report.done,
                    report.attempts,
                    self._in_flight,
                    time.monotonic() - self._began,
                )
            )

    # -- one probe -------------------------------------------------------------------------------------

    async def _probe(self, asking: _Asking, workload: Workload) -> str | None:
        """Ask a workload, without what is refused of the stream if need be; why no more may be asked now."""
        claim, rate = None, None
        if workload.prompt_tokens is None:
            claim = await self._claim(asking)
            if claim is None:
                await self._keep(asking, _unclaimed(asking, workload))
                self._report.done += 1
                return None
            rate = tokens_per_estimate(await self._store.do(self._store.counted, asking.key))
        asking.sent = stale = False
        while True:
            # a prompt as long as a context takes a while to make, in which others' answers would wait
            prompt = await asyncio.to_thread(_prompt, asking, workload, claim, rate, self._answer_tokens)
            if (why := await self._may_send(asking.endpoint)) is not None:
                return why
            watch = StreamWatch(asking.stream, asking.usage)
            relay = probe_relay(asking.endpoint, prompt.request(asking.endpoint.api))
            self._in_flight += 1
            try:
                watched = replace(relay, watch=watch)
                attempt = await send_paid(self._money, self._opened, asking.endpoint, watched)
            except PacedOut as paced:
                self._quota.refund(asking.endpoint)
                return str(paced)
            finally:
                self._in_flight -= 1
            if attempt is None:
                self._quota.refund(asking.endpoint)
                return "the budget of money does not reach to it"
            if _went_stale(attempt, watch) and not stale:
                stale = True
                self._quota.refund(asking.endpoint)
                continue
            asking.sent = True
            refused = _refused_option(attempt, watch)
            if refused is not None:
                attempt.fault = Fault.CLIENT_REQUEST  # we need not have asked for it
            record = _record(asking, workload, prompt, attempt, watch, claim, rate)
            await self._keep(asking, record)
            if refused is None:
                break
            asking.leave_out(refused)
        self._report.done += 1
        return _ends_turn(attempt)

    async def _keep(self, asking: _Asking, record: ServiceProbeRecord) -> None:
        await self._store.do(self._store.put, record, asking.host)
        self._report.attempts += 1
        self._report.faults[record.fault] += 1

    async def _may_send(self, endpoint: Endpoint) -> str | None:
        """Spend one relay of the budget; why that cannot be."""
        while (decision := self._quota.take(endpoint)) is QuotaDecision.UNKNOWN:
            await self._store.do(self._quota.refill, endpoint)
        return "the budget is used up" if decision is QuotaDecision.REFUSED else None

    async def _claim(self, asking: _Asking) -> Claim | None:
        """How long a context it has: what the operator says goes before what it lists."""
        from testbench_dagster.transports.models import claimed_context  # with aiohttp: 0.2 s

        told = asking_of(self._workspace.config, asking.target.supplier).context_tokens
        if told is not None:
            return Claim(told, listed=False)
        if not transport(asking.endpoint.transport).lists_models(asking.endpoint):
            return None
        try:
            await self._opened.turn(asking.endpoint)
        except PacedOut:
            return None
        listed = await claimed_context(self._http, asking.endpoint)
        return None if listed is None else Claim(listed, listed=True)


class _Asking:
    """How one supplier is asked in this run: without what it was seen to refuse of a stream.

    It is sent no stop strings: some servers refuse an empty list of them, and there is nothing to stop at.
    Less is read of it than of other answers: reading a long stream of nothing delays what others say.
    """

    def __init__(self, workspace: Workspace, target: Target, host: _Host) -> None:
        endpoint = target.endpoint
        tokens = workspace.config.settings.service_probes.answer_tokens + endpoint.generation.budget
        most_mb = min(endpoint.limits.max_response_mb, _LEAST_MB + tokens * _BYTES_OF_EVENT / 2**20)
        self.target = target
        self.host = host
        self.endpoint = replace(
            endpoint,
            generation=replace(endpoint.generation, stop="client"),
            limits=replace(endpoint.limits, max_response_mb=most_mb),
        )
        self.usage = self.stream = True
        self.sent = False

    @property
    def key(self) -> str:
        """Of the supplier."""
        return self.target.key

    @property
    def left_out(self) -> list[str]:
        """Options that are not asked for any more."""
        return [
            *([] if self.usage or not self.stream else [STREAM_OPTIONS]),
            *([] if self.stream else [STREAM]),
        ]

    def leave_out(self, option: str) -> None:
        """Ask without an option from now on."""
        if option == STREAM:
            self.stream = False
        else:
            self.usage = False


def _prompt(
    asking: _Asking, workload: Workload, claim: Claim | None, rate: float | None, answer_tokens: int
) -> Prompt:
    rng = Random(secrets.randbits(128))  # noqa: S311  nobody could know it before
    if claim is not None:
        return hiding_prompt(prompt_tokens(claim, rate, asking.endpoint.generation.budget), rng)
    return long_prompt(workload.prompt_tokens or 0, answer_tokens, rng)


def _refused_option(attempt: Attempt, watch: StreamWatch) -> str | None:
    """Which option of the stream an attempt was refused for; None where it was not."""
    if not watch.stream or watch.events:
        return None
    named = refused_parameters(attempt, [*([*_USAGE] if watch.usage else []), STREAM])
    if not named:
        return None
    return STREAM if named == [STREAM] else STREAM_OPTIONS


def _went_stale(attempt: Attempt, watch: StreamWatch) -> bool:
    """Whether a connection that was used again had been closed by then, as servers do after a while.

    That says nothing of the supplier: on a new connection it is asked once more.
    """
    unanswered = attempt.fault is Fault.TRANSPORT and attempt.status is None
    return unanswered and watch.connection_reused is True


def _ends_turn(attempt: Attempt) -> str | None:
    """Why a supplier is asked nothing more now; None where the next workload may fare otherwise."""
    row = attempt.fault.row
    if row.paces or row.pause in (Pause.PROBE, Pause.STOP) or row.kept_by_session:
        return f"{attempt.fault.value}: {attempt.error}" if attempt.error else attempt.fault.value
    return None


def _record(
    asking: _Asking,
    workload: Workload,
    prompt: Prompt,
    attempt: Attempt,
    watch: StreamWatch,
    claim: Claim | None,
    rate: float | None,
) -> ServiceProbeRecord:
    """What is stored of an attempt."""
    fault, error, found = attempt.fault, attempt.error, None
    if claim is not None:
        verdict = context_verdict(attempt, prompt, claim, rate)
        fault, error, found = verdict.fault, verdict.error, verdict.found
    generation = asking.endpoint.generation
    limit = None if generation.token_field == "omit" else prompt.answer_tokens + generation.budget  # noqa: S105
    tokens = answer_tokens(attempt, watch, limit)
    streamed = watch.stream and watch.events > 0
    text = attempt.text if attempt.text is not None else watch.text
    text = None if text is None else text.encode("utf-8", "replace").decode()
    evidence = {name: value for name, value in attempt.evidence.items() if name not in _OF_BODIES}
    evidence |= _seen(attempt, watch, claim, tokens.disbelieved)
    return ServiceProbeRecord(
        id=secrets.token_hex(16),
        supplier=asking.key,
        service=asking.endpoint.service,
        workload=workload.name,
        fault=fault.value,
        owner=fault.owner.value,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        streamed=streamed,
        # a gateway that asks twice has two in flight
        own_in_flight=2 if attempt.evidence.get("hedged") else 1,
        first_token_ms=watch.first_token_ms,
        first_answer_ms=watch.first_answer_ms,
        ended_ms=attempt.latency_ms,
        completion_tokens=tokens.completion,
        tokens_source=tokens.source,
        tokens_after_first=tokens.after_first,
        found=found,
        status=attempt.status,
        connect_ms=watch.connect_ms,
        connection_reused=watch.connection_reused,
        first_event_ms=watch.first_event_ms,
        last_token_ms=watch.last_token_ms,
        events=watch.events if streamed else None,
        prompt_tokens=attempt.prompt_tokens,
        sent_tokens=prompt.tokens,
        reasoning_tokens=attempt.reasoning_tokens,
        cached_tokens=cached_tokens(watch.told_usage or _plain_usage(attempt.body)),
        left_out=asking.left_out,
        finish_reason=attempt.finish_reason,
        text=None if text is None else text[:MAX_TEXT],
        text_sha256=None if text is None else sha256(text.encode()).hexdigest(),
        error=None if error is None else escaped(error),
        evidence=evidence,
    )


def _unclaimed(asking: _Asking, workload: Workload) -> ServiceProbeRecord:
    """What is stored of a supplier whose context nobody knows: that there was nothing to ask."""
    now = datetime.now(UTC)
    fault = Fault.CLIENT_REQUEST
    why = (
        "nothing was sent: it lists no context length; write it as context_tokens beside its model in "
        "testbench.yaml"
    )
    attempt = Attempt(fault, now, now, 0.0, error=why)
    return _record(asking, workload, Prompt("", 0), attempt, StreamWatch(), None, None)


def _seen(
    attempt: Attempt, watch: StreamWatch, claim: Claim | None, disbelieved: int | None
) -> dict[str, Any]:
    """What else there is to tell, under names of our own."""
    found: dict[str, Any] = {}
    if watch.arrivals:
        found |= {
            "arrivals": watch.arrivals,
            "first_bytes": watch.first_bytes,
            "shown_bytes": watch.shown_bytes,
            "thought_bytes": watch.thought_bytes,
        }
    if disbelieved is not None:
        found["disbelieved_tokens"] = disbelieved
    if claim is not None:
        found["context"] = {"tokens": claim.tokens, "source": "listed" if claim.listed else "configured"}
    if attempt.session is not None:
        found["session"] = {"app": attempt.session.app, "id": attempt.session.session_id}
    return found


def _plain_usage(body: bytes) -> Mapping[str, Any] | None:
    """What an answer that is no stream says of its tokens."""
    if not body.lstrip().startswith(b"{"):
        return None
    try:
        data = read_json(body)
    except Unreadable:
        return None
    usage = data.get("usage") if isinstance(data, dict) else None
    return usage if isinstance(usage, dict) else None
