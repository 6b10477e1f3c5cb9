"""The catalogue stage: task data into the dataset store, prompt sequences into the document store."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from testbench_dagster.errors import TaskError
from testbench_dagster.stores.datasets import Registration, StoredDoc
from testbench_dagster.stores.documents import Document, content_hash, document_id
from testbench_dagster.stores.documents.collections import EPOCHS, PROMPTS
from testbench_dagster.tasks.lm_eval_version import LM_EVAL_VERSION
from testbench_dagster.tasks.records import BuiltPrompt, Registered, TaskData
from testbench_dagster.tasks.specs import TaskSpec
from testbench_dagster.workspace import Workspace

_BUILD_CHUNK = 2000  # docs per call to the worker: bounds memory on large few-shot tasks


@dataclass(frozen=True)
class Epoch:
    """One prompt sequence of a task: its number (from 1) and the seed that orders the docs."""

    task: str
    epoch: int
    seed: str
    started_at: datetime

    @property
    def commitment(self) -> str:
        """SHA-256 of the seed: published at once, so that the order cannot be chosen afterwards."""
        return hashlib.sha256(self.seed.encode()).hexdigest()


@dataclass(frozen=True)
class PromptReport:
    """What :func:`refresh_prompts` did; ``built`` counts new prompt documents."""

    epoch: Epoch
    positions: int
    built: int
    apis: tuple[str, ...]
    relayable: bool


# ------------------------------------------------------------------------------------------ datasets


def refresh_dataset(workspace: Workspace, spec: TaskSpec) -> tuple[Registration, bool]:
    """Load a task's data and store it; return its registration and whether anything changed.

    Raises:
        TaskError: see :func:`lm_eval_adapter.register`; nothing is stored then.
    """
    registered: Registered = workspace.worker.call("register", spec)
    data = registered.data
    registration = Registration(
        task=spec.name,
        task_hash=registered.task_hash,
        framework=spec.framework,
        lm_task=spec.leaf,
        engine_version=LM_EVAL_VERSION,
        config_hash=registered.config_hash,
        fingerprint=registered.fingerprint,
        eval_split=registered.eval_split,
        splits=dict(registered.splits),
        flags={
            **data.flags,
            "metric_order": list(data.flags["metrics"]),  # the store sorts the keys of JSON objects
            "source": source_state(spec),
        },
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


def source_state(spec: TaskSpec) -> str:
    """Changes whenever what a task is made from does: its configuration, data files or own YAML folders.

    Data files go in by content, so that a new checkout of the same files changes nothing.
    """
    files = [[split, _file_state(path)] for split, path in sorted((spec.data or {}).items())]
    folders = [_folder_state(folder) for folder in spec.include]
    settings = [spec.leaf, spec.num_fewshot, dict(spec.where)]
    return content_hash([LM_EVAL_VERSION, settings, files, folders])


def _file_state(path: str) -> str | None:
    try:
        stat = Path(path).stat()
        return _digest(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=4096)  # the leaves of a group often share one file
def _digest(path: str, _size: int, _mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder_state(folder: str) -> list[list[str | None]]:
    """State of the task definitions and the Python files they may name."""
    root = Path(folder)
    paths = sorted(p for p in root.glob("**/*") if p.suffix in (".yaml", ".py"))
    return [[str(p.relative_to(root)), _file_state(str(p))] for p in paths]


def dataset_is_stale(workspace: Workspace, spec: TaskSpec) -> bool:
    """Whether a task was never registered, its configuration or files changed since, or it lacks a choice.

    A configured metric or filter the task does not have counts as well: registering says what it has.
    """
    current = workspace.datasets.current(spec.name)
    return (
        current is None
        or current.flags.get("source") != source_state(spec)
        or (spec.metric is not None and spec.metric not in current.flags["metrics"])
        or (spec.filter is not None and spec.filter not in current.flags["filters"])
    )


def current_registration(workspace: Workspace, spec: TaskSpec) -> Registration:
    """The current registration of a task.

    Raises:
        TaskError: it was never registered.
    """
    current = workspace.datasets.current(spec.name)
    if current is None:
        raise TaskError(
            f"task {spec.name!r} has no dataset yet; materialize task_datasets (testbench run does it)"
        )
    return current


def task_data(
    workspace: Workspace, registration: Registration, doc_ids: Sequence[int] | None = None
) -> TaskData:
    """Read a registered task's docs (all, or the given ones with doc 0) and, for all docs, its pool."""
    chosen = None if doc_ids is None else sorted({0, *doc_ids})
    docs = {d.doc_id: d.body for d in workspace.datasets.docs(registration.task_hash, chosen)}
    pool = [] if doc_ids is not None else workspace.datasets.fewshot(registration.task_hash)
    return TaskData(docs, [d.body for d in pool], registration.flags)


# ------------------------------------------------------------------------------------------ prompts


def current_epoch(workspace: Workspace, spec: TaskSpec) -> Epoch:
    """The newest epoch of a task; the first one is started when there is none."""
    newest = list(workspace.documents.find(EPOCHS, {"task": spec.name}, sort=[("epoch", -1)], limit=1))
    if not newest:
        start_epoch(workspace, spec, 1)
        newest = list(workspace.documents.find(EPOCHS, {"task": spec.name}, sort=[("epoch", -1)], limit=1))
    found = newest[0]
    return Epoch(found["task"], found["epoch"], found["seed"], found["started_at"])


def start_epoch(workspace: Workspace, spec: TaskSpec, number: int) -> None:
    """Store the seed of an epoch unless another process has already."""
    fixed = workspace.config.settings.sampling.epoch_seed
    seed = secrets.token_hex(16) if fixed is None else f"{fixed}:{spec.name}:{number}"
    document = {
        "_id": document_id("epoch", spec.name, number),
        "task": spec.name,
        "epoch": number,
        "seed": seed,
        "seed_sha256": hashlib.sha256(seed.encode()).hexdigest(),
        "started_at": datetime.now(UTC),
    }
    workspace.documents.put_new(EPOCHS, [document])


def sequence(seed: str, n_docs: int) -> list[int]:
    """Order the docs 0 … n_docs-1 by the SHA-256 of seed and doc id: the permutation of an epoch.

    Anyone can recompute it from the published seed, in any language.
    """
    return sorted(range(n_docs), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())


def needed_apis(workspace: Workspace, output_type: str) -> tuple[str, ...]:
    """The request forms (chat, completions) the configured suppliers need of a task."""
    if output_type != "generate_until":
        return ("completions",)
    return tuple(sorted({s.api for s in workspace.config.settings.suppliers})) or ("chat",)


def refresh_prompts(workspace: Workspace, spec: TaskSpec) -> PromptReport:
    """Complete the current epoch's prompt sequence of a task: its first ``samples.max`` docs, or all.

    Prompts already stored are kept as they are; only missing positions are built.
    """
    registration = current_registration(workspace, spec)
    epoch = current_epoch(workspace, spec)
    order = sequence(epoch.seed, registration.n_docs)
    length = len(order) if spec.samples is None else min(spec.samples.max, len(order))
    apis = needed_apis(workspace, registration.flags["output_type"])
    data: TaskData | None = None
    built = 0
    for api in apis:
        stored = {
            p["position"]
            for p in workspace.documents.find(
                PROMPTS, prompt_filter(registration, epoch.epoch, api), fields=["position"]
            )
        }
        missing = [position for position in range(length) if position not in stored]
        for start in range(0, len(missing), _BUILD_CHUNK):
            data = data or task_data(workspace, registration)
            part = {order[position]: position for position in missing[start : start + _BUILD_CHUNK]}
            prompts = workspace.worker.call("build_prompts", spec, data, sorted(part), api)
            hashes = {
                d.doc_id: d.doc_hash for d in workspace.datasets.docs(registration.task_hash, sorted(part))
            }
            built += workspace.documents.put_new(
                PROMPTS, _prompt_documents(registration, epoch, api, prompts, part, hashes)
            )
    return PromptReport(
        epoch, length, built, apis, task_relayable(workspace, registration, epoch.epoch, apis)
    )


def prompt_filter(registration: Registration, epoch: int, api: str) -> Document:
    """Select the prompts of one sequence."""
    return {"task": registration.task, "task_hash": registration.task_hash, "epoch": epoch, "api": api}


def task_relayable(workspace: Workspace, registration: Registration, epoch: int, apis: Iterable[str]) -> bool:
    """Whether every prompt of the sequence can be relayed over HTTP at all."""
    return not any(
        workspace.documents.count(PROMPTS, {**prompt_filter(registration, epoch, api), "relayable": False})
        for api in apis
    )


def _prompt_documents(
    registration: Registration,
    epoch: Epoch,
    api: str,
    prompts: Sequence[BuiltPrompt],
    positions: dict[int, int],
    hashes: dict[int, str],
) -> Iterable[Document]:
    now = datetime.now(UTC)
    repeats = int(registration.flags["repeats"])
    for prompt in prompts:
        position = positions[prompt.doc_id]
        identity: list[Any] = [registration.task, registration.task_hash, epoch.epoch, api, position]
        yield {
            "_id": document_id("prompt", *identity, prompt.doc_id, prompt.requests),
            "task": registration.task,
            "task_hash": registration.task_hash,
            "epoch": epoch.epoch,
            "api": api,
            "position": position,
            "doc_id": prompt.doc_id,
            "doc_hash": hashes[prompt.doc_id],
            "calls": len(prompt.requests) * repeats,
            "repeats": repeats,
            "relayable": prompt.relayable,
            "requests": prompt.requests,
            "target": prompt.target,
            "context_chars": prompt.context_chars,
            "created_at": now,
        }
