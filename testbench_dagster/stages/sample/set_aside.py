"""Tasks that cannot be prepared are set aside with their reason, and the others go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.records.set_aside import SetAsideRecord, Step, VoidDocRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import Spread
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.text import escaped
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.sample.catalogue import PromptReport, refresh_dataset, refresh_prompts
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks.sources import source_state

#: Sensors try such a task again after the first of these; it doubles with each failure up to the second.
_RETRY, _RETRY_MOST = timedelta(minutes=5), timedelta(hours=24)
_MOST_CHARACTERS = 1_000  # of a reason: it lives in event rows and on terminals


@dataclass(frozen=True)
class PreparedDataset:
    """The registration of a task and whether it changed, or why it was set aside."""

    registration: Registration | None = None
    changed: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class PreparedPrompts:
    """What was done about the prompts of a task, or why it is set aside."""

    report: PromptReport | None = None
    reason: str | None = None


def prepare_dataset(workspace: Workspace, spec: TaskSpec) -> PreparedDataset:
    """Load and store a task's data; what is wrong with the task sets it aside and is returned.

    Raises:
        StoreError: a store cannot be used, which is no task's fault.
    """
    try:
        registration, changed = refresh_dataset(workspace, spec)
    except TaskError as error:
        return PreparedDataset(reason=_set_aside(workspace, spec, "dataset", error))
    known = typed.get(workspace.documents, SetAsideRecord, spec.name)
    if known is not None and known.step == "dataset":
        _take_back(workspace, spec)
    return PreparedDataset(registration, changed)


def prepare_prompts(
    workspace: Workspace,
    spec: TaskSpec,
    roll_before: datetime | None = None,
    spread: Spread | None = None,
) -> PreparedPrompts:
    """Complete a task's prompts as :func:`refresh_prompts` does, unless it is set aside or has to be.

    Raises:
        StoreError: a store cannot be used, which is no task's fault.
    """
    known = typed.get(workspace.documents, SetAsideRecord, spec.name)
    if known is not None and known.step == "dataset":
        return PreparedPrompts(reason=known.reason)
    try:
        report = refresh_prompts(workspace, spec, roll_before=roll_before, spread=spread)
    except TaskError as error:
        return PreparedPrompts(reason=_set_aside(workspace, spec, "prompts", error))
    if known is not None:
        _take_back(workspace, spec)
    return PreparedPrompts(report)


def tasks_set_aside(workspace: Workspace, specs: Iterable[TaskSpec]) -> dict[str, str]:
    """Why tasks are set aside, by name, in the order given; the others are left out."""
    found = {one.id: one.reason for one in typed.find(workspace.documents, SetAsideRecord)}
    return {spec.name: found[spec.name] for spec in specs if spec.name in found}


def resting_tasks(workspace: Workspace, specs: Iterable[TaskSpec], now: datetime | None = None) -> set[str]:
    """The tasks set aside that sensors leave alone: tried lately, and nothing about them changed since."""
    now = now or datetime.now(UTC)
    found = {one.id: one for one in typed.find(workspace.documents, SetAsideRecord)}
    return {
        spec.name
        for spec in specs
        if (one := found.get(spec.name)) is not None
        and one.retry_at > now
        and not is_ahead(one.tried_at, now)
        and one.source == source_state(spec)
    }


def void_docs(workspace: Workspace, specs: Iterable[TaskSpec]) -> dict[str, str]:
    """Which docs of tasks' present data nobody is asked because no store holds their prompts, in words."""
    found: dict[str, dict[int, str]] = {}
    names = {spec.name for spec in specs}
    if not typed.count(workspace.documents, VoidDocRecord):
        return {}
    current = {r.task: r.task_hash for r in workspace.datasets.tasks() if r.task in names}
    for doc in typed.find(workspace.documents, VoidDocRecord, {"task": {"in": sorted(current)}}):
        if current[doc.task] == doc.task_hash:
            found.setdefault(doc.task, {})[doc.doc_id] = doc.reason
    told = {}
    for task, docs in found.items():
        first = min(docs)
        what = "counts nowhere" if len(docs) == 1 else "count nowhere"
        told[task] = f"{counted(len(docs), 'doc')} {what} and nobody is asked: doc {first}: {docs[first]}"
    return told


def _set_aside(workspace: Workspace, spec: TaskSpec, step: Step, error: TaskError) -> str:
    now = datetime.now(UTC)
    known = typed.get(workspace.documents, SetAsideRecord, spec.name)
    failures = 1 if known is None else known.failures + 1
    wait = min(_RETRY * 2 ** min(failures - 1, 20), _RETRY_MOST)
    reason = _reason(str(error))
    made = SetAsideRecord(
        id=spec.name,
        step=step,
        since=now if known is None else known.since,
        tried_at=now,
        failures=failures,
        retry_at=now + wait,
        reason=reason,
        source=source_state(spec),
    )
    typed.upsert(workspace.documents, SetAsideRecord, [made])
    return reason


def _take_back(workspace: Workspace, spec: TaskSpec) -> None:
    typed.purge(workspace.documents, SetAsideRecord, {"_id": spec.name})


def _reason(text: str) -> str:
    """A reason as a line that a terminal and a page may show: what raised it may quote a data set."""
    return escaped(" ".join(text.split()), _MOST_CHARACTERS)
