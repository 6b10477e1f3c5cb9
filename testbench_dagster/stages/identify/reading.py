"""Reads what identity rests on from the stores: how answers begin, never their bodies."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AnswerPrefix, AttemptRecord, AttemptsOfSupplierAtTask
from testbench_dagster.core.records.scores import UNSCORABLE, GradedScore, ScoredText
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.identity import Answer, GradedAnswer
from testbench_dagster.scoring.failures import failures_of, is_mean
from testbench_dagster.scoring.reliability import share_of_minutes
from testbench_dagster.scoring.rows import is_finite, primary_pair, value_of
from testbench_dagster.stages.score.samples import samples_by_task
from testbench_dagster.stages.score.states import Peers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Prompts wanted per epoch: some hundred decide any pair, and each costs memory for every supplier.
PROMPTS = 240
#: Suppliers that a query names; of more it reads all of their service.
_NAMED = 250
#: Suppliers whose attempts the store counts at once.
_COUNTED = 1_000
#: How far back availability looks.
AVAILABILITY = timedelta(days=7)
#: Faults of attempts that brought no answer.
UNANSWERED = [fault.value for fault in Fault if not fault.answered]
_AVAILABLE, _UNAVAILABLE = (
    [fault.value for fault in Fault if fault.row.available is available] for available in (True, False)
)


def read_answers(
    workspace: Workspace, service: str, suppliers: Sequence[Supplier], now: datetime
) -> Iterator[Answer]:
    """Yield the answers at temperature 0 of suppliers of one service inside the window age, after their cuts.

    Of each task only the first prompts of a sequence, which is what suppliers have in common: so many that
    all tasks together have about :data:`PROMPTS`; of signature tasks all. What a supplier is not asked any
    more is left out.
    """
    cuts = {supplier.key: supplier.cut_at for supplier in suppliers}
    per_task = docs_per_task(workspace, suppliers)
    restricted = {spec.name: spec for spec in workspace.specs if not spec.applies.for_everybody}
    not_asked = {
        (s.key, name) for name, spec in restricted.items() for s in suppliers if not spec.asked_of(s)
    }
    signing = {spec.name for spec in workspace.specs if spec.signs}
    where: dict[str, Any] = {
        **of_whom(service, cuts),
        "finished_at": {"gt": now - timedelta(days=workspace.config.settings.sampling.max_age_days)},
        "opening": {"ne": None},
    }
    if not signing:  # else two queries would each look at all attempts of a service
        where["position"] = {"lt": per_task}
    for row in typed.find(workspace.documents, AnswerPrefix, where):
        supplier, at = row.supplier, row.finished_at
        if supplier not in cuts or (row.position >= per_task and row.task not in signing):
            continue
        if (supplier, row.task) in not_asked:
            continue
        cut_at = cuts[supplier]
        if cut_at is not None and at <= cut_at:
            continue
        if row.opening is None:
            raise StoreError("attempts: only answers with a prefix were asked for, and one has none")
        calls = f"/{row.idx}" if row.idx else ""
        yield Answer(
            # equal texts are kept once: there are as many as answers, and most are shared
            supplier=sys.intern(supplier),
            prompt=sys.intern(row.prompt_id + calls),
            family=sys.intern(row.task),
            at=at,
            round=row.round,
            answer_prefix=sys.intern(row.opening),
        )


def of_whom(service: str, suppliers: Collection[str]) -> dict[str, Any]:
    """Matches what is stored of some suppliers of a service, and of others of it where these are many.

    Few are named by their keys alone: what is read is theirs, however many the service has.
    """
    return {"supplier": {"in": sorted(suppliers)}} if len(suppliers) <= _NAMED else {"service": service}


def read_graded(
    workspace: Workspace, suppliers: Sequence[Supplier], now: datetime, *, first: int | None = None
) -> Iterator[GradedAnswer]:
    """Yield the scored answers of suppliers to docs of tasks, inside the window age and after their cuts.

    What is compared is what the primary filter extracted; where it extracts nothing, what the metrics made of
    the answer. ``value`` is the primary metric's, where that is a mean of values from 0 to 1; an answer that
    leaves it without one counts as in the score. ``first``: only of so many prompts of each sequence.
    """
    for spec in workspace.specs:
        registration = workspace.datasets.current(spec.name)
        cuts = {supplier.key: supplier.cut_at for supplier in suppliers if spec.asked_of(supplier)}
        if registration is None or spec.signs or not cuts:
            continue
        metric, name = primary_pair(spec, registration)
        mean = is_mean(registration, metric)
        worst = failures_of(spec, registration, metric, (0.0,)).worst
        lacking: list[GradedAnswer] = []
        valued: set[str] = set()
        where: dict[str, Any] = {
            "supplier": {"in": sorted(cuts)},
            "task": spec.name,
            "task_hash": registration.task_hash,
            "filter": name,
            "answered_at": {"gt": now - spec.max_age(workspace.config.settings.sampling.max_age_days)},
            "scorer_version": scorer_version(registration),
        }
        if first is not None:
            where["position"] = {"lt": first}
        for score in typed.find(workspace.documents, GradedScore, where):
            cut_at, value = cuts[score.supplier], score.metrics.get(metric)
            unscorable = score.error is not None and score.error.startswith(UNSCORABLE)
            if score.error is not None and not unscorable:
                continue
            if cut_at is not None and score.answered_at <= cut_at:
                continue
            answer = GradedAnswer(
                supplier=score.supplier,
                task=spec.name,
                doc=question_of(registration, score.epoch, score.doc_id),
                at=score.answered_at,
                text="" if unscorable else said_of(score),
                value=float(value) if mean and is_finite(value) and 0 <= value <= 1 else None,
                failed=unscorable,
            )
            if unscorable or (mean and not is_finite(value)):
                lacking.append(answer)
                continue
            valued.add(score.supplier)
            yield answer
        for answer in lacking:
            if answer.supplier in valued and worst is not None and 0 <= worst <= 1:
                yield replace(answer, value=worst, failed=True)
            elif not answer.failed:
                yield answer


def read_failed(
    workspace: Workspace, suppliers: Sequence[Supplier], now: datetime, *, unsettled: set[str] | None = None
) -> Iterator[GradedAnswer]:
    """Yield the docs that suppliers left unanswered for good, at the worst value, as their windows say.

    Those answered in a way that no score can be made of come with :func:`read_graded`. Void docs are not
    there, nor are those of metrics that know no worst value from 0 to 1. To ``unsettled`` are added those of
    whom docs may come or go though they answer nothing more: by the clock, or by what others answer.
    """
    current = ((spec, workspace.datasets.current(spec.name)) for spec in workspace.specs if not spec.signs)
    tasks = {spec.name: (spec, registration) for spec, registration in current if registration is not None}
    others = Peers(workspace, now)
    max_age_days = workspace.config.settings.sampling.max_age_days
    oldest = now - max((spec.max_age(max_age_days) for spec, _ in tasks.values()), default=timedelta(0))
    lost: dict[str, set[str]] = defaultdict(set)
    for start in range(0, len(suppliers), _NAMED) if tasks else ():
        where: dict[str, Any] = {
            "supplier": {"in": sorted(supplier.key for supplier in suppliers[start : start + _NAMED])},
            "task": {"in": sorted(tasks)},
            "fault": {"in": UNANSWERED},
            "finished_at": {"gt": oldest},
        }
        for row in typed.group(workspace.documents, AttemptsOfSupplierAtTask, where):
            lost[row.supplier].add(row.task)
    for supplier in suppliers:
        some = [tasks[name] for name in sorted(lost[supplier.key]) if tasks[name][0].asked_of(supplier)]
        for name, window in samples_by_task(workspace, supplier, some, now, others) if some else ():
            if window.unsettled and unsettled is not None:
                unsettled.add(supplier.key)
            spec, registration = tasks[name]
            pair = primary_pair(spec, registration)
            samples = [*window.samples, *window.beyond]
            values = [v for s in samples if s.scored and is_finite(v := value_of(s, pair))]
            worst = failures_of(spec, registration, pair[0], values).worst
            if worst is None or not 0 <= worst <= 1:
                continue
            for sample in samples:
                if sample.failed and sample.fault.row.ways:  # else its answer is no score
                    doc = question_of(registration, sample.epoch, sample.doc_id)
                    yield GradedAnswer(supplier.key, name, doc, sample.at, "", worst, failed=True)


def said_of(score: GradedScore | ScoredText) -> str:
    """What an answer is compared by: what was extracted of it, else what its metrics made of it."""
    text = score.extracted
    return json.dumps(score.metrics, sort_keys=True, default=str) if text is None else f"={text}"


def question_of(registration: Registration, epoch: int, doc_id: int) -> str:
    """What answers of several suppliers are compared at."""
    drawn_in, doc = registration.flags.question(epoch, doc_id)
    return f"{drawn_in}/{doc}" if drawn_in else str(doc)


def docs_per_task(workspace: Workspace, suppliers: Sequence[Supplier]) -> int:
    """How many of the first prompts of each sequence some suppliers are compared on.

    It follows from how many tasks one of them is asked.
    """
    tasks = sum(any(spec.asked_of(supplier) for supplier in suppliers) for spec in workspace.specs)
    return max(2, -(-PROMPTS // max(1, tasks)))


def read_availability(workspace: Workspace, suppliers: Collection[str], now: datetime) -> Mapping[str, float]:
    """The availability of suppliers over the last week; who was not asked is left out. The store counts."""
    found: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    ordered = sorted(suppliers)
    for start in range(0, len(ordered), _COUNTED):
        where: dict[str, Any] = {
            "supplier": {"in": ordered[start : start + _COUNTED]},
            "finished_at": {"gt": now - AVAILABILITY},
            "fault": {"in": [*_AVAILABLE, *_UNAVAILABLE]},
        }
        for supplier, *minutes in typed.minutes(
            workspace.documents,
            AttemptRecord,
            by="supplier",
            time="finished_at",
            field="fault",
            values=_AVAILABLE,
            where=where,
        ):
            found[supplier].append((minutes[0], minutes[1], minutes[2]))
    return {supplier: share_of_minutes(minutes) for supplier, minutes in found.items()}
