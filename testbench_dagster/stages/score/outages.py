"""Who waits for a scorer, for what a metric asks, or for stored answers: told to people, seen by plans.

The answers stay as they are: answered, without a score, and due for scoring. Nothing is asked again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from testbench_dagster.core.clock import SKEW
from testbench_dagster.core.records.set_aside import ScorerOutageRecord
from testbench_dagster.core.text import escaped
from testbench_dagster.core.wording import counted
from testbench_dagster.stores.documents import DocumentStore, typed

#: The daemon tries again after the first of these; it doubles with each failure up to the second.
_RETRY, _RETRY_MOST = timedelta(minutes=5), timedelta(hours=1)


def note_outage(
    documents: DocumentStore,
    task: str,
    waits: Mapping[str, int],
    reason: str,
    *,
    of_scorer: bool = False,
    unread: bool = False,
) -> None:
    """Note how many answered docs of suppliers wait for the scorer of a task.

    ``of_scorer``: it fails itself, and no service that it asks. ``unread``: the answers cannot be read.
    """
    if not waits:
        return
    now = datetime.now(UTC)
    known = typed.by_id(documents, ScorerOutageRecord, [_id(task, supplier) for supplier in waits])
    made = []
    for supplier, docs in waits.items():
        before = known.get(_id(task, supplier))
        failures = 1 if before is None else before.failures + 1
        made.append(
            ScorerOutageRecord(
                id=_id(task, supplier),
                task=task,
                supplier=supplier,
                since=now if before is None else before.since,
                tried_at=now,
                failures=failures,
                retry_at=now + min(_RETRY * 2 ** min(failures - 1, 20), _RETRY_MOST),
                docs=docs,
                reason=escaped(reason),
                of_scorer=of_scorer or None,
                unread=unread or None,
            )
        )
    typed.upsert(documents, ScorerOutageRecord, made)


def end_outages(
    documents: DocumentStore,
    tasks: Collection[str],
    suppliers: Collection[str],
    waits: Mapping[str, Collection[str]],
) -> None:
    """Note that nothing of some suppliers and tasks waits any more, but for those in ``waits`` by task."""
    over = sorted(
        one.id
        for one in typed.find(documents, ScorerOutageRecord)
        if one.task in tasks and one.supplier in suppliers and one.supplier not in waits.get(one.task, ())
    )
    if over:
        typed.purge(documents, ScorerOutageRecord, {"_id": {"in": over}})


def waiting_tasks(documents: DocumentStore, tasks: Iterable[str], since: datetime) -> set[str]:
    """The tasks of which a scorer's service was found gone since an instant."""
    latest = datetime.now(UTC) + SKEW  # what is ahead is of a clock that was set back since
    where = {"task": {"in": sorted(tasks)}, "tried_at": {"gte": since, "lte": latest}}
    return {one.task for one in typed.find(documents, ScorerOutageRecord, where)}


def who_waits_for_scorers(
    documents: DocumentStore, suppliers: Collection[str], tasks: Collection[str]
) -> dict[str, str]:
    """By task how many docs of some suppliers wait for its scorer's service, and why, in words."""
    found: dict[str, list[ScorerOutageRecord]] = {}
    for one in typed.find(documents, ScorerOutageRecord):
        if one.supplier in suppliers and one.task in tasks:
            found.setdefault(one.task, []).append(one)
    told = {}
    for task, records in sorted(found.items()):
        docs = sum(one.docs for one in records)
        newest = max(records, key=lambda one: one.tried_at)
        waits = "waits" if docs == 1 else "wait"
        if newest.unread:
            told[task] = (
                f"{counted(docs, 'answered doc')} {waits} because the answer cannot be read where it is kept "
                f"({newest.reason}): that counts against no supplier; the next run tries again, and nothing "
                "is asked again"
            )
            continue
        if newest.of_scorer:
            told[task] = (
                f"{counted(docs, 'answered doc')} {waits} because the task's framework does not score "
                f"({newest.reason}): that is its fault and counts against no supplier; mend the framework "
                "or its metric, the next run tries again, and nothing is asked again"
            )
            continue
        told[task] = (
            f"{counted(docs, 'answered doc')} {waits} for the service that its metric asks "
            f"({newest.reason}); scored again by the next run, nothing is asked again"
        )
    return told


def _id(task: str, supplier: str) -> str:
    return f"{task}:{supplier}"
