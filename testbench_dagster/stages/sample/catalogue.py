"""The catalog stage: task data into the dataset store, prompt sequences into the document store."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.prompt import ANY_API, BuiltPrompt, TaskData
from testbench_dagster.core.records.prompts import (
    EpochRecord,
    NewestEpoch,
    PromptPlace,
    PromptRecord,
    SequenceLength,
)
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.relay import Api
from testbench_dagster.core.sampling import Spread, sequence
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stages.discover.roster import active_apis
from testbench_dagster.stages.sample.data import current_registration, task_data
from testbench_dagster.stages.sample.spread import measured_spreads
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import content_hash, document_id, typed
from testbench_dagster.stores.documents.values import from_milliseconds, milliseconds
from testbench_dagster.tasks.frameworks import VERSIONS
from testbench_dagster.tasks.sources import definition_state, source_state

#: Least time for which identity probes stay the same, whatever is rolled.
PROBE_EPOCH = timedelta(days=27)
_BUILD_CHUNK = 2000  # docs per call to the worker: bounds memory on large few-shot tasks


@dataclass(frozen=True)
class PromptReport:
    """What :func:`refresh_prompts` did; ``built`` counts new prompt documents.

    ``revealed`` is the epoch before, whose seed may now be published: its order decides nothing any more.
    """

    epoch: EpochRecord
    positions: int
    built: int
    apis: tuple[Api, ...]
    relayable: bool
    revealed: EpochRecord | None = None


# ------------------------------------------------------------------------------------------ datasets


def refresh_dataset(workspace: Workspace, spec: TaskSpec) -> tuple[Registration, bool]:
    """Load a task's data and store it; return its registration and whether anything changed.

    Where only the scoring changed (filters, metrics, the framework's version) the task keeps its hash, so its
    prompts and stored answers stay; :func:`scoring.score.score_new` then scores these anew.

    Raises:
        TaskError: what is wrong with the task or its data; nothing is stored then.
    """
    # read first: what changes while the task is being loaded must make it stale
    source, definition = source_state(spec), definition_state(spec)
    registered = workspace.framework(spec).register(spec)
    data = registered.data
    registration = Registration(
        task=spec.name,
        task_hash=registered.task_hash,
        framework=spec.framework,
        lm_task=spec.leaf,
        engine_version=VERSIONS[spec.framework],
        config_hash=registered.config_hash,
        fingerprint=registered.fingerprint,
        eval_split=registered.eval_split,
        splits=dict(registered.splits),
        flags=replace(
            data.flags,
            metric_order=list(data.flags.metrics),  # the store sorts the keys of JSON objects
            source=source,
            definition=definition,
        ),
        n_docs=len(data.docs),
        n_fewshot=len(data.fewshot),
        registered_at=datetime.now(UTC),
    )
    docs = (StoredDoc(i, data.docs[i], h) for i, h in enumerate(registered.doc_hashes))
    fewshot = (
        StoredDoc(i, body, h)
        for i, (body, h) in enumerate(zip(data.fewshot, registered.fewshot_hashes, strict=True))
    )
    changed = workspace.datasets.register(registration, docs, fewshot)
    return workspace.datasets.current(spec.name) or registration, changed


def _is_stale(spec: TaskSpec, current: Registration | None) -> bool:
    """Whether a task was never registered, its configuration or files changed since, or it lacks a choice.

    A configured metric or filter the task does not have counts as well: registering says what it has.
    """
    return (
        current is None
        or current.flags.source != source_state(spec)
        or (spec.metric is not None and spec.metric not in current.flags.metrics)
        or (spec.filter is not None and spec.filter not in current.flags.filters)
    )


def stale_tasks(workspace: Workspace, specs: Sequence[TaskSpec]) -> list[TaskSpec]:
    """The tasks whose data or configuration changed, or whose prompt sequence lacks something.

    A sequence is complete when it has all its positions in every request form the suppliers need. Reads a
    handful of rows per task, in few queries.
    """
    current = {r.task: r for r in workspace.datasets.tasks()}
    epochs = _current_epochs(workspace)
    lengths = _sequence_lengths(workspace, current.values(), epochs)
    forms: dict[str, tuple[Api, ...]] = {}
    stale = []
    for spec in specs:
        registration = current.get(spec.name)
        if registration is None or _is_stale(spec, registration):
            stale.append(spec)
            continue
        kind = registration.flags.output_type
        if kind not in forms:
            forms[kind] = needed_apis(workspace, kind)
        known = lengths.get(spec.name, {})
        if any(known.get(api, 0) < sequence_length(spec, registration) for api in forms[kind]):
            stale.append(spec)
    return stale


def catalogue_fingerprint(workspace: Workspace) -> str:
    """Changes whenever what the configured tasks ask, or how it is scored, does.

    One hash over each task's hashes, current epoch and number of prompts per request form; three queries.
    """
    names = {spec.name for spec in workspace.specs}
    current = [r for r in workspace.datasets.tasks() if r.task in names]
    epochs = _current_epochs(workspace)
    lengths = _sequence_lengths(workspace, current, epochs)
    return content_hash(
        [
            [
                r.task,
                r.task_hash,
                r.config_hash,
                epochs.get(r.task),
                sorted(lengths.get(r.task, {}).items()),
            ]
            for r in current
        ]
    )


def _current_epochs(workspace: Workspace) -> dict[str, int]:
    """Number of the newest epoch of every task that has one."""
    return {row.task: row.max_epoch for row in typed.group(workspace.documents, NewestEpoch)}


def _sequence_lengths(
    workspace: Workspace, registrations: Iterable[Registration], epochs: dict[str, int]
) -> dict[str, dict[str, int]]:
    """Number of stored prompts of each task's current sequence, by request form."""
    wanted = {r.task: r.task_hash for r in registrations if r.task in epochs}
    where = {
        "task": {"in": sorted(wanted)},
        "task_hash": {"in": sorted(set(wanted.values()))},
        "epoch": {"in": sorted({epochs[task] for task in wanted})},
    }
    found: dict[str, dict[str, int]] = {}
    for row in typed.group(workspace.documents, SequenceLength, where):
        if (row.task_hash, row.epoch) == (wanted.get(row.task), epochs[row.task]):
            found.setdefault(row.task, {})[row.api] = row.n
    return found


# ------------------------------------------------------------------------------------------ prompts


def current_epoch(workspace: Workspace, spec: TaskSpec) -> EpochRecord:
    """The newest epoch of a task; the first one is started when there is none."""
    while (newest := _newest_epoch(workspace, spec)) is None:
        start_epoch(workspace, spec, 1)
    return newest


def roll_epoch(
    workspace: Workspace, spec: TaskSpec, before: datetime, spread: Spread | None = None
) -> EpochRecord:
    """The current epoch of a task, after starting the next one if it began before an instant.

    ``spread`` is how its docs vary, for callers that measured it for many tasks; by default it is measured.

    Repeated with the same instant it starts no further epoch; any number of callers agree on one. Identity
    probes stay for :data:`PROBE_EPOCH`: what they are for is to be asked again.

    Raises:
        TaskError: the instant has no time zone.
    """
    if before.tzinfo is None:
        raise TaskError(f"roll_before {before.isoformat()} has no time zone; add one, such as +00:00")
    before = from_milliseconds(milliseconds(before))  # what the store keeps of it
    began_before = before if spec.probes is None else before - PROBE_EPOCH
    while True:
        newest = _newest_epoch(workspace, spec)
        if newest is not None and not newest.began_before(began_before):
            return newest
        start_epoch(workspace, spec, newest.epoch + 1 if newest else 1, roll_before=before, spread=spread)


def _newest_epoch(workspace: Workspace, spec: TaskSpec) -> EpochRecord | None:
    where = {"task": spec.name}
    return next(typed.find(workspace.documents, EpochRecord, where, sort=[("epoch", -1)], limit=1), None)


def start_epoch(
    workspace: Workspace,
    spec: TaskSpec,
    number: int,
    *,
    roll_before: datetime | None = None,
    spread: Spread | None = None,
) -> None:
    """Store the seed of an epoch with its hash, and how docs vary, unless another process has already."""
    fixed = workspace.config.settings.sampling.epoch_seed
    seed = secrets.token_hex(16) if fixed is None else f"{fixed}:{spec.name}:{number}"
    if spread is None or number == 1:
        # before the first one there is nothing to measure
        spread = measured_spreads(workspace, [spec])[spec.name] if number > 1 else Spread()
    epoch = EpochRecord(
        id=document_id("epoch", spec.name, number),
        task=spec.name,
        epoch=number,
        started_at=datetime.now(UTC),
        seed=seed,
        seed_sha256=hashlib.sha256(seed.encode()).hexdigest(),
        roll_before=roll_before,
        groups=spread.groups,
        variance=spread.variance,
    )
    typed.put_new(workspace.documents, EpochRecord, [epoch])


def needed_apis(workspace: Workspace, output_type: str) -> tuple[Api, ...]:
    """The request forms (chat, completions) the active suppliers need of a task."""
    if output_type not in ANY_API:
        return ("completions",)
    return tuple(sorted(active_apis(workspace))) or ("chat",)


def sequence_length(spec: TaskSpec, registration: Registration) -> int:
    """Number of positions of a task's sequence: ``samples.max``, or all docs."""
    return registration.n_docs if spec.samples is None else min(spec.samples.max, registration.n_docs)


def refresh_prompts(
    workspace: Workspace,
    spec: TaskSpec,
    roll_before: datetime | None = None,
    spread: Spread | None = None,
) -> PromptReport:
    """Complete the current epoch's prompt sequence of a task: its first ``samples.max`` docs, or all.

    Where the current epoch began before ``roll_before`` (aware) the next one is started first, see
    :func:`roll_epoch`: its seed is stored with its hash before any of its prompts exists. Prompts already
    stored are kept as they are; only missing positions are built.

    Raises:
        TaskError: the task has no dataset, ``roll_before`` no time zone.
    """
    registration = current_registration(workspace, spec)
    if roll_before is None:
        epoch = current_epoch(workspace, spec)
    else:
        epoch = roll_epoch(workspace, spec, roll_before, spread)
    order = sequence(epoch.seed, registration.n_docs)
    length = sequence_length(spec, registration)
    apis = needed_apis(workspace, registration.flags.output_type)
    data: TaskData | None = None
    built = 0
    for api in apis:
        stored = {
            prompt.position
            for prompt in typed.find(
                workspace.documents, PromptPlace, prompt_filter(registration, epoch.epoch, api)
            )
        }
        missing = [position for position in range(length) if position not in stored]
        for start in range(0, len(missing), _BUILD_CHUNK):
            data = data or task_data(workspace, registration)
            part = {order[position]: position for position in missing[start : start + _BUILD_CHUNK]}
            prompts = workspace.framework(spec).build_prompts(spec, data, sorted(part), api, epoch.seed)
            hashes = {
                d.doc_id: d.doc_hash for d in workspace.datasets.docs(registration.task_hash, sorted(part))
            }
            built += typed.put_new(
                workspace.documents,
                PromptRecord,
                _prompt_records(registration, epoch, api, prompts, part, hashes),
            )
    before = None
    if epoch.epoch > 1:
        before = typed.get(workspace.documents, EpochRecord, document_id("epoch", spec.name, epoch.epoch - 1))
    return PromptReport(
        epoch,
        length,
        built,
        apis,
        task_relayable(workspace, registration, epoch.epoch, apis),
        revealed=before,
    )


def prompt_filter(registration: Registration, epoch: int, api: str) -> dict[str, Any]:
    """Select the prompts of one sequence."""
    return {"task": registration.task, "task_hash": registration.task_hash, "epoch": epoch, "api": api}


def task_relayable(workspace: Workspace, registration: Registration, epoch: int, apis: Iterable[str]) -> bool:
    """Whether every prompt of the sequence can be relayed over HTTP at all."""
    return not any(
        typed.count(
            workspace.documents,
            PromptRecord,
            {**prompt_filter(registration, epoch, api), "relayable": False},
        )
        for api in apis
    )


def _prompt_records(
    registration: Registration,
    epoch: EpochRecord,
    api: Api,
    prompts: Sequence[BuiltPrompt],
    positions: dict[int, int],
    hashes: dict[int, str],
) -> Iterable[PromptRecord]:
    now = datetime.now(UTC)
    repeats = registration.flags.repeats
    for prompt in prompts:
        position = positions[prompt.doc_id]
        identity: list[Any] = [registration.task, registration.task_hash, epoch.epoch, api, position]
        yield PromptRecord(
            id=document_id("prompt", *identity, prompt.doc_id, prompt.requests),
            task=registration.task,
            task_hash=registration.task_hash,
            epoch=epoch.epoch,
            api=api,
            position=position,
            doc_id=prompt.doc_id,
            doc_hash=hashes[prompt.doc_id],
            calls=len(prompt.requests) * repeats,
            relayable=prompt.relayable,
            requests=prompt.requests,
            target=prompt.target,
            context_chars=prompt.context_chars,
            created_at=now,
            repeats=repeats,
        )
