"""Writing a bundle: what the stores hold of one supplier, and the numbers published from it."""

from __future__ import annotations

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import testbench_dagster
from testbench_dagster.core.columns import Origin, columns_of
from testbench_dagster.core.errors import ConfigError, StoreError, TaskError
from testbench_dagster.core.prompt import form_of
from testbench_dagster.core.records.attempts import AttemptHead, AttemptRecord
from testbench_dagster.core.records.declaring import Record
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.scores import ScoreHead, ScoreRecord
from testbench_dagster.core.records.set_aside import VoidDocRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.relay import Api
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import WINDOWS, scorer_version
from testbench_dagster.core.window import Window
from testbench_dagster.evidence import layout
from testbench_dagster.evidence.archive import BundleWriter, Member, json_text
from testbench_dagster.evidence.definitions import own_definitions
from testbench_dagster.evidence.records import iso, line_of, plain
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.dispute.states import States, doc_states, states_facts
from testbench_dagster.stages.score.deadlines import deadline_s
from testbench_dagster.stages.score.states import Peers
from testbench_dagster.stages.score.undecided import undecided_version
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_EVIDENCE = 20  # raw answers in memory at once; one may have 15 MB
_DOCUMENTS = 500
_ATTEMPTS = 3  # of taking stock of a supplier that is being evaluated meanwhile

#: Columns that a bundle leaves out: prices are the operator's, and follow from no fact in it.
_OF_PRICES = frozenset(
    name for name, field in columns_of(Window).items() if field.column.origin is Origin.PRICE
)

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Exported:
    """What was written: ``sha256`` is that of the manifest, which holds those of everything else."""

    path: Path
    sha256: str
    size: int
    tasks: list[str]
    counts: dict[str, int]
    left_out: dict[str, str]


@dataclass
class _Stock:
    """What the stores hold of one task; heads only."""

    spec: TaskSpec
    registration: Registration
    attempts: list[AttemptHead]
    scores: list[ScoreHead]
    undecided: list[ScoreHead]
    docs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.docs = sorted({a.doc_id for a in self.attempts} | {s.doc_id for s in self.scores})


def write_bundle(
    workspace: Workspace,
    supplier: str,
    out: Path,
    *,
    tasks: Sequence[str] | None = None,
    docs: Sequence[int] | None = None,
    now: datetime | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write the evidence of a supplier: every stored attempt at the tasks as they are registered now.

    The file appears whole or not at all, and has the same bytes for the same facts and ``now``.

    Args:
        workspace: the installation.
        supplier: partition key, of the roster.
        out: the file to write.
        tasks: names of tasks or groups; all configured ones of which there is evidence by default.
        docs: ids of docs; all by default. The windows cannot be computed from a part of the docs.
        now: the instant the windows are published for, timezone-aware; the present by default.
        on_progress: told how many attempts of how many are written.

    Raises:
        ConfigError: the supplier is not on the roster, a task is not configured, there is no evidence of a
            named task, or none of a named doc.
        StoreError: the file cannot be written, or the supplier is being evaluated all the time.
    """
    now = now or datetime.now(UTC)
    known = {s.key: s for s in known_suppliers(workspace)}
    if supplier not in known:
        raise ConfigError(
            f"supplier {supplier!r} is not on the roster; on it are: {', '.join(list(known)[:20]) or 'none'}"
        )
    stock, left_out, published = _consistent(workspace, supplier, tasks, docs, now)
    others = Peers(workspace, now)
    states = doc_states(workspace, known[supplier], [(s.spec, s.registration) for s in stock], others, now)
    total, done = sum(len(s.attempts) for s in stock), 0
    with BundleWriter(out) as bundle:
        with bundle.lines(layout.PROMPTS) as lines:
            for prompt in _prompts(workspace, stock):
                lines.write(line_of(prompt))
        with bundle.lines(layout.ATTEMPTS) as lines:
            ids = [head.id for s in stock for head in s.attempts]
            for attempt in _by_id(workspace, AttemptRecord, supplier, ids, _EVIDENCE):
                lines.write(line_of(replace(attempt, host=None)))  # who reads it need not know our machines
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
        with bundle.lines(layout.SCORES) as lines:
            ids = [head.id for s in stock for head in s.scores]
            for score in _by_id(workspace, ScoreRecord, supplier, ids, _DOCUMENTS):
                lines.write(line_of(score))
        with bundle.lines(layout.UNDECIDED) as lines:
            ids = [head.id for s in stock for head in s.undecided]
            for record in _by_id(workspace, ScoreRecord, supplier, ids, _DOCUMENTS):
                lines.write(line_of(record))
        _write_states(bundle, workspace, supplier, stock, states)
        for part in stock:
            _write_task(
                bundle, workspace, part, known[supplier].api, asked=part.spec.asked_of(known[supplier])
            )
        counts = {
            "attempts": total,
            "scores": sum(len(s.scores) for s in stock),
            "docs": sum(len(s.docs) for s in stock),
        }
        manifest = json_text(
            {
                "kind": layout.KIND,
                "format": layout.FORMAT,
                "product": testbench_dagster.__version__,
                "made_at": iso(now),
                "simulation": workspace.config.settings.simulation,
                "supplier": _supplier_facts(workspace, known[supplier]),
                "tasks": [s.spec.name for s in stock],
                "docs": None if docs is None else sorted(set(docs)),
                "included": _explained(docs),
                "left_out": left_out,
                "counts": counts,
                "versions": installed_versions(),
                "window_docs": workspace.config.settings.sampling.window,
                "windows_version": WINDOWS.number,
                "states": states_facts(workspace, known[supplier], states, others),
                "windows": [{k: plain(v) for k, v in row.items()} for row in published],
                "files": {name: asdict(member) for name, member in sorted(bundle.members.items())},
            }
        )
        bundle.whole(layout.MANIFEST, manifest)
        sealed: Member = bundle.members[layout.MANIFEST]
    return Exported(out, sealed.sha256, out.stat().st_size, [s.spec.name for s in stock], counts, left_out)


def _explained(docs: Sequence[int] | None) -> list[str]:
    whole = docs is None
    return [
        "attempts: every stored one of the supplier at these tasks as they are registered now, failures "
        "included" + ("" if whole else ", of the named docs only"),
        "prompts: those the attempts were made from",
        "scores: those of the current scorer, which the windows are made of",
        "undecided: answers that this scorer could not digest although it was well, whose docs are open",
        "states: what became of docs not answered at every attempt, by occasion, with the ids of the "
        "answers that witness them",
        "witnesses: when it answered other calls around those occasions, on the word of who relayed",
        "lane ends: when runs went on without the supplier, and the docs they left behind",
        "states.void and .refused of the manifest: what others' refusals say, on the word of who relayed",
        "docs: questions and targets of the docs asked, and the first one, which lm-eval looks at to build "
        "a task",
        "windows: as published at made_at"
        + ("" if whole else "; they cover more docs than this bundle, so they cannot be computed from it"),
        "not included: keys, headers, the supplier's address, answers and scores of others",
    ]


# ----------------------------------------------------------------------------------------- taking stock


def _consistent(
    workspace: Workspace,
    supplier: str,
    tasks: Sequence[str] | None,
    docs: Sequence[int] | None,
    now: datetime,
) -> tuple[list[_Stock], dict[str, str], list[dict[str, Any]]]:
    """The facts and the windows published from them; again while answers arrive between the two."""
    for _ in range(_ATTEMPTS):
        before = _published(workspace, supplier, tasks, now)
        stock, left_out = _stock(workspace, supplier, tasks, docs)
        after = _published(workspace, supplier, tasks, now)
        if _own(before) == _own(after):
            names = {s.spec.name for s in stock}
            return stock, left_out, [row for row in after if row["task"] in names]
    raise StoreError(f"supplier {supplier!r} is being evaluated; export its evidence when that is done")


def _published(
    workspace: Workspace, supplier: str, tasks: Sequence[str] | None, now: datetime
) -> list[dict[str, Any]]:
    # not what is kept: a bundle shows what follows from the facts in it
    rows = windows(workspace, suppliers=[supplier], tasks=tasks, now=now, from_facts=True)
    return [{name: value for name, value in row.to_json().items() if name not in _OF_PRICES} for row in rows]


def _own(rows: list[dict[str, Any]]) -> list[str]:
    return [repr(row) for row in rows]


def _stock(
    workspace: Workspace, supplier: str, tasks: Sequence[str] | None, docs: Sequence[int] | None
) -> tuple[list[_Stock], dict[str, str]]:
    stock: list[_Stock] = []
    left_out: dict[str, str] = {}
    for spec in workspace.chosen_specs(tasks):
        registration = workspace.datasets.current(spec.name)
        if registration is None:
            left_out[spec.name] = "it has no dataset yet"
            continue
        found = _stock_of(workspace, supplier, spec, registration, docs)
        if found.attempts or found.scores:
            stock.append(found)
        else:
            left_out[spec.name] = "the supplier was never asked" + (" these docs" if docs is not None else "")
    if not stock or (tasks is not None and left_out):
        why = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:10])
        raise ConfigError(f"there is no evidence of supplier {supplier!r} to export: {why or 'no task'}")
    missing = set(docs or ()) - {doc for s in stock for doc in s.docs}
    if missing:
        raise ConfigError(f"supplier {supplier!r} was never asked doc {min(missing)} of these tasks")
    return stock, left_out


def _stock_of(
    workspace: Workspace,
    supplier: str,
    spec: TaskSpec,
    registration: Registration,
    docs: Sequence[int] | None,
) -> _Stock:
    where: dict[str, Any] = {
        "supplier": supplier,
        "task": spec.name,
        "task_hash": registration.task_hash,
    }
    if docs is not None:
        where["doc_id"] = {"in": sorted(set(docs))}
    attempts = list(typed.find(workspace.documents, AttemptHead, where))
    attempts.sort(key=lambda a: (a.doc_id, a.epoch, a.round, a.idx, a.repeat, a.attempt, a.prompt_id, a.id))
    scores = _score_heads(workspace, {**where, "scorer_version": scorer_version(registration)})
    scored = {head.answer_id for head in scores}
    undecided = _score_heads(workspace, {**where, "scorer_version": undecided_version(registration)})
    undecided = [head for head in undecided if head.answer_id not in scored]
    return _Stock(spec, registration, attempts, scores, undecided)


def _score_heads(workspace: Workspace, where: dict[str, Any]) -> list[ScoreHead]:
    scores = typed.find(workspace.documents, ScoreHead, where)
    return sorted(scores, key=lambda s: (s.doc_id, s.answered_at, s.answer_id, s.filter))


# ----------------------------------------------------------------------------------------- what goes in


def _prompts(workspace: Workspace, stock: Iterable[_Stock]) -> Iterator[PromptRecord]:
    for part in stock:
        ids = list(dict.fromkeys(head.prompt_id for head in part.attempts))
        yield from _by_id(workspace, PromptRecord, None, ids, _EVIDENCE)


def _write_states(
    bundle: BundleWriter, workspace: Workspace, supplier: str, stock: Sequence[_Stock], states: States
) -> None:
    docs = {(part.spec.name, doc) for part in stock for doc in part.docs}
    held = {head.id for part in stock for head in part.attempts}
    with bundle.lines(layout.STATES) as lines:
        for line in states.lines.values():
            if (line["task"], line["doc_id"]) in docs:
                lines.write(line)
    with bundle.lines(layout.WITNESSES) as lines:
        for answer in sorted(states.answers.values(), key=lambda a: (a.finished_at, a.id)):
            if answer.id not in held:
                lines.write(
                    {"id": answer.id, "finished_at": iso(answer.finished_at), "latency_ms": answer.latency_ms}
                )
    with bundle.lines(layout.LANE_ENDS) as lines:
        tasks = {(part.spec.name, part.registration.task_hash) for part in stock}
        found = typed.find(
            workspace.documents, LaneEndRecord, {"supplier": supplier}, sort=[("ended_at", 1), ("_id", 1)]
        )
        for end in found:
            left = tuple(part for part in end.left if (part.task, part.task_hash) in tasks)
            if left:
                lines.write(line_of(replace(end, left=left)))


def _by_id(
    workspace: Workspace, of: type[R], supplier: str | None, ids: Sequence[str], size: int
) -> Iterator[R]:
    """Stream records, of a supplier if told, in the order of their ids; what was removed is left out."""
    rest, whose = iter(ids), None if supplier is None else [supplier]
    while batch := list(islice(rest, size)):
        found = typed.by_id(workspace.documents, of, batch, suppliers=whose)
        yield from (found[id_] for id_ in batch if id_ in found)


def _write_task(bundle: BundleWriter, workspace: Workspace, part: _Stock, api: Api, *, asked: bool) -> None:
    """A task's registration and settings; ``asked``: whether the supplier, of ``api``, is still asked it."""
    spec, registration = part.spec, part.registration
    definitions = own_definitions(spec)
    for place, data in sorted(definitions.files.items(), key=lambda item: (item[0].folder, item[0].path)):
        name = layout.definition_file(place.folder, place.path)
        if layout.parsed_definition(name) is None:
            raise TaskError(
                f"task {spec.name!r}: its file {place.path!r} has a name that bundles cannot hold"
            )
        if name not in bundle.members:
            bundle.whole(name, data)
    hashes: list[str] = []
    with bundle.lines(layout.docs_file(spec.name)) as lines:
        wanted = {0, *part.docs}
        for doc in workspace.datasets.docs(registration.task_hash):
            hashes.append(doc.doc_hash)
            if doc.doc_id in wanted:
                lines.write({"doc_id": doc.doc_id, "doc_hash": doc.doc_hash, "body": doc.body})
    counted = {
        "attempts": Counter(head.doc_id for head in part.attempts),
        "scores": Counter(head.doc_id for head in part.scores),
    }
    names = sorted(layout.definition_file(p.folder, p.path) for p in definitions.files)
    task = {
        "task": spec.name,
        "spec": {
            "leaf": spec.leaf,
            "root": spec.root,
            "group": spec.group,
            "framework": spec.framework,
            "num_fewshot": spec.num_fewshot,
            "metric": spec.metric,
            "filter": spec.filter,
            "samples": None if spec.samples is None else spec.samples.model_dump(),
            "probes": spec.probes,
            "probe_tokens": spec.probe_tokens,
            "worst": spec.worst,
            "cluster": spec.cluster,
            **({} if asked else {"asked": False}),
            "generation": spec.generation.settings(),
            **({"options": dict(spec.options)} if spec.options else {}),
        },
        "max_age_days": spec.max_age(workspace.config.settings.sampling.max_age_days).total_seconds()
        / 86_400,
        "registration": {
            **vars(registration),
            "flags": registration.flags.to_document(),
            "registered_at": iso(registration.registered_at),
        },
        "scorer_version": scorer_version(registration),
        "doc_hashes": hashes,
        "fewshot_hashes": [d.doc_hash for d in workspace.datasets.fewshot(registration.task_hash)],
        "docs": {
            str(doc): {kind: counts[doc] for kind, counts in counted.items() if counts[doc]}
            for doc in part.docs
        },
        "definitions": names,
        "definitions_problem": definitions.problem,
        "epochs": list(_epochs(workspace, part, api)),
    }
    bundle.whole(layout.task_file(spec.name), json_text(task))


def _epochs(workspace: Workspace, part: _Stock, api: Api) -> Iterator[dict[str, Any]]:
    """The epochs asked, and the present one, with their seeds where these are no secret any more.

    And the docs that nobody was asked whose supplier takes requests of ``api``.
    """
    registration = part.registration
    sequence = {
        "task": registration.task,
        "task_hash": registration.task_hash,
        "api": form_of(api, registration.flags),
    }
    void: dict[int, list[dict[str, Any]]] = {}
    for doc in typed.find(workspace.documents, VoidDocRecord, sequence, sort=[("epoch", 1), ("position", 1)]):
        line = {"position": doc.position, "doc_id": doc.doc_id, "reason": doc.reason}
        void.setdefault(doc.epoch, []).append(line)
    asked = {head.epoch for head in part.attempts}
    where = {"task": part.spec.name}
    found = list(typed.find(workspace.documents, EpochRecord, where, sort=[("epoch", 1)]))
    for epoch in found:
        over = epoch.epoch < found[-1].epoch
        if epoch.epoch in asked or not over:
            yield {
                "epoch": epoch.epoch,
                "started_at": iso(epoch.started_at),
                "seed_sha256": epoch.seed_sha256,
                "seed": epoch.seed if over else None,
                "groups": epoch.groups,
                "variance": epoch.variance,
                **_measured_in(epoch),
                **({"void": void[epoch.epoch]} if epoch.epoch in void else {}),
                **({} if epoch.doc_ids is None else {"doc_ids": epoch.doc_ids}),
            }


def _measured_in(epoch: EpochRecord) -> dict[str, Any]:
    if epoch.measurement is None:
        return {}
    return {"spread_epoch": epoch.measurement.epoch, "spread_draw": epoch.measurement.draw}


def _supplier_facts(workspace: Workspace, supplier: Supplier) -> dict[str, Any]:
    """What scores and requests depend on; where the supplier is reached stays out, as keys do."""
    stored = typed.get(workspace.documents, SupplierRecord, supplier.key)
    models: list[str | None] = [supplier.model]
    if stored is not None:
        models = [*(event.model for event in stored.history), stored.model, *models]
    return {
        "key": supplier.key,
        "address": supplier.address,
        "service": supplier.service,
        "api": supplier.api,
        "models": [model for model in dict.fromkeys(models) if model],
        "status": supplier.status,
        "echo_logprobs": supplier.echo_logprobs,
        "cut_at": None if supplier.cut_at is None else iso(supplier.cut_at),
        "deadline_s": deadline_s(workspace, supplier),
    }


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that take part in scoring, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in layout.SCORING_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
