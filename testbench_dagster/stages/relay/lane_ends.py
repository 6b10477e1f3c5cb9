"""What became of the suppliers that a run left: said in words, and kept with the docs left behind.

Docs that a supplier had stalled when the run was stopped are left behind, too: it was asked, and is answered
for others meanwhile. What the end of the run alone kept from being asked is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from testbench_dagster.core.faults import Closing, Fault, Pause
from testbench_dagster.core.ids import document_id
from testbench_dagster.core.records.lanes import STOPPED, LaneEndRecord, LeftTask
from testbench_dagster.core.relay import Relay
from testbench_dagster.planning.due import DuePrompt, PromptRef
from testbench_dagster.relays.report import LaneEnd, LaneEnding, Report
from testbench_dagster.stages.relay.requests import DueRelays, PlannedTask
from testbench_dagster.stores.documents import DocumentStore, typed

_STALLED = "the run was stopped while it held calls for far longer than it took for others"


def why_left(end: LaneEnd) -> str | None:
    """Why a run went on without a supplier, with what to do about it; None where it did not."""
    if end.end is not LaneEnding.LEFT or end.fault is None:
        return None
    row = end.fault.row
    if row.pause is Pause.PROBE:
        what = "it refuses our key or quota, whatever it is asked"
    elif row.closes is Closing.REFUSED and end.waited_s == 0:
        what = "no answer of it can be scored" if row.in_order else "it refuses every request"
    else:
        what = f"no answer in {end.waited_s:.0f} s of waiting"
    remedy = end.remedy or row.remedy
    if row.closes is Closing.REFUSED:
        remedy += "; `testbench check` finds out which settings it wants"
    return f"{what} ({end.fault.value}): {remedy}"


def record_lane_ends(
    documents: DocumentStore, report: Report, asked: Mapping[str, DueRelays], leases: Mapping[str, int]
) -> dict[str, str]:
    """Keep which suppliers the run left, and what it did not ask them; return why, by supplier key.

    And what they had stalled when it was stopped, as a fault of ours: it was we who did not wait.
    """
    records, told = [], {}
    for key, end in report.lanes.items():
        why, stalled = why_left(end), list(_stalled(end.stalled))
        if why is not None and end.fault is not None:
            told[key] = why
            left = [part for planned, docs in asked[key].left() for part in _left(planned, docs)]
            records.append(_record(key, end, end.fault, why, asked[key], leases.get(key), left + stalled))
        elif stalled:
            records.append(_record(key, end, STOPPED, _STALLED, asked[key], leases.get(key), stalled))
    typed.put_new(documents, LaneEndRecord, records)
    return told


def _record(
    key: str,
    end: LaneEnd,
    fault: Fault,
    why: str,
    relays: DueRelays,
    lease: int | None,
    left: Sequence[LeftTask],
) -> LaneEndRecord:
    return LaneEndRecord(
        id=document_id("lane end", key, lease, end.ended_at.isoformat()),
        supplier=key,
        service=relays.service,
        lease=lease,
        ended_at=end.ended_at,
        fault=fault.value,
        why=why,
        waited_s=end.waited_s,
        left=tuple(left),
    )


def _stalled(relays: Sequence[Relay]) -> Iterator[LeftTask]:
    """The docs of relays, each once, by task, epoch and round."""
    parts: dict[tuple[str, str, int, int], dict[int, int]] = {}
    for relay in relays:
        docs = parts.setdefault((relay.task, relay.task_hash, relay.epoch, relay.round), {})
        docs[relay.doc_id] = relay.position
    for (task, task_hash, epoch, round_), docs in parts.items():
        yield LeftTask(
            task=task,
            task_hash=task_hash,
            epoch=epoch,
            round=round_,
            doc_ids=list(docs),
            positions=list(docs.values()),
        )


def _left(planned: PlannedTask, docs: Sequence[DuePrompt]) -> Iterator[LeftTask]:
    """The docs of a task that were left, by the epoch and round in which they were to be asked."""
    parts: dict[tuple[int, int], list[PromptRef]] = {}
    for doc in docs:
        epoch = planned.epoch if doc.epoch is None else doc.epoch
        parts.setdefault((epoch, doc.round), []).append(doc.prompt)
    for (epoch, round_), prompts in parts.items():
        yield LeftTask(
            task=planned.spec.name,
            task_hash=planned.registration.task_hash,
            epoch=epoch,
            round=round_,
            doc_ids=[prompt.doc_id for prompt in prompts],
            positions=[prompt.position for prompt in prompts],
        )
