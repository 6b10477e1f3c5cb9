"""Cached plans: when a supplier's next evaluation should begin and what it would ask, for sensors to look at.

They are a view, made at the end of every evaluation, so that a sensor need not read five thousand suppliers'
attempts to see who is due (:mod:`.wanted`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from testbench_dagster.coordination.budgets import next_period
from testbench_dagster.core import versions
from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.doc_states import DocClock
from testbench_dagster.core.records.plans import PlannedTaskState, PlanProblem, PlanRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.planning.schedule import retry_delay
from testbench_dagster.planning.supplier import Decision, SupplierPlan
from testbench_dagster.stages.plan.open_docs import left_behind
from testbench_dagster.stages.plan.paces import fingerprint, renews_at
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.remaining import budget_left, politeness_left
from testbench_dagster.stages.sample.catalogue import catalogue_fingerprint
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import content_hash, typed


@dataclass(frozen=True)
class CachedPlans:
    """Plans that were made anew: of how many suppliers, how many of them due now, when the next one is."""

    suppliers: int
    due: int
    next_due_at: datetime | None


def refresh_plans(
    workspace: Workspace, suppliers: Iterable[Supplier], now: datetime | None = None
) -> CachedPlans:
    """Plan the suppliers as they stand after an evaluation, and cache the plans."""
    planner = Planner(workspace, now=now)
    by_settings, restricted = settings_fingerprint(workspace), restricted_tasks(workspace)
    planned = list(suppliers)
    planner.look_up([supplier.key for supplier in planned])
    plans = {supplier.key: planner.plan(supplier) for supplier in planned}
    quotas = planner.quotas(plans, planned)
    budget = workspace.config.settings.budget
    spent = {
        service
        for service in {supplier.service for supplier in planned}
        if budget_left(workspace.documents, budget, service, planner.now) == 0
    }
    before = _cached_plans(workspace, plans)
    behind = left_behind(workspace, plans, planner.now)
    records = []
    for supplier in planned:
        plan = plans[supplier.key]
        kept = before.get(supplier.key)
        # by a clock that was set back since it was put off until a date that is far
        put_off = kept is not None and not is_ahead(kept.planned_at, planner.now)
        due_at = plan.due_at
        if due_at is not None:
            waits = _waits(workspace, supplier, plan, planner.now, quotas.get(supplier.key), spent)
            due_at = max([due_at, *waits])
        records.append(
            PlanRecord(
                id=supplier.key,
                service=supplier.service,
                planned_at=planner.now,
                due_at=due_at,
                due_height=plan.due_height,
                due_calls=plan.n_calls,
                failures=kept.failures if kept else 0,
                put_off_until=kept.put_off_until if kept and put_off else None,
                session_spent_until=kept.session_spent_until if kept else None,
                money_needed=kept.money_needed if kept else None,
                fingerprint=supplier_fingerprint(by_settings, supplier, restricted),
                problem=kept.problem if kept else None,
                tasks={
                    name: _task_state(decision, behind.get((supplier.key, name), ()))
                    for name, decision in plan.tasks.items()
                },
            )
        )
    typed.upsert(workspace.documents, PlanRecord, records)
    dates = [record.due_at for record in records if record.due_at is not None]
    later = [due_at for due_at in dates if due_at > planner.now]
    return CachedPlans(len(records), len(dates) - len(later), min(later, default=None))


def _task_state(decision: Decision, behind: Collection[int]) -> PlannedTaskState:
    """What is cached of a task; ``behind`` are the docs that runs left behind."""
    plan = decision.plan
    left = [doc for doc in plan.due if not doc.open and doc.prompt.doc_id in behind]
    return PlannedTaskState(
        state=decision.state,
        reason=decision.reason,
        calls=plan.n_calls,
        due_at=decision.due_at,
        open=plan.open,
        left=len(left),
        kept=plan.kept + sum(doc.anew for doc in left),
        open_faults={f.value: n for f, n in sorted(plan.faults.items())} or None,
        open_ours=plan.ours or None,
    )


def record_progress(
    workspace: Workspace,
    reached: Iterable[str],
    failed: Mapping[str, str],
    spent: Mapping[str, int] | None = None,
    put_off: Collection[str] = (),
    left: Mapping[str, str] | None = None,
    money: Mapping[str, int] | None = None,
) -> None:
    """Remember how an evaluation went: who answered, and who was asked in vain, with the problem.

    A supplier that answers nothing again and again is asked ever more rarely (``planning.retry_minutes``);
    one answer ends that. ``spent`` are the suppliers whose relays of a session were used up, with its last
    height. ``put_off`` are those that something else stood in the way of: they are looked at again a while
    later. ``left`` are those that the run went on without, with why: one that answered something has its
    next turn no sooner than a doc its second occasion. ``money`` are those for whose next relay the budget of
    money left too little, with what that can cost at most: they wait for as much, until they are
    asked again.
    """
    left, money = left or {}, money or {}
    now = datetime.now(UTC)
    final, spent = set(reached), spent or {}
    told = {*final, *failed, *spent, *put_off, *left}
    keys = list(dict.fromkeys([*final, *failed, *spent, *put_off, *left, *money]))
    before = _cached_plans(workspace, keys)
    planning = workspace.config.settings.planning
    until = now + retry_delay(1, planning)
    next_turn = now + DocClock.from_minutes(planning.occasions_minutes).gap
    updates = []
    for key in keys:
        kept = before.get(key)
        if kept is None:
            if key in final and key not in spent and key not in left and key not in money:
                continue
            # its plan follows at the end of the evaluation; should that not come, it is due again
            service = key.rpartition("@")[2]
            kept = PlanRecord(id=key, service=service, planned_at=now, due_at=now, due_calls=0, failures=0)
        updates.append(
            replace(
                kept,
                planned_at=now,
                failures=kept.failures + 1 if key in failed else 0 if key in final else kept.failures,
                problem=failed.get(key) or left.get(key) or (kept.problem if key not in told else None),
                put_off_until=until
                if key in put_off
                else next_turn
                if key in final and key in left
                else None,
                session_spent_until=spent.get(key, kept.session_spent_until),
                money_needed=money.get(key),
            )
        )
    typed.upsert(workspace.documents, PlanRecord, updates)


def evaluation_problems(workspace: Workspace, keys: Iterable[str]) -> dict[str, str]:
    """Why the last evaluation of suppliers got nowhere, or went on without them; others are left out."""
    wanted = set(keys)
    plans = typed.find(workspace.documents, PlanProblem, {"problem": {"ne": None}}, sort=[("_id", 1)])
    return {plan.id: plan.problem for plan in plans if plan.problem and plan.id in wanted}


def _cached_plans(workspace: Workspace, keys: Iterable[str]) -> dict[str, PlanRecord]:
    return typed.by_id(workspace.documents, PlanRecord, keys)


def settings_fingerprint(workspace: Workspace) -> str:
    """Changes whenever all plans have to be made anew: rules, sampling, catalog or our code changed."""
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
            *fingerprint(workspace),
            catalogue_fingerprint(workspace),
            versions.PLANS.number,
        ]
    )


def restricted_tasks(workspace: Workspace) -> list[TaskSpec]:
    """The tasks that are not asked of everybody."""
    return [spec for spec in workspace.specs if not spec.applies.for_everybody]


def supplier_fingerprint(settings: str, supplier: Supplier, restricted: Iterable[TaskSpec] = ()) -> str:
    """Changes whenever one supplier's plan has to be made anew, as when it is asked other tasks.

    ``restricted`` are the tasks that are not asked of everybody.
    """
    parts = [settings, supplier.base_url, supplier.api, supplier.model, str(supplier.cut_at)]
    parts += [spec.name for spec in restricted if not spec.asked_of(supplier)]
    return content_hash(parts)


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
    renewed = renews_at(workspace, supplier, now)
    if renewed is not None:
        yield renewed
    if politeness_left(workspace.documents, workspace.config.settings.budget, supplier.key, now) == 0:
        yield next_period("hour", now)
