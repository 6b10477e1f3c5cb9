"""Two suppliers doc by doc: what each made of the docs that are closed for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from testbench_dagster.core.doc_answer import SCORED, AnswerKind, DocAnswer
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.scoring.rows import primary_pair
from testbench_dagster.stages.read.shown import ShownDocs
from testbench_dagster.stages.score.window_answers import IndexedDoc
from testbench_dagster.stages.score.windows import window_docs
from testbench_dagster.stages.workspace import Workspace

#: What pairs may be chosen by: the first did better, the second did, either, neither.
A_BETTER, B_BETTER, DIFFERENT, SAME = "a", "b", "different", "same"
CHOICES = (DIFFERENT, A_BETTER, B_BETTER, SAME)
_CLOSED = SCORED | {AnswerKind.FAILED}


@dataclass(frozen=True)
class PairPage:
    """One page of pairs of answers in ascending order of ``doc_id``, of A and of B.

    ``counts``: common docs by choice. ``after`` is what to ask the next page with, None at the end.
    """

    pairs: Sequence[tuple[DocAnswer, DocAnswer]]
    counts: Mapping[str, int]
    after: int | None


def paired_answers(
    workspace: Workspace,
    a: Supplier,
    b: Supplier,
    task: str,
    *,
    choice: str | None = None,
    after: int | None = None,
    limit: int = 10,
    now: datetime | None = None,
) -> PairPage:
    """Return a page of what two suppliers made of the docs of a task that are closed for both.

    Wrong and failed are the same here: both are worth the least there is.

    Raises:
        ConfigError: the task is not configured.
    """
    spec, registration = workspace.spec(task), workspace.datasets.current(task)
    if registration is None or spec.signs:
        return PairPage((), dict.fromkeys(CHOICES, 0), None)
    of_a, of_b = (
        {doc.doc_id: doc for doc in docs if doc.kind in _CLOSED}
        for _, docs in window_docs(workspace, [a, b], spec, registration, now)
    )
    flags = registration.flags.metrics.get(primary_pair(spec, registration)[0])
    sign = 1 if flags is None or flags.higher_is_better else -1
    question = registration.flags.question
    told = {
        doc: _told(of_a[doc], of_b[doc], sign)
        for doc in sorted(of_a.keys() & of_b.keys())
        if question(of_a[doc].epoch, doc) == question(of_b[doc].epoch, doc)
    }
    counts = Counter(told.values())
    counts[DIFFERENT] = counts[A_BETTER] + counts[B_BETTER]
    chosen = [
        doc
        for doc, which in told.items()
        if (after is None or doc > after)
        and (choice is None or choice == which or (choice == DIFFERENT and which != SAME))
    ]
    shown = ShownDocs(workspace, spec, registration)
    page = chosen[:limit]
    rows = list(shown.rows([asked for doc in page for asked in ((a, of_a[doc]), (b, of_b[doc]))]))
    return PairPage(
        list(zip(rows[::2], rows[1::2], strict=True)),
        {name: counts[name] for name in CHOICES},
        page[-1] if len(chosen) > limit else None,
    )


def _told(one: IndexedDoc, other: IndexedDoc, sign: int) -> str:
    mine, theirs = _worth(one, sign), _worth(other, sign)
    if mine == theirs:
        return SAME
    return A_BETTER if mine > theirs else B_BETTER


def _worth(doc: IndexedDoc, sign: int) -> float:
    """What a doc is worth, more is better."""
    if doc.kind in (AnswerKind.WRONG, AnswerKind.FAILED) or not isinstance(doc.value, (int, float)):
        return float("-inf")
    return sign * doc.value
