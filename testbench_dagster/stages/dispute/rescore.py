"""Checking a bundle without the installation that wrote it: hashes, answers, scores and windows, all again.

The facts go into embedded stores in a temporary folder. Scores and windows are then computed from them by the
same functions that an installation uses, so that equal means equal to the last bit.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import testbench_dagster
from testbench_dagster.config import Config, Settings
from testbench_dagster.core import arguments
from testbench_dagster.core.errors import StoreError, TaskError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.frameworks import framework_plug, is_framework
from testbench_dagster.core.prompt import TaskData, form_of
from testbench_dagster.core.records.attempts import AttemptDoc, AttemptId, AttemptRecord, DocAttempt
from testbench_dagster.core.records.declaring import Record
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.scores import ScoredId, ScoreEvidence, ScoreRecord
from testbench_dagster.core.records.set_aside import VoidDocRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.registration import Registration, StoredDoc
from testbench_dagster.core.relay import Api
from testbench_dagster.core.supplier import ACTIVE
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.text import escaped
from testbench_dagster.core.versions import CLASSIFIER, PAYLOADS, WINDOWS, scorer_version
from testbench_dagster.core.window import REQUIRED_IN_EVIDENCE
from testbench_dagster.core.wording import agreeing, are, counted
from testbench_dagster.evidence import layout
from testbench_dagster.evidence.archive import BundleReader
from testbench_dagster.evidence.chain import Chain
from testbench_dagster.evidence.definitions import unpack
from testbench_dagster.evidence.facts import (
    Manifest,
    StateLine,
    TaskFacts,
    read_manifest,
    read_state,
    read_task,
    read_witness,
)
from testbench_dagster.evidence.layout import BundleError
from testbench_dagster.evidence.records import moment, record_of, restored
from testbench_dagster.evidence.report import Finding, Report, TaskVerdict
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.dispute.bundle import installed_versions
from testbench_dagster.stages.dispute.digested import try_again, unscorable_elsewhere
from testbench_dagster.stages.dispute.states import Claims, different_states, doc_states
from testbench_dagster.stages.score.answered import AnsweredDoc, answered_docs
from testbench_dagster.stages.score.batch import score_batch
from testbench_dagster.stages.score.empty import score_empty
from testbench_dagster.stages.score.score import BATCH, PAGES
from testbench_dagster.stages.score.undecided import undecided_version
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.datasets import DatasetStore
from testbench_dagster.stores.documents import (
    DocumentStore,
    canonical_json,
    document_id,
    open_documents,
    typed,
)
from testbench_dagster.tasks.index import TaskIndex
from testbench_dagster.tasks.worker import FrameworkWorker

_BATCH = 200
_BATCH_BYTES = 32 * layout.MEBIBYTE
#: lm-eval's own helpers that would evaluate text of a doc or an answer as Python.
_EVALUATES = re.compile(r"\b(eval|exec|sympify|parse_expr|__import__)\(|\bpickle\.loads?\(")

#: What is checked field by field may still not fit together, and then surprises the code of an installation.
_UNFITTING = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, StoreError)

_FAULTS = frozenset(fault.value for fault in Fault)
_MAX_FAULT_CHARS = 40  # of a fault as another version names it
_ANSWERED = next(fault for fault in Fault if fault.answered)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

OnProgress = Callable[[str, int, int], None]
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class _Opened:
    """A bundle's facts in stores of their own; ``claimed`` holds the scores as the bundle has them.

    ``undecided`` are, by task and answer, the records of answers that a well scorer is said not to digest.
    ``unjudged`` are, by task, the attempts whose fault another classifier decided; ``unbuilt`` says of how
    many another version built the request, otherwise than it is built here.
    """

    manifest: Manifest
    tasks: Mapping[str, TaskFacts]
    workspace: Workspace
    claimed: DocumentStore
    unjudged: Mapping[str, Set[str]]
    unbuilt: Mapping[str, int]
    states: dict[tuple[str, str, int], StateLine] = dataclasses.field(default_factory=dict)
    undecided: dict[str, dict[str, list[ScoreRecord]]] = dataclasses.field(default_factory=dict)


class _Datasets(DatasetStore):
    """The bundle's docs, with the registrations as they were: of more docs than a bundle holds."""

    def __init__(self, path: Path, tasks: Iterable[TaskFacts]) -> None:
        super().__init__(f"sqlite:///{path}")
        self._facts = {task.spec.name: task.registration for task in tasks}

    def current(self, task: str) -> Registration | None:
        """The registration as the bundle has it."""
        return self._facts.get(task)

    def tasks(self, names: Collection[str] | None = None) -> list[Registration]:
        """The registrations of the bundle."""
        return [found for name, found in self._facts.items() if names is None or name in names]


def rescore(
    path: Path | str,
    *,
    trust_code: bool = False,
    max_mb: int = layout.MAX_TOTAL_MB,
    worker: FrameworkWorker | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Check an evidence bundle and compute everything in it again; nothing but the file is needed.

    Args:
        path: the bundle.
        trust_code: run the operator's own task definitions that it holds, which may contain any code.
        max_mb: MiB the bundle may unpack to.
        worker: a process with lm-eval that runs already; one is started and ended by default.
        on_progress: told what is being done, and how far it is.

    Raises:
        BundleError: the file is no bundle, damaged, too large, or was written by a newer version.
        ConfigError: an argument is of a wrong kind.
    """
    path = arguments.path("path", path)
    max_mb = arguments.count("max_mb", max_mb, "MiB", least=1)
    arguments.flag("trust_code", trust_code)
    arguments.callback("on_progress", on_progress)
    try:
        with (
            BundleReader(path, max_mb * layout.MEBIBYTE) as bundle,
            tempfile.TemporaryDirectory(prefix="testbench-rescore-") as folder,
            nullcontext(worker) if worker else FrameworkWorker() as started,
        ):
            check = _Check(bundle, Path(folder), trust_code, on_progress or (lambda *_: None))
            return check.run(started)
    except _UNFITTING as error:
        kind = type(error).__name__
        raise BundleError(f"{path}: its records do not fit together ({kind}: {str(error)[:200]})") from error


class _Check:
    """One check from beginning to end."""

    def __init__(self, bundle: BundleReader, folder: Path, trust_code: bool, progress: OnProgress) -> None:
        self._bundle = bundle
        self._folder = folder
        self._trust_code = trust_code
        self._progress = progress
        self._manifest = read_manifest(bundle)
        self._at = moment(self._manifest.made_at, f"{bundle.path}: {layout.MANIFEST}: made_at")
        self._report = Report(
            sha256=bundle.members[layout.MANIFEST].sha256,
            supplier=self._manifest.supplier.key,
            made_at=self._manifest.made_at,
            product=self._manifest.product,
            simulation=self._manifest.simulation,
        )

    def run(self, worker: FrameworkWorker) -> Report:
        manifest, report = self._manifest, self._report
        for name, said in manifest.files.items():
            if self._bundle.members[name].sha256 != said.sha256:
                found = self._bundle.members[name].sha256
                report.add(Finding("file", f"hash of {name}", None, None, said.sha256, found))
        tasks = {name: read_task(self._bundle, name) for name in manifest.tasks}
        self._say_versions(tasks)
        with (
            closing(open_documents(self._made("facts"), None)) as documents,
            closing(open_documents(self._made("claimed"), None)) as claimed,
            closing(_Datasets(self._folder / "docs.sqlite3", tasks.values())) as datasets,
        ):
            # given, so that neither environment nor configuration of this machine is asked for them
            workspace = Workspace(
                _config(manifest, self._folder),
                specs=[task.spec for task in tasks.values()],
                documents=documents,
                datasets=datasets,
                worker=worker,
            )
            typed.put_new(documents, SupplierRecord, [_roster_record(manifest)])
            chain = Chain(manifest.supplier, tasks, report.add)
            opened = _Opened(manifest, tasks, workspace, claimed, chain.unjudged, chain.unbuilt)
            self._load(opened, datasets, chain)
            report.tasks += [self._task(opened, task) for task in tasks.values()]
            self._states(opened)
        return report

    def _made(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _say_versions(self, tasks: Mapping[str, TaskFacts]) -> None:
        notes, here = self._report.notes, installed_versions()
        if self._manifest.product != testbench_dagster.__version__:
            notes.append(
                f"written by testbench_dagster {self._manifest.product}, checked by "
                f"{testbench_dagster.__version__}"
            )
        other = {n: v for n, v in self._manifest.versions.items() if here.get(n) != v}
        if other:
            listed = ", ".join(f"{n} {v} (here {here.get(n, 'none')})" for n, v in sorted(other.items())[:20])
            notes.append(f"other versions than where it was scored: {listed}; scores may differ for that")
        if self._manifest.windows_version != WINDOWS.number:
            notes.append(f"{_of_other_version(self._manifest)}: the published windows are not checked")
        for task in tasks.values():
            if (other_scorer := _other_scorer(task)) is not None:
                notes.append(f"{task.spec.name}: {other_scorer}")

    # --------------------------------------------------------------------------------------- loading

    def _load(self, opened: _Opened, datasets: _Datasets, chain: Chain) -> None:
        """Every record is checked on its way into the stores."""
        documents = opened.workspace.documents
        for task in opened.tasks.values():
            chain.dataset(task)
            _register(datasets, task, self._docs(task, chain))
            typed.put_new(documents, EpochRecord, _epochs(task, self._bundle.path))
            typed.put_new(documents, VoidDocRecord, _void(task, opened.manifest.supplier.api))
        total = opened.manifest.counts.get("attempts", 0)
        for prompts in _batches(self._records(layout.PROMPTS, PromptRecord)):
            for prompt, _ in prompts:
                chain.prompt(prompt)
            _store(documents, PromptRecord, prompts)
        done = 0
        for attempts in _batches(self._records(layout.ATTEMPTS, AttemptRecord)):
            known = typed.by_id(documents, PromptRecord, {attempt.prompt_id for attempt, _ in attempts})
            for attempt, line in attempts:
                chain.attempt(attempt, line.get("body_sha256"), known.get(attempt.prompt_id))
            _store(documents, AttemptRecord, [(_with_known_fault(a), line) for a, line in attempts])
            done += len(attempts)
            self._progress("attempts", done, max(total, done))

        def present(ids: Iterable[str]) -> set[str]:
            return set(typed.by_id(documents, AttemptId, set(ids)))

        for scores in _batches(self._records(layout.SCORES, ScoreRecord)):
            for score, _ in scores:
                chain.score(score, present)
            _store(opened.claimed, ScoreRecord, scores)
        if layout.UNDECIDED in self._bundle.members:  # older bundles have none
            self._load_undecided(opened, chain, present)
        self._load_states(opened)
        chain.finish()
        if chain.unproven_requests:
            unproven = agreeing(chain.unproven_requests, "attempt has", "attempts have")
            self._report.notes.append(f"{unproven} no hash of their request")
        for classifier, count in sorted(chain.otherwise_classified.items()):
            self._report.notes.append(
                f"{agreeing(count, 'attempt was', 'attempts were')} judged by classifier {classifier}, this "
                f"version has {CLASSIFIER.number}: their faults, and what rests on them, are not checked"
            )
        for (classifier, said, shown), count in sorted(chain.classified_anew.items()):
            self._report.notes.append(
                f"{count} of those that classifier {classifier} called {escaped(said, _MAX_FAULT_CHARS)} are "
                f"{shown} by this version: their answers show it"
            )
        for version, count in sorted(chain.otherwise_built.items()):
            self._report.notes.append(
                f"the requests of {counted(count, 'attempt')} were built by version {version} of what builds "
                f"them, here is {PAYLOADS.number}: whether they were sent as stored is not checked"
            )
        for settings, count in sorted(chain.asked_otherwise.items()):
            were = agreeing(count, "attempt was", "attempts were")
            self._report.notes.append(
                f"{were} asked otherwise than their task says, with the settings {settings[:400]}"
            )
        if chain.signed:
            carry = agreeing(chain.signed, "answer carries", "answers carry")
            self._report.notes.append(
                f"{carry} the supplier's own signature, made with the key of its address"
            )
        if chain.witnessed:
            failed = counted(chain.witnessed, "failed attempt")
            self._report.notes.append(
                f"{failed} (timeouts, broken connections) rest on the word of who "
                "relayed: their answers cannot show it"
            )

    def _load_undecided(
        self, opened: _Opened, chain: Chain, present: Callable[[Iterable[str]], set[str]]
    ) -> None:
        for record, _ in self._records(layout.UNDECIDED, ScoreRecord):
            task = opened.tasks.get(record.task)
            version = "" if task is None else undecided_version(task.registration)
            if chain.undecided(record, version, present):
                of_task = opened.undecided.setdefault(record.task, {})
                of_task.setdefault(record.answer_id, []).append(record)

    def _load_states(self, opened: _Opened) -> None:
        """What was said of doc states, and the claims they rest on: on the word of who relayed."""
        if self._manifest.states is None:
            self._report.notes.append("written before docs had states: what failed counted nowhere then")
            return
        documents, path = opened.workspace.documents, self._bundle.path
        witnesses = 0
        for number, line in enumerate(self._bundle.records(layout.WITNESSES), 1):
            where = f"{path}: {layout.WITNESSES}:{number}"
            witness = read_witness(line, where)
            at = moment(witness.finished_at, f"{where}.finished_at")
            record = _answer_elsewhere(self._manifest, witness.id, at, witness.latency_ms)
            _store(documents, AttemptRecord, [(record, line)])
            witnesses += 1
        if witnesses:
            self._report.notes.append(
                f"{agreeing(witnesses, 'answer to a call', 'answers to calls')} outside of this bundle "
                f"{'witnesses' if witnesses == 1 else 'witness'} that the supplier answered meanwhile, on "
                "the word of who relayed"
            )
        for ends in _batches(self._records(layout.LANE_ENDS, LaneEndRecord)):
            if any(end.supplier != self._manifest.supplier.key for end, _ in ends):
                raise BundleError(f"{path}: {layout.LANE_ENDS} is about another supplier")
            _store(documents, LaneEndRecord, ends)
        for number, line in enumerate(self._bundle.records(layout.STATES), 1):
            state = read_state(line, f"{path}: {layout.STATES}:{number}")
            opened.states[state.task, state.prompt_id, state.round] = state

    def _states(self, opened: _Opened) -> None:
        """Compare what was said of doc states with what follows from the attempts at all tasks.

        Last: what was found about an answer is told once, and not again of every doc that it witnesses.
        """
        states = self._manifest.states
        if states is None or any(opened.unjudged.values()):
            return  # any answer may witness any doc, and those cannot be told from failures here
        workspace = opened.workspace
        (supplier,) = known_suppliers(workspace)
        others = Claims(workspace.documents, states)
        tasks = [
            (task.spec, task.registration)
            for task in opened.tasks.values()
            if task.flags_problem is None and is_framework(task.spec.framework)
        ]
        again = doc_states(workspace, supplier, tasks, others, self._at).lines
        names = {spec.name for spec, _ in tasks}
        said = {key: line.model_dump() for key, line in opened.states.items() if key[0] in names}
        told = _Told(opened, self._report)
        for key, name, one, two in different_states(said, again, told):
            line = again.get(key) or said[key]
            what = f"{name} of the doc in round {key[2]}"
            self._report.add(Finding("state", what, key[0], line["doc_id"], _text(one), _text(two)))

    def _docs(self, task: TaskFacts, chain: Chain) -> Iterator[StoredDoc]:
        file = layout.docs_file(task.spec.name)
        for number, record in enumerate(self._bundle.records(file), 1):
            doc_id, body, said = (record.get(n) for n in ("doc_id", "body", "doc_hash"))
            if not isinstance(doc_id, int) or not isinstance(body, str) or not isinstance(said, str):
                raise BundleError(f"{self._bundle.path}: line {number} of {file} is no doc")
            chain.doc(task, doc_id, body)
            yield StoredDoc(doc_id, body, said)

    def _records(self, name: str, of: type[R]) -> Iterator[tuple[R, dict[str, Any]]]:
        """The records in a file of the bundle, each with its line."""
        for number, line in enumerate(self._bundle.records(name), 1):
            yield record_of(of, line, f"{self._bundle.path}: {name}:{number}"), line

    # --------------------------------------------------------------------------------------- scoring

    def _task(self, opened: _Opened, task: TaskFacts) -> TaskVerdict:
        workspace, key = opened.workspace, opened.manifest.supplier.key
        name = task.spec.name
        verdict = TaskVerdict(name)
        where = {"task": name, "supplier": key}
        verdict.attempts = typed.count(workspace.documents, AttemptRecord, where)
        claimed = {row.answer_id for row in typed.find(opened.claimed, ScoredId, where)}
        verdict.docs = len(claimed)
        answered = {
            d.answer_id: d for d in answered_docs(workspace.documents, key, task.spec, task.registration)
        }
        verdict.failed = len(
            {a.doc_id for a in typed.find(workspace.documents, AttemptDoc, where)}
            - {d.attempts[0].doc_id for d in answered.values()}
        )
        unjudged = opened.unjudged[name]
        for row in sorted(claimed - answered.keys()):
            if unjudged and _rests_on(opened.claimed, row, unjudged):
                continue
            verdict.different += 1
            self._report.add(
                Finding("score", "its answer is not in the bundle, or no answer", name, None, row)
            )
        undecided = opened.undecided.get(name, {})
        if unscored := len(answered.keys() - claimed - undecided.keys()):
            were = agreeing(unscored, "answer was", "answers were")
            self._report.notes.append(f"{name}: {were} not scored when this was written")
        try:
            # first: another one builds and scores by other rules, so that no hash of them has to agree
            if (other_scorer := _other_scorer(task)) is not None:
                raise TaskError(other_scorer)
            spec = self._usable(task)
            verdict.definition = self._same_definition(opened, task, spec)
            waiting = [
                doc
                for id_, doc in answered.items()
                if id_ in claimed and unjudged.isdisjoint(a.id for a in doc.attempts)
            ]
            self._compare(opened, task, spec, waiting, verdict)
            open_ = [doc for id_, doc in answered.items() if id_ in undecided.keys() - claimed]
            self._try_undecided(opened, task, spec, open_, verdict)
            if unjudged:
                judged = counted(len(unjudged), "attempt")
                raise TaskError(f"another classifier than this version's judged {judged}")
            verdict.windows = self._windows(opened, task, spec)
        except TaskError as error:
            verdict.why = escaped(str(error), 400)
            verdict.unchecked = verdict.docs - verdict.equal - verdict.different
            verdict.windows = "not computed"
        verdict.unchecked_requests = opened.unbuilt.get(name, 0)
        if verdict.unchecked_requests and verdict.why is None:
            attempts = counted(verdict.unchecked_requests, "attempt")
            verdict.why = f"another version built the requests of {attempts}"
        return verdict

    def _usable(self, task: TaskFacts) -> TaskSpec:
        """The task's specification for this machine.

        Raises:
            TaskError: its definition is missing here, or would run code that nobody vouches for.
        """
        spec = task.spec
        if task.flags_problem is not None:
            raise TaskError(task.flags_problem)
        if not framework_plug(spec.framework).of_lm_eval:
            return spec
        if task.definitions_problem is not None:
            raise TaskError(task.definitions_problem)
        if task.definitions:
            if not self._trust_code:
                raise TaskError(
                    "it has a definition of the operator's own, which may contain any code; read the files "
                    "under definitions/ in the bundle, then allow it with --trust-code"
                )
            return replace(spec, include=self._definitions(task))
        index = TaskIndex.load([], [spec.root])
        for leaf in index.leaves(spec.root):
            folder = Path(leaf.entry.path).parent if leaf.entry and leaf.entry.path else None
            if folder and leaf.name == spec.leaf and not self._trust_code and evaluates_text(folder):
                raise TaskError(
                    "lm-eval's own code for it evaluates text as Python, and this text comes from the "
                    "bundle; allow it with --trust-code"
                )
        return spec

    def _definitions(self, task: TaskFacts) -> tuple[str, ...]:
        files = {}
        for name in task.definitions:
            place = layout.parsed_definition(name)
            if place is None:
                raise BundleError(f"{self._bundle.path}: {name[:100]!r} is no place for a definition")
            files[place] = self._bundle.whole(name)
        return unpack(files, Path(tempfile.mkdtemp(prefix="definitions-", dir=self._folder)))

    def _same_definition(self, opened: _Opened, task: TaskFacts, spec: TaskSpec) -> str:
        """Whether what scores here is what was registered, filters, metrics and helpers included.

        Of a task of the same version of its framework and the same scorer only. Returns ``equal``,
        ``different``, or why that is not known.
        """
        registration = task.registration
        data = TaskData(_first_doc(opened, task), [], registration.flags)
        found = opened.workspace.framework(spec).identify(spec, data, registration.fingerprint)
        if found is None:
            why = f"framework {spec.framework!r} has no identify()"
            self._report.notes.append(
                f"{spec.name}: task hash and hash of the definition were not made again: {why}, so that "
                "nothing here shows that its scorer is the one that was registered"
            )
            return f"not computed: {why}"
        same = True
        for what, stored, here in zip(
            ("task hash", "hash of the definition"),
            (registration.task_hash, registration.config_hash),
            found,
            strict=True,
        ):
            if stored != here:
                same = False
                self._report.add(Finding("definition", what, spec.name, None, stored, here))
        return "equal" if same else "different"

    def _compare(
        self,
        opened: _Opened,
        task: TaskFacts,
        spec: TaskSpec,
        docs: Sequence[AnsweredDoc],
        verdict: TaskVerdict,
    ) -> None:
        size = PAGES if task.registration.flags.output_type == "get" else BATCH
        for start in range(0, len(docs), size):
            batch = docs[start : start + size]
            again = score_batch(opened.workspace, spec, task.registration, batch)
            found: dict[str, dict[str, ScoreRecord]] = {}
            for score in again:
                found.setdefault(score.answer_id, {})[score.filter] = score
            said: dict[str, dict[str, ScoreRecord]] = {}
            where = {"answer_id": {"in": [d.answer_id for d in batch]}}
            for score in typed.find(opened.claimed, ScoreRecord, where):
                said.setdefault(score.answer_id, {})[score.filter] = score
            told = unscorable_elsewhere(again, said)
            facts = [score for score in again if score.answer_id not in told]
            facts += [score for id_ in told for score in said[id_].values()]
            typed.put_new(opened.workspace.documents, ScoreRecord, facts)
            if told:
                self._report.notes.append(
                    f"{spec.name}: {agreeing(len(told), 'answer that is', 'answers that are')} not "
                    f"digested here either {are(len(told))} unscorable because others' answers to their docs "
                    "were digested, on the word of who scored"
                )
            for doc in batch:
                if doc.answer_id not in found:
                    verdict.unchecked += 1
                    verdict.why = (
                        "answers were put off: they keep the scorer busy, or a service it asks is gone"
                    )
                    continue
                differences = list(_differences(spec.name, said[doc.answer_id], found[doc.answer_id]))
                for finding in differences:
                    self._report.add(finding)
                verdict.different += bool(differences)
                verdict.equal += not differences
            self._progress(f"scores of {spec.name}", min(start + size, len(docs)), len(docs))

    def _try_undecided(
        self,
        opened: _Opened,
        task: TaskFacts,
        spec: TaskSpec,
        docs: Sequence[AnsweredDoc],
        verdict: TaskVerdict,
    ) -> None:
        """Try the answers again that are said not to be digested, after all others."""
        claims = opened.undecided.get(spec.name, {})
        tried = try_again(opened.workspace, spec, task.registration, docs, claims)
        verdict.different += len(tried.findings)
        for finding in tried.findings:
            self._report.add(finding)
        if tried.unshown:
            self._report.notes.append(
                f"{spec.name}: {counted(tried.unshown, 'answer')} {are(tried.unshown)} open because a scorer "
                "that was well did not digest them, on the word of who scored: nothing here shows that it was"
            )

    def _windows(self, opened: _Opened, task: TaskFacts, spec: TaskSpec) -> str:
        """Compare the published windows with those of the recomputed scores."""
        manifest, name = opened.manifest, spec.name
        published = [row for row in manifest.windows if row.get("task") == name]
        if manifest.docs is not None:
            return "not computed: the bundle holds a part of the docs"
        if manifest.windows_version != WINDOWS.number:
            return f"not computed: {_of_other_version(manifest)}"
        workspace, key = opened.workspace.with_specs([spec]), manifest.supplier.key
        score_empty(workspace, [key], spec, task.registration, _LONG_AGO, self._at)
        others = Claims(workspace.documents, manifest.states)
        again = windows(workspace, suppliers=[key], tasks=[name], now=self._at, others=others)
        if name in workspace.unaggregated:
            raise TaskError(workspace.unaggregated[name])
        rows = {(row.metric, row.filter): row.to_json() for row in again}
        different = False
        for said in published:
            pair = (said.get("metric"), said.get("filter"))
            row = rows.pop(pair, None)
            label = f"{pair[0]}, {pair[1]}"
            if row is None:
                different = True
                self._report.add(Finding("window", f"{label} does not follow from the scores", name))
                continue
            for column, value in row.items():
                if column not in said and column not in REQUIRED_IN_EVIDENCE:
                    continue
                stored = restored(said.get(column), column)
                if canonical_json(stored) != canonical_json(value):
                    different = True
                    self._report.add(
                        Finding("window", f"{column} of {label}", name, None, _text(stored), _text(value))
                    )
        for pair in rows:
            different = True
            self._report.add(Finding("window", f"{pair[0]}, {pair[1]} is missing", name))
        return "different" if different else "equal"


def _differences(
    task: str, said: Mapping[str, ScoreRecord], found: Mapping[str, ScoreRecord]
) -> Iterator[Finding]:
    """Compare the scores of one doc to the last bit: types, signs of zero and NaN included."""
    for name in sorted({*said, *found}):
        stored, again = said.get(name), found.get(name)
        doc_id = next(score.doc_id for score in (stored, again) if score is not None)
        if stored is None or again is None:
            what = f"filter {name} is {'missing' if stored is None else 'not one of the task'}"
            yield Finding("score", what, task, doc_id)
            continue
        # the text of an error may name a time limit, which depends on what was scored together
        if (stored.error is None) != (again.error is None):
            yield Finding("score", f"error, filter {name}", task, doc_id, stored.error, again.error)
            continue
        for metric in sorted({*stored.metrics, *again.metrics}):
            one, two = (score.metrics.get(metric) for score in (stored, again))
            if canonical_json(one) != canonical_json(two):
                yield Finding("score", f"{metric}, filter {name}", task, doc_id, _text(one), _text(two))
        # earlier versions did not keep it
        if stored.extracted is not None and stored.extracted != again.extracted:
            what = f"extracted answer, filter {name}"
            yield Finding("score", what, task, doc_id, _text(stored.extracted), _text(again.extracted))
        for copied in _COPIED:
            one, two = getattr(stored, copied), getattr(again, copied)
            if one != two:
                yield Finding("score", copied, task, doc_id, str(one), str(two))


#: Fields of a score that are copied from its attempts and prompt; windows are made of them.
_COPIED = (
    "service", "epoch", "round", "position", "doc_id", "answered_at", "prompt_id", "attempt_ids", "calls",
    "truncated", "latency_ms", "prompt_tokens", "completion_tokens",
)  # fmt: skip


def _rests_on(scores: DocumentStore, answer_id: str, attempts: Set[str]) -> bool:
    """Whether one of some attempts is behind the scores of an answer."""
    found = typed.find(scores, ScoreEvidence, {"answer_id": answer_id})
    return any(not attempts.isdisjoint(score.attempt_ids) for score in found)


class _Told:
    """Whether something was found about an answer, by its id: of its doc, or that it is missing."""

    def __init__(self, opened: _Opened, report: Report) -> None:
        self._opened = opened
        self._docs = {(f.task, f.doc_id) for f in report.findings}
        self._scored: set[str] | None = None

    def __call__(self, id_: str) -> bool:
        if not self._docs:
            return False
        attempt = typed.by_id(self._opened.workspace.documents, DocAttempt, [id_]).get(id_)
        if attempt is not None:
            return (attempt.task, attempt.doc_id) in self._docs
        if self._scored is None:
            scores = typed.find(self._opened.claimed, ScoreEvidence)
            self._scored = {id_ for score in scores for id_ in score.attempt_ids}
        return id_ in self._scored  # it is told of as missing


def _with_known_fault(attempt: AttemptRecord) -> AttemptRecord:
    """An attempt whose fault is a word of another classifier, or was said to be wrong, counts as ours."""
    return attempt if attempt.fault in _FAULTS else replace(attempt, fault=Fault.INTERNAL.value)


def _other_scorer(task: TaskFacts) -> str | None:
    """That another framework's version or another scorer made its scores, if so: they cannot be compared."""
    registration = task.registration
    here = registration.engine_version
    if is_framework(registration.framework):
        here = framework_plug(registration.framework).version
    own = scorer_version(replace(registration, engine_version=here))
    if task.scorer_version != own:
        return f"scored by {task.scorer_version}, this version of testbench_dagster scores as {own}"
    if registration.engine_version != here:
        return f"registered with {registration.framework} {registration.engine_version}, here is {here}"
    return None


def _of_other_version(manifest: Manifest) -> str:
    """That the windows follow from other formulas than this version's."""
    return f"windows by formulas of version {manifest.windows_version}, here of version {WINDOWS.number}"


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else canonical_json(value)[:400]


def _config(manifest: Manifest, folder: Path) -> Config:
    supplier = manifest.supplier
    settings = Settings.model_validate(
        {
            "suppliers": [
                {
                    "address": supplier.address,
                    "service": supplier.service,
                    "api": supplier.api,
                    "model": supplier.models[-1] if supplier.models else "unknown",
                    "base_url": "http://bundle.invalid/v1",  # nothing is ever asked
                }
            ],
            "tasks": [{"name": "of-the-bundle", "samples": "all"}],  # they are set below
            "sampling": {"window": manifest.window_docs},
            "relays": {"total_s": supplier.deadline_s},
            **_clock(manifest),
            "simulation": manifest.simulation,
        }
    )
    return Config(settings, folder / "testbench.yaml", folder)


def _clock(manifest: Manifest) -> dict[str, Any]:
    states = manifest.states
    if states is None:
        return {}
    return {"planning": {"occasions_minutes": states.occasions_minutes}}


def _answer_elsewhere(manifest: Manifest, id_: str, at: datetime, latency_ms: float) -> AttemptRecord:
    """That the supplier answered a call of which a bundle tells no more."""
    return AttemptRecord(
        id=id_,
        supplier=manifest.supplier.key,
        service=manifest.supplier.service,
        task="(outside of the bundle)",
        task_hash="",
        epoch=0,
        round=0,
        prompt_id="",
        position=0,
        doc_id=0,
        idx=0,
        repeat=0,
        attempt=1,
        fault=_ANSWERED.value,
        owner=_ANSWERED.owner.value,
        classifier=CLASSIFIER.number,
        status=None,
        finished_at=at,
        latency_ms=latency_ms,
        prompt_tokens=None,
        completion_tokens=None,
        opening=None,
        app=None,
        session=None,
        height=None,
        lease=None,
        body=b"",
        body_bytes=0,
        body_truncated=False,
        error=None,
        finish_reason=None,
        first_byte_ms=None,
        first_token_ms=None,
        session_start=None,
        session_end=None,
        started_at=at,
        payload_sha256=None,
        evidence={},
        path=None,
    )


def _roster_record(manifest: Manifest) -> SupplierRecord:
    supplier = manifest.supplier
    return SupplierRecord(
        id=supplier.key,
        address=supplier.address,
        service=supplier.service,
        status=ACTIVE,
        joined_at=None,
        left_at=None,
        cut_at=None if supplier.cut_at is None else moment(supplier.cut_at, "cut_at"),
        echo_logprobs=supplier.echo_logprobs,
        probed_at=None,
        version=1,
        history=(),
    )


def _register(datasets: _Datasets, task: TaskFacts, docs: Iterable[StoredDoc]) -> None:
    found = {doc.doc_id: doc for doc in docs}
    registration = replace(task.registration, n_docs=len(found), n_fewshot=0)
    datasets.register(registration, list(found.values()), [])


def _epochs(task: TaskFacts, path: Path) -> Iterator[EpochRecord]:
    """The epochs of a task: how many docs everybody was asked in the last one follows from it."""
    for line in task.epochs.values():
        yield EpochRecord(
            id=document_id("epoch", task.spec.name, line.epoch),
            task=task.spec.name,
            epoch=line.epoch,
            started_at=moment(line.started_at, f"{path}: started_at of epoch {line.epoch}"),
            seed=line.seed or "",
            seed_sha256=line.seed_sha256,
            doc_ids=line.doc_ids,
            groups=line.groups,
            variance=line.variance,
            spread_epoch=line.spread_epoch,
            spread_draw=line.spread_draw,
        )


def _void(task: TaskFacts, api: Api) -> Iterator[VoidDocRecord]:
    """The docs of the epochs that nobody was asked: so many fewer were wanted."""
    for line in task.epochs.values():
        for doc in line.void:
            yield VoidDocRecord(
                id=document_id("void", task.spec.name, line.epoch, doc.position),
                task=task.spec.name,
                task_hash=task.registration.task_hash,
                epoch=line.epoch,
                api=form_of(api, task.registration.flags),
                position=doc.position,
                doc_id=doc.doc_id,
                reason=doc.reason,
            )


def _first_doc(opened: _Opened, task: TaskFacts) -> dict[int, str]:
    for doc in opened.workspace.datasets.docs(task.registration.task_hash):
        return {doc.doc_id: doc.body}
    raise TaskError("the bundle holds none of its docs")


def _store(store: DocumentStore, of: type[R], batch: Sequence[tuple[R, Any]]) -> None:
    if typed.put_new(store, of, [record for record, _ in batch]) != len(batch):
        raise BundleError(f"two records of {of.collection.name} have the same id")


def _batches(rows: Iterator[tuple[R, dict[str, Any]]]) -> Iterator[list[tuple[R, dict[str, Any]]]]:
    """Cut a stream into batches that fit into memory."""
    batch: list[tuple[R, dict[str, Any]]] = []
    size = 0
    for record, line in rows:
        batch.append((record, line))
        size += len(record.body) if isinstance(record, AttemptRecord) else 0
        if len(batch) == _BATCH or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def evaluates_text(folder: Path) -> bool:
    """Whether helper code in a folder of task definitions evaluates text as Python."""
    return any(
        _EVALUATES.search(path.read_text(encoding="utf-8", errors="replace")) for path in folder.glob("*.py")
    )
