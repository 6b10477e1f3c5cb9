"""Suspicions: copies in time, partial routers and cached answers, looked for in what is stored, and told.

Nothing reads them but pages, commands and exports: no score, rank, group, plan or gate follows from one. They
are looked for when all groups are made anew, and stay a while after they were last seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Protocol, get_args

from testbench_dagster.core.errors import BodyUnavailable
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AnswerBytes, TimedCall
from testbench_dagster.core.records.identity import ChangeRecord
from testbench_dagster.core.records.suspicions import SuspicionKind, SuspicionRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.wording import counted
from testbench_dagster.identity import (
    AnswerTable,
    Call,
    CopySettings,
    Evidence,
    Grouping,
    RouterSettings,
    find_cached,
    find_copies,
    find_routers,
    stretch,
)
from testbench_dagster.stages.discover.roster import active_suppliers, named_suppliers
from testbench_dagster.stages.identify.reading import of_whom
from testbench_dagster.stages.read.identity import suspicions_of
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import document_id, typed

#: Attempts of a service that are looked at, the newest: some 700 bytes each while they are.
MOST_CALLS = 600_000
#: Answers to one request whose bytes are compared, of a supplier that seems to keep them.
_BODIES = 10
#: What a suspicion may be of.
SUSPICION_KINDS: tuple[str, ...] = get_args(SuspicionKind)
#: How long a suspicion is told after it was last seen.
TOLD_FOR = timedelta(days=28)
#: Columns of the rows of suspicions, with their types; times are texts there.
SUSPICION_COLUMNS: dict[str, type] = {
    "kind": str,
    "supplier": str,
    "model": str,
    "other": str,
    **{
        field.name: field.scalar or object
        for field in SuspicionRecord.fields
        if field.name not in ("_id", "kind", "supplier", "other")
    },
}


class _Seen(Protocol):
    """What copies, routers, mixtures and stores of answers have in common: when, how sure, in words."""

    @property
    def since(self) -> datetime: ...
    @property
    def until(self) -> datetime: ...
    @property
    def log_e(self) -> float: ...
    @property
    def threshold(self) -> float: ...
    @property
    def wording(self) -> str: ...


def refresh_suspicions(
    workspace: Workspace,
    service: str,
    suppliers: Sequence[Supplier],
    evidence: Evidence,
    grouping: Grouping,
    answers: AnswerTable,
    now: datetime,
) -> list[SuspicionRecord]:
    """Look for suspicions among the suppliers of a service, store and return those there are.

    ``evidence``, ``grouping`` and ``answers`` are what groups were just made of.
    """
    settings = CopySettings()
    calls = list(read_calls(workspace, service, suppliers, stretch(now, settings), now))
    found = [
        *_copies(workspace, service, suppliers, calls, settings, now),
        *_mixtures(service, evidence, grouping, answers, now),
        *_cached(workspace, service, calls, now),
    ]
    before = typed.by_id(workspace.documents, SuspicionRecord, [one.id for one in found])
    records = [_with_first_dates(one, before.get(one.id)) for one in found]
    typed.upsert(workspace.documents, SuspicionRecord, records)
    gone = {"service": service, "seen_at": {"lt": now - TOLD_FOR}}
    typed.purge(workspace.documents, SuspicionRecord, gone)
    return records


def read_calls(
    workspace: Workspace, service: str, suppliers: Sequence[Supplier], since: datetime, now: datetime
) -> Iterator[Call]:
    """Yield the attempts at some suppliers of a service since an instant, without reading an answer.

    At most :data:`MOST_CALLS`, the newest.
    """
    keys = {supplier.key for supplier in suppliers}
    where = {**of_whom(service, keys), "finished_at": {"gt": since, "lte": now}}
    rows = typed.find(workspace.documents, TimedCall, where, sort=[("finished_at", -1)], limit=MOST_CALLS)
    for row in rows:
        if row.supplier not in keys or row.attempt == 0:
            continue
        yield Call(
            supplier=row.supplier,
            prompt=f"{row.prompt_id}/{row.idx}",
            draw=f"{row.round}/{row.repeat}",
            at=row.finished_at - timedelta(milliseconds=row.latency_ms),
            answered=_answered(row.fault),
            latency_ms=row.latency_ms,
            tokens=row.completion_tokens,
            prompt_tokens=row.prompt_tokens,
            beside=row.own_in_flight,
            said=row.answer_hash,
            family=row.task,
        )


@cache
def _answered(fault: str) -> bool | None:
    """Whether the supplier was there; None of what is ours, or says nothing of that."""
    return Fault(fault).row.available


def _copies(
    workspace: Workspace,
    service: str,
    suppliers: Sequence[Supplier],
    calls: Sequence[Call],
    settings: CopySettings,
    now: datetime,
) -> Iterator[SuspicionRecord]:
    changes = _changes_of(workspace, service, suppliers, now - timedelta(days=settings.change_days))
    for copy in find_copies(calls, changes, settings, now=now):
        yield _suspicion(
            copy,
            now,
            kind=copy.kind,
            service=service,
            supplier=copy.follower,
            other=copy.followed,
            # which of the two follows may show only later
            of=sorted((copy.follower, copy.followed)),
            ordered=copy.ordered,
            observations=copy.observations,
            share=copy.share,
            lag_ms=copy.lag_ms,
        )


def _changes_of(
    workspace: Workspace, service: str, suppliers: Sequence[Supplier], since: datetime
) -> Mapping[str, list[tuple[datetime, datetime]]]:
    """By supplier when what it answers changed, each change once however many streams showed it."""
    found: dict[str, list[tuple[datetime, datetime]]] = {supplier.key: [] for supplier in suppliers}
    where: dict[str, Any] = {"service": service, "at": {"gt": since}}
    for change in typed.find(workspace.documents, ChangeRecord, where, sort=[("at", 1)]):
        own = found.get(change.supplier)
        if own is None or not change.certain:
            continue
        span = (change.before_at or change.at, change.at)
        if own and span[0] - own[-1][1] < timedelta(days=1):
            own[-1] = (own[-1][0], max(own[-1][1], span[1]))
        else:
            own.append(span)
    return found


def _mixtures(
    service: str, evidence: Evidence, grouping: Grouping, answers: AnswerTable, now: datetime
) -> Iterator[SuspicionRecord]:
    told = set()
    mixture_alpha = evidence.settings.mixture_alpha
    for router in find_routers(evidence, grouping, answers):
        told.add(router.supplier)
        yield _suspicion(
            router,
            now,
            kind="mixture",
            service=service,
            supplier=router.supplier,
            other=router.group,
            observations=router.prompts,
            share=router.share,
            between=(router.low, router.high),
        )
    for suspect in grouping.suspects:
        # told at the rate of errors of all suspicions, which is lower than that of a suspect of identity
        threshold = suspect.threshold + math.log(mixture_alpha / RouterSettings().alpha)
        if suspect.kind != "mixture" or suspect.supplier in told or suspect.log_e < threshold:
            continue
        less = min((0, 1), key=lambda side: suspect.shares[side])
        found = _suspicion(
            suspect,
            now,
            kind="mixture",
            service=service,
            supplier=suspect.supplier,
            other=suspect.groups[less],
            observations=suspect.prompts,
            share=suspect.shares[less],
            between=(suspect.shares_low[less], 1 - suspect.shares_low[1 - less]),
        )
        yield replace(found, threshold=threshold)


def _cached(
    workspace: Workspace, service: str, calls: Sequence[Call], now: datetime
) -> Iterator[SuspicionRecord]:
    for cached in find_cached(calls):
        same = sum(_same_body(workspace, cached.supplier, prompt) for prompt in cached.prompts)
        whole = (
            f"; of {counted(len(cached.prompts), 'request')} looked at {same} came twice byte for byte, id "
            "and time included"
            if same
            else ""
        )
        found = _suspicion(
            cached,
            now,
            kind="cached",
            service=service,
            supplier=cached.supplier,
            other=None,
            observations=cached.repeats,
            share=cached.hits / cached.repeats,
        )
        yield replace(found, reason=f"{cached.wording}{whole}")


def _suspicion(
    seen: _Seen,
    now: datetime,
    *,
    kind: SuspicionKind,
    service: str,
    supplier: str,
    other: str | None,
    observations: int,
    share: float,
    of: Sequence[str] | None = None,
    ordered: bool = True,
    between: tuple[float | None, float | None] = (None, None),
    lag_ms: float | None = None,
) -> SuspicionRecord:
    """What was seen, as it is stored: ``of`` whom it is, where not of supplier and other in that order."""
    who = [one for one in (supplier, other) if one is not None] if of is None else of
    return SuspicionRecord(
        id=document_id("suspicion", kind, *who),
        kind=kind,
        service=service,
        supplier=supplier,
        other=other,
        ordered=ordered,
        since=seen.since,
        until=seen.until,
        found_at=now,
        seen_at=now,
        strength=seen.log_e,
        threshold=seen.threshold,
        observations=observations,
        share=share,
        share_low=between[0],
        share_high=between[1],
        lag_ms=lag_ms,
        reason=seen.wording,
    )


def _same_body(workspace: Workspace, supplier: str, prompt: str) -> bool:
    """Whether two answers of a supplier to a request were the same bytes: ids and times differ otherwise.

    False where they cannot be read now: it is told beside a suspicion, and raises none.
    """
    prompt_id, _, idx = prompt.rpartition("/")
    where: dict[str, Any] = {
        "supplier": supplier,
        "prompt_id": prompt_id,
        "idx": int(idx),
        "answer_hash": {"ne": None},
    }
    try:
        bodies = [one.body for one in typed.find(workspace.documents, AnswerBytes, where, limit=_BODIES)]
    except BodyUnavailable:
        return False
    return len(set(bodies)) < len([body for body in bodies if body])


def _with_first_dates(found: SuspicionRecord, before: SuspicionRecord | None) -> SuspicionRecord:
    """A suspicion with the dates of when it was first found, if it was before."""
    if before is None:
        return found
    return replace(found, since=min(found.since, before.since), found_at=before.found_at)


def suspicion_rows(
    workspace: Workspace, suppliers: Sequence[str] | None, kinds: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Stored suspicions of some suppliers, or that name them as the other; the last seen and strongest first.

    By default of the active suppliers.
    """
    keys = {s.key for s in active_suppliers(workspace)} if suppliers is None else set(suppliers)
    found = suspicions_of(workspace, sorted(keys))
    models = {s.key: s.model for s in named_suppliers(workspace, sorted({one.supplier for one in found}))}
    rows = []
    for one in found:
        if kinds is not None and one.kind not in kinds:
            continue
        plain = {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in one.to_document().items()
            if name != "_id"
        }
        row = {"kind": one.kind, "supplier": one.supplier, "model": models.get(one.supplier)}
        rows.append({**row, **plain})
    return rows
