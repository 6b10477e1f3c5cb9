"""Pages of answers: what a supplier said to the docs of its window, with counts by what became of them."""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from testbench_dagster.core.doc_answer import AnswerKind, DocAnswer
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.period import ALWAYS, Period
from testbench_dagster.core.records.attempts import AttemptsOfSupplier, ShownAttempt
from testbench_dagster.core.records.identity import ProxyOfSupplier
from testbench_dagster.core.records.prompts import ShownPrompt
from testbench_dagster.core.records.suppliers import RosterRow
from testbench_dagster.core.records.windows import AnsweringSupplier, PackedAnswers
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import LEFT, Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.stages.discover.roster import named_suppliers, one_supplier
from testbench_dagster.stages.read.shown import (
    MANY,
    TOGETHER,
    Asked,
    ShownDocs,
    ToldDoc,
    read_answer,
    shown_attempts,
)
from testbench_dagster.stages.read.texts import options_of, said_text, target_of
from testbench_dagster.stages.score.window_answers import IndexedDoc, unpacked_values
from testbench_dagster.stages.score.windows import window_docs
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.transports.payload import RequestError, as_stream, build_payload
from testbench_dagster.transports.readings import reading_of

#: Besides the kinds of docs what answers may be chosen by.
TRUNCATED, DIFFERENT = "truncated", "different"
CHOICES = (*(kind.value for kind in AnswerKind), TRUNCATED, DIFFERENT)
#: Suppliers, of as many groups, with whose values one's own are compared: more would hardly say more.
PEERS = 32
_SUPPLIERS = 50  # whose cached windows are in memory at once


@dataclass(frozen=True)
class AnswerPage:
    """One page of answers in ascending order of ``doc_id``.

    ``counts``: docs of the whole window by kind, and under ``truncated`` those that were cut, ``different``
    those on which most peers had another value. ``after`` is what to ask the next page with, None at the end.
    A search that came to its bound before the page was full ``looked`` through so many docs and left
    ``unread`` ones, which ``after`` begins with; both are 0 otherwise.
    """

    rows: Sequence[DocAnswer]
    counts: Mapping[str, int]
    after: int | None
    looked: int = 0
    unread: int = 0


@dataclass(frozen=True)
class SearchBound:
    """After how many docs, or how many seconds, a search ends though its page is not full."""

    docs: int
    seconds: float


@dataclass(frozen=True)
class SentAttempt:
    """One attempt at a doc as people read it.

    ``idx`` is the request of the prompt, ``repeat`` its sample, ``attempt`` its number; a ``canary`` only
    looked whether the supplier answers. ``text`` is what it answered, of log-probabilities the sum and
    whether each token was the likeliest. ``payload`` is the request body as it was sent, as JSON; None where
    it is not known any more: it is built anew, and shown where its SHA-256 is that of what was sent.
    """

    id: str
    epoch: int
    round: int
    idx: int
    repeat: int
    attempt: int
    canary: bool
    fault: str
    owner: str
    status: int | None
    error: str | None
    started_at: datetime
    finished_at: datetime
    latency_ms: float
    first_token_ms: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    text: str | None
    reasoning: str | None
    payload: str | None
    payload_sha256: str | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in vars(self).items()
        }


@dataclass(frozen=True)
class DocPage:
    """A doc and what everybody said: ``requests`` are the prompt's request bodies, as a task asks them.

    ``answers`` are those of one page of suppliers, ascending by key; ``after`` is what to ask the next one
    with, None at the end.
    """

    task: str
    doc_id: int
    requests: Sequence[Mapping[str, object]]
    target: str | None
    answers: Sequence[DocAnswer]
    after: str | None = None


def answers(
    workspace: Workspace,
    supplier: str,
    task: str,
    *,
    kind: AnswerKind | str | None = None,
    search: str | None = None,
    after: int | None = None,
    limit: int = 50,
    bound: SearchBound | None = None,
    now: datetime | None = None,
) -> AnswerPage:
    """Return a page of a supplier's answers to a task; ``kind`` may also be ``truncated`` or ``different``.

    ``search`` is a text that question, answer or target hold, in whatever case: it reads the texts of docs
    until the page is full, or it comes to its ``bound``. Peers are up to 32 suppliers of the same service,
    one of each identity group.

    Raises:
        ConfigError: the supplier is not on the roster, the task is not configured, or the kind is none.
    """
    kind = _checked(kind)
    known, (spec, registration) = required_supplier(workspace, supplier), task_of(workspace, task)
    if registration is None:
        return AnswerPage((), dict.fromkeys(CHOICES, 0), None)
    now = now or datetime.now(UTC)
    [(_, docs)] = window_docs(workspace, [known], spec, registration, now)
    different = _different(workspace, known, registration, docs)
    counts = Counter[str](doc.kind for doc in docs)
    counts[TRUNCATED], counts[DIFFERENT] = sum(doc.truncated for doc in docs), len(different)
    start = 0 if after is None else bisect_right(docs, after, key=lambda doc: doc.doc_id)
    chosen = [doc for doc in docs[start:] if _is_chosen(doc, kind, different)]
    shown = ShownDocs(workspace, spec, registration)
    told = {name: counts[name] for name in CHOICES}
    if search is not None:
        rows, looked = _found(shown, [(known, doc) for doc in chosen], search, limit, bound)
        stopped = len(rows) < limit and looked < len(chosen)
        return AnswerPage(
            rows,
            told,
            chosen[looked - 1].doc_id if 0 < looked < len(chosen) else None,
            looked if stopped else 0,
            len(chosen) - looked if stopped else 0,
        )
    rows = list(shown.rows([(known, doc) for doc in chosen[:limit]]))
    return AnswerPage(rows, told, rows[-1].doc_id if len(chosen) > limit else None)


@dataclass(frozen=True)
class AnsweredTask:
    """The docs of a supplier's window of one task, whose texts are read while they are walked through."""

    supplier: Supplier
    spec: TaskSpec
    registration: Registration
    docs: Sequence[IndexedDoc]
    shown: ShownDocs

    def rows(self) -> Iterator[DocAnswer]:
        """Yield what became of each doc; few at once in memory."""
        yield from self.shown.rows([(self.supplier, doc) for doc in self.docs], MANY)

    def told(self) -> Iterator[ToldDoc]:
        """Yield the same with what it was read from."""
        yield from self.shown.told([(self.supplier, doc) for doc in self.docs], MANY)


def answered_tasks(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    tasks: Sequence[TaskSpec],
    period: Period = ALWAYS,
    now: datetime | None = None,
) -> Iterator[AnsweredTask]:
    """Yield what suppliers' windows hold, task by task: the docs answered, or last asked, in a period."""
    now = now or datetime.now(UTC)
    for spec in tasks:
        registration = workspace.datasets.current(spec.name)
        if registration is None:
            continue
        shown, asked = ShownDocs(workspace, spec, registration), list(filter(spec.asked_of, suppliers))
        for start in range(0, len(asked), _SUPPLIERS):
            batch = asked[start : start + _SUPPLIERS]
            for supplier, docs in window_docs(workspace, batch, spec, registration, now):
                if period != ALWAYS:
                    docs = [doc for doc in docs if period.holds(doc.at)]
                yield AnsweredTask(supplier, spec, registration, docs, shown)


def every_answer(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    tasks: Sequence[TaskSpec],
    now: datetime | None = None,
    period: Period = ALWAYS,
) -> Iterator[DocAnswer]:
    """Yield the answers of all docs of suppliers' windows, task by task; few at once in memory."""
    for task in answered_tasks(workspace, suppliers, tasks, period, now):
        yield from task.rows()


def one_answer(
    workspace: Workspace, supplier: str, task: str, doc_id: int, *, now: datetime | None = None
) -> DocAnswer | None:
    """Return what a supplier made of one doc of its window; None where that holds no such doc.

    Raises:
        ConfigError: the supplier is not on the roster, or the task is not configured.
    """
    known, (spec, registration) = required_supplier(workspace, supplier), task_of(workspace, task)
    if registration is None:
        return None
    [(_, docs)] = window_docs(workspace, [known], spec, registration, now)
    found = [(known, doc) for doc in docs if doc.doc_id == doc_id]
    return next(ShownDocs(workspace, spec, registration).rows(found), None)


def doc(
    workspace: Workspace,
    task: str,
    doc_id: int,
    *,
    after: str | None = None,
    limit: int = TOGETHER,
    now: datetime | None = None,
) -> DocPage:
    """Return what suppliers whose window holds a doc made of it: a page of them, ascending by key.

    A page looks at ``limit`` suppliers that were ever asked the doc; those whose window does not hold it any
    more are left out.

    Raises:
        ConfigError: the task is not configured.
    """
    spec, registration = task_of(workspace, task)
    if registration is None:
        return DocPage(task, doc_id, (), None, ())
    prompts = prompts_of(workspace, registration, doc_id)
    if not prompts:
        return DocPage(task, doc_id, (), None, ())
    where = {"prompt_id": {"in": sorted(prompt.id for prompt in prompts)}}
    asked = sorted(row.supplier for row in typed.group(workspace.documents, AttemptsOfSupplier, where))
    asked = [key for key in asked if after is None or key > after]
    chosen = sorted(named_suppliers(workspace, asked[:limit]), key=lambda supplier: supplier.key)
    found = [
        (supplier, one)
        for supplier, docs in window_docs(workspace, chosen, spec, registration, now)
        for one in docs
        if one.doc_id == doc_id
    ]
    newest = prompts[-1]
    return DocPage(
        task,
        doc_id,
        newest.requests,
        target_of(newest.target, options_of(newest.requests, registration.flags)),
        list(ShownDocs(workspace, spec, registration).rows(found)),
        asked[limit - 1] if len(asked) > limit else None,
    )


def attempts(workspace: Workspace, supplier: str, task: str, doc_id: int) -> Sequence[SentAttempt]:
    """Return all attempts at a doc, canaries too, oldest first, with their texts.

    Raises:
        ConfigError: the supplier is not on the roster, or the task is not configured.
    """
    known, (_, registration) = required_supplier(workspace, supplier), task_of(workspace, task)
    if registration is None:
        return []
    where = {
        "supplier": known.key,
        "task": registration.task,
        "task_hash": registration.task_hash,
        "doc_id": doc_id,
    }
    made = shown_attempts(workspace.documents, where)
    prompts = typed.by_id(workspace.documents, ShownPrompt, {attempt.prompt_id for attempt in made})
    found = [_sent(known, attempt, prompts.get(attempt.prompt_id)) for attempt in made]
    return sorted(found, key=lambda one: (one.started_at, one.idx, one.repeat, one.attempt))


# -- what is asked for ------------------------------------------------------------------------------------


def _checked(kind: AnswerKind | str | None) -> str | None:
    if kind is None:
        return None
    if kind not in CHOICES:
        raise ConfigError(f"kind is {str(kind)[:40]!r}; give one of {', '.join(CHOICES)}, or None for all")
    return str(kind)


def required_supplier(workspace: Workspace, key: str) -> Supplier:
    """The supplier with this key, whether it left or not. Raises ConfigError: it is not on the roster."""
    found = one_supplier(workspace, key)
    if found is None:
        known = [s.key for s in named_suppliers(workspace, None)][:20]
        raise ConfigError(
            f"supplier {key[:100]!r} is not on the roster; on it are: {', '.join(known) or 'none'}"
        )
    return found


def task_of(workspace: Workspace, name: str) -> tuple[TaskSpec, Registration | None]:
    """A configured task with its registration, if it has one.

    Raises:
        ConfigError: it is not configured.
    """
    return workspace.spec(name), workspace.datasets.current(name)


def _is_chosen(doc: IndexedDoc, kind: str | None, different: set[int]) -> bool:
    if kind == TRUNCATED:
        return doc.truncated
    if kind == DIFFERENT:
        return doc.doc_id in different
    return kind is None or doc.kind == kind


def _found(
    shown: ShownDocs, chosen: Sequence[Asked], search: str, limit: int, bound: SearchBound | None
) -> tuple[list[DocAnswer], int]:
    """The first docs that hold a text, and how many were looked through: those read at once at least."""
    wanted, found, started = search.casefold(), list[DocAnswer](), time.monotonic()
    for start in range(0, len(chosen), TOGETHER):
        spent = time.monotonic() - started
        if start and bound is not None and (start >= bound.docs or spent >= bound.seconds):
            return found, start
        for place, row in enumerate(shown.rows(chosen[start : start + TOGETHER]), start):
            if any(wanted in text.casefold() for text in (row.question, row.answer, row.target) if text):
                found.append(row)
                if len(found) == limit:
                    return found, place + 1
    return found, len(chosen)


# -- peers ------------------------------------------------------------------------------------------------


def _different(
    workspace: Workspace, supplier: Supplier, registration: Registration, docs: Sequence[IndexedDoc]
) -> set[int]:
    """The docs that a supplier answered and on which more than half of its peers had one other value."""
    own = {doc.doc_id: doc.value for doc in docs if doc.value is not None}
    if not own:
        return set()
    peers = list(_peers_values(workspace, supplier, registration))
    found = set()
    for doc_id, value in own.items():
        said = [values[doc_id] for values in peers if doc_id in values]
        others = len(said) - said.count(value)
        # rarely so many that it takes a look at which of them
        if 2 * others > len(said) and 2 * Counter(said).most_common(1)[0][1] > len(said):
            found.add(doc_id)
    return found


def _peers_values(
    workspace: Workspace, supplier: Supplier, registration: Registration
) -> Iterator[dict[int, float | str]]:
    """The values of peers by doc, as last cached: one supplier of each other identity group."""
    documents = workspace.documents
    where = {
        "task": registration.task,
        "service": supplier.service,
        "task_hash": registration.task_hash,
    }
    known = {one.supplier: one.id for one in typed.find(documents, AnsweringSupplier, where)}
    # always the same ones, whoever joins
    ordered = sorted(known, key=lambda key: hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest())
    group_of = {supplier.key: supplier.key}
    groups: set[str] = set()
    chosen: list[str] = []
    configured = {config.key for config in workspace.config.settings.suppliers}
    for start in range(0, len(ordered), 2 * PEERS):
        batch = [key for key in ordered[start : start + 2 * PEERS] if key != supplier.key]
        keys = [*batch, supplier.key]
        group_of |= {
            key: placed.group for key, placed in typed.by_id(documents, ProxyOfSupplier, keys).items()
        }
        groups.add(group_of[supplier.key])
        here = typed.by_id(documents, RosterRow, batch)
        for key in batch:
            group = group_of.get(key, key)
            left = key in here and here[key].status == LEFT and key not in configured
            if group not in groups and not left and len(chosen) < PEERS:
                groups.add(group)
                chosen.append(key)
        if len(chosen) == PEERS:
            break
    for packed in typed.by_id(documents, PackedAnswers, [known[key] for key in chosen]).values():
        yield unpacked_values(packed.docs)


# -- docs -------------------------------------------------------------------------------------------------


def prompts_of(workspace: Workspace, registration: Registration, doc_id: int) -> list[ShownPrompt]:
    """The prompts made of a doc as it is asked now, in every sequence and form, the newest last."""
    where = {"task": registration.task, "task_hash": registration.task_hash, "doc_id": doc_id}
    found = typed.find(workspace.documents, ShownPrompt, where)
    return sorted(found, key=lambda prompt: (prompt.epoch, prompt.api))


def _sent(supplier: Supplier, attempt: ShownAttempt, prompt: ShownPrompt | None) -> SentAttempt:
    text, reasoning, payload = None, None, None
    if prompt is not None:
        payload = _payload(supplier, prompt, attempt)
        answer = read_answer(prompt, attempt) if Fault(attempt.fault).answered else None
        if answer is not None:
            text, reasoning = said_text(prompt.requests[attempt.idx], answer), answer.reasoning
            if answer.logprob is not None:
                text = f"log-probability {answer.logprob:.6f}"
                if answer.greedy is not None:
                    text += ", the likeliest" if answer.greedy else ", not the likeliest"
    return SentAttempt(
        id=attempt.id,
        epoch=attempt.epoch,
        round=attempt.round,
        idx=attempt.idx,
        repeat=attempt.repeat,
        attempt=attempt.attempt,
        canary=attempt.canary,
        fault=attempt.fault,
        owner=attempt.owner,
        status=attempt.status,
        error=attempt.error,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        latency_ms=attempt.latency_ms,
        first_token_ms=attempt.first_token_ms,
        prompt_tokens=attempt.prompt_tokens,
        completion_tokens=attempt.completion_tokens,
        text=text,
        reasoning=reasoning,
        payload=payload,
        payload_sha256=attempt.payload_sha256,
    )


def _payload(supplier: Supplier, prompt: ShownPrompt, attempt: ShownAttempt) -> str | None:
    """The body that was sent, where what is built of the prompt now is that."""
    if not 0 <= attempt.idx < len(prompt.requests):
        return None
    try:
        generation = reading_of(attempt)["generation"]
        _, plain = build_payload(prompt.requests[attempt.idx], prompt.api, supplier.model, generation)
    except RequestError:
        return None
    for form in (plain, as_stream(plain)):
        body = orjson.dumps(form)
        if hashlib.sha256(body).hexdigest() == attempt.payload_sha256:
            return body.decode()
    return None
