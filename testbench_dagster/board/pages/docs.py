"""``/doc/T/ID``: what everybody said to a doc, as a page and as JSON; and raw bodies."""

from __future__ import annotations

import json
from typing import Any

from testbench_dagster.board import links
from testbench_dagster.board.site import Asked, Data, NotFound, Page, Site
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.stages.read.answers import DocPage
from testbench_dagster.stages.read.answers import doc as read_doc
from testbench_dagster.stores.documents import typed

ROWS = 50
#: Texts that are told as said most.
SAID = 12


def doc(site: Site, asked: Asked, task: str, doc_id: str) -> Page:
    """The doc's prompt as it is asked, and the answers, a page at a time in the order of supplier keys."""
    found = _doc(site, asked, task, doc_id)
    return Page(
        "doc.html.jinja",
        {
            "doc": found,
            "task": task,
            "said": site.said(task, found.doc_id, asked.now),
            "most": SAID,
            "whole": found.after is None and asked.text("after") is None,
            "after": asked.text("after"),
        },
    )


def doc_json(site: Site, asked: Asked, task: str, doc_id: str) -> Data:
    """The same as JSON; ``next`` is where the further answers are."""
    found = _doc(site, asked, task, doc_id)
    here = f"{links.doc(task, found.doc_id)}.json"
    content: dict[str, Any] = {
        "task": found.task,
        "doc_id": found.doc_id,
        "target": found.target,
        "requests": list(found.requests),
        "answers": [one.to_json() for one in found.answers],
        "next": links.with_query(here, {"after": found.after}) if found.after else None,
    }
    text = json.dumps(content, ensure_ascii=True, default=str)
    return Data(text.encode("ascii"), "application/json")


def raw_body(site: Site, asked: Asked, attempt: str) -> Data:
    """The body of an attempt as it was received, to be kept as a file: no browser is to look into it."""
    site.require_answers()
    record = typed.get(site.workspace.documents, AttemptRecord, attempt)
    if record is None:
        raise NotFound(f"there is no attempt {attempt!r}")
    name = "".join(c for c in attempt if c.isascii() and c.isalnum())[:64] or "attempt"
    disposition = f'attachment; filename="{name}.txt"'
    # without a charset: bytes as they came
    return Data(bytes(record.body), "text/plain", {"Content-Disposition": disposition})


def _doc(site: Site, asked: Asked, task: str, doc_id: str) -> DocPage:
    site.require_answers()
    if task not in {spec.name for spec in site.workspace.specs}:
        raise NotFound(f"task {task!r} is not configured")
    found = read_doc(site.workspace, task, int(doc_id), after=asked.text("after"), limit=ROWS, now=asked.now)
    if not found.requests and not found.answers:
        raise NotFound(f"there is no prompt of doc {doc_id} of {task!r}")
    return found
