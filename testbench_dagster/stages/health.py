"""The kept health of suppliers: what asset checks look at, of all suppliers whichever a run is about.

To look at all windows and attempts at every run would take minutes on a large network, and to look at those
of the run alone hides what is wrong with everybody else as soon as somebody else is evaluated. So the assets
that change them note what is wrong, each its part of a small row per supplier, and checks read all rows.

Belongs here: what is noted, and how it is read. Does not: verdicts, which are the checks'.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.core.doc_states import DocClock
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import OwnerCount
from testbench_dagster.core.records.health import Coverage, HealthDates, HealthRecord, ScoreWidth
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.rankings import SupplierAbilities
from testbench_dagster.core.window import NOT_APPLICABLE, TASK, UNSUPPORTED, Window
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.score.missing import why_no_scores
from testbench_dagster.stages.score.remarks import Remarks, empty_answers, late_answers, refused_parameters
from testbench_dagster.stages.score.reproduce import Rescored
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.contract import Where

_TOLD = 5  # findings of a kind that a row tells in words
_LENGTH = 300  # characters of each
_WIDEST = 20  # intervals that are listed
#: States of planned tasks that no ability can wait for.
_NEVER_ASKED = (UNSUPPORTED, NOT_APPLICABLE)
_OWNERS = {fault.value: fault.owner.value for fault in Fault}


# ---------------------------------------------------------------------------------------------- noting


def note_attempts(workspace: Workspace, keys: Sequence[str]) -> None:
    """Note how the suppliers' attempts inside the window age ended, and whether each names its owner."""
    now = datetime.now(UTC)
    oldest = now - timedelta(days=workspace.config.settings.sampling.max_age_days)
    where = {"supplier": {"in": list(keys)}, "finished_at": {"gte": oldest}}
    attempts: Counter[str] = Counter()
    blamed: Counter[str] = Counter()
    unowned: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in typed.group(workspace.documents, OwnerCount, where):
        if _OWNERS.get(row.fault) != row.owner:
            unowned[row.supplier][row.fault] += row.n
        fault = Fault(row.fault) if row.fault in _OWNERS else None
        if fault is not None and (fault.answered or fault.blames_supplier):
            attempts[row.supplier] += row.n
            blamed[row.supplier] += row.n if fault.blames_supplier else 0
    _note(
        workspace,
        {
            key: {
                "attempts_at": now,
                "attempts": attempts[key],
                "fault_share": blamed[key] / attempts[key] if attempts[key] else None,
                "n_unowned": len(unowned[key]),
                "unowned": {fault: counted(n, "attempt") for fault, n in unowned[key].most_common(_TOLD)},
            }
            for key in keys
        },
    )


def note_scores(workspace: Workspace, keys: Sequence[str], rows: Sequence[Window]) -> None:
    """Note what is wrong with the suppliers' windows; ``rows`` are all of theirs."""
    now = datetime.now(UTC)
    primary = [row for row in rows if row.primary and row.kind == TASK]
    of_supplier: defaultdict[str, list[Window]] = defaultdict(list)
    for row in primary:
        of_supplier[row.supplier].append(row)
    remarks = {
        "stale": why_no_scores(workspace, primary),
        "short": _short(workspace, primary),
        "late": late_answers(primary),
        "empty": empty_answers(workspace, primary),
        "refused": refused_parameters(workspace, primary),
    }
    found = {name: _by_supplier(of_kind) for name, of_kind in remarks.items()}
    noted: dict[str, dict[str, Any]] = {}
    for key in keys:
        noted[key] = {"scores_at": now, "scores_until": _until(workspace, of_supplier[key])}
        for name, told in found.items():
            noted[key] |= {f"n_{name}": len(told[key]), name: _first(told[key])}
        widths = [
            ((row.ci_high - row.ci_low) / 2, row.task)
            for row in of_supplier[key]
            if row.score is not None and row.ci_low is not None and row.ci_high is not None
        ]
        width, task = max(widths, default=(None, None))
        noted[key] |= {"half_width": width, "half_width_task": task}
    _note(workspace, noted)


def note_abilities(workspace: Workspace, keys: Sequence[str]) -> None:
    """Note which abilities of the suppliers rest on no task, though one that could measure them is asked."""
    now = datetime.now(UTC)
    askable = {
        plan.id: {name for name, task in (plan.tasks or {}).items() if task.state not in _NEVER_ASKED}
        for plan in typed.find(workspace.documents, PlanRecord, {"_id": {"in": list(keys)}})
    }
    lowest: dict[str, float] = {}
    uncovered: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for summary in typed.find(workspace.documents, SupplierAbilities, {"supplier": {"in": list(keys)}}):
        key, root = summary.supplier, summary.nodes[summary.root]
        if root.n_tasks:  # what it is not asked covers nothing, and lacks nothing
            lowest[key] = min(lowest.get(key, 1.0), root.coverage)
        bare = [
            name
            for name, node in summary.nodes.items()
            if not node.n_measured and askable.get(key, set()) & set(node.missing)
        ]
        if bare:
            uncovered[key][summary.taxonomy] = ", ".join(bare)
    _note(
        workspace,
        {
            key: {
                "abilities_at": now,
                "coverage": lowest.get(key),
                "n_uncovered": len(uncovered[key]),
                "uncovered": _first(uncovered[key]),
            }
            for key in keys
        },
    )


def note_reproduced(workspace: Workspace, report: Rescored, before: Mapping[str, Mapping[str, str]]) -> None:
    """Note whose answers gave other scores than are stored; ``before`` is what was noted of them so far."""
    now = datetime.now(UTC)
    parts = {}
    for key in report.differing.keys() | report.resolved.keys():
        told = dict(before.get(key, {})) | report.differing.get(key, {})
        kept = {answer: doc for answer, doc in told.items() if answer not in report.resolved.get(key, ())}
        parts[key] = {
            "reproduced_at": now,
            "n_unreproduced": len(kept),
            "unreproduced": _first(kept),
        }
    _note(workspace, parts)


def _note(workspace: Workspace, parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Set one part of each supplier's row, leaving the others as they are; both may be written at once."""
    typed.put_new(workspace.documents, HealthRecord, (HealthRecord(id=key) for key in parts))
    typed.amend(workspace.documents, HealthRecord, parts)


def _short(workspace: Workspace, rows: Iterable[Window]) -> Remarks:
    """Windows with fewer docs than everybody is asked in the epoch, where a half width sets how many."""
    found: Remarks = {}
    for row in rows:
        rule = workspace.spec(row.task).samples
        if rule is None or rule.half_width is None or row.score is None:
            continue
        wanted = min(row.n_planned or 0, workspace.config.settings.sampling.window)
        if row.asked + row.n_void < wanted:
            found[row.supplier, row.task] = f"{row.asked} of {counted(wanted, 'doc')}"
    return found


def _until(workspace: Workspace, rows: Iterable[Window]) -> datetime | None:
    """When the first of the tasks with scores loses the last of them to its age."""
    settings = workspace.config.settings
    # an outcome counts on until what replaces it is closed
    grace = DocClock.from_minutes(settings.planning.occasions_minutes).limit
    return min(
        (
            row.last_sample_at + workspace.spec(row.task).max_age(settings.sampling.max_age_days) + grace
            for row in rows
            if row.last_sample_at is not None
        ),
        default=None,
    )


def _by_supplier(remarks: Remarks) -> defaultdict[str, dict[str, str]]:
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for (supplier, task), told in remarks.items():
        found[supplier][task] = told
    return found


def _first(told: Mapping[str, str]) -> dict[str, str]:
    return {name: text[:_LENGTH] for name, text in list(told.items())[:_TOLD]}


# ---------------------------------------------------------------------------------------------- reading


def unhealthy(workspace: Workspace, active: Collection[str], where: Where) -> list[HealthRecord]:
    """The rows that a filter matches, of active suppliers alone."""
    return [row for row in typed.find(workspace.documents, HealthRecord, where) if row.id in active]


def not_looked_at(workspace: Workspace, active: Collection[str], part: str) -> list[str]:
    """Which active suppliers have nothing noted in a part of their rows, named by its date, sorted by key.

    They were not evaluated yet, or last by a version that noted nothing.
    """
    noted = {row.id for row in typed.find(workspace.documents, HealthDates) if getattr(row, part) is not None}
    return sorted(set(active) - noted)


def widest_scores(workspace: Workspace, active: Collection[str]) -> list[list[object]]:
    """The widest interval of each active supplier, the widest twenty: key, task, half of its width."""
    rows = [row for row in typed.find(workspace.documents, ScoreWidth) if row.id in active]
    known = [(row.half_width, row.id, row.half_width_task) for row in rows if row.half_width is not None]
    return [
        [key, task, width] for width, key, task in sorted(known, key=lambda one: (-one[0], one[1]))[:_WIDEST]
    ]


def lowest_coverage(workspace: Workspace, active: Collection[str]) -> float | None:
    """The lowest share of a taxonomy's tasks that is measured of an active supplier; None for nobody."""
    keys = frozenset(active)
    rows = typed.find(workspace.documents, Coverage)
    return min((row.coverage for row in rows if row.id in keys and row.coverage is not None), default=None)
