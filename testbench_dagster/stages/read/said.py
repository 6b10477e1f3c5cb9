"""What was said to one doc, counted over everybody who answered it; read from facts, whatever their number.

Attempts are found by prompt and scores by id, so it does not matter how large a task is. Of 5,000 suppliers
it takes part of a second: whoever shows it keeps it for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from testbench_dagster.core.doc_answer import AnswerKind
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.ids import document_id
from testbench_dagster.core.records.attempts import AnsweringAttempt
from testbench_dagster.core.records.prompts import ShownPrompt
from testbench_dagster.core.records.scores import ShownScore
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.scoring.failures import Failures, failures_of
from testbench_dagster.scoring.rows import primary_pair
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.read.answers import prompts_of, task_of
from testbench_dagster.stages.read.texts import extracted_of, options_of
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Characters of a text that tell it from others.
_CHARS = 120


class SaidText(NamedTuple):
    """A text that a filter took from answers, how many suppliers' last answers it was, and its worth."""

    text: str
    n: int
    kind: str


@dataclass(frozen=True)
class Said:
    """What was said to a doc, most often said first.

    ``n`` suppliers answered it whole; of ``n - sum`` of them nothing was extracted.
    """

    texts: Sequence[SaidText]
    n: int

    @property
    def without_text(self) -> int:
        """Of how many answers there is no extracted text: nothing scored them, or an earlier version did."""
        return self.n - sum(one.n for one in self.texts)


def said(
    workspace: Workspace,
    task: str,
    doc_id: int,
    suppliers: Iterable[Supplier] | None = None,
    *,
    now: datetime | None = None,
) -> Said:
    """Count the last answers of suppliers to a doc, by default the active ones, as far as they count.

    Raises:
        ConfigError: the task is not configured.
    """
    now = now or datetime.now(UTC)
    spec, registration = task_of(workspace, task)
    prompts = [] if registration is None else prompts_of(workspace, registration, doc_id)
    if registration is None or not prompts:
        return Said((), 0)
    metric, filter_ = primary_pair(spec, registration)
    version = scorer_version(registration)
    chosen = active_suppliers(workspace) if suppliers is None else suppliers
    asked = {supplier.key: supplier for supplier in chosen if spec.asked_of(supplier)}
    answers = _last_answers(workspace, spec, {prompt.id: prompt for prompt in prompts}, asked, now)
    ids = {document_id("score", one.answer, filter_, version): one.prompt for one in answers}
    whose = {one.supplier for one in answers}
    scores = typed.by_id(workspace.documents, ShownScore, ids, suppliers=whose) if ids else {}
    values = [v for one in scores.values() if isinstance(v := one.metrics.get(metric), (int, float))]
    failures = failures_of(spec, registration, metric, values)
    counts: Counter[tuple[str, str]] = Counter()
    for id_, score in scores.items():
        extracted = score.metrics.get(metric) if spec.signs else score.extracted
        requests = ids[id_].requests
        text = extracted_of(extracted, options_of(requests, registration.flags), requests)
        if text is not None and score.error is None:
            counts[str(text)[:_CHARS], _kind(score, metric, failures)] += 1
    return Said([SaidText(text, n, kind) for (text, kind), n in counts.most_common()], len(answers))


class _LastAnswer(NamedTuple):
    """The id of an answer, whose it is, and the prompt that was asked."""

    supplier: str
    answer: str
    prompt: ShownPrompt


def _last_answers(
    workspace: Workspace,
    spec: TaskSpec,
    prompts: Mapping[str, ShownPrompt],
    suppliers: Mapping[str, Supplier],
    now: datetime,
) -> list[_LastAnswer]:
    """The newest whole answer of each supplier that still counts."""
    oldest = now - spec.max_age(workspace.config.settings.sampling.max_age_days)
    where = {"prompt_id": {"in": sorted(prompts)}, "finished_at": {"gt": oldest}, "canary": False}
    made: dict[tuple[str, str, int], dict[tuple[int, int], AnsweringAttempt]] = {}
    for attempt in typed.find(workspace.documents, AnsweringAttempt, where):
        supplier = suppliers.get(attempt.supplier)
        if supplier is None or not _counts(attempt, supplier, prompts[attempt.prompt_id]):
            continue
        calls = made.setdefault((attempt.supplier, attempt.prompt_id, attempt.round), {})
        call = attempt.idx, attempt.repeat
        if call not in calls or calls[call].attempt < attempt.attempt:
            calls[call] = attempt
    newest: dict[str, tuple[datetime, str, ShownPrompt]] = {}
    for (supplier_key, prompt_id, _), calls in made.items():
        prompt = prompts[prompt_id]
        last = [calls[call] for call in sorted(calls)]
        if len(last) != prompt.calls or not all(Fault(attempt.fault).answered for attempt in last):
            continue
        at = max(attempt.finished_at for attempt in last)
        answer = last[0].id if len(last) == 1 else document_id("answer", *(one.id for one in last))
        if supplier_key not in newest or newest[supplier_key][0] < at:
            newest[supplier_key] = at, answer, prompt
    return [_LastAnswer(supplier, answer, prompt) for supplier, (_, answer, prompt) in newest.items()]


def _counts(attempt: AnsweringAttempt, supplier: Supplier, prompt: ShownPrompt) -> bool:
    """Whether a supplier is asked this way today, and is still the model that was asked."""
    same = supplier.cut_at is None or attempt.finished_at > supplier.cut_at
    return same and prompt.api == supplier.api and attempt.round > 0


def _kind(score: ShownScore, metric: str, failures: Failures) -> str:
    """What a score is worth: right and wrong are the best and the worst value there is."""
    value = score.metrics.get(metric)
    if value is not None and value == failures.best:
        return AnswerKind.RIGHT.value
    wrong = value is not None and value == failures.worst
    return AnswerKind.WRONG.value if wrong else AnswerKind.GRADED.value
