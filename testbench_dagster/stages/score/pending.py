"""Which suppliers may have answers of a task that no current score covers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptsOfTask
from testbench_dagster.core.records.scores import ScoredCalls
from testbench_dagster.core.records.suppliers import SupplierCut
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_ANSWERED = [fault.value for fault in Fault if fault.answered]


def to_be_scored(
    workspace: Workspace,
    suppliers: Sequence[str],
    specs: Mapping[str, TaskSpec],
    registrations: Mapping[str, Registration],
    now: datetime,
) -> dict[str, dict[str, datetime]]:
    """By task the suppliers that may have something to score, with the instant after which answers count.

    Answered calls and the calls behind the current scores are counted, in two queries per supplier (and per
    distinct ``max_age_days``): where the numbers are equal every answer has its score.
    """
    known = typed.by_id(workspace.documents, SupplierCut, suppliers)
    cuts = {key: supplier.cut_at for key, supplier in known.items()}
    by_age: dict[datetime, list[str]] = {}
    for name in registrations:
        by_age.setdefault(
            now - specs[name].max_age(workspace.config.settings.sampling.max_age_days), []
        ).append(name)
    found: dict[str, dict[str, datetime]] = {name: {} for name in registrations}
    for supplier in suppliers:
        for oldest, names in by_age.items():
            since = max(oldest, cuts.get(supplier) or oldest)
            for name in _unequal(workspace, supplier, [registrations[n] for n in names], since):
                found[name][supplier] = since
    return {name: since for name, since in found.items() if since}


def _unequal(
    workspace: Workspace, supplier: str, registrations: Sequence[Registration], since: datetime
) -> list[str]:
    """Tasks whose answered calls after an instant are not as many as those behind the current scores."""
    names = {"in": sorted(r.task for r in registrations)}
    answers = typed.group(
        workspace.documents,
        AttemptsOfTask,
        {
            "supplier": supplier,
            "task": names,
            "fault": {"in": _ANSWERED},
            "finished_at": {"gt": since},
            "canary": {"ne": True},
        },
    )
    answered = {(row.task, row.task_hash): row.n for row in answers}
    if not answered:
        return []
    # every answer has one document per filter
    scores = typed.group(
        workspace.documents,
        ScoredCalls,
        {"supplier": supplier, "task": names, "answered_at": {"gt": since}},
    )
    scored = {(s.task, s.task_hash, s.scorer_version, s.filter): s.sum_calls for s in scores}
    return [
        r.task
        for r in registrations
        if (count := answered.get((r.task, r.task_hash)))
        and count != scored.get((r.task, r.task_hash, scorer_version(r), r.flags.filters[0]))
    ]
