"""``/supplier/K/task/T``: what a supplier answered, by what became of it; and all of one answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from testbench_dagster.board.site import Asked, NotFound, Page, Site
from testbench_dagster.core.doc_answer import AnswerKind
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.window import Window
from testbench_dagster.stages.read.answers import DIFFERENT, TRUNCATED, SearchBound, SentAttempt, one_answer
from testbench_dagster.stages.read.answers import answers as read_answers
from testbench_dagster.stages.read.answers import attempts as read_attempts
from testbench_dagster.stages.read.answers import doc as read_doc
from testbench_dagster.stages.score.windows import primary_windows

ROWS = 20
#: A page does not wait longer for a search of texts: it is gone on with from where it came to.
SEARCH = SearchBound(docs=1_000, seconds=0.2)
#: Chips that are there whatever their number; those of other kinds only where there are such docs.
_ALWAYS = (AnswerKind.WRONG, AnswerKind.RIGHT, AnswerKind.FAILED, TRUNCATED, DIFFERENT)
_RARE = (AnswerKind.GRADED, AnswerKind.OPEN, AnswerKind.VOID, AnswerKind.UNSCORED)


def answers(site: Site, asked: Asked, key: str, task: str) -> Page:
    """A page of answers; ``kind``, ``q`` and ``after`` say which."""
    site.require_answers()
    one = site.supplier(key)
    window = _window(site, one, task, asked)
    kind = asked.choice("kind", map(str, (*_ALWAYS, *_RARE)))
    search, after = asked.text("q"), asked.number("after")
    found = read_answers(
        site.workspace,
        key,
        task,
        kind=kind,
        search=search,
        after=after,
        limit=ROWS,
        bound=SEARCH,
        now=asked.now,
    )
    return Page(
        "answers.html.jinja",
        {
            "supplier": one,
            "task": task,
            "window": window,
            "rows": found.rows,
            "chips": _chips(found.counts, kind),
            "kind": kind,
            "q": search,
            "after": after,
            "next": found.after,
            "looked": found.looked,
            "unread": found.unread,
        },
    )


def answer(site: Site, asked: Asked, key: str, task: str, doc_id: str) -> Page:
    """All of one answer: the prompt as sent, what was said, and each attempt with its times."""
    site.require_answers()
    one = site.supplier(key)
    number = int(doc_id)
    window = _window(site, one, task, asked)
    row = one_answer(site.workspace, key, task, number, now=asked.now)
    tries = read_attempts(site.workspace, key, task, number)
    if row is None and not tries:
        raise NotFound(f"{key!r} was not asked doc {number} of {task!r}")
    return Page(
        "answer.html.jinja",
        {
            "supplier": one,
            "task": task,
            "window": window,
            "doc_id": number,
            "answer": row,
            "attempts": tries,
            "requests": _requests(site, tries, task, number),
            "as_sent": any(one.payload for one in tries),
        },
    )


def _requests(site: Site, tries: Sequence[SentAttempt], task: str, doc_id: int) -> list[Any]:
    """The request bodies as they were sent, each once; where they are not known, as the task asks."""
    sent = {one.payload: None for one in tries if one.payload is not None}
    if sent:
        return [json.loads(payload) for payload in sent]
    return list(read_doc(site.workspace, task, doc_id, limit=1).requests)


def _window(site: Site, one: Supplier, task: str, asked: Asked) -> Window | None:
    """Its score of the task.

    Raises:
        NotFound: the task is not configured.
    """
    if task not in {spec.name for spec in site.workspace.specs}:
        raise NotFound(f"task {task!r} is not configured")
    for _, rows in primary_windows(site.workspace, [one], asked.now, [task]):
        return next((row for row in rows if row.task == task), None)
    return None


def _chips(counts: Mapping[str, int], chosen: str | None) -> list[dict[str, Any]]:
    """The kinds to choose from, with how many docs each has."""
    total = sum(n for kind, n in counts.items() if kind not in (TRUNCATED, DIFFERENT))
    shown = [("", "all", total)]
    shown += [(str(kind), str(kind), counts.get(kind, 0)) for kind in _ALWAYS]
    shown += [(str(kind), str(kind), counts[kind]) for kind in _RARE if counts.get(kind)]
    return [{"kind": k, "text": text, "n": n, "chosen": k == (chosen or "")} for k, text, n in shown]
