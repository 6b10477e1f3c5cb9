"""Retention: the only thing that deletes facts, and only what no window counts any more.

What goes, and when: attempts, scores and service probes after ``retention.evidence_days`` (never, if that is
unset); with them the prompt sequences that were replaced as long ago and that nothing kept refers to;
heartbeats and leases of processes that are gone; budgets of periods long over. The roster, epochs with their
seeds, snapshots, days of service quality and datasets stay.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from testbench_dagster.coordination.heartbeats import delete_expired, heartbeats, is_gone
from testbench_dagster.core.doc_states import DocClock
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.records.attempts import AttemptId, AttemptRecord
from testbench_dagster.core.records.coordination import (
    BudgetRecord,
    HeartbeatRecord,
    LeaseRecord,
    LeasesOfHolder,
    StatementRecord,
)
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.prompts import EpochStart, PromptCalls, PromptRecord, PromptSequence
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.stages.service.quality import purge_probes
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, Where, typed

BUDGETS_KEPT = timedelta(days=40)
#: A heartbeat that expired this long ago is looked at; the clocks of two machines differ by less.
_HEARTBEATS_KEPT = timedelta(hours=1)
_IDS = 500  # of prompts in one query

_Sequence = tuple[str, str, int]  # task, task hash, epoch


def check_retention(workspace: Workspace) -> None:
    """Refuse settings that would remove answers while a window still counts them.

    Raises:
        ConfigError: ``retention.evidence_days`` is shorter than the age up to which a sample counts.
    """
    days = workspace.config.settings.retention.evidence_days
    if days is None:
        return
    where, kept = workspace.config.path, timedelta(days=days)
    sampling = workspace.config.settings.sampling
    if days < sampling.max_age_days:
        raise ConfigError(
            f"{where}: retention.evidence_days {days:g} is less than sampling.max_age_days "
            f"{sampling.max_age_days:g}: answers would be removed while they count; raise the first to at "
            f"least {sampling.max_age_days:g}, or lower the second"
        )
    for spec in workspace.specs:
        longest = spec.max_age(workspace.config.settings.sampling.max_age_days)
        if kept < longest:
            age = longest / timedelta(days=1)
            raise ConfigError(
                f"{where}: retention.evidence_days {days:g} is less than max_age_days {age:g} of task "
                f"{spec.name!r}: answers would be removed while they count; raise the first to at least "
                f"{age:g}, or lower the second"
            )


def apply_retention(workspace: Workspace, now: datetime) -> dict[str, int]:
    """Remove what the settings no longer keep; return how many documents of each kind went. Idempotent.

    Raises:
        ConfigError: see :func:`check_retention`; nothing is removed then.
    """
    check_retention(workspace)
    documents = workspace.documents
    removed = {"attempts": 0, "scores": 0, "prompts": 0}
    days = workspace.config.settings.retention.evidence_days
    if days is not None:
        oldest = now - max(timedelta(days=days), _counts_for(workspace))
        # scores first: one without its evidence could not be checked
        removed["scores"] = typed.purge(documents, ScoreRecord, {"answered_at": {"lt": oldest}})
        removed["attempts"] = typed.purge(documents, AttemptRecord, {"finished_at": {"lt": oldest}})
        removed["service_probes"] = purge_probes(workspace, oldest, now)
        removed["lane_ends"] = typed.purge(documents, LaneEndRecord, {"ended_at": {"lt": oldest}})
        removed["prompts"] = _purge_sequences(workspace, oldest)
    removed["heartbeats"] = _purge_heartbeats(workspace, now - _HEARTBEATS_KEPT)
    removed["leases"] = _purge_leases(workspace)
    removed["budgets"] = typed.purge(documents, BudgetRecord, {"period": {"lt": now - BUDGETS_KEPT}})
    return removed


def _counts_for(workspace: Workspace) -> timedelta:
    """Age up to which an answer may count: at which it falls due, and as long as it keeps its slot then."""
    settings = workspace.config.settings
    days = settings.sampling.max_age_days
    longest = max([timedelta(days=days), *(spec.max_age(days) for spec in workspace.specs)])
    return longest + DocClock.from_minutes(settings.planning.occasions_minutes).limit


def _purge_sequences(workspace: Workspace, oldest: datetime) -> int:
    """Remove the prompt sequences replaced before an instant that no attempt which is kept was made of.

    None that was built later was replaced before: of these no row is read. A score is as young as the last of
    its attempts, and goes before them.
    """
    documents = workspace.documents
    old = typed.group(documents, PromptSequence, {"created_at": {"lt": oldest}})
    over = sorted((row.task, row.task_hash, row.epoch) for row in old)
    return sum(
        typed.purge(documents, PromptRecord, _prompts_of(sequence))
        for sequence in over
        if _replaced_before(workspace, sequence, oldest) and not _is_referred_to(documents, sequence)
    )


def _prompts_of(sequence: _Sequence) -> Where:
    task, task_hash, epoch = sequence
    return {"task": task, "task_hash": task_hash, "epoch": epoch}


def _is_referred_to(documents: DocumentStore, sequence: _Sequence) -> bool:
    """Whether an attempt at a prompt of a sequence is stored."""
    ids = [prompt.id for prompt in typed.find(documents, PromptCalls, _prompts_of(sequence))]
    return any(
        next(typed.find(documents, AttemptId, {"prompt_id": {"in": some}}, limit=1), None) is not None
        for some in (ids[start : start + _IDS] for start in range(0, len(ids), _IDS))
    )


def _replaced_before(workspace: Workspace, sequence: _Sequence, instant: datetime) -> bool:
    """Whether a later epoch, or another registration of the task, took over before an instant."""
    task, task_hash, epoch = sequence
    where = {"task": task, "epoch": {"gt": epoch}}
    for successor in typed.find(workspace.documents, EpochStart, where, sort=[("epoch", 1)], limit=1):
        return successor.started_at < instant
    current = workspace.datasets.current(task)
    return current is not None and current.task_hash != task_hash and current.registered_at < instant


def _purge_heartbeats(workspace: Workspace, before: datetime) -> int:
    typed.purge(workspace.documents, StatementRecord, {"expires_at": {"lt": before}})
    beats = typed.find(workspace.documents, HeartbeatRecord, {"expires_at": {"lt": before}})
    return sum(is_gone(beat) and delete_expired(workspace.documents, beat) for beat in beats)


def _purge_leases(workspace: Workspace) -> int:
    """Remove the leases of holders that have no heartbeat: nobody can be at work under them."""
    documents = workspace.documents
    # the holders are read before their heartbeats: a heartbeat beats before it takes its first lease
    rows = typed.group(documents, LeasesOfHolder, {"holder": {"ne": None}})
    holders = {row.holder for row in rows if row.holder is not None}
    gone = holders - heartbeats(documents, holders).keys() if holders else holders
    return typed.purge(documents, LeaseRecord, {"holder": {"in": sorted(gone)}}) if gone else 0
