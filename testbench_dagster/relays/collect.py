"""The relay stage: plan what is due per supplier and task, relay it, store every attempt.

Idempotent: what has a stored, settled answer is not asked again, so a killed run is continued by starting it
again. One bad supplier never fails the stage; its problem is reported. Each supplier is relayed to by one
process at a time (a lease), within budgets that no crash and no second process can exceed (a ledger).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.coordination.heartbeats import Heart
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.coordination.writing import FactWriter, writing_facts
from testbench_dagster.errors import ConfigError, StoreError
from testbench_dagster.network.endpoints import supplier_endpoint
from testbench_dagster.network.reach import Reach
from testbench_dagster.network.roster import Supplier, known_suppliers, remember_echo_logprobs
from testbench_dagster.planning.due import DuePrompt, TaskPlan
from testbench_dagster.planning.kept import note_progress
from testbench_dagster.planning.planner import Planner
from testbench_dagster.planning.remaining import attempts_since
from testbench_dagster.planning.supplier import SupplierPlan
from testbench_dagster.relays.allowances import Allowance, LedgerAllowance
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.messages import Attempt, Endpoint, Relay
from testbench_dagster.relays.probe import ECHO_REQUEST, echo_verdict, probe_relay
from testbench_dagster.relays.report import Counts, Progress, Report
from testbench_dagster.relays.writer import AttemptWriter, Fence
from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster.stores.registrations import Registration
from testbench_dagster.tasks.records import ANY_API
from testbench_dagster.tasks.specs import TaskSpec
from testbench_dagster.workspace import Workspace

_FETCH = 64  # prompts read at a time: the engine pulls lazily, so memory does not grow with the queue
#: That sessions stood in the way says nothing about a supplier that is sent signed relays. Of one behind a
#: gateway it may mean that the gateway never has it in a session: that one is asked ever more rarely.
_OF_SESSIONS = {Fault.BUDGET, Fault.ROLLOVER}
_PROBE_AGAIN = timedelta(days=1)  # after a supplier was found unable to echo log-probabilities


@dataclass(frozen=True)
class PlannedTask:
    """A plan with what it is for."""

    supplier: str
    spec: TaskSpec
    registration: Registration
    epoch: int
    plan: TaskPlan


@dataclass
class CollectReport:
    """Outcome of the stage: the engine's report, the plans, and problems by supplier key.

    ``refused`` are suppliers that another living process is relaying to, with who that is; ``departed`` are
    those that left the roster.
    """

    relays: Report | None
    planned: list[PlannedTask] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    departed: list[str] = field(default_factory=list)

    @property
    def n_due(self) -> int:
        """Calls that were due when the stage began."""
        return sum(p.plan.n_calls for p in self.planned)


def collect(
    workspace: Workspace,
    suppliers: Sequence[str],
    *,
    tasks: Sequence[str] | None = None,
    max_relays: int | None = None,
    retry_errors: bool = False,
    force_since: datetime | None = None,
    lease_wait_s: float = 0.0,
    on_progress: Callable[[Progress], None] | None = None,
    on_planned: Callable[[int], None] | None = None,
) -> CollectReport:
    """Relay what is due for the given supplier keys and store the attempts.

    Args:
        workspace: the installation; its heart, if it has one, is what the leases live by.
        suppliers: partition keys; one that is not known or has left is reported as a problem.
        tasks: names of tasks or groups; None for all.
        max_relays: hard cap on attempts in this call, retries included.
        retry_errors: ask docs again that ended in the supplier's fault.
        force_since: ask everything again that was not answered at or after this instant, fresh or not.
        lease_wait_s: how long to wait for suppliers whose last process may have died on another machine.
        on_progress: called a few times a second while relaying.
        on_planned: called once with the number of due calls.

    Raises:
        StoreError: the store failed, or this process lost its heart (it was stopped or cut off for so long
            that others may have taken over); what was answered until then is stored.
    """
    heart = workspace.heart
    with (
        nullcontext(heart)
        if heart
        else Heart(workspace.documents, f"process-{secrets.token_hex(8)}") as beating,
        SupplierLeases(workspace.documents, beating) as leases,
    ):
        stage = _Stage(workspace, beating, leases, lease_wait_s)
        return stage.run(suppliers, tasks, max_relays, retry_errors, force_since, on_progress, on_planned)


class _Stage:
    """One call of :func:`collect`, with the heart and the leases it works under."""

    def __init__(
        self, workspace: Workspace, heart: Heart, leases: SupplierLeases, lease_wait_s: float
    ) -> None:
        self._workspace = workspace
        self._heart = heart
        self._leases = leases
        self._lease_wait_s = lease_wait_s
        self._report = CollectReport(None)
        self._unreachable: dict[str, str] = {}  # problems that asking again soon will not end

    def run(
        self,
        suppliers: Sequence[str],
        tasks: Sequence[str] | None,
        max_relays: int | None,
        retry_errors: bool,
        force_since: datetime | None,
        on_progress: Callable[[Progress], None] | None,
        on_planned: Callable[[int], None] | None,
    ) -> CollectReport:
        from testbench_dagster.relays.engine import run_relays  # aiohttp: 0.2 s no code location need pay

        workspace, report = self._workspace, self._report
        reachable = self._reachable(suppliers)
        acquired = self._leases.acquire([s.key for s, _ in reachable], wait_s=self._lease_wait_s)
        report.refused = dict(acquired.refused)
        reachable = [(s, target) for s, target in reachable if s.key in acquired.held]
        reach = Reach.of(workspace, [target for _, target in reachable])
        reachable = self._within_reach(reachable, reach)
        allowance = self._allowance()
        try:
            bounded = reach.within(allowance)
            planner = Planner(workspace, tasks=tasks)
            if max_relays != 0:
                reachable = self._with_capabilities(reachable, planner, reach, bounded)
            shared = planner.shared_plans(
                [s for s, _ in reachable], retry_errors=retry_errors, force_since=force_since
            )
            allowance.limit(shared.quotas)
            lanes = [
                (target, lots)
                for supplier, target in reachable
                if (lots := self._lots(planner, shared.plans[supplier.key]))
            ]
            if on_planned is not None:
                on_planned(report.n_due)
            prompts = _Prompts(workspace)
            heights = {s.service: planner.height(s.service) for s, _ in reachable}
            with (
                writing_facts(workspace.documents, self._heart) as facts,
                AttemptWriter(
                    workspace.documents, fence=self._fence(acquired.held, facts), heights=heights
                ) as writer,
            ):
                if max_relays != 0:
                    facts.enter({target.supplier: [lot.spec.name for lot in lots] for target, lots in lanes})
                report.relays = run_relays(
                    [(target, _relays(target, lots, prompts)) for target, lots in lanes],
                    writer.add,
                    open_transport=reach.open,
                    max_in_flight=workspace.config.settings.relays.max_in_flight,
                    allowance=bounded,
                    max_relays=max_relays,
                    heart=self._heart,
                    on_progress=on_progress,
                )
        finally:
            allowance.close()
        spent = reach.spent(target for _, target in reachable)
        blameless = self._not_asked(target.supplier for target, _ in lanes if target.transport == "shannon")
        # a cap of this call is no reason to wait with the next one
        put_off = blameless - spent.keys() if max_relays is None else set()
        self._note_progress([s for s, _ in reachable if s.key not in blameless], spent, put_off)
        if report.relays.lost:
            raise StoreError(
                "this process lost its heartbeat (it was stopped, or cut off from the store) and may not "
                "relay any more; what was answered is stored, the rest stays due"
            )
        return report

    def _reachable(self, keys: Sequence[str]) -> list[tuple[Supplier, Endpoint]]:
        known = {s.key: s for s in known_suppliers(self._workspace)}
        reachable = []
        for key in dict.fromkeys(keys):
            supplier = known.get(key)
            if supplier is None:
                self._report.problems[key] = "is not on the roster: materialize suppliers, or correct the key"
            elif supplier.left_at is not None:
                self._report.departed.append(key)
            else:
                try:
                    reachable.append((supplier, supplier_endpoint(self._workspace.config, supplier)))
                except ConfigError as error:
                    self._report.problems[key] = self._unreachable[key] = str(error)
        return reachable

    def _within_reach(
        self, reachable: Sequence[tuple[Supplier, Endpoint]], reach: Reach
    ) -> list[tuple[Supplier, Endpoint]]:
        """Leave out those whose service cannot be relayed to; say so where no node could be asked."""
        left = []
        for supplier, target in reachable:
            problem = reach.problems.get(supplier.service) if target.transport == "shannon" else None
            if problem is None:
                left.append((supplier, target))
            else:
                self._report.problems[supplier.key] = self._unreachable[supplier.key] = problem
        for service, problem in reach.unread.items():
            self._report.problems[f"service:{service}"] = f"its sessions could not be read: {problem}"
        return left

    def _fence(self, tokens: Mapping[str, int], facts: FactWriter) -> Fence:
        def verify(keys: Iterable[str]) -> set[str]:
            """Called right before a write, once the heart has stopped."""
            asked = set(keys)
            facts.check(asked)
            return self._leases.verify(asked)

        return Fence(tokens, self._heart, verify)

    def _allowance(self) -> LedgerAllowance:
        budget = self._workspace.config.settings.budget

        def opening(where: Mapping[str, Any], start: datetime) -> int:
            return attempts_since(self._workspace, where, start)

        return LedgerAllowance(
            BudgetLedger(self._workspace.documents),
            budget.of_service,
            supplier_hour_cap=budget.relays_per_supplier_hour,
            opening=opening,
        )

    def _with_capabilities(
        self,
        reachable: Sequence[tuple[Supplier, Endpoint]],
        planner: Planner,
        reach: Reach,
        allowance: Allowance,
    ) -> list[tuple[Supplier, Endpoint]]:
        """Ask suppliers whether they echo log-probabilities, where a task needs it and it is not known."""
        never_need_it = ANY_API | {"loglikelihood_rolling"}
        needed = [planner.registrations[s.name] for s in planner.specs if s.name in planner.registrations]
        if all(r.flags["output_type"] in never_need_it for r in needed):
            return list(reachable)
        due = [
            target
            for supplier, target in reachable
            if supplier.api == "completions"
            and not _echo_is_known(supplier)
            and not allowance.refused(target)
        ]
        found = probe_echo_logprobs(self._workspace, due, reach, allowance)
        return [
            (replace(supplier, echo_logprobs=found.get(supplier.key, supplier.echo_logprobs)), target)
            for supplier, target in reachable
        ]

    def _lots(self, planner: Planner, plan: SupplierPlan) -> list[PlannedTask]:
        """What to relay to one supplier; notes what stands in the way of the rest."""
        lots = []
        for spec in planner.specs:
            decision = plan.tasks[spec.name]
            if decision.plan.due:
                registration = planner.registrations[spec.name]
                lots.append(
                    PlannedTask(plan.supplier, spec, registration, planner.epoch(spec), decision.plan)
                )
            elif decision.state == "unsupported":
                self._report.unsupported.setdefault(plan.supplier, []).append(spec.name)
            elif decision.state == "no_prompts":
                self._report.problems[plan.supplier] = f"task {spec.name}: {decision.reason}"
        self._report.planned += lots
        return lots

    def _relayed(self) -> Report:
        """What became of the relays; only known once they are through."""
        if self._report.relays is None:
            raise RuntimeError("no relay was made yet")
        return self._report.relays

    def _not_asked(self, due: Iterable[str]) -> set[str]:
        """Of suppliers that were due, those that no session allowed a relay to: no node answers, say."""
        counts = self._relayed().suppliers
        return {key for key in due if not counts[key].settled and counts[key].faults.keys() <= _OF_SESSIONS}

    def _note_progress(
        self, suppliers: Sequence[Supplier], spent: Mapping[str, int], put_off: Collection[str]
    ) -> None:
        """Who answered, who was due and settled nothing although it was asked, who could not be asked."""
        counts = self._relayed().suppliers
        reached = [s.key for s in suppliers if s.key in counts and counts[s.key].settled]
        of_pages = self._asked_for_pages_only()
        failed = {
            s.key: _what_failed(counts[s.key])
            for s in suppliers
            if s.key in counts
            and counts[s.key].sent
            and not counts[s.key].settled
            # that it serves no such page says nothing about how it is
            and not (s.key in of_pages and counts[s.key].faults.keys() == {Fault.CLIENT_REQUEST})
        }
        note_progress(self._workspace, reached, {**failed, **self._unreachable}, spent, put_off)

    def _asked_for_pages_only(self) -> set[str]:
        """Suppliers none of whose due tasks asks for text."""
        by_supplier: dict[str, set[str]] = {}
        for lot in self._report.planned:
            kinds = by_supplier.setdefault(lot.supplier, set())
            kinds.add(lot.registration.flags["output_type"])
        return {supplier for supplier, kinds in by_supplier.items() if kinds == {"get"}}


def _what_failed(counts: Counts) -> str:
    faults = ", ".join(f"{fault.value} x {n}" for fault, n in counts.faults.most_common(3))
    return f"none of {counts.sent} relays was settled ({faults})"


def _echo_is_known(supplier: Supplier) -> bool:
    """Whether what a probe found still holds: a yes for good, a no for a day."""
    if supplier.echo_logprobs is None:
        return False
    return supplier.echo_logprobs or (
        supplier.probed_at is not None and datetime.now(UTC) - supplier.probed_at <= _PROBE_AGAIN
    )


def probe_echo_logprobs(
    workspace: Workspace,
    targets: Sequence[Endpoint],
    reach: Reach,
    allowance: Allowance | None = None,
) -> dict[str, bool]:
    """Ask suppliers for echoed log-probabilities, all at once; remember and return which can.

    Those where the network, not the supplier, stood in the way are left out, and nothing is remembered. The
    attempts are kept like all others, under a task of their own.
    """
    if not targets:
        return {}
    from testbench_dagster.relays.engine import run_relays

    faults: dict[str, Fault] = {}
    with AttemptWriter(workspace.documents) as writer:

        def note(relay: Relay, number: int, attempt: Attempt) -> Awaitable[None] | None:
            faults[relay.supplier] = attempt.fault
            return writer.add(relay, number, attempt)

        run_relays(
            [(target, [probe_relay(target, ECHO_REQUEST)]) for target in targets],
            note,
            open_transport=reach.open,
            allowance=allowance,
        )
    found = {key: v for key, fault in faults.items() if (v := echo_verdict(fault)) is not None}
    for key, supported in found.items():
        remember_echo_logprobs(workspace, key, supported)
    return found


# --------------------------------------------------------------------------------------------------- relaying


class _Prompts:
    """Prompt documents by id, fetched in small lots and shared by the suppliers of a run."""

    def __init__(self, workspace: Workspace, keep: int = 4096) -> None:
        self._documents = workspace.documents
        self._keep = keep
        self._known: dict[str, Document] = {}

    def get(self, ids: Sequence[str]) -> Mapping[str, Document]:
        """Return the requests of the prompts with these ids."""
        missing = [i for i in ids if i not in self._known]
        fetched = (
            {p["_id"]: p for p in self._documents.find(PROMPTS, {"_id": {"in": missing}})} if missing else {}
        )
        found = {i: fetched.get(i) or self._known[i] for i in ids}
        self._known.update(fetched)
        while len(self._known) > self._keep:
            self._known.pop(next(iter(self._known)))
        return found


def _relays(target: Endpoint, plans: Sequence[PlannedTask], prompts: _Prompts) -> Iterator[Relay]:
    """Yield the due relays of one supplier, the tasks in turn, so that a cap leaves no task without any."""
    queues: list[Iterator[Relay]] = [_task_relays(target, planned, prompts) for planned in plans]
    while queues:
        still: list[Iterator[Relay]] = []
        for queue in queues:
            relay = next(queue, None)
            if relay is not None:
                yield relay
                still.append(queue)
        queues = still


def _task_relays(target: Endpoint, planned: PlannedTask, prompts: _Prompts) -> Iterator[Relay]:
    due: list[DuePrompt] = planned.plan.due
    for start in range(0, len(due), _FETCH):
        lot = due[start : start + _FETCH]
        bodies = prompts.get([d.prompt.id for d in lot])
        for item in lot:
            requests: list[dict[str, Any]] = bodies[item.prompt.id]["requests"]
            for call in item.calls:
                yield Relay(
                    supplier=target.supplier,
                    service=target.service,
                    task=planned.spec.name,
                    task_hash=planned.registration.task_hash,
                    epoch=planned.epoch,
                    round=planned.plan.round,
                    prompt_id=item.prompt.id,
                    position=item.prompt.position,
                    doc_id=item.prompt.doc_id,
                    idx=call.idx,
                    repeat=call.repeat,
                    request=requests[call.idx],
                    attempt=call.attempt,
                )
