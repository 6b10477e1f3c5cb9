"""The catalog stage: task data into the dataset store, prompt sequences into the document store."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.core.errors import StoreError, TaskError
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.prompt import BuiltPrompt, TaskData
from testbench_dagster.core.records.prompts import (
    EpochDocs,
    EpochRecord,
    PromptPlace,
    PromptRecord,
    SequenceLength,
)
from testbench_dagster.core.records.set_aside import TaskSetAside, VoidDocRecord
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.relay import Api
from testbench_dagster.core.sampling import Measurement, Spread, asked_order, named_docs, still_holds
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.text import escaped
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.discover.roster import active_apis
from testbench_dagster.stages.sample.data import current_registration, task_data
from testbench_dagster.stages.sample.epochs import newest_epochs, sequence_length
from testbench_dagster.stages.sample.spread import measured_spreads
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, content_hash, document_id, typed
from testbench_dagster.stores.documents.values import from_milliseconds, milliseconds
from testbench_dagster.tasks.sources import definition_state, source_state
from testbench_dagster.transports.payload import unsendable

#: Least time for which identity probes stay the same, whatever is rolled.
PROBE_EPOCH = timedelta(days=27)
_BUILD_CHUNK = 2000  # docs per call to the worker: bounds memory on large few-shot tasks


@dataclass(frozen=True)
class PromptReport:
    """What :func:`refresh_prompts` did; ``built`` counts new prompt documents.

    ``void`` counts docs of the sequence that nobody is asked, because no store holds their prompts.
    ``revealed`` is the epoch before, whose seed may now be published: its order decides nothing any more.
    """

    epoch: EpochRecord
    positions: int
    built: int
    apis: tuple[Api, ...]
    relayable: bool
    revealed: EpochRecord | None = None
    void: int = 0


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
    check_ids(spec, len(data.docs), registered.eval_split)
    registration = Registration(
        task=spec.name,
        task_hash=registered.task_hash,
        framework=spec.framework,
        lm_task=spec.leaf,
        engine_version=framework_plug(spec.framework).version,
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


def check_ids(spec: TaskSpec, n_docs: int, split: str) -> None:
    """Raise TaskError where ``samples.ids`` names docs that the task does not have."""
    beyond = sorted(doc for doc in named_docs(spec.samples) or () if doc >= n_docs)
    if beyond:
        shown = ", ".join(map(str, beyond[:5])) + (f" and {len(beyond) - 5} more" if len(beyond) > 5 else "")
        raise TaskError(
            f"task {spec.name!r}: samples.ids names {shown}, but its split {split!r} has "
            f"{counted(n_docs, 'doc')}, from 0 to {n_docs - 1}; remove what is beyond"
        )


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

    So are those that are set aside: what stood in the way may be gone. A sequence is complete when it has all
    its positions in every request form the suppliers need. Reads a handful of rows per task, in few queries.
    """
    current = {r.task: r for r in workspace.datasets.tasks()}
    epochs = newest_epochs(workspace.documents, {spec.name for spec in workspace.specs})
    lengths = _sequence_lengths(workspace, current.values(), epochs)
    named = _named_by_epochs(workspace, epochs)
    aside = _set_aside(workspace)
    forms: dict[tuple[Api, ...], tuple[Api, ...]] = {}
    stale = []
    for spec in specs:
        registration = current.get(spec.name)
        if registration is None or spec.name in aside or _is_stale(spec, registration):
            stale.append(spec)
            continue
        if spec.name in epochs and named.get(spec.name) != _doc_ids(spec):
            stale.append(spec)
            continue
        kind = registration.flags.request_forms
        if kind not in forms:
            forms[kind] = needed_apis(workspace, kind)
        known = lengths.get(spec.name, {})
        if any(known.get(api, 0) < sequence_length(spec, registration) for api in forms[kind]):
            stale.append(spec)
    return stale


def catalogue_fingerprint(workspace: Workspace) -> str:
    """Changes whenever what the configured tasks ask, or how it is scored, does.

    One hash over each task's hashes, current epoch and number of prompts per request form, and over which
    are set aside; four queries.
    """
    names = {spec.name for spec in workspace.specs}
    current = [r for r in workspace.datasets.tasks() if r.task in names]
    epochs = newest_epochs(workspace.documents, {spec.name for spec in workspace.specs})
    lengths = _sequence_lengths(workspace, current, epochs)
    aside = sorted(_set_aside(workspace) & names)
    return content_hash(
        [
            *([aside] if aside else []),
            *(
                [
                    r.task,
                    r.task_hash,
                    r.config_hash,
                    epochs.get(r.task),
                    sorted(lengths.get(r.task, {}).items()),
                ]
                for r in current
            ),
        ]
    )


def _set_aside(workspace: Workspace) -> set[str]:
    """The names of all tasks that are set aside."""
    return {one.id for one in typed.find(workspace.documents, TaskSetAside)}


def _named_by_epochs(workspace: Workspace, epochs: Mapping[str, int]) -> dict[str, list[int]]:
    """The docs that the newest epochs name, by task; without those that name none."""
    where = {"task": {"in": sorted(epochs)}, "epoch": {"in": sorted(set(epochs.values()))}}
    return {
        one.task: one.doc_ids
        for one in typed.find(workspace.documents, EpochDocs, where)
        if one.epoch == epochs[one.task] and one.doc_ids is not None
    }


def _doc_ids(spec: TaskSpec) -> list[int] | None:
    """The docs that a task's rule names, as an epoch's record has them."""
    named = named_docs(spec.samples)
    return None if named is None else sorted(named)


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
    """The newest epoch of a task; one is started when there is none, or the task names other docs now."""
    while True:
        newest = _newest_epoch(workspace, spec)
        if newest is not None and newest.doc_ids == _doc_ids(spec):
            return newest
        start_epoch(workspace, spec, newest.epoch + 1 if newest else 1)


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
        same = newest is not None and newest.doc_ids == _doc_ids(spec)
        # whatever the clocks say, it may have been started for this very instant
        if newest is not None and same and newest.roll_before == before:
            return newest
        if newest is not None and same and not newest.began_before(began_before, datetime.now(UTC)):
            return newest
        start_epoch(workspace, spec, newest.epoch + 1 if newest else 1, roll_before=before, spread=spread)


def _newest_epoch(workspace: Workspace, spec: TaskSpec) -> EpochRecord | None:
    where = {"task": spec.name, "epoch": {"gte": 1}}  # without a bound MongoDB reads all of the task's
    return next(typed.find(workspace.documents, EpochRecord, where, sort=[("epoch", -1)], limit=1), None)


def _epoch_before(workspace: Workspace, spec: TaskSpec, number: int) -> EpochRecord | None:
    return typed.get(workspace.documents, EpochRecord, document_id("epoch", spec.name, number - 1))


def start_epoch(
    workspace: Workspace,
    spec: TaskSpec,
    number: int,
    *,
    roll_before: datetime | None = None,
    spread: Spread | None = None,
) -> None:
    """Store the seed of an epoch with its hash, and how docs vary, unless another process has already.

    That is as the ``spread`` has it, measured now, where the epochs before have none that still holds.
    """
    fixed = workspace.config.settings.sampling.epoch_seed
    seed = secrets.token_hex(16) if fixed is None else f"{fixed}:{spec.name}:{number}"
    if spread is None or number == 1:
        # before the first one there is nothing to measure
        spread = measured_spreads(workspace, [spec])[spec.name] if number > 1 else Spread()
    now, commitment = datetime.now(UTC), hashlib.sha256(seed.encode()).hexdigest()
    variance, measurement = spread.variance, None
    if variance is not None:
        before = _epoch_before(workspace, spec, number)
        measurement = None if before is None else before.measurement
        if before is not None and still_holds(
            measurement, now, spec.max_age(workspace.config.settings.sampling.max_age_days)
        ):
            variance = before.variance
        else:
            measurement = Measurement(number, now, commitment)
    epoch = EpochRecord(
        id=document_id("epoch", spec.name, number),
        task=spec.name,
        epoch=number,
        started_at=now,
        seed=seed,
        seed_sha256=commitment,
        roll_before=roll_before,
        groups=spread.groups,
        variance=variance,
        spread_epoch=None if measurement is None else measurement.epoch,
        spread_at=None if measurement is None else measurement.at,
        spread_draw=None if measurement is None else measurement.draw,
        doc_ids=_doc_ids(spec),
    )
    typed.put_new(workspace.documents, EpochRecord, [epoch])


def needed_apis(workspace: Workspace, forms: tuple[Api, ...]) -> tuple[Api, ...]:
    """Which of a task's request forms the active suppliers need."""
    if len(forms) == 1:
        return forms
    return tuple(sorted(active_apis(workspace))) or ("chat",)


def refresh_prompts(
    workspace: Workspace,
    spec: TaskSpec,
    roll_before: datetime | None = None,
    spread: Spread | None = None,
) -> PromptReport:
    """Complete the current epoch's prompt sequence of a task: its first docs, those it names, or all.

    Where the current epoch began before ``roll_before`` (aware) the next one is started first, see
    :func:`roll_epoch`: its seed is stored with its hash before any of its prompts exists. Prompts already
    stored are kept as they are; only missing positions are built.

    Raises:
        TaskError: the task has no dataset, or not the docs that ``samples.ids`` names; ``roll_before`` has no
            time zone.
    """
    registration = current_registration(workspace, spec)
    check_ids(spec, registration.n_docs, registration.eval_split)
    if roll_before is None:
        epoch = current_epoch(workspace, spec)
    else:
        epoch = roll_epoch(workspace, spec, roll_before, spread)
    order = asked_order(epoch.seed, registration.n_docs, epoch.doc_ids, pairs=bool(registration.flags.pairs))
    length = sequence_length(spec, registration)
    apis = needed_apis(workspace, registration.flags.request_forms)
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
            prompts = built_prompts(workspace, spec, data, sorted(part), api, epoch.seed)
            hashes = {
                d.doc_id: d.doc_hash for d in workspace.datasets.docs(registration.task_hash, sorted(part))
            }
            built += _put_prompts(
                workspace.documents, list(_prompt_records(registration, epoch, api, prompts, part, hashes))
            )
    void = _count_void(workspace, registration, epoch.epoch)
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
        void=max(void.values(), default=0),
    )


def built_prompts(
    workspace: Workspace, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: Api, seed: str
) -> list[BuiltPrompt]:
    """The prompts of some docs, as their framework builds them.

    Raises:
        TaskError: a request could not be sent to anybody. It would end every relay that carries it, which is
            no supplier's fault, so nobody is asked the task.
    """
    prompts = workspace.framework(spec).build_prompts(spec, data, doc_ids, api, seed)
    if framework_plug(spec.framework).of_lm_eval:
        return prompts  # whose requests have forms of their own
    for prompt in prompts:
        for place, request in enumerate(prompt.requests):
            if problem := unsendable(request, api):
                where = f"task {spec.name!r}: framework {spec.framework!r}: build_prompts()"
                raise TaskError(
                    f"{where}: doc {prompt.doc_id}: request {place} cannot be sent as {api}: {problem}; that "
                    "is a mistake of the framework: mend it, or ask who provides it"
                )
    return prompts


def _put_prompts(documents: DocumentStore, prompts: Sequence[PromptRecord]) -> int:
    """Store new prompts. In place of one that no store holds stands an empty one that is never sent.

    So every place of a sequence is taken, whatever is in its docs, and nobody's answers decide about it.
    """
    try:
        return typed.put_new(documents, PromptRecord, prompts)
    except StoreError:
        problems = {prompt.id: typed.unstorable(prompt) for prompt in prompts}
        if not any(problems.values()):
            raise  # the store's own trouble
    kept = [
        prompt if problems[prompt.id] is None else replace(prompt, requests=[], target=None, relayable=False)
        for prompt in prompts
    ]
    void = [
        VoidDocRecord(
            id=prompt.id,
            task=prompt.task,
            task_hash=prompt.task_hash,
            epoch=prompt.epoch,
            api=prompt.api,
            position=prompt.position,
            doc_id=prompt.doc_id,
            reason=escaped(f"its prompt cannot be stored: {problem}", 500),
        )
        for prompt in prompts
        if (problem := problems[prompt.id]) is not None
    ]
    typed.put_new(documents, VoidDocRecord, void)  # first: no prompt is left out without its reason
    return typed.put_new(documents, PromptRecord, kept)


def _count_void(workspace: Workspace, registration: Registration, epoch: int) -> Counter[str]:
    """By form how many docs of a sequence no store holds."""
    where = {"task": registration.task, "task_hash": registration.task_hash, "epoch": epoch}
    return Counter(doc.api for doc in typed.find(workspace.documents, VoidDocRecord, where))


def prompt_filter(registration: Registration, epoch: int, api: str) -> dict[str, Any]:
    """Select the prompts of one sequence."""
    return {"task": registration.task, "task_hash": registration.task_hash, "epoch": epoch, "api": api}


def task_relayable(workspace: Workspace, registration: Registration, epoch: int, apis: Iterable[str]) -> bool:
    """Whether every prompt of the sequence that is stored can be relayed over HTTP at all."""
    void = _count_void(workspace, registration, epoch)
    return not any(
        typed.count(
            workspace.documents,
            PromptRecord,
            {**prompt_filter(registration, epoch, api), "relayable": False},
        )
        > void[api]
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
