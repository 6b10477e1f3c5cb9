"""The samples of a supplier and task that a window is made of: what counts of each doc, young enough."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from testbench_dagster.core.clock import SKEW, is_ahead
from testbench_dagster.core.doc_states import DocClock, DocOutcome, DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import DocAttempt, WindowAttempt
from testbench_dagster.core.records.lanes import STOPPED, LeftBehind
from testbench_dagster.core.records.scores import UNSCORABLE, ScoredAnswer, ScoredText
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.sampling import GATE_ROUND, Slots, named_docs
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.core.window import Sample
from testbench_dagster.scoring.slots import fill_slots
from testbench_dagster.stages.sample.epochs import wanted_slots
from testbench_dagster.stages.score.states import (
    DocRound,
    KnownDoc,
    Others,
    Peers,
    Supplied,
    attempts_at,
    voided,
)
from testbench_dagster.stages.score.undecided import undecided_docs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_TASKS = 50  # whose facts of one supplier are read together, and in memory at once
Task = tuple[TaskSpec, Registration]
#: Is told each score that is read, with what was extracted of its answer.
Listener = Callable[[ScoredText], None]


def window_samples(
    workspace: Workspace, supplier: Supplier, spec: TaskSpec, registration: Registration, now: datetime
) -> list[Sample]:
    """Return the samples that the score rests on, ascending by doc id (aggregation order matters: last bits).

    These are the task's slots: as many docs as everybody is asked in the present epoch, of each its newest
    closed outcome over rounds and epochs, later than the last change of the supplier's model (``cut_at``).
    An outcome is due at the task's maximum age, but keeps its slot until another closes, up to the end of a
    doc's life longer. Of more outcomes than slots those of the newest epochs count, and of these the first of
    the sequence; of a task that does not want all its docs at most ``sampling.window``. Docs that are open
    stand besides, as far as no older outcome keeps their slot. What was asked for a gate alone is not there.
    """
    [(_, found)] = samples_by_task(workspace, supplier, [(spec, registration)], now)
    return found.samples


@dataclass(frozen=True)
class WindowSamples:
    """What :func:`window_samples` returns, and what ends it; and all that the supplier's answers scored.

    ``beyond`` are the young docs that fill no slot: those asked for a gate alone, and more than there are.
    ``attempts`` are all that are young enough and after the last change, whichever docs the window holds.
    While no new fact is written all of this stays the same before ``until``, for good if it is None.
    ``refused``: the supplier refuses requests of the task's form altogether. ``silent``: it never answered
    anything, of any task; told where no doc is scored and one is not. ``unsettled``: what became of a doc may
    change though no new fact of the supplier is written, by the clock or by what others answer.
    """

    samples: list[Sample]
    until: datetime | None
    scored: list[Sample]
    attempts: Sequence[WindowAttempt]
    beyond: Sequence[Sample] = ()
    refused: bool = False
    silent: bool = False
    unsettled: bool = False


def samples_by_task(
    workspace: Workspace,
    supplier: Supplier,
    tasks: Sequence[Task],
    now: datetime,
    peers: Others | None = None,
    wanted: Mapping[str, Slots] | None = None,
    listener: Listener | None = None,
) -> Iterator[tuple[str, WindowSamples]]:
    """Yield each task's name and the samples in its window: two queries for up to 50 tasks.

    More are made only for docs that were not all answered. ``peers``, of the same instant, and the slots of
    each task that are ``wanted`` are for callers that ask for several suppliers. ``listener`` saves reading
    the scores again for what windows have no use for: it is told all that they are made of, and older ones.
    """
    wanted = wanted_slots(workspace.documents, tasks, supplier.api) if wanted is None else wanted
    reader = _Reader(workspace, supplier, now, peers or Peers(workspace, now), wanted, listener)
    for start in range(0, len(tasks), _TASKS):
        yield from reader.read(tasks[start : start + _TASKS])


def counts_after(workspace: Workspace, supplier: Supplier, spec: TaskSpec, now: datetime) -> datetime:
    """The instant after which an answer must have finished to count."""
    oldest = now - spec.max_age(workspace.config.settings.sampling.max_age_days)
    return oldest if supplier.cut_at is None else max(oldest, supplier.cut_at)


@dataclass
class _Docs:
    """What a task's facts say of its docs: every outcome, in any order, and until when they hold."""

    outcomes: list[Sample] = field(default_factory=list)
    holds_until: list[datetime] = field(default_factory=list)
    #: Prompts that were refused, where nothing was answered.
    refusals: set[str] = field(default_factory=set)
    #: All that are young enough, canaries too: those are attempts, though at no doc.
    attempts: Sequence[WindowAttempt] = ()


class _Reader:
    """Reads the windows of one supplier as of one instant."""

    def __init__(
        self,
        workspace: Workspace,
        supplier: Supplier,
        now: datetime,
        peers: Others,
        wanted: Mapping[str, Slots],
        listener: Listener | None,
    ) -> None:
        self._listener = listener
        self._workspace, self._supplier, self._now, self._peers = workspace, supplier, now, peers
        self._wanted = wanted
        self._supplied = Supplied(workspace, supplier, now)
        self._grace = DocClock.from_minutes(workspace.config.settings.planning.occasions_minutes).limit
        self._answered: bool | None = None
        self._ends: list[LeftBehind] | None = None

    def read(self, tasks: Sequence[Task]) -> Iterator[tuple[str, WindowSamples]]:
        since = {
            spec.name: counts_after(self._workspace, self._supplier, spec, self._now) for spec, _ in tasks
        }
        found = self._docs(tasks, {task: self._with_grace(at) for task, at in since.items()}, since)
        refused = self._refused(tasks, found)
        for spec, _ in tasks:
            docs = found[spec.name]
            window = self._window(spec, docs, since[spec.name])
            if spec.name in refused:
                # open, whatever the refusals alone would say; another task's answer to a request of this form
                # would end that
                open_ = [
                    replace(s, state=DocState.OPEN if s.failed or s.void else s.state, unreachable=False)
                    for s in window.samples
                ]
                window = replace(window, samples=open_, refused=True, until=self._now, unsettled=True)
            elif not window.scored and any(s.failed or s.open for s in window.samples) and self._silent():
                window = replace(window, silent=True, until=self._now)
            yield spec.name, window

    def outcomes(self, tasks: Sequence[Task], since: datetime) -> dict[str, list[Sample]]:
        """By task all outcomes later than an instant, but those of gates."""
        dates = {spec.name: since for spec, _ in tasks}
        return {
            task: [sample for sample in docs.outcomes if sample.round != GATE_ROUND]
            for task, docs in self._docs(tasks, dates, dates).items()
        }

    # -- facts --------------------------------------------------------------------------------------------

    def _with_grace(self, since: datetime) -> datetime:
        """The instant after which an outcome may keep its slot: earlier by a doc's life, not by a change."""
        cut = self._supplier.cut_at
        return since - self._grace if cut is None else max(since - self._grace, cut)

    def _docs(
        self, tasks: Sequence[Task], since: Mapping[str, datetime], young: Mapping[str, datetime]
    ) -> dict[str, _Docs]:
        """By task what became of the docs whose last fact is later than ``since``.

        Attempts that are not ``young`` take no part but in the outcomes.
        """
        scored = _read_scored(self._workspace, self._supplier.key, tasks, since, self._listener)
        attempts = _read_attempts(self._workspace, self._supplier.key, tasks, since)
        unclear = {
            key: task
            for task, of_task in attempts.items()
            for key in _unclear(
                (a for a in of_task if not a.canary), {(s.doc_id, s.epoch, s.round) for s in scored[task]}
            )
        }
        found = {
            task: _Docs(attempts=[a for a in of_task if a.finished_at > young[task]])
            for task, of_task in attempts.items()
        }
        for spec, registration in tasks:
            left = self._left_behind(registration, young[spec.name], attempts[spec.name])
            found[spec.name].outcomes += left
        late = set()
        if unclear:
            asked = self._asked({prompt for prompt, _ in unclear}, unclear)
            states = self._supplied.known(asked)
            states |= self._voided(states)
            has_score = {_of_score(task, s) for task, samples in scored.items() for s in samples}
            for key, known in states.items():
                known = self._left_since(known)
                docs, last = found[unclear[key]], max(asked[key], key=lambda a: (a.finished_at, a.attempt))
                if known.holds_until is not None:
                    docs.holds_until.append(known.holds_until)
                if known.outcome.refused:
                    docs.refusals.add(key[0])
                of_score = (unclear[key], last.doc_id, last.epoch, last.round)
                if known.outcome.late:
                    late.add(of_score)
                if known.outcome.state is not DocState.SCORED or of_score not in has_score:
                    docs.outcomes.append(_sample(last, known.outcome))
        for task, docs in found.items():
            if any(a.fault in _ANSWERS for a in attempts[task]):
                docs.refusals.clear()
            docs.outcomes += (
                [replace(s, late=True) if _of_score(task, s) in late else s for s in scored[task]]
                if late
                else scored[task]
            )
            if any(_unscorable(s) for s in scored[task]):
                # who stopped the scorer once has the rest of its answers scored later: that is no gain either
                docs.outcomes = [replace(s, state=DocState.OPEN) if _waits(s) else s for s in docs.outcomes]
        self._open_undecided(tasks, found, min(since.values()))
        for spec, _ in tasks:
            named = named_docs(spec.samples)
            if named is not None:
                docs = found[spec.name]
                docs.outcomes = [s for s in docs.outcomes if s.doc_id in named]
        return found

    def _open_undecided(self, tasks: Sequence[Task], found: Mapping[str, _Docs], since: datetime) -> None:
        """Answers that the scorer could not digest although it was well are open until it can."""
        waiting = {
            spec.name: registration
            for spec, registration in tasks
            if any(_waits(s) for s in found[spec.name].outcomes)
        }
        if not waiting:
            return
        marked = undecided_docs(self._workspace.documents, self._supplier.key, waiting.values(), since)
        for task in waiting if marked else ():
            found[task].outcomes = [
                replace(s, state=DocState.OPEN) if _waits(s) and _of_score(task, s) in marked else s
                for s in found[task].outcomes
            ]

    def _left_behind(
        self, registration: Registration, since: datetime, attempts: Sequence[WindowAttempt]
    ) -> Iterator[Sample]:
        """Docs that a run was to ask and did not, because it left the supplier; until they are asked."""
        left = [
            (end, part)
            for end in self._lane_ends()
            if end.ended_at > since
            for part in end.left
            if (part.task, part.task_hash) == (registration.task, registration.task_hash)
        ]
        if not left:
            return
        asked: dict[int, datetime] = {}
        for attempt in attempts:
            if not attempt.canary:
                last = asked.get(attempt.doc_id, attempt.finished_at)
                asked[attempt.doc_id] = max(attempt.finished_at, last)
        newest: dict[int, Sample] = {}
        for end, part in left:
            for doc_id, position in zip(part.doc_ids, part.positions, strict=True):
                if doc_id not in asked or asked[doc_id] < end.ended_at:
                    sample = Sample(
                        doc_id,
                        end.ended_at,
                        part.epoch,
                        part.round,
                        Fault(end.fault),
                        state=DocState.OPEN,
                        position=position,
                    )
                    if doc_id not in newest or newest[doc_id].rank < sample.rank:
                        newest[doc_id] = sample
        yield from newest.values()

    def _left_since(self, known: KnownDoc) -> KnownDoc:
        """A doc that nothing of the supplier's held up so far, unless a run has left the supplier since.

        Calls of it that were not sent then, or that were due again, are left behind like docs that were not
        asked: else who answers the first call of a choice and then no more would be spared the doc.
        """
        left = (end for end in self._lane_ends() if end.fault != STOPPED.value)
        if known.outcome.ours and any(end.ended_at >= known.outcome.at for end in left):
            return replace(known, outcome=replace(known.outcome, ours=False))
        return known

    def _lane_ends(self) -> list[LeftBehind]:
        """When runs left the supplier, those of another model left out; read once.

        Not a cached property: before Python 3.12 those of all readers, in all threads, wait for one lock.
        """
        if self._ends is None:
            where: dict[str, Any] = {"supplier": self._supplier.key}
            if self._supplier.cut_at is not None:
                where["ended_at"] = {"gt": self._supplier.cut_at}
            self._ends = list(typed.find(self._workspace.documents, LeftBehind, where))
        return self._ends

    def _asked(
        self, prompts: Collection[str], docs: Collection[DocRound]
    ) -> dict[DocRound, list[DocAttempt]]:
        """Every attempt at some docs, those too old to count by themselves too: with them its life began."""
        found: dict[DocRound, list[DocAttempt]] = {}
        for attempt in attempts_at(self._workspace.documents, prompts, supplier=self._supplier.key):
            key = attempt.prompt_id, attempt.round
            if key in docs and (self._supplier.cut_at is None or attempt.finished_at > self._supplier.cut_at):
                found.setdefault(key, []).append(attempt)
        return found

    def _voided(self, states: Mapping[DocRound, KnownDoc]) -> dict[DocRound, KnownDoc]:
        """Of docs whose request was refused last those that are void; all only until others answer."""
        refused = {
            key: known
            for key, known in states.items()
            if known.outcome.refused and known.outcome.state is not DocState.SCORED
        }
        if not refused:
            return {}
        void = self._peers.void(self._supplier.service, {prompt for prompt, _ in refused})
        # whoever is asked next may be refused as well, or answer
        return {
            key: KnownDoc((voided(known) if key[0] in void else known).outcome, self._now)
            for key, known in refused.items()
        }

    # -- what counts --------------------------------------------------------------------------------------

    def _window(self, spec: TaskSpec, docs: _Docs, since: datetime) -> WindowSamples:
        if ahead := [s.at for s in docs.outcomes if is_ahead(s.at, self._now)]:
            # nobody knows how old it is: it keeps its slot until what is dated right takes its place
            outcomes = [replace(s, at=since) if is_ahead(s.at, self._now) else s for s in docs.outcomes]
            docs = replace(docs, outcomes=outcomes, holds_until=[*docs.holds_until, min(ahead) - SKEW])
        age = spec.max_age(self._workspace.config.settings.sampling.max_age_days)
        by_doc: dict[int, list[Sample]] = {}
        of_gates: dict[int, list[Sample]] = {}
        for sample in docs.outcomes:
            (of_gates if sample.round == GATE_ROUND else by_doc).setdefault(sample.doc_id, []).append(sample)
        asked_again = {
            doc for doc, of_doc in by_doc.items() if any(not s.closed and s.at > since for s in of_doc)
        }
        chosen = [of_doc[0] if len(of_doc) == 1 else newest_outcome(of_doc) for of_doc in by_doc.values()]
        wanted = self._wanted[spec.name]
        slots = replace(wanted, docs=min(wanted.docs, most_docs(self._workspace, spec)))
        counted = fill_slots(chosen, slots, since, asked_again)
        known = {s.doc_id for s in counted}
        beyond = {s.doc_id: s for s in chosen if s.at > since and s.doc_id not in known}
        for doc, of_doc in of_gates.items():
            if doc not in known and (outcome := newest_outcome(of_doc)).at > since:
                beyond.setdefault(doc, outcome)
        # what is younger, or keeps its slot longer because of what is younger, may yet show
        alone = len(counted) == len(by_doc) and all(len(of_doc) == 1 for of_doc in by_doc.values())
        outcomes = counted if alone else docs.outcomes
        ends = [s.at + more for s in (*outcomes, *beyond.values()) for more in (age, age + self._grace)]
        ends += [a.finished_at + age for a in docs.attempts]
        return WindowSamples(
            sorted(counted, key=lambda s: s.doc_id),
            min([*(end for end in ends if end > self._now), *docs.holds_until], default=None),
            [s for s in docs.outcomes if s.scored and s.at > since and s.round != GATE_ROUND],
            docs.attempts,
            list(beyond.values()),
            unsettled=bool(docs.holds_until),
        )

    def _refused(self, tasks: Sequence[Task], found: Mapping[str, _Docs]) -> set[str]:
        refusals = {
            (spec.name, registration.task_hash): found[spec.name].refusals
            for spec, registration in tasks
            if found[spec.name].refusals and not any(s.scored for s in found[spec.name].outcomes)
        }
        return self._peers.refused(self._supplier, refusals) if refusals else set()

    def _silent(self) -> bool:
        if self._answered is None:
            self._answered = self._peers.answered(self._supplier)
        return not self._answered


def newest_outcome(of_doc: Sequence[Sample]) -> Sample:
    """What counts of a doc: its newest closed outcome, else that it is answered and not scored yet, or open.

    An open one that is held up by our own faults only gives way to one that the supplier left open.
    """
    return max(
        of_doc, key=lambda s: (s.closed, s.closed or s.state is DocState.SCORED, s.closed or s.open, s.rank)
    )


def _sample(last: DocAttempt, outcome: DocOutcome) -> Sample:
    """A doc that has no score, by its last attempt."""
    return Sample(
        last.doc_id,
        outcome.at,
        last.epoch,
        last.round,
        Fault.OK if outcome.state is DocState.SCORED else outcome.fault or Fault(last.fault),
        state=outcome.state,
        position=last.position,
        late=outcome.late,
        ours=outcome.ours,
        unreachable=outcome.unreachable,
        next_at=outcome.next_at,
    )


def _unscorable(sample: Sample) -> bool:
    return sample.failed and not sample.fault.answered


def _waits(sample: Sample) -> bool:
    """Whether a doc is answered and waits for its score."""
    return sample.state is DocState.SCORED and not sample.scored


def _of_score(task: str, sample: Sample) -> tuple[str, int, int, int]:
    return task, sample.doc_id, sample.epoch, sample.round


_ANSWERS = frozenset(fault.value for fault in Fault if fault.answered)


def _unclear(attempts: Iterable[WindowAttempt], scored: Collection[tuple[int, int, int]]) -> set[DocRound]:
    """The docs that were not answered at their calls' first attempts, or have no score."""
    unclear: set[DocRound] = set()
    asked: dict[DocRound, tuple[int, int, int]] = {}
    for attempt in attempts:
        key = attempt.prompt_id, attempt.round
        asked[key] = attempt.doc_id, attempt.epoch, attempt.round
        if attempt.attempt != 1 or attempt.fault not in _ANSWERS:
            unclear.add(key)
    unclear.update(key for key, of_score in asked.items() if of_score not in scored)
    return unclear


def most_docs(workspace: Workspace, spec: TaskSpec) -> int:
    """How many docs a window holds at most: no bound where the task wants all of them."""
    if spec.samples is None or spec.samples.ids is not None:
        return sys.maxsize
    return workspace.config.settings.sampling.window


def _of_tasks(supplier: str, tasks: Sequence[Task]) -> dict[str, Any]:
    return {
        "supplier": supplier,
        "task": {"in": [spec.name for spec, _ in tasks]},
        "task_hash": {"in": sorted({registration.task_hash for _, registration in tasks})},
    }


def _read_scored(
    workspace: Workspace,
    supplier: str,
    tasks: Sequence[Task],
    since: Mapping[str, datetime],
    listener: Listener | None,
) -> dict[str, list[Sample]]:
    """By task the answers that the current scorer looked at, in one query."""
    wanted = {
        spec.name: (registration.task_hash, scorer_version(registration)) for spec, registration in tasks
    }
    where = {
        **_of_tasks(supplier, tasks),
        "scorer_version": {"in": sorted({version for _, version in wanted.values()})},
        "answered_at": {"gt": min(since.values())},
    }
    found: dict[str, dict[str, Sample]] = {name: {} for name in wanted}
    for score in _scores(workspace, where, listener):
        task = score.task
        if (score.task_hash, score.scorer_version) != wanted[task] or score.answered_at <= since[task]:
            continue
        if listener is not None and isinstance(score, ScoredText):
            listener(score)
        known = found[task].get(score.answer_id)
        if known is not None and known.metrics is not None:
            known.metrics[score.filter] = score.metrics
            continue
        fault, state = _judged(score)
        found[task][score.answer_id] = Sample(
            doc_id=score.doc_id,
            at=score.answered_at,
            epoch=score.epoch,
            round=score.round,
            fault=fault,
            metrics=None if score.error is not None else {score.filter: score.metrics},
            prompt_tokens=score.prompt_tokens,
            completion_tokens=score.completion_tokens,
            state=state,
            position=score.position,
            ours=state is DocState.OPEN,
        )
    return {task: list(samples.values()) for task, samples in found.items()}


def _scores(
    workspace: Workspace, where: Mapping[str, Any], listener: Listener | None
) -> Iterator[ScoredAnswer | ScoredText]:
    if listener is None:
        return typed.find(workspace.documents, ScoredAnswer, where)
    return typed.find(workspace.documents, ScoredText, where)


def _judged(score: ScoredAnswer | ScoredText) -> tuple[Fault, DocState]:
    """What a score makes of its doc: the answer's fault that killed the scorer again and again, else ours."""
    if score.error is None:
        return Fault.TRUNCATED if score.truncated else Fault.OK, DocState.SCORED
    if score.error.startswith(UNSCORABLE):
        return Fault.UNSCORABLE, DocState.FAILED
    return Fault.INTERNAL, DocState.OPEN


def _read_attempts(
    workspace: Workspace,
    supplier: str,
    tasks: Sequence[Task],
    since: Mapping[str, datetime],
) -> dict[str, list[WindowAttempt]]:
    """By task the attempts that finished in time, canaries too, in one query, without their bodies."""
    hashes = {spec.name: registration.task_hash for spec, registration in tasks}
    where = {**_of_tasks(supplier, tasks), "finished_at": {"gt": min(since.values())}}
    found: dict[str, list[WindowAttempt]] = {name: [] for name in hashes}
    for attempt in typed.find(workspace.documents, WindowAttempt, where):
        task = attempt.task
        if attempt.task_hash == hashes[task] and attempt.finished_at > since[task]:
            found[task].append(attempt)
    return found


def outcomes_since(
    workspace: Workspace,
    supplier: Supplier,
    tasks: Sequence[Task],
    since: datetime,
    now: datetime,
    peers: Others | None = None,
) -> dict[str, list[Sample]]:
    """By task every outcome of a supplier's docs later than an instant and its last change, in any order.

    Of each doc one per epoch and round; what was asked for a gate alone is left out. ``peers`` is for callers
    that ask for several suppliers.
    """
    begins = since if supplier.cut_at is None else max(since, supplier.cut_at)
    reader = _Reader(workspace, supplier, now, peers or Peers(workspace, now), {}, None)
    found: dict[str, list[Sample]] = {}
    for start in range(0, len(tasks), _TASKS):
        found |= reader.outcomes(tasks[start : start + _TASKS], begins)
    return found
