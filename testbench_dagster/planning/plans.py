"""The planning stage: reads the facts, has :mod:`.supplier` decide, and keeps the plans that sensors look at.

A kept plan is a view: when the supplier's next evaluation should begin and what it would ask. It is made at
the end of every evaluation, so that a sensor need not read five thousand suppliers' attempts to see who is
due; the evaluation itself always decides on the facts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from testbench_dagster.coordination.budgets import BudgetLedger, next_period, period_start
from testbench_dagster.network.roster import Supplier, active_suppliers
from testbench_dagster.planning.due import CallOutcome, PromptRef
from testbench_dagster.planning.gates import Ability
from testbench_dagster.planning.rules import TaxonomyGate
from testbench_dagster.planning.schedule import retry_delay
from testbench_dagster.planning.sessions import Sessions, spent_until
from testbench_dagster.planning.shares import fair_shares
from testbench_dagster.planning.supplier import SupplierFacts, SupplierPlan, TaskFacts, plan_supplier
from testbench_dagster.relays.allowances import service_account, supplier_account
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.outcomes import History, history
from testbench_dagster.scoring.measured import WindowState, window_state
from testbench_dagster.scoring.score import prompt_calls
from testbench_dagster.stores.datasets import Registration
from testbench_dagster.stores.documents import Document, Group, content_hash
from testbench_dagster.stores.documents.collections import (
    ATTEMPTS,
    IDENTITY_GROUPS,
    PLANS,
    PROMPTS,
    TAXONOMY_SUMMARIES,
)
from testbench_dagster.tasks.catalogue import catalogue_fingerprint, current_epoch, prompt_filter
from testbench_dagster.tasks.gates import task_groups
from testbench_dagster.tasks.records import ANY_API
from testbench_dagster.tasks.specs import TaskSpec
from testbench_dagster.tasks.unsupported import is_unsupported
from testbench_dagster.workspace import Workspace

#: A proxy that failed this many evaluations in a row no longer stands for its group.
PROXY_FAILURES = 3
#: How long a page that a supplier does not serve is not asked for again.
_ABSENT = timedelta(days=1)
_NOTHING_KNOWN = WindowState()


@dataclass(frozen=True)
class SharedPlans:
    """Plans within fair shares, by supplier key, with what they rest on; ``quotas`` are in calls."""

    facts: Mapping[str, SupplierFacts]
    plans: Mapping[str, SupplierPlan]
    quotas: Mapping[str, int]


class Planner:
    """Plans suppliers at one instant; what they share (sequences, epochs, heights) is read once.

    Args:
        workspace: the installation.
        tasks: names of tasks or groups to plan; None for all.
        now: the instant, timezone-aware; the present by default.
        with_windows: read every window, also where no rule needs it (to show interval widths).
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        tasks: Sequence[str] | None = None,
        now: datetime | None = None,
        with_windows: bool = False,
    ) -> None:
        self._workspace = workspace
        self._with_windows = with_windows
        self.now = now or datetime.now(UTC)
        self.specs = workspace.chosen_specs(tasks)
        self._chosen = frozenset(spec.name for spec in self.specs)
        self._gating = self._gating_tasks()
        self._epochs: dict[str, int] = {}
        self._sequences: dict[tuple[str, str], list[PromptRef]] = {}
        self._calls: dict[str, dict[str, int]] = {}

    @cached_property
    def registrations(self) -> dict[str, Registration]:
        """Current registrations of the tasks that have one."""
        known = ((s.name, self._workspace.datasets.current(s.name)) for s in self._workspace.specs)
        return {name: registration for name, registration in known if registration is not None}

    def epoch(self, spec: TaskSpec) -> int:
        """Number of a task's current epoch."""
        if spec.name not in self._epochs:
            self._epochs[spec.name] = current_epoch(self._workspace, spec).epoch
        return self._epochs[spec.name]

    def height(self, service: str) -> int | None:
        """Newest block height known of a service."""
        return self._sessions.height(service)

    def facts(self, supplier: Supplier) -> SupplierFacts:
        """Read everything a supplier's plan depends on."""
        needed = [s for s in self._workspace.specs if s.name in self._chosen or s.name in self._gating]
        return SupplierFacts(
            supplier=supplier.key,
            tasks={spec.name: self._task_facts(supplier, spec) for spec in needed},
            abilities=self._abilities(supplier.key),
            groups=self._groups,
            cut_at=supplier.cut_at,
            departed=supplier.left_at is not None,
            proxy=self._proxies.get(supplier.key),
            retry_at=self._retry_at(supplier.key),
            summary_max_age=timedelta(days=self._workspace.config.settings.sampling.max_age_days),
            waiting=self._sessions.waiting(supplier, spent_until(self._kept.get(supplier.key))),
            blocks_per_session=self._sessions.blocks_per_session(supplier.service),
        )

    def plan(
        self,
        supplier: Supplier,
        *,
        facts: SupplierFacts | None = None,
        max_calls: int | None = None,
        retry_errors: bool = False,
        force_since: datetime | None = None,
    ) -> SupplierPlan:
        """Plan one supplier; ``facts`` saves reading them again."""
        return plan_supplier(
            facts or self.facts(supplier),
            self._workspace.config.settings.planning,
            now=self.now,
            height=self.height(supplier.service),
            max_calls=max_calls,
            retry_errors=retry_errors,
            force_since=force_since,
            only=self._chosen,
        )

    def shared_plans(
        self, suppliers: Sequence[Supplier], *, budget: int | None = None, **options: Any
    ) -> SharedPlans:
        """Plan suppliers within their fair shares of a budget, by default of what the services' days leave.

        ``options`` are those of :meth:`plan`.
        """
        facts = {s.key: self.facts(s) for s in suppliers}
        plans = {s.key: self.plan(s, facts=facts[s.key], **options) for s in suppliers}
        if budget is None:
            quotas = self.quotas(plans, suppliers)
        else:
            quotas = fair_shares(budget, {key: plan.n_calls for key, plan in plans.items()})
        for supplier in suppliers:
            key = supplier.key
            quota = quotas.get(key)
            if quota is not None and quota < plans[key].n_calls:
                plans[key] = self.plan(supplier, facts=facts[key], max_calls=quota, **options)
        return SharedPlans(facts, plans, quotas)

    def quotas(self, plans: Mapping[str, SupplierPlan], suppliers: Sequence[Supplier]) -> dict[str, int]:
        """Share what is left of the services' daily budgets: calls per supplier, for capped services only.

        Every supplier of the service that is due takes part with what it would ask, not only the given ones,
        so that no batch of suppliers eats the share of the next. What each was asked today already counts
        (max-min fair over the day): one pass over the batches spends the budget, in whatever order.
        """
        quotas: dict[str, int] = {}
        for service in {s.service for s in suppliers}:
            left = budget_left(self._workspace, service, self.now)
            if left is None:
                continue
            own = {s.key: plans[s.key].n_calls for s in suppliers if s.service == service}
            shares = fair_shares(left, self._demands(service, own), self._asked_today(service))
            quotas |= {key: share for key, share in shares.items() if key in own}
        return quotas

    # -- what suppliers share ---------------------------------------------------------------------------

    def _gating_tasks(self) -> frozenset[str]:
        """Tasks that a gate of a chosen task looks at."""
        names = {
            gate.task for s in self.specs for gate in s.planning.gates if not isinstance(gate, TaxonomyGate)
        }
        return frozenset(leaf for name in names for leaf in self._groups.get(name, ()))

    @cached_property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        return task_groups(self._workspace.specs)

    @cached_property
    def _sessions(self) -> Sessions:
        return Sessions.read(self._workspace, self.now)

    @cached_property
    def _kept(self) -> dict[str, Document]:
        fields = [
            "_id", "service", "failures", "planned_at", "due_at", "due_calls", "put_off_until",
            "session_spent_until",
        ]  # fmt: skip
        return {d["_id"]: d for d in self._workspace.documents.find(PLANS, fields=fields)}

    @cached_property
    def _proxies(self) -> dict[str, str]:
        """Who stands for whom; a proxy that left or does not answer stands for nobody.

        Nor does one, and for nobody, whose model changed since the groups were made.
        """
        fields = ["_id", "proxy", "cut_at"]
        rows = {d["_id"]: d for d in self._workspace.documents.find(IDENTITY_GROUPS, fields=fields)}
        if not rows:
            return {}
        unchanged = {
            s.key
            for s in active_suppliers(self._workspace)
            if s.key in rows and rows[s.key]["cut_at"] == s.cut_at
        }
        living = {k for k in unchanged if self._kept.get(k, {}).get("failures", 0) < PROXY_FAILURES}
        return {k: p for k in unchanged if (p := rows[k]["proxy"]) != k and p in living}

    def _demands(self, service: str, own: Mapping[str, int]) -> dict[str, int]:
        """Calls that each due supplier of a service would make: kept plans, and fresh ones of ``own``.

        Those that no session lets be reached now take part once one does.
        """
        never_planned = max(own.values(), default=0)  # a newcomer wants about what the others want
        demands: dict[str, int] = {}
        for supplier in active_suppliers(self._workspace):
            if supplier.service != service:
                continue
            kept = self._kept.get(supplier.key)
            if self._sessions.waiting(supplier, spent_until(kept)) is not None:
                continue
            if kept is None:
                demands[supplier.key] = never_planned
            elif kept["due_at"] is not None and kept["due_at"] <= self.now:
                demands[supplier.key] = kept["due_calls"] or 0
        return {**demands, **own}

    def _asked_today(self, service: str) -> dict[str, int]:
        """Stored attempts of a service's UTC day by supplier; as many rows as its budget allows at most."""
        where = {"service": service, "finished_at": {"gte": period_start("day", self.now)}}
        rows = self._workspace.documents.group(ATTEMPTS, Group(by=["supplier"]), where)
        return {row["supplier"]: row["count"] for row in rows}

    # -- one supplier -----------------------------------------------------------------------------------

    def _retry_at(self, key: str) -> datetime | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        put_off: datetime | None = kept.get("put_off_until")
        if not kept["failures"]:
            return put_off
        delay = retry_delay(kept["failures"], self._workspace.config.settings.planning)
        retry_at: datetime = kept["planned_at"] + delay
        return retry_at if put_off is None else max(retry_at, put_off)

    def _abilities(self, key: str) -> dict[tuple[str, str | None], Ability]:
        wanted = {g.taxonomy for s in self.specs for g in s.planning.gates if isinstance(g, TaxonomyGate)}
        if not wanted:
            return {}
        where = {"supplier": key, "taxonomy": {"in": sorted(wanted)}}
        found: dict[tuple[str, str | None], Ability] = {}
        for summary in self._workspace.documents.find(TAXONOMY_SUMMARIES, where):
            for name, node in summary["nodes"].items():
                answered, failed = node["n"], node["errors"]
                ability = Ability(
                    score=node["score"],
                    success=answered / (answered + failed) if answered + failed else None,
                    min_samples=node["min_n"] if node["n_measured"] == node["n_tasks"] else 0,
                    summarized_at=summary["summarized_at"],
                )
                found[summary["taxonomy"], name] = ability
                if name == summary["root"]:
                    found[summary["taxonomy"], None] = ability
        return found

    def _task_facts(self, supplier: Supplier, spec: TaskSpec) -> TaskFacts:
        registration = self.registrations.get(spec.name)
        max_age = spec.max_age(self._workspace.config)
        if registration is None:
            return TaskFacts(spec.name, spec.planning, spec.samples, registered=False, max_age=max_age)
        if is_unsupported(supplier.api, registration, supplier.echo_logprobs):
            return TaskFacts(spec.name, spec.planning, spec.samples, supported=False, max_age=max_age)
        past = self._history(supplier, spec, registration, max_age)
        window = _NOTHING_KNOWN
        needs_width = spec.samples is not None and spec.samples.half_width is not None
        if needs_width or self._with_windows or spec.name in self._gating:
            window = window_state(self._workspace, supplier, spec, registration, self.now)
        # probes are other questions in every epoch: answers to the last one's leave nothing out of this one's
        elsewhere = {} if registration.flags.get("questions_of_epoch") else past.settled_elsewhere
        return TaskFacts(
            task=spec.name,
            rule=spec.planning,
            samples=spec.samples,
            prompts=self._prompts(spec, registration, request_form(supplier, registration)),
            outcomes=past.outcomes,
            settled_elsewhere=elsewhere,
            measured=window.measured,
            state=window.state,
            last_at=past.last_at,
            last_height=past.last_height,
            max_age=max_age,
            absent_until=_absent_until(past.outcomes) if registration.flags["output_type"] == "get" else None,
            # whoever wants every doc of a task wants this supplier's own answers
            personal=spec.signs or spec.samples is None,
        )

    def _history(
        self, supplier: Supplier, spec: TaskSpec, registration: Registration, max_age: timedelta
    ) -> History:
        if spec.name not in self._calls:
            self._calls[spec.name] = prompt_calls(self._workspace, registration)
        return history(
            self._workspace.documents,
            supplier.key,
            spec.name,
            registration.task_hash,
            epoch=self.epoch(spec),
            since=self.now - max_age,
            calls=self._calls[spec.name],
        )

    def _prompts(self, spec: TaskSpec, registration: Registration, api: str) -> list[PromptRef]:
        key = (spec.name, api)
        if key not in self._sequences:
            repeats = int(registration.flags["repeats"])
            rows = self._workspace.documents.find(
                PROMPTS,
                prompt_filter(registration, self.epoch(spec), api),
                sort=[("position", 1)],
                fields=["_id", "position", "doc_id", "calls", "relayable"],
            )
            refs = [
                PromptRef(r["_id"], r["position"], r["doc_id"], r["calls"] // repeats, repeats)
                for r in rows
                if r["relayable"]
            ]
            self._sequences[key] = refs if spec.samples is None else refs[: spec.samples.max]
        return self._sequences[key]


def _absent_until(outcomes: Sequence[CallOutcome]) -> datetime | None:
    """When a page is asked for again whose newest answer was that the supplier does not serve it to us."""
    newest = max(outcomes, key=lambda outcome: outcome.finished_at, default=None)
    if newest is None or newest.fault is not Fault.CLIENT_REQUEST:
        return None
    return newest.finished_at + _ABSENT


def request_form(supplier: Supplier, registration: Registration) -> str:
    """Which form of a task's prompts a supplier is sent: its API, or completions for loglikelihood."""
    return supplier.api if registration.flags["output_type"] in ANY_API else "completions"


# ------------------------------------------------------------------------------------------- kept plans


def refresh_plans(workspace: Workspace, suppliers: Iterable[Supplier], now: datetime | None = None) -> None:
    """Plan the suppliers as they stand after an evaluation, and keep the plans."""
    planner = Planner(workspace, now=now)
    fingerprint = settings_fingerprint(workspace)
    planned = list(suppliers)
    plans = {supplier.key: planner.plan(supplier) for supplier in planned}
    quotas = planner.quotas(plans, planned)
    spent = {s for s in {p.service for p in planned} if budget_left(workspace, s, planner.now) == 0}
    before = _kept_plans(workspace, plans)
    documents = []
    for supplier in planned:
        plan = plans[supplier.key]
        kept = before.get(supplier.key, {})
        due_at = plan.due_at
        if due_at is not None:
            waits = _waits(workspace, supplier, plan, planner.now, quotas.get(supplier.key), spent)
            due_at = max([due_at, *waits])
        documents.append(
            {
                "_id": supplier.key,
                "service": supplier.service,
                "planned_at": planner.now,
                "due_at": due_at,
                "due_height": plan.due_height,
                "due_calls": plan.n_calls,
                "failures": kept.get("failures", 0),
                "problem": kept.get("problem"),
                "put_off_until": kept.get("put_off_until"),
                "session_spent_until": kept.get("session_spent_until"),
                "fingerprint": supplier_fingerprint(fingerprint, supplier),
                "tasks": {
                    name: {
                        "state": decision.state,
                        "reason": decision.reason,
                        "calls": decision.plan.n_calls,
                        "due_at": decision.due_at,
                    }
                    for name, decision in plan.tasks.items()
                },
            }
        )
    workspace.documents.upsert(PLANS, documents)


def note_progress(
    workspace: Workspace,
    reached: Iterable[str],
    failed: Mapping[str, str],
    spent: Mapping[str, int] | None = None,
    put_off: Collection[str] = (),
) -> None:
    """Remember how an evaluation went: who answered, and who was due but settled nothing, with the problem.

    A supplier that fails again and again is asked ever more rarely (``planning.retry_minutes``); one answer
    ends that. ``spent`` are the suppliers whose relays of a session were used up, with its last height.
    ``put_off`` are those that something else stood in the way of: they are looked at again a while later.
    """
    now = datetime.now(UTC)
    settled, spent = set(reached), spent or {}
    until = now + retry_delay(1, workspace.config.settings.planning)
    keys = list(dict.fromkeys([*settled, *failed, *spent, *put_off]))
    before = _kept_plans(workspace, keys)
    updates = []
    for key in keys:
        kept = before.get(key)
        if kept is None:
            if key in settled and key not in spent:
                continue
            # its plan follows at the end of the evaluation; should that not come, it is due again
            service = key.rpartition("@")[2]
            kept = {"_id": key, "service": service, "due_at": now, "due_calls": 0, "failures": 0}
        failures = kept["failures"] + 1 if key in failed else 0 if key in settled else kept["failures"]
        update = {**kept, "failures": failures, "problem": failed.get(key), "planned_at": now}
        update["put_off_until"] = until if key in put_off else None
        updates.append({**update, "session_spent_until": spent.get(key, kept.get("session_spent_until"))})
    workspace.documents.upsert(PLANS, updates)


def _kept_plans(workspace: Workspace, keys: Iterable[str]) -> dict[str, Document]:
    return {plan["_id"]: plan for plan in workspace.documents.find(PLANS, {"_id": {"in": list(keys)}})}


def settings_fingerprint(workspace: Workspace) -> str:
    """Changes whenever all plans have to be made anew: rules, sampling or catalogue changed."""
    settings = workspace.config.settings
    rules = [
        [s.name, s.planning.model_dump(mode="json"), s.samples and s.samples.model_dump()]
        for s in workspace.specs
    ]
    return content_hash(
        [
            rules,
            settings.sampling.model_dump(),
            settings.planning.model_dump(mode="json"),
            settings.budget.model_dump(),
            catalogue_fingerprint(workspace),
        ]
    )


def supplier_fingerprint(settings: str, supplier: Supplier) -> str:
    """Changes whenever one supplier's plan has to be made anew."""
    return content_hash(
        [settings, supplier.config.base_url, supplier.api, supplier.config.model, str(supplier.cut_at)]
    )


def _waits(
    workspace: Workspace,
    supplier: Supplier,
    plan: SupplierPlan,
    now: datetime,
    quota: int | None,
    spent: Collection[str],
) -> Iterator[datetime]:
    """Instants before which an evaluation makes no sense: not before a spent budget is renewed.

    A supplier that had its share of a budget while others still have to get theirs looks again a while later.
    ``spent`` are the services whose budget of the day is used up.
    """
    if plan.n_calls and quota == 0:
        yield now + retry_delay(1, workspace.config.settings.planning)
    if supplier.service in spent:
        yield next_period("day", now)
    if politeness_left(workspace, supplier.key, now) == 0:
        yield next_period("hour", now)


# --------------------------------------------------------------------------------------------- budgets


def budget_left(workspace: Workspace, service: str, now: datetime) -> int | None:
    """Relays left to a service this UTC day; None without a cap."""
    cap = workspace.config.settings.budget.of_service(service)
    if cap is None:
        return None
    account, start = service_account(service), period_start("day", now)
    spent = BudgetLedger(workspace.documents).spent(account, start)
    if spent is None:
        spent = attempts_since(workspace, {"service": service}, start)
    return max(0, cap - spent)


def politeness_left(workspace: Workspace, key: str, now: datetime) -> int | None:
    """Relays left to a supplier this UTC hour; None without a cap."""
    cap = workspace.config.settings.budget.relays_per_supplier_hour
    if cap is None:
        return None
    spent = BudgetLedger(workspace.documents).spent(supplier_account(key), period_start("hour", now))
    return max(0, cap - (spent or 0))


def attempts_since(workspace: Workspace, where: Mapping[str, Any], start: datetime) -> int:
    """Stored attempts of a service or supplier since an instant: what a new budget period begins with."""
    return workspace.documents.count(ATTEMPTS, {**where, "finished_at": {"gte": start}})


# -------------------------------------------------------------------------------------- who is due now


@dataclass(frozen=True)
class Wanted:
    """A supplier whose evaluation should begin; ``version`` changes when it has been planned anew."""

    key: str
    version: str


def wanted_suppliers(workspace: Workspace, now: datetime | None = None) -> list[Wanted]:
    """The active suppliers whose kept plan is due, outdated or missing, in the order of the roster.

    Reads one row per supplier and a handful per service, no attempts: 5,000 suppliers take well under a
    second. Suppliers of a service whose budget of the day is spent are left out until the next day, those
    that no session lets be reached until one does.
    """
    now = now or datetime.now(UTC)
    fields = [
        "_id", "planned_at", "due_at", "due_height", "fingerprint", "failures", "session_spent_until",
    ]  # fmt: skip
    kept = {d["_id"]: d for d in workspace.documents.find(PLANS, fields=fields)}
    sessions = Sessions.read(workspace, now)
    fingerprint = settings_fingerprint(workspace)
    broke: dict[str, bool] = {}
    found = []
    for supplier in active_suppliers(workspace):
        plan = kept.get(supplier.key)
        height = sessions.height(supplier.service)
        if not _is_due(plan, supplier_fingerprint(fingerprint, supplier), height, now):
            continue
        if sessions.waiting(supplier, spent_until(plan)) is not None:
            continue
        if supplier.service not in broke:
            broke[supplier.service] = budget_left(workspace, supplier.service, now) == 0
        if not broke[supplier.service]:
            version = str(plan["planned_at"]) if plan else f"new {supplier.joined_at}"
            found.append(Wanted(supplier.key, version))
    return found


def waiting_suppliers(
    workspace: Workspace, suppliers: Iterable[Supplier], now: datetime | None = None
) -> dict[str, str]:
    """Why suppliers cannot be asked now for want of a session, by key; the others are left out."""
    now = now or datetime.now(UTC)
    sessions = Sessions.read(workspace, now)
    plans = workspace.documents.find(PLANS, fields=["_id", "session_spent_until"])
    spent = {plan["_id"]: spent_until(plan) for plan in plans}
    told = {s.key: sessions.waiting(s, spent.get(s.key)) for s in suppliers}
    return {key: reason for key, reason in told.items() if reason is not None}


def _is_due(plan: Document | None, fingerprint: str, height: int | None, now: datetime) -> bool:
    if plan is None:
        return True
    if plan["fingerprint"] != fingerprint and not plan["failures"]:
        return True
    if plan["due_height"] is not None and height is not None and plan["due_height"] <= height:
        return True
    return plan["due_at"] is not None and plan["due_at"] <= now
