"""Reads what identity rests on from the stores: how answers begin, never their bodies."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from testbench_dagster.core.errors import StoreError
from testbench_dagster.core.records.attempts import AnswerPrefix, AttemptEnd
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.identity import Answer
from testbench_dagster.scoring.reliability import Minutes, availability
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

#: Prompts wanted per epoch: some hundred decide any pair, and each costs memory for every supplier.
PROMPTS = 240
#: How far back availability looks.
AVAILABILITY = timedelta(days=7)


def read_answers(
    workspace: Workspace, service: str, suppliers: Sequence[Supplier], now: datetime
) -> Iterator[Answer]:
    """Yield the answers at temperature 0 of suppliers of one service inside the window age, after their cuts.

    Of each task only the first prompts of a sequence, which is what suppliers have in common: so many that
    all tasks together have about :data:`PROMPTS`; of signature tasks all.
    """
    cuts = {supplier.key: supplier.cut_at for supplier in suppliers}
    per_task = max(2, -(-PROMPTS // max(1, len(workspace.specs))))
    signing = {spec.name for spec in workspace.specs if spec.signs}
    where: dict[str, Any] = {
        "service": service,
        "finished_at": {"gt": now - timedelta(days=workspace.config.settings.sampling.max_age_days)},
        "opening": {"ne": None},
    }
    if len(suppliers) <= 250:
        where["supplier"] = {"in": sorted(cuts)}
    for row in typed.find(workspace.documents, AnswerPrefix, where):
        supplier, at = row.supplier, row.finished_at
        if supplier not in cuts or (row.position >= per_task and row.task not in signing):
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


def read_availability(workspace: Workspace, service: str, now: datetime) -> Mapping[str, float]:
    """The availability of the suppliers of a service over the last week; who was not asked is left out."""
    where = {"service": service, "finished_at": {"gt": now - AVAILABILITY}}
    minutes: dict[str, Minutes] = defaultdict(Minutes)
    for attempt in typed.find(workspace.documents, AttemptEnd, where):
        minutes[attempt.supplier].add(attempt)
    found = {supplier: availability([counts.packed()]) for supplier, counts in minutes.items()}
    return {supplier: share for supplier, share in found.items() if share is not None}
