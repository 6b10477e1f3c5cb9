"""The relay stage: plan what is due per supplier and task, relay it, store every attempt.

Idempotent: what has a stored, settled answer is not asked again, so a killed run is continued by starting it
again. One bad supplier never fails the stage; its problem is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.config import SupplierConfig
from testbench_dagster.errors import ConfigError
from testbench_dagster.planning.due import DuePrompt, Measured, PromptRef, TaskPlan, plan_task
from testbench_dagster.relays.faults import Fault
from testbench_dagster.relays.messages import Attempt, Endpoint, Relay
from testbench_dagster.relays.outcomes import call_outcomes
from testbench_dagster.relays.probe import ECHO_REQUEST, echo_verdict, probe_relay
from testbench_dagster.relays.report import Progress, Report
from testbench_dagster.relays.writer import AttemptWriter
from testbench_dagster.scoring.measured import measured_now
from testbench_dagster.stores.datasets import Registration
from testbench_dagster.stores.documents import Document
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SUPPLIERS
from testbench_dagster.suppliers import endpoint, remember_echo_logprobs
from testbench_dagster.tasks.catalogue import current_epoch, prompt_filter
from testbench_dagster.tasks.specs import TaskSpec
from testbench_dagster.tasks.unsupported import is_unsupported
from testbench_dagster.workspace import Workspace

_FETCH = 64  # prompts read at a time: the engine pulls lazily, so memory does not grow with the queue
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
    """Outcome of the stage: the engine's report, the plans, and problems by supplier key."""

    relays: Report | None
    planned: list[PlannedTask] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    unsupported: dict[str, list[str]] = field(default_factory=dict)

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
    on_progress: Callable[[Progress], None] | None = None,
    on_planned: Callable[[int], None] | None = None,
) -> CollectReport:
    """Relay what is due for the given supplier keys and store the attempts.

    Args:
        workspace: the installation.
        suppliers: partition keys; one that is not configured (any more) is reported as a problem.
        tasks: names of tasks or groups; None for all.
        max_relays: hard cap on attempts in this call, retries included.
        retry_errors: ask docs again that ended in the supplier's fault.
        on_progress: called a few times a second while relaying.
        on_planned: called once with the number of due calls.
    """
    from testbench_dagster.relays.engine import run_relays  # aiohttp: 0.2 s no code location need pay

    report = CollectReport(None)
    specs = workspace.chosen_specs(tasks)
    registrations = {
        spec.name: r for spec in specs if (r := workspace.datasets.current(spec.name)) is not None
    }
    sequences = _Sequences(workspace)
    reachable: list[tuple[SupplierConfig, Endpoint]] = []
    for key in suppliers:
        try:
            supplier = workspace.config.supplier(key)
            if supplier is None:
                raise ConfigError(f"{key} is not in {workspace.config.path}; nothing is relayed to it")
            reachable.append((supplier, endpoint(workspace.config, supplier)))
        except ConfigError as error:
            report.problems[key] = str(error)
    allowance = _allowance(workspace, {target.service for _, target in reachable})
    askable = [] if max_relays == 0 else reachable
    echo = _echo_capabilities(
        workspace,
        [(s, t) for s, t in askable if allowance is None or allowance[t.service] > 0],
        registrations.values(),
    )
    lanes: list[tuple[Endpoint, list[PlannedTask]]] = []
    for supplier, target in reachable:
        key, plans = supplier.key, []
        for spec in specs:
            registration = registrations.get(spec.name)
            if registration is None:
                report.problems[key] = f"task {spec.name} has no dataset; materialize task_datasets"
                continue
            if is_unsupported(supplier.api, registration, echo.get(key)):
                report.unsupported.setdefault(key, []).append(spec.name)
                continue
            planned = _plan(workspace, supplier, spec, registration, sequences, retry_errors)
            if planned.plan.due:
                plans.append(planned)
            elif not planned.plan.target:
                report.problems[key] = f"task {spec.name} has no prompts for it; materialize sampled_prompts"
        report.planned += plans
        if plans:
            lanes.append((target, plans))
    if on_planned is not None:
        on_planned(report.n_due)
    prompts = _Prompts(workspace)
    with AttemptWriter(workspace.documents) as writer:
        report.relays = run_relays(
            [(target, _relays(target, plans, prompts)) for target, plans in lanes],
            writer.add,
            max_in_flight=workspace.config.settings.relays.max_in_flight,
            allowance=allowance,
            max_relays=max_relays,
            on_progress=on_progress,
        )
    return report


# --------------------------------------------------------------------------------------------------- planning


class _Sequences:
    """The prompt sequences, read once for all suppliers of a run."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._known: dict[tuple[str, str], tuple[int, list[PromptRef]]] = {}

    def get(self, spec: TaskSpec, registration: Registration, api: str) -> tuple[int, list[PromptRef]]:
        """Epoch and prompts of a task for one request form."""
        key = (spec.name, api)
        if key not in self._known:
            epoch = current_epoch(self._workspace, spec).epoch
            repeats = int(registration.flags["repeats"])
            rows = self._workspace.documents.find(
                PROMPTS,
                prompt_filter(registration, epoch, api),
                sort=[("position", 1)],
                fields=["_id", "position", "doc_id", "calls", "relayable"],
            )
            refs = [
                PromptRef(r["_id"], r["position"], r["doc_id"], r["calls"] // repeats, repeats)
                for r in rows
                if r["relayable"]
            ]
            length = len(refs) if spec.samples is None else spec.samples.max
            self._known[key] = (epoch, refs[:length])
        return self._known[key]


def request_form(supplier: SupplierConfig, registration: Registration) -> str:
    """Which form of a task's prompts a supplier is sent: its API, or completions for loglikelihood."""
    return supplier.api if registration.flags["output_type"] == "generate_until" else "completions"


def _plan(
    workspace: Workspace,
    supplier: SupplierConfig,
    spec: TaskSpec,
    registration: Registration,
    sequences: _Sequences,
    retry_errors: bool,
) -> PlannedTask:
    epoch, refs = sequences.get(spec, registration, request_form(supplier, registration))
    sampling = workspace.config.settings.sampling
    needs_width = spec.samples is not None and spec.samples.half_width is not None
    plan = plan_task(
        refs,
        call_outcomes(workspace.documents, supplier.key, spec.name, registration.task_hash, epoch),
        rule=spec.samples,
        measured=measured_now(workspace, supplier.key, spec, registration) if needs_width else Measured(),
        now=datetime.now(UTC),
        max_age=timedelta(days=sampling.max_age_days),
        retry_errors=retry_errors,
    )
    return PlannedTask(supplier.key, spec, registration, epoch, plan)


def _echo_capabilities(
    workspace: Workspace,
    suppliers: Sequence[tuple[SupplierConfig, Endpoint]],
    registrations: Iterable[Registration],
) -> dict[str, bool | None]:
    """Which suppliers echo log-probabilities, where a task needs it; asks those of whom it is not known."""
    never_need_it = ("generate_until", "loglikelihood_rolling")
    if all(r.flags["output_type"] in never_need_it for r in registrations):
        return {}
    targets = {s.key: target for s, target in suppliers if s.api == "completions"}
    known: dict[str, bool | None] = dict.fromkeys(targets)
    due = dict(targets)
    for document in workspace.documents.find(SUPPLIERS, {"_id": {"in": sorted(targets)}}):
        key, known[document["_id"]] = document["_id"], document["echo_logprobs"]
        probed_at = document.get("probed_at")
        if known[key] or (
            known[key] is False and probed_at and datetime.now(UTC) - probed_at <= _PROBE_AGAIN
        ):
            del due[key]
    return known | probe_echo_logprobs(workspace, list(due.values()))


def probe_echo_logprobs(workspace: Workspace, targets: Sequence[Endpoint]) -> dict[str, bool]:
    """Ask suppliers for echoed log-probabilities, all at once; remember and return which can.

    Those where the network, not the supplier, stood in the way are left out, and nothing is remembered.
    """
    if not targets:
        return {}
    from testbench_dagster.relays.engine import run_relays

    faults: dict[str, Fault] = {}

    def note(relay: Relay, _number: int, attempt: Attempt) -> None:
        faults[relay.supplier] = attempt.fault

    run_relays([(target, [probe_relay(target, ECHO_REQUEST)]) for target in targets], note)
    found = {key: v for key, fault in faults.items() if (v := echo_verdict(fault)) is not None}
    for key, supported in found.items():
        remember_echo_logprobs(workspace, key, supported)
    return found


def _allowance(workspace: Workspace, services: Iterable[str]) -> dict[str, int] | None:
    cap = workspace.config.settings.budget.relays_per_day
    if cap is None:
        return None
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        service: max(
            0,
            cap - workspace.documents.count(ATTEMPTS, {"service": service, "finished_at": {"gte": midnight}}),
        )
        for service in services
    }


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
