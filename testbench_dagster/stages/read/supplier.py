"""One supplier at a glance: what it is, how it scores, what cuts its scores, and what happened to it last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.core.records.attempts import FaultCount
from testbench_dagster.core.records.declaring import ID, Record
from testbench_dagster.core.records.identity import KEPT_FIELDS, ChangeRecord, IdentityGroupRecord
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.core.records.rankings import LeaderboardRecord, StoredRanking
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.service_quality import ServiceQuality
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.window import Window
from testbench_dagster.stages.identify.public_gaps import newest_gaps
from testbench_dagster.stages.rank.stored import read_ranking
from testbench_dagster.stages.read.answers import required_supplier
from testbench_dagster.stages.read.service import recent_service
from testbench_dagster.stages.read.spending import DaySpent, spending
from testbench_dagster.stages.score.groups import members_of
from testbench_dagster.stages.score.task_groups import group_rows
from testbench_dagster.stages.score.windows import primary_windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import DocumentStore, typed

#: How far back attempts are counted.
FAULTS_OF = timedelta(days=7)


@dataclass(frozen=True)
class SupplierPage:
    """What is known of a supplier, without its answers.

    ``windows``: its primary rows, ``groups`` those of groups of tasks. ``entries``: its places in the stored
    rankings, columns of a leaderboard as JSON. ``group`` names all members; None for who was never compared.
    ``faults``: attempts of the last week by how they ended. ``change`` is the last one that was detected.
    ``reference``: how it compares with the reference of its model, None for who has none. ``public_gaps``:
    how it does on public questions and on fresh ones of the kind, by task. ``spent``: what its attempts took
    on each of the last days that had some, the newest last. ``service_quality``: what service probes of the
    last 72 hours came to, by workload; empty where there were none.
    """

    supplier: Supplier
    windows: Sequence[Window]
    groups: Sequence[Window]
    entries: Sequence[Mapping[str, Any]]
    group: IdentityGroupRecord | None
    faults: Mapping[str, int]
    change: ChangeRecord | None
    reference: ReferenceRecord | None = None
    public_gaps: Sequence[PublicGapRecord] = ()
    spent: Sequence[DaySpent] = ()
    service_quality: Sequence[ServiceQuality] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times as ISO 8601 in UTC."""
        known = self.supplier
        return {
            "supplier": known.key,
            "model": known.model,
            "service": known.service,
            "api": known.api,
            "base_url": known.base_url,
            "transport": known.transport,
            "price": None if known.price is None else known.price.to_document(),
            "status": known.status,
            **{name: _plain(getattr(known, name)) for name in ("joined_at", "left_at", "cut_at")},
            "windows": [row.to_json() for row in self.windows],
            "groups": [row.to_json() for row in self.groups],
            "rankings": [dict(entry) for entry in self.entries],
            "identity": None if self.group is None else _placement(self.group),
            "faults": dict(self.faults),
            "change": None if self.change is None else _plain_fields(self.change),
            "reference": None if self.reference is None else _plain_fields(self.reference),
            "public_gaps": [_plain_fields(gap) for gap in self.public_gaps],
            "spent": [asdict(day) for day in self.spent],
            "service_quality": [row.to_json() for row in self.service_quality],
        }


def _with_all_members(documents: DocumentStore, key: str) -> IdentityGroupRecord | None:
    placed = typed.get(documents, IdentityGroupRecord, key)
    return None if placed is None else replace(placed, members=[*members_of(documents, [placed])[key]])


def _plain_fields(of: Record) -> dict[str, Any]:
    return {name: _plain(value) for name, value in of.to_document().items() if name != ID}


def _placement(group: IdentityGroupRecord) -> dict[str, Any]:
    return {name: value for name, value in _plain_fields(group).items() if name not in KEPT_FIELDS}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def supplier_page(workspace: Workspace, key: str, *, now: datetime | None = None) -> SupplierPage:
    """Return what is known of a supplier.

    Raises:
        ConfigError: it is not on the roster.
    """
    now = now or datetime.now(UTC)
    supplier, documents = required_supplier(workspace, key), workspace.documents
    [(_, windows)] = primary_windows(workspace, [supplier], now)
    groups = group_rows(workspace, supplier, now)
    stored = sorted(typed.find(documents, StoredRanking), key=lambda one: one.taxonomy)
    boards = [read_ranking(documents, LeaderboardRecord, one.id) for one in stored]
    since = {"supplier": key, "finished_at": {"gt": now - FAULTS_OF}}
    changes = typed.find(documents, ChangeRecord, {"supplier": key}, sort=[("at", -1)], limit=1)
    return SupplierPage(
        supplier=supplier,
        windows=windows,
        groups=groups,
        entries=[entry for board in boards if board for entry in board.entries if entry["supplier"] == key],
        group=_with_all_members(documents, key),
        faults={row.fault: row.n for row in sorted(typed.group(documents, FaultCount, since))},
        change=next(changes, None),
        reference=typed.get(documents, ReferenceRecord, key),
        public_gaps=newest_gaps(workspace, [key]),
        spent=spending(workspace, supplier, now),
        service_quality=[replace(row, model=supplier.model) for row in recent_service(workspace, now, [key])],
    )
