"""What to tell of the answers behind rows: looked up perhaps, empty, or refused because of a parameter.

None of it changes a score. ``testbench check`` and the checks of the assets tell the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbench_dagster.core.faults import Closing, Fault
from testbench_dagster.core.records.attempts import CutAnswer, RawAnswer, Refusal
from testbench_dagster.core.records.prompts import AskedPrompt
from testbench_dagster.core.records.scores import CutScore
from testbench_dagster.core.window import REFUSED, Window
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.transports.answers import Answer, parse_answer
from testbench_dagster.transports.payload import answer_tokens
from testbench_dagster.transports.readings import reading_of
from testbench_dagster.transports.refusals import named_parameters, sent_parameters

#: Share of late docs above which a supplier may look answers up.
LATE_LIMIT = 0.05
#: Share of docs whose answer our own limit cut before it had a text, above which the limit is too low.
EMPTY_LIMIT = 0.1
#: What to do about a limit that ends answers before they begin.
MORE_TOKENS = (
    "set generation: {budget: 16384} for the supplier, or generation: {max_tokens: ...} for the task"
)
_CUT_SHORT = frozenset(fault.value for fault in Fault if fault.row.cut_short)
_REFUSED = [fault.value for fault in Fault if fault.row.closes is Closing.REFUSED]
_BODIES = 50  # answers in memory at once
_TOLD = 3  # suppliers named in a line

Remarks = dict[tuple[str, str], str]
"""What there is to tell, by supplier and task."""


def late_answers(rows: Iterable[Window]) -> Remarks:
    """Rows of which more than 5 % of the docs were answered only in a later run than the first."""
    return {
        (
            row.supplier,
            row.task,
        ): f"{row.n_late} of {counted(row.n, 'doc')} were answered only in a later run "
        "than the first that asked them: the answers may be looked up; compare bound_low with score"
        for row in rows
        if row.n_late > LATE_LIMIT * row.n
    }


def empty_answers(workspace: Workspace, rows: Iterable[Window]) -> Remarks:
    """Rows of which more than 10 % of the docs have an answer that is cut at the token limit and empty.

    Reasoning that is not part of the answer takes tokens, too: such answers end before they begin. Also rows
    in which nothing is right, because a server leaves whole answers in the reasoning.
    """
    found: Remarks = {}
    for row in rows:
        if row.truncated <= EMPTY_LIMIT * row.n:
            remark = _left_in_thoughts(workspace, row) if row.score_answered == 0 else ""
            if remark:
                found[row.supplier, row.task] = remark
            continue
        empty = list(_empty(workspace, row))
        if len(empty) > EMPTY_LIMIT * row.n:
            thought = sum(each.thought for each in empty)
            when = "while the model was reasoning" if thought > len(empty) / 2 else "before they began"
            found[row.supplier, row.task] = (
                f"{len(empty)} of {counted(row.n, 'answer')} are empty, cut at our token limit of "
                f"{max(each.limit for each in empty)} {when}: {MORE_TOKENS}"
            )
    return found


def who_is_cut_short(remarks: Remarks) -> list[str]:
    """Tell whose answers end before they begin (:func:`empty_answers`), three lines and how many more."""
    tasks: dict[str, list[str]] = {}
    for supplier, task in remarks:
        tasks.setdefault(supplier, []).append(task)
    lines = []
    for supplier, names in list(tasks.items())[:_TOLD]:
        also = f" (and so with {counted(len(names) - 1, 'further task')})" if len(names) > 1 else ""
        lines.append(f"answers of {supplier} to {names[0]}{also}: {remarks[supplier, names[0]]}")
    if len(tasks) > _TOLD:
        more = counted(len(tasks) - _TOLD, "more supplier")
        lines.append(f"answers of {more} end before they begin: `testbench check` names them")
    return lines


def refused_parameters(workspace: Workspace, rows: Iterable[Window]) -> Remarks:
    """Rows without a score because the supplier refuses the form of the task's requests, with what of it.

    The parameter is the one that the newest refusal names; where it names none, all that are sent are told.
    """
    return {
        (row.supplier, row.task): _refusal(workspace, row)
        for row in rows
        if row.status == REFUSED and row.task_hash is not None
    }


def who_has_failed(rows: Iterable[Window]) -> str:
    """Tell how many docs of whom were left unanswered for good and why, in a line; empty where none were."""
    docs: Counter[str] = Counter()
    faults: dict[str, Counter[str]] = {}
    for row in rows:
        if row.n_failed:
            docs[row.supplier] += row.n_failed
            faults.setdefault(row.supplier, Counter()).update(row.errors)
    if not docs:
        return ""
    told = [
        f"{n} of {supplier} ({', '.join(fault for fault, _ in faults[supplier].most_common())})"
        for supplier, n in docs.most_common(_TOLD)
    ]
    if len(docs) > _TOLD:
        rest = sum(n for _, n in docs.most_common()[_TOLD:])
        told.append(f"{rest} of {counted(len(docs) - _TOLD, 'other')}")
    n = docs.total()
    have, it, counts = ("has", "it was", "counts") if n == 1 else ("have", "they were", "count")
    return (
        f"{counted(n, 'doc')} {have} failed: {', '.join(told)}; {it} left unanswered on several occasions "
        f"while others were answered, and {counts} as wrong"
    )


@dataclass(frozen=True)
class _Empty:
    """An answer that was cut before it had a text: at how many tokens, and whether it had thoughts."""

    limit: int
    thought: bool


def _empty(workspace: Workspace, row: Window) -> Iterator[_Empty]:
    """Each doc whose newest answer was cut, and one of whose calls brought no text."""
    documents = workspace.documents
    where = {
        "supplier": row.supplier, "task": row.task, "task_hash": row.task_hash, "filter": row.filter,
        "answered_at": {"gte": row.first_sample_at, "lte": row.last_sample_at},
    }  # fmt: skip
    newest: dict[int, CutScore] = {}
    for score in typed.find(documents, CutScore, where, sort=[("answered_at", 1)]):
        newest[score.doc_id] = score
    cut = [score for score in newest.values() if score.truncated]
    for start in range(0, len(cut), _BODIES):
        batch = cut[start : start + _BODIES]
        ids = [id_ for score in batch for id_ in score.attempt_ids]
        found = typed.by_id(documents, CutAnswer, ids, suppliers=[row.supplier]).values()
        answers = {a.id: a for a in found if a.fault in _CUT_SHORT}
        # what was not asked for at temperature 0 has no beginning beside it
        unread = {id_ for id_, answer in answers.items() if answer.opening is None}
        without_text = {id_ for id_, answer in answers.items() if answer.opening == ""}
        for score in batch if unread else ():
            attempts = unread & set(score.attempt_ids)
            without_text |= _without_text(workspace, row.supplier, score.prompt_id, attempts)
        empty = [score for score in batch if not without_text.isdisjoint(score.attempt_ids)]
        prompts = typed.by_id(documents, AskedPrompt, {score.prompt_id for score in empty})
        for score in empty:
            first = next(answers[id_] for id_ in score.attempt_ids if id_ in without_text)
            yield _Empty(_limit(prompts.get(score.prompt_id), first), bool(first.reasoning_chars))


def _left_in_thoughts(workspace: Workspace, row: Window) -> str:
    """Tell where most of a row's newest answers are empty although the model thought; else empty."""
    where = {
        "supplier": row.supplier, "task": row.task, "task_hash": row.task_hash, "filter": row.filter,
    }  # fmt: skip
    newest = list(typed.find(workspace.documents, CutScore, where, sort=[("answered_at", -1)], limit=_BODIES))
    ids = [id_ for score in newest for id_ in score.attempt_ids]
    answers = typed.by_id(workspace.documents, CutAnswer, ids, suppliers=[row.supplier]).values()
    empty = sum(answer.opening == "" and bool(answer.reasoning_chars) for answer in answers)
    if 2 * empty <= len(ids):
        return ""
    return (
        f"{empty} of the newest {counted(len(ids), 'answer')} are empty though the model reasoned, and not "
        "cut: its server leaves the answer in the reasoning; ask its operator, or switch that off with "
        "generation: {extra_body: {chat_template_kwargs: {enable_thinking: false}}} for the supplier"
    )


def _limit(prompt: AskedPrompt | None, answer: CutAnswer) -> int:
    """The tokens at which an answer was cut; 0 where its prompt is gone."""
    if prompt is None:
        return 0
    return answer_tokens(prompt.requests[answer.idx], reading_of(answer)["generation"])


def _without_text(workspace: Workspace, supplier: str, prompt_id: str, attempts: set[str]) -> set[str]:
    """Those of some attempts at a prompt whose answers hold nothing but white space."""
    prompt = typed.by_id(workspace.documents, AskedPrompt, [prompt_id]).get(prompt_id)
    if prompt is None or not attempts:
        return set()
    found = typed.by_id(workspace.documents, RawAnswer, attempts, suppliers=[supplier]).values()
    return {raw.id for raw in found if not (_answer(prompt, raw).text or "").strip()}


def _answer(prompt: AskedPrompt, raw: RawAnswer) -> Answer:
    request, reading = prompt.requests[raw.idx], reading_of(raw)
    return parse_answer(request, prompt.api, raw.status or 0, raw.body, **reading)


def _refusal(workspace: Workspace, row: Window) -> str:
    where = {
        "supplier": row.supplier, "task": row.task, "task_hash": row.task_hash, "fault": {"in": _REFUSED},
    }  # fmt: skip
    newest = next(typed.find(workspace.documents, Refusal, where, sort=[("finished_at", -1)], limit=1), None)
    told = "its requests are refused"
    if newest is not None and (row_of := Fault(newest.fault).row).in_order:
        return f"its answers cannot be scored: {row_of.when}; {row_of.remedy}"
    if newest is not None:
        told = f"its requests are refused (HTTP {newest.status})"
        prompt = typed.by_id(workspace.documents, AskedPrompt, [newest.prompt_id]).get(newest.prompt_id)
        if prompt is not None:
            sent = sent_parameters(prompt.requests[newest.idx], prompt.api)
            told += _because_of(named_parameters(newest.body, sent), sent)
    return (
        f"{told}; there is no score until it takes them: `testbench check` finds out which settings it wants"
    )


def _because_of(named: Sequence[str], sent: Sequence[str]) -> str:
    if named:
        return f" because of {' and '.join(named)}"
    return f", because of one of {', '.join(sent)}" if sent else ""
