"""Docs of windows with their texts: prompts, last attempts, answers and scores, few queries for many docs.

What is read does not depend on the size of a task or on how often it was asked before: prompts by their place
in the sequence, attempts by prompt, answers and scores by id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from testbench_dagster.core.doc_answer import SCORED, AnswerKind, DocAnswer
from testbench_dagster.core.errors import BodyUnavailable
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.ids import attempt_document_id, document_id
from testbench_dagster.core.records.attempts import ShownAttempt, ShownAttemptHead
from testbench_dagster.core.records.prompts import ShownPrompt
from testbench_dagster.core.records.scores import ShownScore
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.scoring.rows import primary_pair
from testbench_dagster.stages.read.texts import (
    answer_text,
    extracted_of,
    options_of,
    question_of,
    reasoning_text,
    target_of,
)
from testbench_dagster.stages.score.undecided import undecided_version
from testbench_dagster.stages.score.window_answers import IndexedDoc
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, Where, typed
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.readings import reading_of

#: Docs whose raw answers are in memory at once: a log-probability answer may hold 100 kB. So many are a page;
#: whoever reads many takes more.
TOGETHER, MANY = 50, 200
#: Prompts that are kept for the next suppliers, and about the most characters in them.
_PROMPTS, _PROMPT_CHARS = 15_000, 16_000_000
_ANSWERED = frozenset(fault.value for fault in Fault if fault.answered)
Asked = tuple[Supplier, IndexedDoc]
#: Attempts at one call that are looked for: beyond any number that rules and occasions allow.
_MOST_ATTEMPTS = 100
_Doc = tuple[str, int, int, int]  # supplier, doc, epoch and round
_Place = tuple[str, int, int]  # API, epoch and doc of a prompt
_N = TypeVar("_N", int, float)


class _Facts:
    """What is stored of one doc of a supplier: its prompt, how many attempts, ``last`` those at each call."""

    __slots__ = ("last", "made", "prompt")

    def __init__(self, prompt: ShownPrompt | None = None, attempts: Sequence[ShownAttempt] = ()) -> None:
        self.prompt, self.made = prompt, len(attempts)
        self.last = attempts
        if self.made < 2:  # nearly always
            return
        last: dict[tuple[int, int], ShownAttempt] = {}
        for attempt in attempts:
            call = attempt.idx, attempt.repeat
            if call not in last or last[call].attempt < attempt.attempt:
                last[call] = attempt
        self.last = [last[call] for call in sorted(last)]

    @property
    def answer_id(self) -> str | None:
        """Id of the answer, None while it is not complete."""
        complete = self.prompt is None or len(self.last) == self.prompt.calls
        if not (self.last and complete):
            return None
        for attempt in self.last:
            if attempt.fault not in _ANSWERED:
                return None
        ids = [attempt.id for attempt in self.last]
        return ids[0] if len(ids) == 1 else document_id("answer", *ids)

    def said(self) -> list[tuple[int, int, Answer]]:
        """What the attempts that answered brought, by request and repeat."""
        if self.prompt is None:
            return []
        found = []
        for attempt in self.last:
            answer = read_answer(self.prompt, attempt) if attempt.fault in _ANSWERED else None
            if answer is not None:
                found.append((attempt.idx, attempt.repeat, answer))
        return found


class ToldDoc(NamedTuple):
    """A doc as people read it, and what that was read from.

    ``attempts`` are the last at each call, ``said`` what those that answered brought, by request and repeat,
    ``scores`` what was made of the answer by the name of the filter.
    """

    row: DocAnswer
    prompt: ShownPrompt | None
    attempts: Sequence[ShownAttempt]
    said: Sequence[tuple[int, int, Answer]]
    scores: Mapping[str, ShownScore]


def _key(supplier: Supplier, doc: IndexedDoc) -> _Doc:
    return supplier.key, doc.doc_id, doc.epoch, doc.round


def _chars(prompt: ShownPrompt) -> int:
    """About how many characters a prompt holds."""
    return prompt.context_chars * len(prompt.requests)


def _place(supplier: Supplier, doc: IndexedDoc) -> _Place:
    return supplier.api, doc.epoch, doc.doc_id


def _answers(attempt: ShownAttempt) -> bool:
    """Whether an attempt is the answer to its call; a canary is none."""
    return not attempt.canary and attempt.fault in _ANSWERED


class ShownDocs:
    """Makes rows of docs of one task."""

    def __init__(self, workspace: Workspace, spec: TaskSpec, registration: Registration) -> None:
        self._documents, self._spec, self._registration = workspace.documents, spec, registration
        self._metric, self._filter = primary_pair(spec, registration)
        self._known: dict[_Place, ShownPrompt] = {}
        self._chars = 0
        self._versions = (scorer_version(registration), undecided_version(registration))

    def rows(self, asked: Sequence[Asked], together: int = TOGETHER) -> Iterator[DocAnswer]:
        """Yield the rows of docs, each of a supplier's window, in the order given; ``together`` are read."""
        for start in range(0, len(asked), together):
            some = asked[start : start + together]
            facts, ids, scores = self._read(some, (self._filter,))
            score_of = scores[self._filter].get
            for (supplier, doc), one, id_ in zip(some, facts, ids, strict=True):
                score = None if id_ is None else score_of(id_)
                yield self._row(supplier, doc, one, one.said(), id_, score)

    def told(self, asked: Sequence[Asked], together: int = TOGETHER) -> Iterator[ToldDoc]:
        """Yield the same rows with what they were read from, scored by every filter."""
        filters = tuple(dict.fromkeys((self._filter, *self._registration.flags.filters)))
        for start in range(0, len(asked), together):
            some = asked[start : start + together]
            facts, ids, scores = self._read(some, filters)
            for (supplier, doc), one, id_ in zip(some, facts, ids, strict=True):
                said = one.said()
                found = {name: of[id_] for name, of in scores.items() if id_ is not None and id_ in of}
                row = self._row(supplier, doc, one, said, id_, found.get(self._filter))
                yield ToldDoc(row, one.prompt, one.last, said, found)

    def _read(
        self, asked: Sequence[Asked], filters: Sequence[str]
    ) -> tuple[list[_Facts], list[str | None], dict[str, dict[str, ShownScore]]]:
        """What is stored of docs, the ids of their answers, and by filter the scores of these."""
        facts = self._facts(asked)
        ids = [one.answer_id for one in facts]
        answered = [(id_, doc.kind) for id_, (_, doc) in zip(ids, asked, strict=True) if id_ is not None]
        keys = {supplier.key for supplier, _ in asked}
        return facts, ids, {name: self._scores(answered, name, keys) for name in filters}

    # -- facts --------------------------------------------------------------------------------------------

    def _facts(self, asked: Sequence[Asked]) -> list[_Facts]:
        prompts = self._prompts(asked)
        made = self._attempts(asked, prompts)
        keys = [_key(supplier, doc) for supplier, doc in asked]
        unknown = [one for one, key in zip(asked, keys, strict=True) if key not in made]
        otherwise = self._attempts_otherwise(unknown) if unknown else {}
        return [
            otherwise.get(key) or _Facts(prompt, made.get(key, ()))
            for key, prompt in zip(keys, prompts, strict=True)
        ]

    def _prompts(self, asked: Sequence[Asked]) -> list[ShownPrompt | None]:
        """The prompts of docs; those of the last ones are at hand, as others were asked the same."""
        places = [_place(supplier, doc) for supplier, doc in asked]
        # one by one: a difference of sets would look at all that are at hand
        if missing := {place for place in places if place not in self._known}:
            if len(self._known) > _PROMPTS or self._chars > _PROMPT_CHARS:
                self._known = {place: self._known[place] for place in places if place in self._known}
                self._chars = sum(map(_chars, self._known.values()))
            where = {
                **self._of_task(asked),
                "api": {"in": sorted({api for api, _, _ in missing})},
                "position": {"in": sorted({doc.position for _, doc in asked})},
            }
            for prompt in typed.find(self._documents, ShownPrompt, where):
                self._known[prompt.api, prompt.epoch, prompt.doc_id] = prompt
                self._chars += _chars(prompt)
        return [self._known.get(place) for place in places]

    def _attempts(
        self, asked: Sequence[Asked], prompts: Sequence[ShownPrompt | None]
    ) -> dict[_Doc, list[ShownAttempt]]:
        """By doc the attempts at it, canaries left out.

        By their ids, which follow from call and number: the first at each call, then the next ones at those
        that were not answered. So it does not matter how large the task is.
        """
        found: dict[_Doc, list[ShownAttempt]] = {}
        calls = [
            (supplier.key, prompt.id, doc.round, idx, repeat)
            for (supplier, doc), prompt in zip(asked, prompts, strict=True)
            if prompt is not None
            for idx in range(len(prompt.requests))
            for repeat in range(prompt.calls // len(prompt.requests))
        ]
        for number in range(1, _MOST_ATTEMPTS):
            ids = {attempt_document_id(*call, number): call for call in calls}
            keys = {supplier.key for supplier, _ in asked}
            where = {"_id": {"in": sorted(ids)}, "supplier": {"in": sorted(keys)}}
            made = {attempt.id: attempt for attempt in shown_attempts(self._documents, where)}
            for attempt in made.values():
                if not attempt.canary:
                    of_doc = attempt.supplier, attempt.doc_id, attempt.epoch, attempt.round
                    found.setdefault(of_doc, []).append(attempt)
            # where the first is gone with age the second may be there
            calls = [
                call
                for id_, call in ids.items()
                if (id_ not in made and number == 1) or (id_ in made and not _answers(made[id_]))
            ]
            if not calls:
                break
        return found

    def _attempts_otherwise(self, asked: Sequence[Asked]) -> dict[_Doc, _Facts]:
        """The same of docs that were asked with another prompt: the supplier had another API then, say."""
        wanted = {_key(supplier, doc) for supplier, doc in asked}
        where = {
            "supplier": {"in": sorted({supplier.key for supplier, _ in asked})},
            **self._of_task(asked),
            "round": {"in": sorted({doc.round for _, doc in asked})},
            "doc_id": {"in": sorted({doc.doc_id for _, doc in asked})},
        }
        by_prompt: dict[_Doc, dict[str, list[ShownAttempt]]] = {}
        for attempt in shown_attempts(self._documents, where):
            of_doc = attempt.supplier, attempt.doc_id, attempt.epoch, attempt.round
            if of_doc in wanted and not attempt.canary:
                by_prompt.setdefault(of_doc, {}).setdefault(attempt.prompt_id, []).append(attempt)
        if not by_prompt:
            return {}
        prompts = typed.by_id(self._documents, ShownPrompt, {id_ for of in by_prompt.values() for id_ in of})
        found = {}
        for of_doc, of_prompts in by_prompt.items():
            last, made = max(of_prompts.items(), key=lambda item: max(a.finished_at for a in item[1]))
            found[of_doc] = _Facts(prompts.get(last), made)
        return found

    def _scores(
        self, answers: Iterable[tuple[str, AnswerKind]], by: str, suppliers: Collection[str]
    ) -> dict[str, ShownScore]:
        """By answer its score by a filter; where there is none what the scorer could not decide."""
        ids = {
            document_id("score", answer, by, version): (answer, version)
            for answer, kind in answers
            for version in (self._versions[:1] if kind in SCORED else self._versions)
        }
        found: dict[str, ShownScore] = {}
        scores = typed.by_id(self._documents, ShownScore, ids, suppliers=suppliers) if ids else {}
        for id_, score in scores.items():
            answer, version = ids[id_]
            if version == self._versions[0] or answer not in found:
                found[answer] = score
        return found

    def _of_task(self, asked: Sequence[Asked]) -> dict[str, Any]:
        return {
            "task": self._spec.name,
            "task_hash": self._registration.task_hash,
            "epoch": {"in": sorted({doc.epoch for _, doc in asked})},
        }

    # -- rows ---------------------------------------------------------------------------------------------

    def _row(
        self,
        supplier: Supplier,
        doc: IndexedDoc,
        facts: _Facts,
        said: Sequence[tuple[int, int, Answer]],
        answer_id: str | None,
        score: ShownScore | None,
    ) -> DocAnswer:
        flags, prompt, last = self._registration.flags, facts.prompt, facts.last
        requests: Sequence[Mapping[str, Any]] = () if prompt is None else prompt.requests
        options = options_of(requests, flags)
        failed = None
        for attempt in last:
            if attempt.fault not in _ANSWERED and (
                failed is None or attempt.finished_at > failed.finished_at
            ):
                failed = attempt
        if score is not None and score.error is not None:
            error: str | None = score.error
        else:
            error = None if failed is None else failed.error
            if error is None and score is not None:
                error = score.note
            if error is None:  # of what was answered: why the answer is not shown
                error = next((one.error for one in last if one.fault in _ANSWERED and not one.body), None)
        fault = doc.fault if failed is None else Fault(failed.fault)
        extracted = None if score is None else score.extracted
        if self._spec.signs and score is not None:
            extracted = score.metrics.get(self._metric)
        counted = last if failed is None else [failed]
        made = DocAnswer.__new__(DocAnswer)
        # not by __init__: of a million frozen ones it takes six seconds
        vars(made).update(
            supplier=supplier.key,
            model=supplier.model,
            task=self._spec.name,
            doc_id=doc.doc_id,
            kind=doc.kind.value,
            value=doc.value if isinstance(doc.value, float) else None,
            metric=self._metric,
            filter=self._filter,
            question=question_of(requests, flags.num_fewshot),
            target=None if prompt is None else target_of(prompt.target, options),
            answer=answer_text(requests, options, said),
            reasoning=reasoning_text(said),
            extracted=extracted_of(extracted, options, requests),
            truncated=doc.truncated,
            fault=None if fault is None else fault.value,
            owner=None if fault is None else fault.row.owner.value,
            error=error,
            attempts=facts.made,
            latency_ms=_total([attempt.latency_ms for attempt in counted]),
            prompt_tokens=_total([attempt.prompt_tokens for attempt in counted]),
            completion_tokens=_total([attempt.completion_tokens for attempt in counted]),
            at=max([attempt.finished_at for attempt in last]) if last else doc.at,
            epoch=doc.epoch,
            round=doc.round,
            prompt_id=None if prompt is None else prompt.id,
            answer_id=answer_id,
        )
        return made


def shown_attempts(documents: DocumentStore, where: Where) -> list[ShownAttempt]:
    """The attempts that match, with their answers.

    One whose answer stands outside the document store and cannot be read now has none, and says so as its
    error: what was said to other docs is shown all the same.
    """
    try:
        return list(typed.find(documents, ShownAttempt, where))
    except BodyUnavailable:
        return [_readable(documents, head) for head in list(typed.find(documents, ShownAttemptHead, where))]


def _readable(documents: DocumentStore, head: ShownAttemptHead) -> ShownAttempt:
    try:
        [found] = typed.find(documents, ShownAttempt, {"_id": head.id, "supplier": head.supplier})
    except BodyUnavailable as error:
        return ShownAttempt(*head._replace(error=f"its answer cannot be read now: {error}"), body=b"")
    return found


def read_answer(prompt: ShownPrompt, attempt: ShownAttempt) -> Answer | None:
    """What a stored attempt's body says, as its transport reads it; None where there is no answer to read."""
    if attempt.status is None or not attempt.body or not 0 <= attempt.idx < len(prompt.requests):
        return None
    request, reading = prompt.requests[attempt.idx], reading_of(attempt)
    return parse_answer(request, prompt.api, attempt.status, attempt.body, **reading)


def _total(counts: Sequence[_N | None]) -> _N | None:
    if len(counts) == 1:
        return counts[0]
    known = [count for count in counts if count is not None]
    return sum(known[1:], known[0]) if known else None
