"""What one supplier is asked now, over all its tasks, and why the rest is not.

The order of the rules is that of pocket-ml-testbench: a task must be askable at all, then its gates must be
open, then its schedule allow a sample; then the docs decide (:mod:`testbench_dagster.planning.due`). A
supplier that another one stands for, whose answers are alike, is only audited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random, SystemRandom
from typing import Literal

from testbench_dagster.core.doc_states import DocClock
from testbench_dagster.core.rules import PlanningRule, PlanningSettings
from testbench_dagster.core.sampling import Measured, SampleRule
from testbench_dagster.core.wording import agreeing, are, counted
from testbench_dagster.planning.audits import LEAST_AUDITS, audit_pace, drawn_audits, placed_audits
from testbench_dagster.planning.canaries import CANARIES, SPARES, Answerable, Canary, drawn
from testbench_dagster.planning.due import (
    CallOutcome,
    ClosedElsewhere,
    Lives,
    OpenElsewhere,
    PromptRef,
    TaskPlan,
    begun_docs,
    plan_task,
)
from testbench_dagster.planning.gates import Ability, GateFacts, GateVerdict, TaskState, check_gates
from testbench_dagster.planning.schedule import ScheduleVerdict, schedule_verdict

#: Of a task without prompts: what mends that.
_PREPARED = "`testbench run` or the daemon prepares it"

State = Literal[
    "due",
    "fresh",
    "open",
    "scheduled",
    "gated",
    "not_applicable",
    "unsupported",
    "no_prompts",
    "unscored",
    "represented",
    "departed",
    "capped",
    "waiting",
]


@dataclass(frozen=True)
class Unscored:
    """Answered docs that wait for the service that the task's metric asks, and when that is tried again."""

    docs: int
    retry_at: datetime
    reason: str


@dataclass(frozen=True)
class TaskFacts:
    """What is known of a supplier's task.

    ``rule`` is the rule as it applies, ``samples`` how many docs (None: all), with the ``variance`` and the
    ``seed`` of the task's epoch. ``measured`` is shown, it decides nothing. ``last_at`` and ``last_height``
    are of the newest final sample in any epoch. ``state`` is what gates of other tasks look at. Before
    ``absent_until`` the supplier is not asked, for it said that it does not serve the task.
    ``set_aside``: why the task could not be prepared. ``unscored``: answered docs that wait for the scorer.
    ``needs_own_answers``: the supplier's own answers are wanted, so nobody can stand for it; nor can who is
    not ``asked_of_proxy``. ``asks_model``: its requests go to the model, so that an answered one may be asked
    again as a canary. ``not_asked``: why the configuration does not ask the supplier the task, None where it
    does. ``least_audits``: docs that a member is asked at least although a proxy stands for it. The other
    fields are those of :func:`testbench_dagster.planning.due.plan_task`.
    """

    task: str
    rule: PlanningRule
    samples: SampleRule | None
    prompts: Sequence[PromptRef] = ()
    outcomes: Sequence[CallOutcome] = ()
    measured: Measured = field(default_factory=Measured)
    final_elsewhere: Mapping[int, datetime] = field(default_factory=dict)
    supported: bool = True
    cannot: str = "the supplier's API cannot answer this task"
    registered: bool = True
    set_aside: str | None = None
    unscored: Unscored | None = None
    last_at: datetime | None = None
    last_height: int | None = None
    max_age: timedelta = field(kw_only=True)
    state: TaskState = field(default_factory=TaskState)
    absent_until: datetime | None = None
    needs_own_answers: bool = False
    asked_of_proxy: bool = True
    not_asked: str | None = None
    asks_model: bool = True
    lives: Lives = field(default_factory=dict)
    open_elsewhere: Sequence[OpenElsewhere] = ()
    closed_elsewhere: Sequence[ClosedElsewhere] = ()
    variance: float | None = None
    older: Collection[int] = frozenset()
    draw: str = ""
    seed: str = ""
    proxy_docs: Collection[int] = frozenset()
    least_audits: int = LEAST_AUDITS

    @property
    def askable(self) -> bool:
        """Whether the supplier can be asked the task, leaving aside when."""
        return self.not_asked is None and self.supported and self.registered and bool(self.prompts)


@dataclass(frozen=True)
class SupplierFacts:
    """What is known of a supplier.

    ``abilities``, ``groups`` and ``not_asked_abilities`` are as in
    :class:`testbench_dagster.planning.gates.GateFacts`. ``cut_at``: when its model changed. ``proxy``: the
    living supplier that stands for it. ``retry_at``: when it is to be tried again after it did not answer.
    ``summary_max_age``: age after which a taxonomy summary opens no gate; None for the largest ``max_age`` of
    the tasks. ``waiting``: why no session lets it be reached now. ``blocks_per_session``: those of its
    network; None for what the settings say.
    """

    supplier: str
    tasks: Mapping[str, TaskFacts]
    abilities: Mapping[tuple[str, str | None], Ability] = field(default_factory=dict)
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cut_at: datetime | None = None
    departed: bool = False
    proxy: str | None = None
    retry_at: datetime | None = None
    summary_max_age: timedelta | None = None
    waiting: str | None = None
    blocks_per_session: int | None = None
    not_asked_abilities: Collection[tuple[str, str | None]] = ()


@dataclass(frozen=True)
class Decision:
    """What is done about a task and why; ``plan`` holds docs only where ``state`` is ``due``.

    ``due_at`` is when the next plan will ask something, as far as that follows from the clock: now where docs
    are due, were capped or wait for a session, None where something else has to happen first. ``due_height``
    is the same for schedules that count blocks.
    """

    task: str
    state: State
    reason: str
    plan: TaskPlan
    due_at: datetime | None = None
    due_height: int | None = None


@dataclass(frozen=True)
class SupplierPlan:
    """The decisions by task, and the ``canaries`` sent besides where open docs are asked again.

    ``spares`` are further canaries, sent only where they are needed to see whether the supplier answers at
    all. ``due_at`` is the earliest of all.
    """

    supplier: str
    tasks: Mapping[str, Decision]
    due_at: datetime | None
    due_height: int | None
    reason: str
    canaries: tuple[Canary, ...] = ()
    spares: tuple[Canary, ...] = ()

    @property
    def n_calls(self) -> int:
        """Number of relays that are due, canaries among them, retries aside."""
        return sum(decision.plan.n_calls for decision in self.tasks.values()) + len(self.canaries)


def plan_supplier(
    facts: SupplierFacts,
    settings: PlanningSettings,
    *,
    now: datetime,
    height: int | None = None,
    retry_errors: bool = False,
    force_since: datetime | None = None,
    only: Collection[str] | None = None,
    chance: Random | None = None,
) -> SupplierPlan:
    """Decide what a supplier is asked now.

    Args:
        facts: what is known of it; tasks that gates look at must be there, also where ``only`` omits them.
        settings: what holds for all tasks.
        now: the present, timezone-aware.
        height: the present block height of its service, if known.
        retry_errors: the next occasion of open docs begins now.
        force_since: ask again what was answered before it, fresh or resting; gates still hold.
        only: names of the tasks to plan; None for all.
        chance: draws the canaries and the docs of audits; one that nobody can foresee by default.
    """
    chance = chance or SystemRandom()
    planner = _Planner(facts, settings, now, height, retry_errors, force_since, chance)
    chosen = [task for name, task in facts.tasks.items() if only is None or name in only]
    decisions = {task.task: planner.decide(task) for task in chosen}
    if facts.waiting is not None:
        decisions = {name: _waiting(task, facts.waiting, now) for name, task in decisions.items()}
    due_at = min((d.due_at for d in decisions.values() if d.due_at is not None), default=None)
    if due_at is not None and facts.retry_at is not None:
        due_at = max(due_at, facts.retry_at)
    canaries, spares = _canaries(chosen, decisions, chance)
    return SupplierPlan(
        supplier=facts.supplier,
        tasks=decisions,
        due_at=due_at,
        due_height=min((d.due_height for d in decisions.values() if d.due_height is not None), default=None),
        reason=_summary(facts, decisions, now),
        canaries=canaries,
        spares=spares,
    )


def _canaries(
    tasks: Sequence[TaskFacts], decisions: Mapping[str, Decision], chance: Random
) -> tuple[tuple[Canary, ...], tuple[Canary, ...]]:
    """Docs that the supplier has answered: some to send where others are asked again, and spare ones."""
    due = [doc for decision in decisions.values() for doc in decision.plan.due]
    if not due:
        return (), ()
    known = [
        Answerable(task.task, task.prompts, task.outcomes, task.lives) for task in tasks if task.asks_model
    ]
    sent = CANARIES if any(doc.occasion > 1 for doc in due) else 0
    found = drawn(known, sent + SPARES, chance)
    return found[:sent], found[sent:]


class _Planner:
    """The rules, applied to the tasks of one supplier at one instant."""

    def __init__(
        self,
        facts: SupplierFacts,
        settings: PlanningSettings,
        now: datetime,
        height: int | None,
        retry_errors: bool,
        force_since: datetime | None,
        chance: Random,
    ) -> None:
        self._facts = facts
        self._settings = settings
        self._now = now
        self._height = height
        self._retry_errors = retry_errors
        self._force_since = force_since
        self._chance = chance
        self._draw: int | None = None
        clock = DocClock.from_minutes(settings.occasions_minutes)
        self._together, self._grace = clock.gap / 3, clock.limit
        oldest = max((task.max_age for task in facts.tasks.values()), default=timedelta(0))
        gate_facts = GateFacts(
            tasks={name: task.state for name, task in facts.tasks.items()},
            abilities=facts.abilities,
            now=now,
            max_age=oldest if facts.summary_max_age is None else facts.summary_max_age,
            groups=facts.groups,
            not_asked={name for name, task in facts.tasks.items() if task.not_asked is not None},
            not_asked_abilities=facts.not_asked_abilities,
        )
        self._gates: dict[str, GateVerdict] = {
            name: check_gates(task.rule.gates, gate_facts)
            for name, task in facts.tasks.items()
            if task.askable
        }
        self._undecided = frozenset[str]().union(*(v.undecided_tasks for v in self._gates.values()))

    def decide(self, task: TaskFacts) -> Decision:
        """Find the first rule that keeps the task from being asked, else the docs that are due."""
        if self._facts.departed:
            return _held(task, "departed", "the supplier left")
        if task.not_asked is not None:
            return _held(task, "not_applicable", task.not_asked)
        if not task.supported:
            return _held(task, "unsupported", task.cannot)
        if task.set_aside is not None:
            return _held(task, "no_prompts", f"the task is set aside: {task.set_aside}")
        if not task.registered:
            return _held(task, "no_prompts", f"the task is not registered yet; {_PREPARED}")
        if not task.prompts:
            return _held(task, "no_prompts", f"the sequence has no prompts; {_PREPARED}")
        if task.absent_until is not None and task.absent_until > self._now and self._force_since is None:
            reason = f"the supplier does not serve it; asked again {task.absent_until:%Y-%m-%d %H:%M}"
            return _held(task, "unsupported", reason, due_at=task.absent_until)
        alone = self._facts.proxy is None or task.needs_own_answers or not task.asked_of_proxy
        return self._ordinary(task) if alone else self._audit(task)

    def _ordinary(self, task: TaskFacts) -> Decision:
        schedule = self._schedule(task)
        minimum = task.rule.trigger_minimum
        plan = self._plan(
            task,
            # what is forced may not set off the schedule's own renewal, or forcing would never be done
            at_least=minimum if schedule.ready else 0,
            at_most=task.rule.max_docs_per_run,
            force_since=self._force_since,
        )
        gate = self._gates[task.task]
        if not gate.open:
            return _held(task, "gated", gate.reason, plan)
        if schedule.ready or self._force_since is not None:
            return _due_or_fresh(task, plan)
        begun = begun_docs(plan)
        if begun.due:
            # what is open was sampled already: its next occasion is no new sample
            return _due_or_fresh(task, begun)
        if minimum or plan.due:
            due_at, height = _sooner(schedule.due_at, plan.open_at), schedule.due_height
            return _held(task, "scheduled", schedule.reason, plan, due_at, height)
        # nothing new would be wanted if the rest were over now: the later of the two instants counts
        due_at = _sooner(_later(schedule.due_at, plan.aged_at), plan.open_at)
        return _held(task, "scheduled", schedule.reason, plan, due_at)

    def _audit(self, task: TaskFacts) -> Decision:
        """Ask a member of an identity group a few docs now and then, whatever is fresh.

        Docs that were begun are finished all the same: what is open is asked again at its next occasion.
        """
        gate, schedule = self._gates[task.task], self._schedule(task)
        wanted = self._plan(task, at_least=0, at_most=0, force_since=None)
        begun = begun_docs(wanted)
        if begun.due and gate.open:
            reason = f"{begun.reason}; {self._facts.proxy} stands for the rest"
            return _due_or_fresh(task, replace(begun, reason=reason))
        forced = self._force_since is not None and (task.last_at is None or task.last_at < self._force_since)
        at_once = forced or task.last_at is None
        pace = audit_pace(
            wanted.target, task.max_age, self._settings, at_once=at_once, least=task.least_audits
        )
        docs = pace.docs
        if task.rule.max_docs_per_run is not None:
            docs = min(docs, task.rule.max_docs_per_run)
        stands = f"{self._facts.proxy} stands for it"
        if not docs:
            reason = f"{stands}; audits are off (audit_docs: 0)"
            return _held(task, "represented", reason, wanted, wanted.open_at if gate.open else None)
        audit_at = None
        if task.last_at is not None and not forced:
            audit_at = task.last_at + pace.every
        if audit_at is not None and audit_at > self._now:
            reason = f"{stands}; next audit {audit_at:%Y-%m-%d %H:%M}"
            due_at = _sooner(_later(audit_at, schedule.due_at), wanted.open_at) if gate.open else None
            return _held(task, "represented", reason, wanted, due_at)
        if not gate.open:
            return _held(task, "gated", gate.reason, wanted)
        if not schedule.ready and not forced:
            due_at, height = _sooner(schedule.due_at, wanted.open_at), schedule.due_height
            return _held(task, "scheduled", schedule.reason, wanted, due_at, height)
        plan = self._audit_plan(task, wanted, docs)
        return _due_or_fresh(task, replace(plan, reason=f"audit: {stands}"))

    def _audit_plan(self, task: TaskFacts, wanted: TaskPlan, docs: int) -> TaskPlan:
        """So many docs, drawn among those that the proxy is asked; target and fresh docs are the task's."""
        chance = self._chance_of(task)
        prompts = drawn_audits(
            task.prompts, task.outcomes, task.final_elsewhere, task.proxy_docs, docs, chance
        )
        drawn = replace(task, prompts=prompts, open_elsewhere=())
        plan = self._plan(drawn, at_least=docs, at_most=docs, force_since=None)
        return replace(
            plan,
            due=placed_audits(plan.due, task.prompts, task.proxy_docs, chance),
            target=wanted.target,
            fresh=wanted.fresh,
            open=wanted.open,
            open_at=wanted.open_at,
            kept=wanted.kept,
        )

    def _chance_of(self, task: TaskFacts) -> Random:
        """What draws a task's audits, whichever others are planned beside it."""
        if self._draw is None:
            self._draw = self._chance.getrandbits(128)
        return Random(f"{self._draw} {task.task}")  # noqa: S311 - seeded by a draw nobody can foresee

    def _schedule(self, task: TaskFacts) -> ScheduleVerdict:
        return schedule_verdict(
            task.rule.schedule,
            task.last_at,
            task.last_height,
            self._now,
            self._height,
            self._facts.blocks_per_session or self._settings.blocks_per_session,
        )

    def _plan(
        self, task: TaskFacts, *, at_least: int, at_most: int | None, force_since: datetime | None
    ) -> TaskPlan:
        return plan_task(
            task.prompts,
            task.outcomes,
            rule=task.samples,
            variance=task.variance,
            now=self._now,
            max_age=task.max_age,
            cut_at=self._facts.cut_at,
            final_elsewhere=task.final_elsewhere,
            at_least=at_least,
            at_most=at_most,
            undecided=task.task in self._undecided,
            force_since=force_since,
            retry_now=self._retry_errors,
            together=self._together,
            lives=task.lives,
            open_elsewhere=task.open_elsewhere,
            closed_elsewhere=task.closed_elsewhere,
            seed=task.seed,
            older=task.older,
            draw=task.draw,
            grace=self._grace,
        )


def _due_or_fresh(task: TaskFacts, plan: TaskPlan) -> Decision:
    state: State = "due" if plan.due else "open" if plan.open and plan.fresh < plan.target else "fresh"
    if state == "fresh" and (waits := task.unscored) is not None:
        # asked and answered, so nothing is asked; not fresh either, for nothing is known of them yet
        docs = agreeing(waits.docs, "answered doc waits", "answered docs wait")
        reason = f"{docs} for the scorer ({waits.reason})"
        return _held(task, "unscored", reason, plan, _sooner(plan.due_at, waits.retry_at))
    return Decision(task.task, state, plan.reason, plan, plan.due_at)


def _held(
    task: TaskFacts,
    state: State,
    reason: str,
    plan: TaskPlan | None = None,
    due_at: datetime | None = None,
    due_height: int | None = None,
) -> Decision:
    """Nothing is asked; what the docs alone would want stays visible as target and fresh docs."""
    empty = replace(plan or TaskPlan(1), due=[], reason=reason, open_at=None, aged_at=due_at)
    return Decision(task.task, state, reason, empty, due_at, due_height)


def _waiting(decision: Decision, reason: str, now: datetime) -> Decision:
    """What is due waits until a session lets the supplier be reached; the rest stays as it is."""
    if decision.state != "due":
        return decision
    plan = replace(decision.plan, due=[], reason=reason)
    return replace(decision, state="waiting", reason=reason, plan=plan, due_at=now)


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    known = [at for at in (one, other) if at is not None]
    return max(known, default=None)


def _sooner(one: datetime | None, other: datetime | None) -> datetime | None:
    known = [at for at in (one, other) if at is not None]
    return min(known, default=None)


def _summary(facts: SupplierFacts, decisions: Mapping[str, Decision], now: datetime) -> str:
    if facts.departed:
        return "the supplier left"
    states = Counter(decision.state for decision in decisions.values())
    if states["due"]:
        due = [d.plan for d in decisions.values() if d.state == "due"]
        docs, calls = sum(len(plan.due) for plan in due), sum(plan.n_calls for plan in due)
        text = (
            f"{counted(docs, 'doc')} of {counted(len(due), 'task')} {are(docs)} due, {counted(calls, 'call')}"
        )
    else:
        text = "nothing is due"
    others = ", ".join(f"{n} {state}" for state, n in sorted(states.items()) if state != "due")
    if others:
        text += f" ({others})"
    if facts.proxy is not None:
        text += f"; {facts.proxy} stands for it"
    if facts.retry_at is not None and facts.retry_at > now:
        text += f"; it did not answer lately, next try {facts.retry_at:%Y-%m-%d %H:%M}"
    return text
