"""The planner: reads the facts about suppliers, and has :mod:`.supplier` decide on each.

An evaluation decides on the facts, always; what is cached of a decision (:mod:`.plan_cache`) is only a view
of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from random import Random, SystemRandom
from typing import Any

from testbench_dagster.coordination.budgets import period_start
from testbench_dagster.coordination.pace import DayLedger
from testbench_dagster.core.capabilities import LETTERS_ARE_FOR_CHAT, is_unsupported, why_it_cannot
from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.doc_states import DocClock
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.price import from_micros
from testbench_dagster.core.prompt import form_of
from testbench_dagster.core.records.attempts import AttemptsOfSupplier
from testbench_dagster.core.records.identity import ProxyOfSupplier
from testbench_dagster.core.records.plans import DemandOfSupplier, PlanId, PlanOutlook
from testbench_dagster.core.records.prompts import EpochRecord, SequencePrompt
from testbench_dagster.core.records.rankings import SupplierAbilities
from testbench_dagster.core.records.set_aside import ScorerOutageRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.rules import TaxonomyGate
from testbench_dagster.core.sampling import GATE_ROUND, asks_again, named_docs
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import CHAT_CHOICE_MARK, TaskSpec
from testbench_dagster.identity import needed_prompts
from testbench_dagster.identity.references import docs_to_be_alike
from testbench_dagster.planning.audits import LEAST_AUDITS
from testbench_dagster.planning.due import (
    CallOutcome,
    ClosedElsewhere,
    Lives,
    OpenElsewhere,
    PromptRef,
)
from testbench_dagster.planning.gates import Ability, TaskState
from testbench_dagster.planning.release import release
from testbench_dagster.planning.schedule import retry_delay
from testbench_dagster.planning.shares import fair_shares
from testbench_dagster.planning.supplier import (
    SupplierFacts,
    SupplierPlan,
    TaskFacts,
    Unscored,
    plan_supplier,
)
from testbench_dagster.stages.attempts import (
    ClosedDoc,
    DocRound,
    History,
    call_outcome,
    history,
    last_by_call,
)
from testbench_dagster.stages.discover.roster import (
    active_by_service,
    active_keys,
    active_suppliers,
    named_suppliers,
)
from testbench_dagster.stages.plan.costs import likely_costs
from testbench_dagster.stages.plan.lives import lives_of
from testbench_dagster.stages.plan.measured import WindowState, window_state
from testbench_dagster.stages.plan.paces import paces_of
from testbench_dagster.stages.plan.remaining import budget_left, counted_prices, money_left
from testbench_dagster.stages.plan.sessions import Sessions, spent_until
from testbench_dagster.stages.plan.task_gates import task_groups
from testbench_dagster.stages.sample.catalogue import current_epoch, prompt_filter
from testbench_dagster.stages.sample.epochs import PromptSequence, epoch_docs, epoch_slots, void_by_sequence
from testbench_dagster.stages.sample.set_aside import tasks_set_aside
from testbench_dagster.stages.score.samples import samples_by_task
from testbench_dagster.stages.score.states import calls_of
from testbench_dagster.stages.summarize.refresh import configured_taxonomies
from testbench_dagster.stages.trusted import asked_otherwise, references_of
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: A proxy that failed this many evaluations in a row no longer stands for its group.
PROXY_FAILURES = 3
#: How long a page that a supplier does not serve is not asked for again.
_ABSENT = timedelta(days=1)
_NOTHING_KNOWN = WindowState()
_ROUNDING = 1e-9  # of sums of costs, so that what fits exactly does


@dataclass(frozen=True)
class SharedPlans:
    """Plans within fair shares, by supplier key, with what they rest on; ``quotas`` are in calls.

    ``kept_back`` are calls that are due and not planned, as they would cost more than the day's money leaves.
    """

    facts: Mapping[str, SupplierFacts]
    plans: Mapping[str, SupplierPlan]
    quotas: Mapping[str, int]
    kept_back: Mapping[str, int] = field(default_factory=dict)


class Planner:
    """Plans suppliers at one instant; what they share (sequences, epochs, heights) is read once.

    Of the roster and the cached plans it reads those that it plans and who stands for them; of others, where
    a budget is shared, what they are due to ask (:meth:`quotas`).

    Args:
        workspace: the installation.
        tasks: names of tasks or groups to plan; None for all.
        now: the instant, timezone-aware; the present by default.
        with_windows: read every window, also where no rule needs it (to show interval widths).
        chance: draws the canaries and the docs of audits; one that nobody can foresee by default.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        tasks: Sequence[str] | None = None,
        now: datetime | None = None,
        with_windows: bool = False,
        chance: Random | None = None,
    ) -> None:
        self._workspace = workspace
        self._chance = chance or SystemRandom()
        self._with_windows = with_windows
        self.now = now or datetime.now(UTC)
        self.specs = workspace.chosen_specs(tasks)
        self._chosen = frozenset(spec.name for spec in self.specs)
        self._epochs: dict[str, EpochRecord] = {}
        self._grace = DocClock.from_minutes(workspace.config.settings.planning.occasions_minutes).limit
        self._sequences: dict[tuple[str, str], list[PromptRef]] = {}
        self._calls: dict[str, int] = {}
        self._states_of_proxies: dict[tuple[str, str], TaskState] = {}
        self._of_proxies: dict[str, Mapping[str, frozenset[int]]] = {}
        # what was read of suppliers by their keys: those that are active, their plans, their groups
        self._looked_up: set[str] = set()
        self._roster: dict[str, Supplier] = {}
        self._outlooks: dict[str, PlanOutlook] = {}
        self._placed: dict[str, ProxyOfSupplier] = {}

    @cached_property
    def registrations(self) -> dict[str, Registration]:
        """Current registrations of the tasks that have one and are not set aside."""
        known = (
            (s.name, self._workspace.datasets.current(s.name))
            for s in self._workspace.specs
            if s.name not in self._set_aside
        )
        return {name: registration for name, registration in known if registration is not None}

    @cached_property
    def _set_aside(self) -> dict[str, str]:
        """Why tasks could not be prepared, by name."""
        return tasks_set_aside(self._workspace, self._workspace.specs)

    @property
    def chosen_tasks(self) -> list[tuple[TaskSpec, Registration]]:
        """The chosen tasks that have a registration, with it."""
        return [(s, self.registrations[s.name]) for s in self.specs if s.name in self.registrations]

    def epoch(self, spec: TaskSpec) -> int:
        """Number of a task's current epoch."""
        return self._epoch(spec).epoch

    def _epoch(self, spec: TaskSpec) -> EpochRecord:
        if spec.name not in self._epochs:
            self._epochs[spec.name] = current_epoch(self._workspace, spec)
        return self._epochs[spec.name]

    def height(self, service: str) -> int | None:
        """Newest block height known of a service."""
        return self._sessions.height(service)

    def facts(self, supplier: Supplier) -> SupplierFacts:
        """Read everything a supplier's plan depends on."""
        needed = [s for s in self._workspace.specs if s.name in self._chosen or s.name in self._gating]
        pasts = {s.name: past for s in needed if (past := self._history(supplier, s)) is not None}
        lives = lives_of(self._workspace, supplier, pasts, self.now, self._calls_of)
        proxy = self._proxy(supplier.key)
        least = LEAST_AUDITS if proxy is None else self._least_audits(supplier)
        return SupplierFacts(
            supplier=supplier.key,
            tasks={
                s.name: replace(
                    self._task_facts(supplier, s, pasts.get(s.name), lives, proxy), least_audits=least
                )
                for s in needed
            },
            # what opens a gate for a proxy does so for whom it stands: these answer too few docs themselves
            abilities=self._abilities(proxy or supplier.key),
            groups=self._groups,
            cut_at=supplier.cut_at,
            departed=supplier.left_at is not None,
            proxy=proxy,
            retry_at=self._retry_at(supplier.key),
            summary_max_age=timedelta(days=self._workspace.config.settings.sampling.max_age_days),
            waiting=self._sessions.waiting(supplier, spent_until(self._outlook(supplier.key))),
            blocks_per_session=self._sessions.blocks_per_session(supplier.service),
            not_asked_abilities={
                ability
                for ability, specs in self._gate_abilities.items()
                if specs and not any(spec.asked_of(supplier) for spec in specs)
            },
        )

    def plan(
        self,
        supplier: Supplier,
        *,
        facts: SupplierFacts | None = None,
        retry_errors: bool = False,
        force_since: datetime | None = None,
    ) -> SupplierPlan:
        """Plan one supplier; ``facts`` saves reading them again."""
        return plan_supplier(
            facts or self.facts(supplier),
            self._workspace.config.settings.planning,
            now=self.now,
            height=self.height(supplier.service),
            retry_errors=retry_errors,
            force_since=force_since,
            only=self._chosen,
            chance=self._chance,
        )

    def shared_plans(
        self,
        suppliers: Sequence[Supplier],
        *,
        budget: int | None = None,
        max_relays: int | None = None,
        **options: Any,
    ) -> SharedPlans:
        """Plan suppliers within a budget, by default their shares of what the services' days leave.

        All get the same first docs of each task released (:mod:`testbench_dagster.planning.release`), within
        ``max_relays`` in all, and about what the days' money leaves; who has a pace by the day is released no
        more than that leaves. ``options`` are those of :meth:`plan`.
        """
        self.look_up([s.key for s in suppliers])
        facts = {s.key: self.facts(s) for s in suppliers}
        plans = {s.key: self.plan(s, facts=facts[s.key], **options) for s in suppliers}
        if budget is None:
            quotas = self.quotas(plans, suppliers)
            for service in {s.service for s in suppliers if s.key in quotas}:
                keys = [s.key for s in suppliers if s.service == service]
                shares = {key: quotas[key] for key in keys}
                plans |= release({key: plans[key] for key in keys}, sum(shares.values()), shares)
        else:
            plans = release(plans, budget)
            quotas = {key: plan.n_calls for key, plan in plans.items()}
        kept_back = {}
        if budget is None:
            cut = self._within_money(plans, suppliers, facts)
            lost = {key: plans[key].n_calls - plan.n_calls for key, plan in cut.items()}
            kept_back = {key: calls for key, calls in lost.items() if calls}
            plans |= cut
        for shared in paces_of(self._workspace, suppliers):
            left = DayLedger(self._workspace.documents).left(shared.pace, self.now)
            if left is not None:
                plans |= release({key: plans[key] for key in shared.suppliers}, left)
        if max_relays is not None:
            plans = release(plans, max_relays)
        # a place that all get may be more than one's share: what is released is sent
        quotas = {key: max(share, plans[key].n_calls) for key, share in quotas.items()}
        return SharedPlans(facts, plans, quotas, kept_back)

    def quotas(self, plans: Mapping[str, SupplierPlan], suppliers: Sequence[Supplier]) -> dict[str, int]:
        """Share what is left of the services' daily budgets: calls per supplier, for capped services only.

        Every supplier of the service that is due takes part with what it would ask, not only the given ones,
        so that no batch of suppliers eats the share of the next. What each was asked today already counts
        (max-min fair over the day): one pass over the batches spends the budget, in whatever order.
        """
        quotas: dict[str, int] = {}
        for service in {s.service for s in suppliers}:
            budget = self._workspace.config.settings.budget
            left = budget_left(self._workspace.documents, budget, service, self.now)
            if left is None:
                continue
            own = {s.key: plans[s.key].n_calls for s in suppliers if s.service == service}
            shares = fair_shares(left, self._demands(service, own), self._asked_today(service))
            quotas |= {key: share for key, share in shares.items() if key in own}
        return quotas

    def _within_money(
        self,
        plans: Mapping[str, SupplierPlan],
        suppliers: Sequence[Supplier],
        facts: Mapping[str, SupplierFacts],
    ) -> dict[str, SupplierPlan]:
        """The plans of suppliers whose price counts, cut to about what is left of their services' money.

        By what answers took so far; where that is not known of all they stay as they are, and the relay stage
        takes turns until the money ends. Of what is left these suppliers get as much as they would cost of
        what all that are due would. A call more for each is released, so that the relay stage uses up what is
        left, and finds out for whom it really is too little: that is what they wait for then.
        """
        settings = self._workspace.config.settings
        cut: dict[str, SupplierPlan] = {}
        for service in {s.service for s in suppliers}:
            money = money_left(self._workspace, service, self.now)
            if money is None:
                continue
            prices = counted_prices(settings, suppliers)
            own = [s for s in suppliers if s.service == service and s.key in prices]
            calls = {
                (s.key, name): decision.plan.n_calls + sum(c.task == name for c in plans[s.key].canaries)
                for s in own
                for name, decision in plans[s.key].tasks.items()
            }
            costs = likely_costs(self._workspace, own, facts, calls, self.now) if own else None
            if not costs:
                continue
            chosen = {s.key: plans[s.key] for s in own}
            n_calls = {key: plan.n_calls for key, plan in chosen.items()}
            all_calls, cost = sum(n_calls.values()), sum(costs.values())
            if not all_calls or not cost:
                continue
            demands = self._demands(service, n_calls)
            prices = counted_prices(settings, named_suppliers(self._workspace, demands.keys()))
            demanded = sum(n for key, n in demands.items() if key in prices)
            share = from_micros(money.left) * all_calls / max(all_calls, demanded)
            if cost > share * (1 + _ROUNDING):
                # one more for each: what is left over of the money is less than that costs
                spare = sum(n > 0 for n in n_calls.values())
                cut |= release(chosen, int(all_calls * share / cost + _ROUNDING) + spare)
        return cut

    # -- what suppliers share ---------------------------------------------------------------------------

    @cached_property
    def _gating(self) -> frozenset[str]:
        """Tasks that a gate of a chosen task looks at."""
        names = {
            gate.task for s in self.specs for gate in s.planning.gates if not isinstance(gate, TaxonomyGate)
        }
        return frozenset(leaf for name in names for leaf in self._groups.get(name, ()))

    @cached_property
    def _names(self) -> frozenset[str]:
        """The configured tasks."""
        return frozenset(spec.name for spec in self._workspace.specs)

    @cached_property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        return task_groups(self._workspace.specs, self._workspace.groups)

    @cached_property
    def _gate_abilities(self) -> dict[tuple[str, str | None], list[TaskSpec]]:
        """The configured tasks behind each ability that a gate of a chosen task looks at."""
        gates = [g for s in self.specs for g in s.planning.gates if isinstance(g, TaxonomyGate)]
        if not gates or all(spec.applies.for_everybody for spec in self._workspace.specs):
            return {}
        known = {taxonomy.name: taxonomy for taxonomy in configured_taxonomies(self._workspace)}
        found = {}
        for gate in gates:
            taxonomy = known[gate.taxonomy]
            tasks = taxonomy.rests_on(gate.node or taxonomy.root)
            found[gate.taxonomy, gate.node] = [s for s in self._workspace.specs if s.name in tasks]
        return found

    @cached_property
    def _sessions(self) -> Sessions:
        return Sessions.read(self._workspace, self.now)

    def look_up(self, keys: Iterable[str]) -> None:
        """Read at once what is known of suppliers with these keys, and of who stands for them.

        Whoever is not looked up before is when it is planned.
        """
        proxies = {
            row.proxy for key in self._read(keys) if (row := self._placed.get(key)) is not None and row.proxy
        }
        self._read(proxies)

    def _read(self, keys: Iterable[str]) -> set[str]:
        wanted = set(keys)
        unread = wanted - self._looked_up
        if unread:
            self._looked_up |= unread
            documents = self._workspace.documents
            self._roster |= {
                one.key: one for one in named_suppliers(self._workspace, unread) if one.left_at is None
            }
            self._outlooks |= typed.by_id(documents, PlanOutlook, unread)
            self._placed |= typed.by_id(documents, ProxyOfSupplier, unread)
        return wanted

    def _active(self, key: str) -> Supplier | None:
        """The supplier with this key; None where it is not active."""
        self._read([key])
        return self._roster.get(key)

    def _outlook(self, key: str) -> PlanOutlook | None:
        self._read([key])
        return self._outlooks.get(key)

    def _audited_of(self, proxy: Supplier) -> list[tuple[TaskSpec, Registration]]:
        """The tasks of which those for whom a supplier stands are asked a part."""
        return [
            (spec, self.registrations[spec.name])
            for spec in self._workspace.specs
            if spec.name in self._chosen | self._gating
            and spec.name in self.registrations
            and not _needs_own_answers(spec)
            and spec.asked_of(proxy)
        ]

    def probes(self, spec: TaskSpec) -> int:
        """Probes that it takes to say of pairs of suppliers whether they are alike.

        Of those that are asked the task, in the largest service.
        """
        if spec.applies.for_everybody:
            services = active_by_service(self._workspace)
        else:
            services = Counter(s.service for s in active_suppliers(self._workspace) if spec.asked_of(s))
        return needed_prompts(max(services.values(), default=0))

    def _proxy(self, key: str) -> str | None:
        """Who stands for a supplier; a proxy that left or does not answer stands for nobody.

        Nor does one, and for nobody, whose model changed since the groups were made. A reference is asked all
        docs itself, whatever its group: verdicts rest on what it was asked.
        """
        if not self._is_placed(key) or key in self._workspace.config.settings.reference_keys:
            return None
        proxy = self._placed[key].proxy
        if proxy == key or proxy is None or not self._is_placed(proxy):
            return None
        return proxy if self._failures(proxy) < PROXY_FAILURES else None

    def _is_placed(self, key: str) -> bool:
        """Whether the groups know an active supplier as it is now."""
        supplier, row = self._active(key), self._placed.get(key)
        return supplier is not None and row is not None and row.cut_at == supplier.cut_at

    @cached_property
    def _trusted(self) -> list[Supplier]:
        """The references that are active."""
        keys = self._workspace.config.settings.reference_keys
        return [one for key in keys if (one := self._active(key)) is not None]

    def _reference(self, supplier: Supplier) -> Supplier | None:
        """The reference of a supplier's model."""
        if not self._trusted:
            return None
        others = [one for one in self._trusted if one.key != supplier.key]
        return references_of(self._workspace, [supplier, *others]).get(supplier.key)

    def _least_audits(self, supplier: Supplier) -> int:
        """Docs of each task that a member is asked at least: as many as comparing it with a reference takes.

        Else a verdict that rests on the docs asked before it was a member would be lost as these get old.
        """
        reference = self._reference(supplier)
        if reference is None or asked_otherwise(supplier, reference) is not None:
            return LEAST_AUDITS
        tasks = sum(
            spec.asked_of(supplier)
            and spec.asked_of(reference)
            and not is_unsupported(supplier.api, self.registrations[spec.name], supplier.echo_logprobs)
            for spec in self._workspace.specs
            if spec.name in self.registrations and not spec.signs
        )
        docs = docs_to_be_alike(self._workspace.config.settings.identity.reference_margin)
        return max(LEAST_AUDITS, math.ceil(docs / max(1, tasks)))

    def _failures(self, key: str) -> int:
        outlook = self._outlook(key)
        return 0 if outlook is None else outlook.failures

    def _demands(self, service: str, own: Mapping[str, int]) -> dict[str, int]:
        """Calls that each due supplier of a service would make: cached plans, and fresh ones of ``own``.

        Those that no session lets be reached now take part once one does.
        """
        never_planned = max(own.values(), default=0)  # a newcomer wants about what the others want
        documents, active = self._workspace.documents, active_keys(self._workspace, service)
        of_service: dict[str, Any] = {"service": service}
        newcomers = active.difference(own, (plan.id for plan in typed.find(documents, PlanId, of_service)))
        due = {
            plan.id: plan
            for plan in typed.find(documents, DemandOfSupplier, {**of_service, "due_at": {"lte": self.now}})
            if plan.id in active and plan.id not in own
        }
        demands = {**dict.fromkeys(newcomers, never_planned), **{k: p.due_calls or 0 for k, p in due.items()}}
        if service in self._workspace.config.settings.services:
            for supplier in named_suppliers(self._workspace, demands.keys()):
                if self._sessions.waiting(supplier, spent_until(due.get(supplier.key))) is not None:
                    del demands[supplier.key]
        if newcomers and not any(spec.applies.for_everybody for spec in self._workspace.specs):
            for supplier in named_suppliers(self._workspace, newcomers & demands.keys()):
                if not any(spec.asked_of(supplier) for spec in self._workspace.specs):
                    demands[supplier.key] = 0
        return {**demands, **own}

    def _asked_today(self, service: str) -> dict[str, int]:
        """Stored attempts of a service's UTC day by supplier; as many rows as its budget allows at most."""
        where = {"service": service, "finished_at": {"gte": period_start("day", self.now)}}
        rows = typed.group(self._workspace.documents, AttemptsOfSupplier, where)
        return {row.supplier: row.n for row in rows}

    # -- one supplier -----------------------------------------------------------------------------------

    def _retry_at(self, key: str) -> datetime | None:
        outlook = self._outlook(key)
        if outlook is None or is_ahead(outlook.planned_at, self.now):
            return None
        put_off = outlook.put_off_until
        if not outlook.failures:
            return put_off
        again = retry_delay(outlook.failures, self._workspace.config.settings.planning)
        retry_at = outlook.planned_at + again
        return retry_at if put_off is None else max(retry_at, put_off)

    def _abilities(self, key: str) -> dict[tuple[str, str | None], Ability]:
        wanted = {g.taxonomy for s in self.specs for g in s.planning.gates if isinstance(g, TaxonomyGate)}
        if not wanted:
            return {}
        where = {"supplier": key, "taxonomy": {"in": sorted(wanted)}}
        found: dict[tuple[str, str | None], Ability] = {}
        for summary in typed.find(self._workspace.documents, SupplierAbilities, where):
            for name, node in summary.nodes.items():
                answered, failed = node.n, node.errors
                ability = Ability(
                    score=node.score,
                    success=answered / (answered + failed) if answered + failed else None,
                    min_samples=node.min_n or 0 if node.n_measured == node.n_tasks else 0,
                    summarized_at=summary.summarized_at,
                )
                found[summary.taxonomy, name] = ability
                if name == summary.root:
                    found[summary.taxonomy, None] = ability
        return found

    def _task_facts(
        self, supplier: Supplier, spec: TaskSpec, past: History | None, lives: Lives, proxy: str | None
    ) -> TaskFacts:
        registration = self.registrations.get(spec.name)
        max_age = self._max_age(spec)
        not_asked = spec.applies.why_not(supplier)
        if not_asked is not None:
            return TaskFacts(spec.name, spec.planning, spec.samples, not_asked=not_asked, max_age=max_age)
        if registration is None:
            aside = self._set_aside.get(spec.name)
            return TaskFacts(
                spec.name, spec.planning, spec.samples, registered=False, set_aside=aside, max_age=max_age
            )
        if past is None:
            return TaskFacts(
                spec.name,
                spec.planning,
                spec.samples,
                supported=False,
                cannot=self._why_it_cannot(supplier, spec, registration),
                max_age=max_age,
            )
        window = _NOTHING_KNOWN
        if self._with_windows or spec.name in self._gating:
            epoch, form = self._epoch(spec), request_form(supplier, registration)
            void = self._void.get((spec.name, registration.task_hash, epoch.epoch, form), 0)
            docs = epoch_docs(spec, registration, epoch.variance, void)
            wanted = epoch_slots(docs, epoch.spread_epoch, epoch.spread_draw)
            window = window_state(self._workspace, supplier, spec, registration, self.now, wanted)
        flags = registration.flags
        prompts = self._prompts(spec, registration, request_form(supplier, registration))
        # probes are other questions in every epoch: answers to the last one's leave nothing out of this one's
        earlier = not flags.questions_of_epoch
        elsewhere = self._open_elsewhere(supplier, registration, past, lives, prompts) if earlier else []
        calls = self._calls_of({id_ for id_, _ in past.earlier}) if earlier and past.earlier else {}
        closed = past.closed_earlier(lives, calls)
        named = named_docs(spec.samples)
        if named is not None:  # what it asked before it named them is none of its docs any more
            elsewhere = [doc for doc in elsewhere if doc.prompt.doc_id in named]
            closed = {doc: one for doc, one in closed.items() if doc in named}
        epoch = self._epoch(spec)
        return TaskFacts(
            task=spec.name,
            rule=spec.planning,
            samples=spec.samples,
            prompts=prompts,
            outcomes=past.outcomes,
            lives=lives,
            open_elsewhere=elsewhere,
            final_elsewhere={doc: one.at for doc, one in closed.items()},
            closed_elsewhere=self._closed_elsewhere(supplier, registration, closed, prompts, epoch, max_age),
            variance=epoch.variance,
            older=_older(epoch, closed, elsewhere),
            draw=epoch.spread_draw or "",
            seed=epoch.seed,
            measured=window.measured,
            state=self._state_of(proxy, spec, registration, window),
            last_at=past.last_at,
            last_height=past.last_height,
            max_age=max_age,
            unscored=self._unscored(supplier.key, spec.name),
            absent_until=_absent_until(past.outcomes, self.now) if flags.output_type == "get" else None,
            needs_own_answers=_needs_own_answers(spec),
            asked_of_proxy=self._is_asked(proxy, spec),
            asks_model=flags.output_type != "get",
            proxy_docs=frozenset() if proxy is None else self._asked_docs(proxy).get(spec.name, frozenset()),
        )

    @cached_property
    def _void(self) -> Mapping[PromptSequence, int]:
        """Docs that no store holds; read once, there are seldom any."""
        return void_by_sequence(self._workspace.documents, self.registrations)

    def _unscored(self, supplier: str, task: str) -> Unscored | None:
        """The answered docs of a task that wait for its scorer."""
        waits = self._outages.get((supplier, task))
        if waits is None:
            return None
        retry_at = self.now if is_ahead(waits.tried_at, self.now) else waits.retry_at
        return Unscored(waits.docs, retry_at, waits.reason)

    @cached_property
    def _outages(self) -> dict[tuple[str, str], ScorerOutageRecord]:
        """Whose answers wait for the scorers of which tasks; read once, there are seldom any."""
        found = typed.find(self._workspace.documents, ScorerOutageRecord)
        return {(one.supplier, one.task): one for one in found}

    def _state_of(
        self, proxy: str | None, spec: TaskSpec, registration: Registration, window: WindowState
    ) -> TaskState:
        """What gates look at: of a supplier for which another stands that one's window, read once for all."""
        if proxy is None or spec.name not in self._gating or spec.signs or not self._is_asked(proxy, spec):
            return window.state
        if (proxy, spec.name) not in self._states_of_proxies:
            one = self._active(proxy)
            self._states_of_proxies[proxy, spec.name] = (
                window.state
                if one is None
                else window_state(self._workspace, one, spec, registration, self.now).state
            )
        return self._states_of_proxies[proxy, spec.name]

    def _is_asked(self, proxy: str | None, spec: TaskSpec) -> bool:
        """Whether a task is asked of who stands for a supplier, too."""
        known = None if proxy is None else self._active(proxy)
        return known is None or spec.asked_of(known)

    def _asked_docs(self, proxy: str) -> Mapping[str, frozenset[int]]:
        """By task the docs that a proxy's score rests on, and those that wait for theirs; read once for all.

        What it left unanswered is among them: else it would choose what its members are measured on.
        """
        if proxy not in self._of_proxies:
            supplier = self._active(proxy)
            read = (
                ()
                if supplier is None
                else samples_by_task(self._workspace, supplier, self._audited_of(supplier), self.now)
            )
            self._of_proxies[proxy] = {
                task: frozenset(sample.doc_id for sample in window.samples if not sample.void)
                for task, window in read
            }
        return self._of_proxies[proxy]

    def _max_age(self, spec: TaskSpec) -> timedelta:
        return spec.max_age(self._workspace.config.settings.sampling.max_age_days)

    def _calls_of(self, prompts: Collection[str]) -> Mapping[str, int]:
        """How many calls some prompts take, and others that were asked for, by id; each is read once."""
        self._calls |= calls_of(self._workspace.documents, set(prompts) - self._calls.keys())
        return self._calls

    def _why_it_cannot(self, supplier: Supplier, spec: TaskSpec, registration: Registration) -> str:
        """Why a supplier can be asked a task in no form that it has."""
        flags = registration.flags
        why = why_it_cannot(supplier.api, flags.output_type, flags.request_forms, supplier.echo_logprobs)
        by_letters = f"{spec.name}{CHAT_CHOICE_MARK}" in self._names
        return f"{why}{LETTERS_ARE_FOR_CHAT if by_letters and supplier.api != 'chat' else ''}"

    def _history(self, supplier: Supplier, spec: TaskSpec) -> History | None:
        """What the supplier was asked of a task; None where it is not, or cannot be."""
        registration = self.registrations.get(spec.name)
        if registration is None or not spec.asked_of(supplier):
            return None
        if is_unsupported(supplier.api, registration, supplier.echo_logprobs):
            return None
        return history(
            self._workspace.documents,
            supplier.key,
            spec.name,
            registration.task_hash,
            epoch=self.epoch(spec),
            began=self._epoch(spec).started_at,
            since=self.now - self._max_age(spec) - self._grace,
            now=self.now,
        )

    def _open_elsewhere(
        self,
        supplier: Supplier,
        registration: Registration,
        past: History,
        lives: Lives,
        prompts: Sequence[PromptRef],
    ) -> list[OpenElsewhere]:
        """Open docs whose prompts the sequence has not: of earlier epochs, or beyond a shortened sequence."""
        opened = [key for key in past.unanswered if key[1] != GATE_ROUND and not lives[key].closed]
        if not opened:
            return []
        here = {prompt.id for prompt in prompts}
        newest: dict[int, DocRound] = {}  # by doc
        for key in opened:
            last = past.unanswered[key][-1]
            known = newest.get(last.doc_id)
            if key[0] not in here and (known is None or _later(past, known, key)):
                newest[last.doc_id] = key
        if not newest:
            return []
        api = request_form(supplier, registration)
        found = self._refs({key[0] for key in newest.values()}, registration, api)
        return [
            OpenElsewhere(
                found[key[0]],
                past.unanswered[key][0].epoch,
                key[1],
                tuple(
                    call_outcome(attempt, Fault(attempt.fault))
                    for attempt in last_by_call(past.unanswered[key]).values()
                ),
                lives[key],
            )
            for key in newest.values()
            if key[0] in found
        ]

    def _closed_elsewhere(
        self,
        supplier: Supplier,
        registration: Registration,
        closed: Mapping[int, ClosedDoc],
        prompts: Sequence[PromptRef],
        epoch: EpochRecord,
        max_age: timedelta,
    ) -> list[ClosedElsewhere]:
        """Docs that the sequence has not, that fell due and are drawn to be asked again."""
        due = {
            doc: one
            for doc, one in closed.items()
            if one.at <= self.now - max_age and asks_again(epoch.seed, doc)
        }
        if not due:
            return []
        here = {prompt.doc_id for prompt in prompts}
        wanted = {one.prompt_id: one for doc, one in due.items() if doc not in here}
        found = self._refs(wanted, registration, request_form(supplier, registration)) if wanted else {}
        return [ClosedElsewhere(ref, wanted[id_].epoch, wanted[id_].round) for id_, ref in found.items()]

    def _refs(self, ids: Iterable[str], registration: Registration, api: str) -> dict[str, PromptRef]:
        """Prompts by id, of one request form."""
        where = {"_id": {"in": sorted(ids)}, "api": api}
        return {
            prompt.id: _ref(prompt, registration.flags.repeats)
            for prompt in typed.find(self._workspace.documents, SequencePrompt, where)
            if prompt.relayable
        }

    def _prompts(self, spec: TaskSpec, registration: Registration, api: str) -> list[PromptRef]:
        key = (spec.name, api)
        if key not in self._sequences:
            repeats = registration.flags.repeats
            prompts = typed.find(
                self._workspace.documents,
                SequencePrompt,
                prompt_filter(registration, self.epoch(spec), api),
                sort=[("position", 1)],
            )
            refs = [_ref(prompt, repeats) for prompt in prompts if prompt.relayable]
            most = self.probes(spec) if spec.probes_by_roster else None
            self._sequences[key] = refs[:most] if spec.samples is None else refs[: spec.samples.max]
        return self._sequences[key]


def _older(
    epoch: EpochRecord, closed: Mapping[int, ClosedDoc], opened: Iterable[OpenElsewhere]
) -> frozenset[int]:
    """The docs that were last asked before the number of docs was set, by what they were answered."""
    since = epoch.spread_epoch
    if since is None:
        return frozenset()
    before = [doc for doc, one in closed.items() if one.epoch < since]
    return frozenset(before).union(one.prompt.doc_id for one in opened if one.epoch < since)


def _ref(prompt: SequencePrompt, repeats: int) -> PromptRef:
    return PromptRef(prompt.id, prompt.position, prompt.doc_id, prompt.calls // repeats, repeats)


def _later(past: History, one: DocRound, other: DocRound) -> bool:
    """Whether a doc was asked later under the other prompt and round."""
    return past.unanswered[one][-1].finished_at < past.unanswered[other][-1].finished_at


def _needs_own_answers(spec: TaskSpec) -> bool:
    """Whether nobody stands for a supplier there: whoever wants every doc of a task wants its own answers."""
    return spec.signs or spec.samples is None or spec.samples.ids is not None


def _absent_until(outcomes: Sequence[CallOutcome], now: datetime) -> datetime | None:
    """When a page is asked for again whose newest answer was that the supplier does not serve it to us."""
    past = [outcome for outcome in outcomes if not is_ahead(outcome.finished_at, now)]
    newest = max(past, key=lambda outcome: outcome.finished_at, default=None)
    if newest is None or not newest.fault.row.denies_page:
        return None
    return newest.finished_at + _ABSENT


def request_form(supplier: Supplier, registration: Registration) -> str:
    """Which form of a task's prompts a supplier is sent: its API, or completions for loglikelihood."""
    return form_of(supplier.api, registration.flags)
