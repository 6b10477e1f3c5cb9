"""What to tell of the answers behind rows: looked up perhaps, empty, or refused because of a parameter.

None of it changes a score. ``testbench check`` and the checks of the assets tell the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from testbench_dagster.core.faults import Closing, Fault
from testbench_dagster.core.records.attempts import CutAnswer, RawAnswer, Refusal
from testbench_dagster.core.records.prompts import AskedPrompt
from testbench_dagster.core.records.scores import CutScore
from testbench_dagster.core.window import REFUSED, Window
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.transports.answers import parse_answer
from testbench_dagster.transports.refusals import named_parameters, sent_parameters

#: Share of late docs above which a supplier may look answers up.
LATE_LIMIT = 0.05
#: Share of docs whose answer our own limit cut before it had a text, above which the limit is too low.
EMPTY_LIMIT = 0.1
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

    Reasoning that is not part of the answer takes tokens, too: such answers end before they begin.
    """
    found: Remarks = {}
    for row in rows:
        if row.truncated <= EMPTY_LIMIT * row.n:
            continue
        empty = sum(_is_empty(workspace, row))
        if empty > EMPTY_LIMIT * row.n:
            found[row.supplier, row.task] = (
                f"{empty} of {counted(row.n, 'answer')} are empty, cut at our token limit before they "
                "began: it is too low for a model that reasons first"
            )
    return found


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
        f"{counted(n, 'doc')} {have} failed: {', '.join(told)}; {it} left unanswered again and again while "
        f"others were answered, and {counts} as wrong"
    )


def _is_empty(workspace: Workspace, row: Window) -> Iterator[bool]:
    """Of each doc whose newest answer was cut whether a call of it brought no text."""
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
        answers = {a.id: a for a in typed.by_id(documents, CutAnswer, ids).values() if a.fault in _CUT_SHORT}
        # what was not asked for at temperature 0 has no beginning beside it
        unread = {id_ for id_, answer in answers.items() if answer.opening is None}
        without_text = {id_ for id_, answer in answers.items() if answer.opening == ""}
        for score in batch if unread else ():
            without_text |= _without_text(workspace, score.prompt_id, unread & set(score.attempt_ids))
        for score in batch:
            yield not without_text.isdisjoint(score.attempt_ids)


def _without_text(workspace: Workspace, prompt_id: str, attempts: set[str]) -> set[str]:
    """Those of some attempts at a prompt whose answers hold nothing but white space."""
    prompt = typed.by_id(workspace.documents, AskedPrompt, [prompt_id]).get(prompt_id)
    if prompt is None or not attempts:
        return set()
    return {
        raw.id
        for raw in typed.by_id(workspace.documents, RawAnswer, sorted(attempts)).values()
        if not (
            parse_answer(prompt.requests[raw.idx], prompt.api, raw.status or 0, raw.body).text or ""
        ).strip()
    }


def _refusal(workspace: Workspace, row: Window) -> str:
    where = {
        "supplier": row.supplier, "task": row.task, "task_hash": row.task_hash, "fault": {"in": _REFUSED},
    }  # fmt: skip
    newest = next(typed.find(workspace.documents, Refusal, where, sort=[("finished_at", -1)], limit=1), None)
    told = "its requests are refused"
    if newest is not None:
        told = f"its requests are refused (HTTP {newest.status})"
        prompt = typed.by_id(workspace.documents, AskedPrompt, [newest.prompt_id]).get(newest.prompt_id)
        if prompt is not None:
            sent = sent_parameters(prompt.requests[newest.idx], prompt.api)
            told += _because_of(named_parameters(newest.body, sent), sent)
    return f"{told}; there is no score until it takes them"


def _because_of(named: Sequence[str], sent: Sequence[str]) -> str:
    if named:
        return f" because of {' and '.join(named)}"
    return f", because of one of {', '.join(sent)}" if sent else ""
