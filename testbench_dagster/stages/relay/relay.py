"""The relay stage: plan what is due per supplier and task, relay it, store every attempt.

Idempotent: what has a stored, final answer is not asked again, so a killed run is continued by starting it
again. One bad supplier never fails the stage; its problem is reported. Each supplier is relayed to by one
process at a time (a lease), within budgets that no crash and no second process can exceed (a ledger).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime

from testbench_dagster.coordination.heartbeats import Heartbeat, beating
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.coordination.writing import FactWriter, writing_facts
from testbench_dagster.core.errors import StoreError
from testbench_dagster.planning.canaries import Canary
from testbench_dagster.planning.supplier import State, SupplierPlan
from testbench_dagster.relays.circuit import PATIENCE
from testbench_dagster.relays.pace import Pacing
from testbench_dagster.relays.report import Counts, Progress, Report
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.plan.remaining import ledger_quota, money_quota
from testbench_dagster.stages.relay.capabilities import learn_capabilities
from testbench_dagster.stages.relay.history import transports_to
from testbench_dagster.stages.relay.lane_ends import record_lane_ends
from testbench_dagster.stages.relay.outcome import record_outcome
from testbench_dagster.stages.relay.requests import (
    DueRelays,
    PlannedCanary,
    PlannedSupplier,
    PlannedTask,
    Prompts,
)
from testbench_dagster.stages.relay.scoring import LaneScorer
from testbench_dagster.stages.relay.targets import Targets
from testbench_dagster.stages.relay.writer import AttemptWriter, Fence
from testbench_dagster.stages.workspace import Workspace

#: The last of ``planning.occasions_minutes`` by default: with it the times of a run scale.
_FULL_MINUTES = 4320.0


@dataclass
class RelayReport:
    """Outcome of the stage: the engine's report, the plans, and problems by supplier key.

    ``refused`` are suppliers that another living process is relaying to, with who that is; ``departed`` are
    those that left the roster. ``left`` says why the run went on without a supplier that did not answer.
    ``not_applicable`` are by supplier the tasks that the configuration does not ask it, with the setting that
    says so, ``unsupported`` those that it cannot be asked.
    ``failed`` were asked and could have answered, and answered nothing. ``out_of_money`` are those whose turn
    the budget of money ended, or cut, with how many of their docs' calls were not sent for that.
    """

    relays: Report
    planned: list[PlannedTask] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, list[str]] = field(default_factory=dict)
    not_applicable: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    departed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    out_of_money: dict[str, int] = field(default_factory=dict)

    @property
    def n_due(self) -> int:
        """Calls that were due when the stage began."""
        return _calls(self.planned)


def relay_due(
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
    score_ended: bool = False,
) -> RelayReport:
    """Relay what is due for the given supplier keys and store the attempts.

    Args:
        workspace: the installation; its heartbeat, if it has one, is what the leases live by.
        suppliers: partition keys; one that is not known or has left is reported as a problem.
        tasks: names of tasks or groups; None for all.
        max_relays: hard cap on attempts in this call, retries included.
        retry_errors: the next occasion of open docs begins now.
        force_since: ask everything again that was not answered at or after this instant, fresh or not.
        lease_wait_s: how long to wait for suppliers whose last process may have died on another machine.
        on_progress: called a few times a second while relaying.
        on_planned: called once with the number of due calls.
        score_ended: score each supplier when its own turn has ended, while others are still asked.

    Raises:
        StoreError: the store failed, or this process lost its heartbeat (it was stopped or cut off for
            so long that others may have taken over); what was answered until then is stored.
    """
    from testbench_dagster.relays.engine import run_relays  # aiohttp: 0.2 s no code location need pay

    documents, settings = workspace.documents, workspace.config.settings
    patience = PATIENCE.scaled(settings.planning.occasions_minutes[-1] / _FULL_MINUTES)
    with beating(documents, workspace.heartbeat) as heartbeat, SupplierLeases(documents, heartbeat) as leases:
        targets = Targets(workspace, suppliers)
        acquired = leases.acquire(targets.keys, wait_s=lease_wait_s)
        targets.keep(acquired.held)
        transports = transports_to(workspace, targets.endpoints)
        targets.keep_reachable(transports)
        quota, pacing = ledger_quota(documents, settings.budget), Pacing.over(documents)
        money = money_quota(workspace, targets.keys)
        try:
            bounded = transports.quota(quota)
            planner = Planner(workspace, tasks=tasks)
            if max_relays != 0:
                learn_capabilities(
                    workspace, targets, planner.chosen_tasks, transports, bounded, pacing, money
                )
            shared = planner.shared_plans(
                targets.suppliers,
                max_relays=max_relays,
                retry_errors=retry_errors,
                force_since=force_since,
            )
            quota.limit(shared.quotas)
            due = {key: _planned(planner, plan) for key, plan in shared.plans.items()}
            planned = [task for of_supplier in due.values() for task in of_supplier.tasks]
            if on_planned is not None:
                on_planned(sum(of_supplier.n_calls for of_supplier in due.values()))
            prompts = Prompts(documents)
            work = {
                target.key: DueRelays(target.endpoint, due[target.key], prompts)
                for target in targets
                if due[target.key].tasks
            }
            heights = {s.service: planner.height(s.service) for s in targets.suppliers}
            with (
                writing_facts(documents, heartbeat) as facts,
                AttemptWriter(
                    documents, fence=_fence(acquired.held, heartbeat, facts, leases), heights=heights
                ) as writer,
            ):
                if max_relays != 0:
                    facts.enter({key: own.names for key, own in due.items() if own.tasks})
                scorer = LaneScorer(workspace, writer, heartbeat, tasks) if score_ended else None
                with scorer or nullcontext():
                    relays = run_relays(
                        [(target.endpoint, work[target.key]) for target in targets if target.key in work],
                        writer.add,
                        open_transport=transports.open,
                        max_in_flight=settings.relays.max_in_flight,
                        quota=bounded,
                        max_relays=max_relays,
                        heartbeat=heartbeat,
                        on_progress=on_progress,
                        canaries={key: relays.spares for key, relays in work.items()},
                        patience=patience,
                        on_lane_end=scorer.lane_ended if scorer is not None else None,
                        stop=workspace.stop,
                        pacing=pacing,
                        money=money,
                    )
                # while nobody may cache windows: the docs left behind are open in them
                left = record_lane_ends(documents, relays, work, acquired.held)
        finally:
            quota.close()
            pacing.close()
            if money is not None:
                money.close()
        capped = max_relays is not None or relays.interrupted
        failed = record_outcome(
            workspace,
            targets,
            planned,
            relays.suppliers,
            transports,
            left,
            {} if money is None else money.refused(),
            capped=capped,
        )
        if relays.lost:
            raise StoreError(
                "this process lost its heartbeat (it was stopped, or cut off from the store) and may not "
                "relay any more; what was answered is stored, the rest stays due"
            )
    return RelayReport(
        relays,
        planned,
        {**targets.problems, **_without_prompts(planner, shared.plans.values())},
        {key: list(tasks) for key, tasks in _in_state("unsupported", planner, shared.plans.values()).items()},
        _in_state("not_applicable", planner, shared.plans.values()),
        dict(acquired.refused),
        left,
        targets.departed,
        failed,
        {
            key: shared.kept_back.get(key, 0)
            + (_not_sent(relays.suppliers[key]) if key in relays.out_of_money else 0)
            for key in dict.fromkeys([*relays.out_of_money, *shared.kept_back])
        },
    )


def _not_sent(counts: Counts) -> int:
    return counts.unsent + counts.still_due


def _calls(planned: Iterable[PlannedTask]) -> int:
    return sum(task.plan.n_calls for task in planned)


def _planned(planner: Planner, plan: SupplierPlan) -> PlannedSupplier:
    """What to relay to one supplier, its tasks in configured order."""
    specs = {spec.name: spec for spec in planner.specs}

    def with_task(canary: Canary) -> PlannedCanary:
        spec = specs[canary.task]
        return PlannedCanary(planner.registrations[spec.name], planner.epoch(spec), canary)

    tasks = [
        PlannedTask(
            plan.supplier, spec, planner.registrations[name], planner.epoch(spec), plan.tasks[name].plan
        )
        for name, spec in specs.items()
        if plan.tasks[name].plan.due
    ]
    return PlannedSupplier(
        tasks, [with_task(one) for one in plan.canaries], [with_task(one) for one in plan.spares]
    )


def _in_state(state: State, planner: Planner, plans: Iterable[SupplierPlan]) -> dict[str, dict[str, str]]:
    """By supplier the chosen tasks in a state, with the reason; suppliers without any are left out."""
    found = {
        plan.supplier: {
            spec.name: plan.tasks[spec.name].reason
            for spec in planner.specs
            if plan.tasks[spec.name].state == state
        }
        for plan in plans
    }
    return {key: tasks for key, tasks in found.items() if tasks}


def _without_prompts(planner: Planner, plans: Iterable[SupplierPlan]) -> dict[str, str]:
    """By supplier why a chosen task has no prompts for it; of several tasks the last."""
    return {
        plan.supplier: f"task {spec.name}: {plan.tasks[spec.name].reason}"
        for plan in plans
        for spec in planner.specs
        if plan.tasks[spec.name].state == "no_prompts"
    }


def _fence(
    tokens: Mapping[str, int], heartbeat: Heartbeat, facts: FactWriter, leases: SupplierLeases
) -> Fence:
    def verify(keys: Iterable[str]) -> set[str]:
        """Called right before a write, once the heartbeat has stopped."""
        asked = set(keys)
        facts.check(asked)
        return leases.verify(asked)

    return Fence(tokens, heartbeat, verify)
