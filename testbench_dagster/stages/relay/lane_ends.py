"""What became of the suppliers that a run left: said in words, and kept with the docs left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from testbench_dagster.core.faults import Closing, Fault, Pause
from testbench_dagster.core.ids import document_id
from testbench_dagster.core.records.lanes import LaneEndRecord, LeftTask
from testbench_dagster.planning.due import DuePrompt, PromptRef
from testbench_dagster.relays.report import LaneEnd, LaneEnding, Report
from testbench_dagster.stages.relay.requests import DueRelays, PlannedTask
from testbench_dagster.stores.documents import DocumentStore, typed


def why_left(end: LaneEnd) -> str | None:
    """Why a run went on without a supplier, with what to do about it; None where it did not."""
    if end.end is not LaneEnding.LEFT or end.fault is None:
        return None
    row = end.fault.row
    if row.pause is Pause.PROBE:
        what = "it refuses our key or quota, whatever it is asked"
    elif row.closes is Closing.REFUSED and end.waited_s == 0:
        what = "it refuses every request"
    else:
        what = f"no answer in {end.waited_s:.0f} s of waiting"
    return f"{what} ({end.fault.value}): {row.remedy}"


def record_lane_ends(
    documents: DocumentStore, report: Report, asked: Mapping[str, DueRelays], leases: Mapping[str, int]
) -> dict[str, str]:
    """Keep which suppliers the run left, and what it did not ask them; return why, by supplier key."""
    records, told = [], {}
    for key, end in report.lanes.items():
        why = why_left(end)
        if why is None or end.fault is None:
            continue
        told[key] = why
        records.append(_record(key, end, end.fault, why, asked[key], leases.get(key)))
    typed.put_new(documents, LaneEndRecord, records)
    return told


def _record(
    key: str, end: LaneEnd, fault: Fault, why: str, relays: DueRelays, lease: int | None
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
        left=tuple(part for planned, left in relays.left() for part in _left(planned, left)),
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
