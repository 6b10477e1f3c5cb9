"""What became of the docs that a supplier left unanswered: the stored facts behind :mod:`..core.doc_states`.

Facts of one supplier, and, for requests that were refused, those of its peers at the same prompt. Docs whose
every attempt was answered never come here: reading witnesses costs a query.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any, Protocol

from testbench_dagster.core.doc_states import (
    VOID_UNITS,
    CallAttempt,
    DocClock,
    DocOutcome,
    DocState,
    Occasion,
    PeerOutcome,
    Witness,
    doc_outcome,
    is_void,
    linked_units,
    median_of_sorted,
    refused_shapes,
)
from testbench_dagster.core.faults import Closing, Fault
from testbench_dagster.core.records.attempts import (
    AnswerTime,
    AttemptId,
    AttemptsOfTask,
    DocAttempt,
    PlanAttempt,
)
from testbench_dagster.core.records.identity import ProxyOfSupplier
from testbench_dagster.core.records.prompts import AskedPrompt, PromptCalls
from testbench_dagster.core.records.scores import ScoredDoc, ScoredId, ScoredSupplier, ScoredTask
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import known_suppliers
from testbench_dagster.stages.score.deadlines import deadline_s
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed
from testbench_dagster.transports.payload import request_shape

DocRound = tuple[str, int]
"""A prompt's id and the round in which it was asked."""

_ANSWERED = [fault.value for fault in Fault if fault.answered]
_REFUSED = [fault.value for fault in Fault if fault.row.closes is Closing.REFUSED]
_PROMPTS = 500  # ids in one query
_SCORES = 50  # looked at first where one of many will do
_TASKS_APART = 3  # whose answers are read one by one rather than all together
_FEW = 200  # latencies put into their order one by one rather than all sorted anew


@dataclass(frozen=True, slots=True)
class KnownDoc:
    """What became of a doc in a round, and until when that stands while no fact of it is written.

    ``holds_until`` is None for ever; an instant that is not in the future says: for no time at all.
    """

    outcome: DocOutcome
    holds_until: datetime | None


@dataclass(frozen=True, slots=True)
class AnswersRead:
    """Answers of a supplier that a caller has read already: all of some tasks since an instant.

    ``tasks`` by name and hash; ``times`` are when each answer came, in any order, and how many ms it took.
    """

    tasks: Collection[tuple[str, str]]
    since: datetime
    times: Sequence[tuple[datetime, float]]


class Answers:
    """When a supplier answered calls of any task, read once for all docs that ask.

    Answers that the caller has ``read`` are not read again; they have no id then.
    """

    def __init__(
        self,
        documents: DocumentStore,
        supplier: str,
        deadline: timedelta,
        clock: DocClock,
        read: AnswersRead | None = None,
    ) -> None:
        self._documents, self._supplier, self._given = documents, supplier, read
        self._deadline, self._clock = deadline, clock
        self._read: tuple[datetime, datetime] | None = None
        self._at: list[datetime] = []
        self._answers: list[AnswerTime] = []
        self._latencies = _Latencies(())

    def read(self, first: datetime, last: datetime) -> None:
        """Read what may witness attempts made between two instants."""
        first, last = first - self._clock.recent, last + max(self._clock.recent, self._deadline)
        if self._read is not None:
            if self._read[0] <= first and last <= self._read[1]:
                return
            first, last = min(first, self._read[0]), max(last, self._read[1])
        self._answers = sorted(self._between(first, last), key=lambda a: (a.finished_at, a.id))
        self._at = [a.finished_at for a in self._answers]
        self._latencies = _Latencies([a.latency_ms for a in self._answers])
        self._read = first, last

    def _between(self, first: datetime, last: datetime) -> Iterator[AnswerTime]:
        where = {
            "supplier": self._supplier,
            "fault": {"in": _ANSWERED},
            "finished_at": {"gte": first, "lte": last},
        }
        given = self._given
        others: list[AttemptsOfTask] = []
        if given is not None:
            asked = typed.group(self._documents, AttemptsOfTask, where)
            others = [of_task for of_task in asked if (of_task.task, of_task.task_hash) not in given.tasks]
        if given is None or first <= given.since or len(others) > _TASKS_APART:
            yield from typed.find(self._documents, AnswerTime, where)
            return
        yield from (AnswerTime("", at, latency) for at, latency in given.times if first <= at <= last)
        for of_task in others:
            apart = {**where, "task": of_task.task, "task_hash": of_task.task_hash}
            yield from typed.find(self._documents, AnswerTime, apart)

    def near(self, attempts: Sequence[CallAttempt]) -> list[AnswerTime]:
        """The answers near enough to some attempts to witness them, or to show the supplier alive."""
        low, high = self._range(attempts)
        return self._answers[low:high]

    def _range(self, attempts: Sequence[CallAttempt]) -> tuple[int, int]:
        first = min(a.started_at for a in attempts)
        last = max(a.finished_at for a in attempts)
        self.read(first, last)
        low = bisect_left(self._at, first - self._clock.recent)
        return low, bisect_right(self._at, last + max(self._clock.recent, self._deadline))

    def witness(self, attempts: Sequence[CallAttempt]) -> Witness:
        """The witness of a doc's attempts.

        How near an answer must be follows from the answers around these attempts, up to a deadline after the
        last: what comes later says nothing of how slow the supplier was then.
        """
        low, high = self._range(attempts)
        until = max(a.finished_at for a in attempts) + self._deadline
        latency = self._latencies.median(low, min(high, bisect_right(self._at, until)))
        window = self._clock.witness_window(latency, self._deadline)
        return Witness.from_sorted(self._at, low, high, window)


class _Latencies:
    """Medians over parts of a row of latencies: little is done where one part is much like the last."""

    def __init__(self, latencies_ms: Sequence[float]) -> None:
        self._row = latencies_ms
        self._low = self._high = 0
        self._ordered: list[float] = []

    def median(self, low: int, high: int) -> timedelta | None:
        """The median from place ``low`` to before ``high``; None where there is nothing."""
        if low >= self._high or high <= self._low:
            self._low, self._high, self._ordered = low, low, []
        if len(self._ordered) < high - low - _FEW:
            self._low, self._high, self._ordered = low, high, sorted(self._row[low:high])
        for place in range(low, self._low):
            insort(self._ordered, self._row[place])
        for place in range(self._high, high):
            insort(self._ordered, self._row[place])
        for place in (*range(self._low, low), *range(high, self._high)):
            del self._ordered[bisect_left(self._ordered, self._row[place])]
        self._low, self._high = low, high
        return median_of_sorted(self._ordered)


_NO_CALLS: Mapping[str, int] = {}


class Supplied:
    """The docs of one supplier that were not all answered at once, as of an instant."""

    def __init__(
        self,
        workspace: Workspace,
        supplier: Supplier,
        now: datetime,
        read: AnswersRead | None = None,
    ) -> None:
        self._documents, self._supplier, self._now = workspace.documents, supplier, now
        settings = workspace.config.settings
        self._clock = DocClock.from_minutes(settings.planning.occasions_minutes)
        self._deadline = timedelta(seconds=deadline_s(workspace, supplier))
        self._answers = Answers(workspace.documents, supplier.key, self._deadline, self._clock, read)

    def known(
        self,
        docs: Mapping[DocRound, Sequence[DocAttempt]] | Mapping[DocRound, Sequence[PlanAttempt]],
        calls: Mapping[str, int] = _NO_CALLS,
    ) -> dict[DocRound, KnownDoc]:
        """What became of each doc, from all its attempts in a round (no canaries); peers not looked at.

        ``calls``: how many calls prompts take, by id, as far as the caller knows; the others are read.
        """
        if not docs:
            return {}
        unknown = {prompt_id for prompt_id, _ in docs if prompt_id not in calls}
        if unknown:
            calls = {**calls, **calls_of(self._documents, unknown)}
        asked = {key: [call_attempt(a) for a in attempts] for key, attempts in docs.items()}
        unanswered = [a for of_doc in asked.values() if _unanswered(of_doc) for a in of_doc]
        if unanswered:
            self._answers.read(min(a.started_at for a in unanswered), max(a.finished_at for a in unanswered))
        return {
            key: self._known(of_doc, calls.get(key[0]) or len({(a.idx, a.repeat) for a in of_doc}))
            for key, of_doc in asked.items()
        }

    def witnesses(
        self, attempts: Sequence[DocAttempt], occasions: Iterable[Occasion]
    ) -> list[list[AnswerTime]]:
        """The answers that witness each occasion of a doc."""
        asked = [call_attempt(a) for a in attempts]
        window = self._answers.witness(asked).window
        return [
            [
                answer
                for answer in self._answers.near(asked)
                if occasion.started_at - window <= answer.finished_at <= occasion.ended_at + window
            ]
            for occasion in occasions
        ]

    def around(self, attempts: Sequence[DocAttempt]) -> list[AnswerTime]:
        """All answers that the state of a doc follows from."""
        return self._answers.near([call_attempt(a) for a in attempts])

    def _known(self, attempts: Sequence[CallAttempt], calls: int) -> KnownDoc:
        if not _unanswered(attempts):
            outcome = doc_outcome(attempts, calls, _NOBODY, self._clock, self._now)
            return KnownDoc(outcome, None)
        outcome = doc_outcome(attempts, calls, self._answers.witness(attempts), self._clock, self._now)
        if outcome.state is DocState.SCORED or outcome.ours:
            return KnownDoc(outcome, None)
        # an answer that is under way may yet come near enough, and tell how slow the supplier is
        if self._now <= outcome.at + self._deadline:
            return KnownDoc(outcome, self._now)
        return KnownDoc(outcome, outcome.holds_until)


_NOBODY = Witness((), timedelta(0))


def _unanswered(attempts: Iterable[CallAttempt]) -> bool:
    return any(not a.fault.answered for a in attempts)


def call_attempt(attempt: DocAttempt | PlanAttempt) -> CallAttempt:
    """An attempt as doc states look at it; a run has one lease of its supplier."""
    return CallAttempt(
        attempt.idx,
        attempt.repeat,
        Fault(attempt.fault),
        attempt.finished_at - timedelta(milliseconds=attempt.latency_ms),
        attempt.finished_at,
        attempt.lease,
        attempt.occasion,
    )


def calls_of(documents: DocumentStore, prompts: Iterable[str]) -> dict[str, int]:
    """How many calls each of some prompts takes, by id."""
    return {
        prompt.id: prompt.calls
        for ids in _batches(prompts)
        for prompt in typed.find(documents, PromptCalls, {"_id": {"in": ids}})
    }


def attempts_at(documents: DocumentStore, prompts: Iterable[str], **where: object) -> Iterator[DocAttempt]:
    """Every attempt at some prompts that is no canary, whoever made it or as the filter says."""
    for ids in _batches(prompts):
        for attempt in typed.find(documents, DocAttempt, {**where, "prompt_id": {"in": ids}}):
            if not attempt.canary:
                yield attempt


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _PROMPTS):
        yield ordered[start : start + _PROMPTS]


class Others(Protocol):
    """What the rows of a supplier and task follow from besides the supplier's own facts of the task."""

    def void(self, service: str, prompts: Iterable[str]) -> set[str]:
        """Those of some prompts that are void for the suppliers of a service."""
        ...

    def refused(self, supplier: Supplier, refusals: Mapping[tuple[str, str], Iterable[str]]) -> set[str]:
        """Of tasks of which a supplier answered nothing those whose form of request it refuses everywhere.

        ``refusals``: by task and task hash the prompts that were refused.
        """
        ...

    def answered(self, supplier: Supplier) -> bool:
        """Whether a supplier ever answered a call, of any task, since its model last changed."""
        ...


class Peers:
    """What the stores say of others: which prompts are refused to three units and answered to nobody.

    One for many suppliers: what was found of a prompt is kept.
    """

    def __init__(self, workspace: Workspace, now: datetime) -> None:
        self._workspace, self._now = workspace, now
        self._void: dict[tuple[str, str], bool] = {}
        self._groups: dict[str, str] = {}
        self._suppliers: dict[str, Supplied | None] = {}
        self._known: Mapping[str, Supplier] | None = None

    def _roster(self) -> Mapping[str, Supplier]:
        """All suppliers, read once; no cached property, which other threads would wait for."""
        if self._known is None:
            self._known = {supplier.key: supplier for supplier in known_suppliers(self._workspace)}
        return self._known

    def void(self, service: str, prompts: Iterable[str]) -> set[str]:
        """Those of some prompts that are void for the suppliers of a service."""
        wanted = set(prompts)
        new = {prompt for prompt in wanted if (service, prompt) not in self._void}
        if new:
            by_prompt: dict[str, list[DocAttempt]] = {prompt: [] for prompt in new}
            for attempt in attempts_at(self._workspace.documents, new, service=service):
                by_prompt[attempt.prompt_id].append(attempt)
            refused = {
                p: made
                for p, made in by_prompt.items()
                if made and is_void(self._peers(p, made), *self._asked_or_not(service, made))
            }
            answered = self._answered_otherwise(service, [made[0] for made in refused.values()])
            for prompt in new:
                made = refused.get(prompt)
                void = made is not None and (made[0].task_hash, made[0].doc_id) not in answered
                self._void[service, prompt] = void
        return {prompt for prompt in wanted if self._void[service, prompt]}

    def refused(self, supplier: Supplier, refusals: Mapping[tuple[str, str], Iterable[str]]) -> set[str]:
        """See :meth:`Others.refused`."""
        answered = partial(answered_tasks, self._workspace, supplier, self._now)
        return refused_tasks(self._workspace.documents, supplier, refusals, answered)

    def answered(self, supplier: Supplier) -> bool:
        """See :meth:`Others.answered`."""
        return answered_anything(self._workspace, supplier, self._now)

    def _answered_otherwise(self, service: str, docs: Iterable[DocAttempt]) -> set[tuple[str, int]]:
        """Of docs, by an attempt at each, those that somebody has scored in any form and epoch: (hash, doc).

        A prompt is of one API and one epoch. Whoever is alone in asking for its form, or is asked first in
        an epoch, could otherwise refuse what others answer. An answer counts as long as a slot may hold it.
        """
        settings, documents = self._workspace.config.settings, self._workspace.documents
        grace = DocClock.from_minutes(settings.planning.occasions_minutes).limit
        found = set()
        for doc in docs:
            # who has it scored has an attempt at one of its prompts that was answered: scores have no index
            # that begins with the doc, and those of all suppliers would be read
            made = attempts_at(documents, self._prompts_of(doc), service=service, fault={"in": _ANSWERED})
            answered = {attempt.supplier for attempt in made}
            spec = self._workspace.spec(doc.task)
            asked = {s.key for s in self._asked_task(service, doc.task, left=True) if s.key in answered}
            where = {
                "supplier": {"in": sorted(asked)},
                "task": doc.task,
                "task_hash": doc.task_hash,
                "doc_id": doc.doc_id,
                "answered_at": {"gt": self._now - spec.max_age(settings.sampling.max_age_days) - grace},
            }
            scores = typed.find(documents, ScoredDoc, where) if asked else ()
            if any(score.error is None for score in scores):
                found.add((doc.task_hash, doc.doc_id))
        return found

    def _prompts_of(self, doc: DocAttempt) -> set[str]:
        """The prompts of a doc, of every form and epoch."""
        where = {"task": doc.task, "task_hash": doc.task_hash, "doc_id": doc.doc_id}
        prompts = typed.find(self._workspace.documents, PromptCalls, where)
        return {doc.prompt_id, *(prompt.id for prompt in prompts)}

    def _peers(self, prompt: str, attempts: Sequence[DocAttempt]) -> Iterator[PeerOutcome]:
        """The outcomes that decide, those first that are known at once.

        Whoever is not asked the task any more is no peer.
        """
        by_peer: dict[str, list[DocAttempt]] = {}
        for attempt in attempts:
            if self._is_asked(attempt):
                by_peer.setdefault(attempt.supplier, []).append(attempt)
        # one answer is enough to say that the prompt can be answered
        open_ = [peer for peer, own in by_peer.items() if any(a.fault in _REFUSED for a in own)]
        answered = [peer for peer, own in by_peer.items() if any(a.fault in _ANSWERED for a in own)]
        for peer in answered:
            for outcome in self._outcomes(peer, by_peer[peer]):
                if outcome.state is DocState.SCORED:
                    yield PeerOutcome(peer, peer, outcome, True)
        self._read_groups(open_)
        roster = self._roster()
        placed = {
            peer: (self._groups[peer], roster[peer].owner if peer in roster else None)
            for peer in sorted(open_)
        }
        # one of each unit will do, and of units those that it takes: each costs two queries
        refused = (self._refused_it(unit, by_peer, placed, prompt) for unit in linked_units(placed))
        yield from islice((peer for peer in refused if peer is not None), VOID_UNITS)

    def _refused_it(
        self,
        unit: Iterable[str],
        by_peer: Mapping[str, Sequence[DocAttempt]],
        placed: Mapping[str, tuple[str, str | None]],
        prompt: str,
    ) -> PeerOutcome | None:
        """The first supplier of a unit that was refused a prompt for good and has other docs scored."""
        for peer in unit:
            for outcome in self._outcomes(peer, by_peer[peer]):
                if outcome.surely_refused and self._scored_others(peer, by_peer[peer][0], prompt):
                    group, owner = placed[peer]
                    return PeerOutcome(peer, group, outcome, True, owner)
        return None

    def _asked_or_not(
        self, service: str, attempts: Sequence[DocAttempt]
    ) -> tuple[Iterator[tuple[str, str | None]], Iterator[tuple[str, str | None]]]:
        """Group and owner of who was asked a doc, and of who was not but has others of the task scored.

        In whatever form and epoch: ``attempts`` are those at one prompt of it. Of those that are asked the
        task; they are read when they are looked at, the former first.
        """
        of, known = attempts[0], {attempt.supplier for attempt in attempts}

        def asked() -> Iterator[tuple[str, str | None]]:
            others = self._prompts_of(of) - {of.prompt_id}
            made = attempts_at(self._workspace.documents, others, service=service)
            known.update(attempt.supplier for attempt in made)
            yield from self._units((s for s in self._asked_task(service, of.task) if s.key in known), 1_000)

        def unasked() -> Iterator[tuple[str, str | None]]:
            others = (s for s in self._asked_task(service, of.task) if s.key not in known)
            yield from self._units((s for s in others if self._has_scores(s, of)), 1)

        return asked(), unasked()

    def _asked_task(self, service: str, task: str, *, left: bool = False) -> Iterator[Supplier]:
        """The suppliers of a service that are asked a task now; if ``left`` those that have left, too."""
        spec = self._workspace.spec(task)
        for supplier in self._roster().values():
            active = left or supplier.left_at is None
            if supplier.service == service and active and spec.asked_of(supplier):
                yield supplier

    def _units(self, suppliers: Iterator[Supplier], together: int) -> Iterator[tuple[str, str | None]]:
        """Group and owner of each, so many read together."""
        some = list(islice(suppliers, together))
        while some:
            self._read_groups([supplier.key for supplier in some])
            yield from ((self._groups[supplier.key], supplier.owner) for supplier in some)
            some = list(islice(suppliers, together))

    def _has_scores(self, supplier: Supplier, of: DocAttempt) -> bool:
        """Whether a supplier has any doc of a task scored, young enough and by its present model."""
        age = self._workspace.spec(of.task).max_age(self._workspace.config.settings.sampling.max_age_days)
        after = self._now - age if supplier.cut_at is None else max(self._now - age, supplier.cut_at)
        where = {
            "supplier": supplier.key,
            "task": of.task,
            "task_hash": of.task_hash,
            "answered_at": {"gt": after},
        }
        scores = typed.find(self._workspace.documents, ScoredSupplier, where)
        return any(score.error is None for score in scores)

    def _is_asked(self, attempt: DocAttempt) -> bool:
        known = self._roster().get(attempt.supplier)
        return known is None or self._workspace.spec(attempt.task).asked_of(known)

    def _outcomes(self, supplier: str, attempts: Sequence[DocAttempt]) -> Iterator[DocOutcome]:
        if supplier not in self._suppliers:
            known = self._roster().get(supplier)
            self._suppliers[supplier] = None if known is None else Supplied(self._workspace, known, self._now)
        peer = self._suppliers[supplier]
        if peer is None:
            return
        rounds: dict[DocRound, list[DocAttempt]] = {}
        for attempt in attempts:
            rounds.setdefault((attempt.prompt_id, attempt.round), []).append(attempt)
        for found in peer.known(rounds).values():
            yield found.outcome

    def _scored_others(self, supplier: str, of: DocAttempt, prompt: str) -> bool:
        """Whether a supplier has another doc of the task scored."""
        where = {"supplier": supplier, "task": of.task, "task_hash": of.task_hash}
        newest = [("answered_at", -1)]
        for most in (_SCORES, None):  # one of the newest will do, nearly always
            scores = list(
                typed.find(self._workspace.documents, ScoredSupplier, where, sort=newest, limit=most)
            )
            if any(score.prompt_id != prompt and score.error is None for score in scores):
                return True
            if len(scores) < _SCORES:
                break
        return False

    def _read_groups(self, suppliers: Iterable[str]) -> None:
        new = [key for key in suppliers if key not in self._groups]
        placed = typed.by_id(self._workspace.documents, ProxyOfSupplier, new) if new else {}
        for key in new:
            self._groups[key] = placed[key].group if key in placed else key


def voided(known: KnownDoc) -> KnownDoc:
    """The same doc, found to be nobody's fault but its own."""
    return replace(
        known, outcome=replace(known.outcome, state=DocState.VOID, next_at=None, unreachable=False)
    )


def refused_tasks(
    documents: DocumentStore,
    supplier: Supplier,
    refusals: Mapping[tuple[str, str], Iterable[str]],
    answered: Callable[[], Iterable[tuple[str, str]]],
) -> set[str]:
    """Tasks whose form of request a supplier refuses everywhere and never answered.

    ``refusals``: by task and task hash the prompts that were refused, of tasks of which it answered nothing.
    ``answered`` gives those, with their hashes, of which it answered something.
    """
    if not refusals:
        return set()
    shapes = {
        task: {shape for ids in _batches(prompts) for shape in _shapes(documents, {"_id": {"in": ids}})}
        for (task, _), prompts in refusals.items()
    }
    calls = [(shape, Fault(_REFUSED[0])) for of_task in shapes.values() for shape in of_task]
    for task, task_hash in answered():
        where = {"task": task, "task_hash": task_hash, "api": supplier.api}
        calls += [(shape, Fault(_ANSWERED[0])) for shape in _shapes(documents, where, limit=1)]
    refused = refused_shapes(calls)
    return {task for task, of_task in shapes.items() if of_task and of_task <= refused}


def _shapes(documents: DocumentStore, where: Mapping[str, Any], limit: int | None = None) -> Iterator[str]:
    for prompt in typed.find(documents, AskedPrompt, where, limit=limit):
        for request in prompt.requests:
            yield request_shape(request, prompt.api)


def answered_since(
    documents: DocumentStore, supplier: Supplier, since: datetime | None
) -> set[tuple[str, str]]:
    """Tasks, with their hashes, of which a supplier answered something after an instant, None for ever."""
    where: dict[str, Any] = {"supplier": supplier.key, "fault": {"in": _ANSWERED}}
    if since is not None:
        where["finished_at"] = {"gt": since}
    return {(row.task, row.task_hash) for row in typed.group(documents, AttemptsOfTask, where)}


def answered_tasks(workspace: Workspace, supplier: Supplier, now: datetime) -> set[tuple[str, str]]:
    """Tasks, with their hashes, of which a supplier answered something.

    Every answer that may count is looked at. Of earlier ones the newest score of each task tells: who refuses
    for years would else have all that it was asked read, at every look.
    """
    documents = workspace.documents
    found = answered_since(documents, supplier, _oldest(workspace, now))
    lately = {task for task, _ in found}
    for spec in workspace.specs:
        if spec.name not in lately:
            before = {"supplier": supplier.key, "task": spec.name}
            newest = typed.find(documents, ScoredTask, before, sort=[("answered_at", -1)], limit=1)
            found.update((score.task, score.task_hash) for score in newest)
    return found


def _oldest(workspace: Workspace, now: datetime) -> datetime:
    """The instant after which an answer may count for some task."""
    settings = workspace.config.settings
    days = settings.sampling.max_age_days
    longest = max((spec.max_age(days) for spec in workspace.specs), default=timedelta(days=days))
    return now - longest - DocClock.from_minutes(settings.planning.occasions_minutes).limit


def answered_anything(workspace: Workspace, supplier: Supplier, now: datetime) -> bool:
    """Whether a supplier ever answered a call, of any task, since its model last changed.

    What it answered before any answer could count was scored: it is not looked for among years of failures.
    """
    documents, cut = workspace.documents, supplier.cut_at
    since = _oldest(workspace, now)
    scored: dict[str, Any] = {
        "supplier": supplier.key,
        "task": {"in": [spec.name for spec in workspace.specs]},
    }
    if cut is not None:
        since, scored["answered_at"] = max(since, cut), {"gt": cut}
    where = {"supplier": supplier.key, "fault": {"in": _ANSWERED}, "finished_at": {"gt": since}}
    return (
        next(typed.find(documents, AttemptId, where, limit=1), None) is not None
        or next(typed.find(documents, ScoredId, scored, limit=1), None) is not None
    )
