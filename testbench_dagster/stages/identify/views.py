"""What is shown of identity: rows of the stored groups, of pairs and of detected changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

from testbench_dagster.core.records.declaring import ID, Record
from testbench_dagster.core.records.identity import (
    KEPT_FIELDS,
    ChangeRecord,
    IdentityGroupRecord,
    ProxyOfSupplier,
)
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.discover.roster import active_suppliers, known_suppliers, named_suppliers
from testbench_dagster.stages.identify.identify import compared
from testbench_dagster.stages.identify.public_gaps import newest_gaps
from testbench_dagster.stages.score.groups import members_of
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed

_PAIRS_SHOWN = 5_000
#: Columns of the rows of groups, pairs, changes and references, with their types; times are texts there.
IDENTITY_COLUMNS: dict[str, type] = {
    "supplier": str,
    "model": str,
    **{
        f.name: f.scalar or list
        for f in IdentityGroupRecord.fields
        if f.name not in {ID, "members"} | KEPT_FIELDS
    },
    "members": list,
    "n_members": int,
    "nearest_proxy": str,
    "n_cuts": int,
}
CHANGE_COLUMNS: dict[str, type] = {
    **{f.name: f.scalar or dict for f in ChangeRecord.fields if f.name != ID},
    "model": str,
}
PAIR_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("a", "b", "model_a", "model_b", "service"), str),
    **dict.fromkeys(("n_common", "n_agree"), int),
    **dict.fromkeys(("agreement", "ci_low", "ci_high", "distance", "distance_low", "distance_high"), float),
    **dict.fromkeys(("log_merge", "log_split"), float),
    "relation": str,
    "certain": bool,
    "finding": str,
    "same_group": bool,
}
REFERENCE_COLUMNS: dict[str, type] = {
    "supplier": str,
    **{f.name: f.scalar or dict for f in ReferenceRecord.fields if f.name != ID},
}
PUBLIC_GAP_COLUMNS: dict[str, type] = {
    f.name: f.scalar or dict for f in PublicGapRecord.fields if f.name != ID
}
#: Windows voided within the age of one from which a supplier may be drawing docs anew until it likes them.
MANY_CUTS = 2


def identity_rows(workspace: Workspace, suppliers: Sequence[str]) -> list[dict[str, Any]]:
    """One row per supplier that was compared: its group, who stands for it, how surely, whom else it is like.

    Sorted by service, then the largest groups first.
    """
    of = {"_id": {"in": sorted(suppliers)}}
    placed = list(typed.find(workspace.documents, IdentityGroupRecord, of))
    proxies = {one.group: one.proxy for one in typed.find(workspace.documents, ProxyOfSupplier)}
    members = members_of(workspace.documents, placed)
    ordered = sorted(placed, key=lambda one: (one.service, -one.size, one.group, one.id))
    cuts = recent_cuts(workspace, suppliers, datetime.now(UTC))
    models = {s.key: s.model for s in named_suppliers(workspace, suppliers)}
    return [
        _row(one, models.get(one.id), members[one.id], proxies.get(one.nearest or ""), cuts[one.id])
        for one in ordered
    ]


def recent_cuts(workspace: Workspace, suppliers: Collection[str], now: datetime) -> Counter[str]:
    """How often windows were voided within the window age by what scores did not show, by supplier.

    Whoever begins its answers otherwise is taken for another model, has its window voided, and is asked other
    docs: a new draw.
    """
    oldest = now - timedelta(days=workspace.config.settings.sampling.max_age_days)
    where: dict[str, Any] = {"supplier": {"in": sorted(suppliers)}, "at": {"gt": oldest}}
    found = typed.find(workspace.documents, ChangeRecord, where)
    return Counter(change.supplier for change in found if change.cut and change.kind != "score")


def cut_rows(workspace: Workspace, suppliers: Sequence[str] | None) -> list[dict[str, Any]]:
    """Up to when what suppliers answered does not count, and why: of those whose model changed, last first.

    By default of the active suppliers. ``reason``: the detected change, or what was announced of it.
    """
    chosen = active_suppliers(workspace) if suppliers is None else named_suppliers(workspace, suppliers)
    cut = {supplier.key: supplier.cut_at for supplier in chosen if supplier.cut_at is not None}
    known = typed.by_id(workspace.documents, SupplierRecord, cut).values()
    rows = [
        {"supplier": one.id, "cut_at": one.cut_at, "reason": _why_cut(one)}
        for one in known
        if one.cut_at is not None
    ]
    return sorted(rows, key=lambda row: (-row["cut_at"].timestamp(), row["supplier"]))


def _why_cut(supplier: SupplierRecord) -> str:
    """What its history says of the last cut; it holds the newest events only."""
    for event in reversed(supplier.history):
        if event.event == "cut" and event.cut_at == supplier.cut_at:
            return event.reason or "its model changed"
        if event.at == supplier.cut_at and event.changed:
            now = "".join(
                f", {name} is now {value}"
                for name in event.changed
                if name in ("model", "base_url", "api") and (value := getattr(event, name)) is not None
            )
            return f"its source announced a change of {', '.join(event.changed)}{now}"
    return "its model changed"


def many_cuts(workspace: Workspace, now: datetime | None = None) -> dict[str, str]:
    """What there is to tell of suppliers of which :data:`MANY_CUTS` windows or more were voided lately."""
    cuts = recent_cuts(workspace, [s.key for s in active_suppliers(workspace)], now or datetime.now(UTC))
    days = workspace.config.settings.sampling.max_age_days
    return {
        supplier: f"its window was voided {n} times in {counted(days, 'day', 'g')} as its answers "
        "begin otherwise, and no score shows a change: it is asked other docs each time, and may be "
        "drawing until it likes them"
        for supplier, n in sorted(cuts.items())
        if n >= MANY_CUTS
    }


def _row(
    placed: IdentityGroupRecord,
    model: str | None,
    members: Sequence[str],
    nearest_proxy: str | None,
    n_cuts: int,
) -> dict[str, Any]:
    rest = {
        name: value
        for name, value in _plain_fields(placed).items()
        if name != "members" and name not in KEPT_FIELDS
    }
    return {
        "supplier": placed.id,
        "model": model,
        **rest,
        "members": members,
        "n_members": len(members),
        "nearest_proxy": nearest_proxy,
        "n_cuts": n_cuts,
    }


def pair_rows(workspace: Workspace, suppliers: Sequence[str] | None) -> list[dict[str, Any]]:
    """Evidence of each pair of suppliers of one service, of stored answers; those that agree most first.

    At most five thousand pairs.
    """
    now = datetime.now(UTC)
    pool = active_suppliers(workspace) if suppliers is None else known_suppliers(workspace)
    wanted = [s for s in pool if suppliers is None or s.key in suppliers]
    models = {s.key: s.model for s in wanted}
    rows: list[dict[str, Any]] = []
    for service in dict.fromkeys(s.service for s in wanted):
        chosen = [s for s in wanted if s.service == service]
        evidence, grouping = compared(workspace, service, chosen, now)
        stored = typed.find(workspace.documents, ProxyOfSupplier, {"service": service})
        groups = {one.id: one.group for one in stored}
        for a, b in combinations(evidence.suppliers, 2):
            pair = grouping.pair(a, b)
            rows.append(
                {
                    "a": a,
                    "b": b,
                    "model_a": models[a],
                    "model_b": models[b],
                    "service": service,
                    "n_common": pair.common,
                    "n_agree": pair.agree,
                    "agreement": pair.agreement,
                    "ci_low": pair.low,
                    "ci_high": pair.high,
                    "distance": pair.distance,
                    "distance_low": pair.distance_low,
                    "distance_high": pair.distance_high,
                    "log_merge": pair.log_merge,
                    "log_split": pair.log_split,
                    "relation": pair.relation,
                    "certain": pair.certain,
                    "finding": pair.wording,
                    "same_group": a in groups and groups[a] == groups.get(b),
                }
            )
    rows.sort(key=lambda row: (-(row["agreement"] or 0), row["a"], row["b"]))
    return rows[:_PAIRS_SHOWN]


def change_rows(workspace: Workspace, suppliers: Sequence[str] | None) -> list[dict[str, Any]]:
    """Detected changes, newest first; ``model`` is what their supplier claims to serve now."""
    where = {} if suppliers is None else {"supplier": {"in": sorted(suppliers)}}
    found = typed.find(workspace.documents, ChangeRecord, where, sort=[("at", -1)])
    models = {s.key: s.model for s in known_suppliers(workspace)}
    return [{**_plain_fields(change), "model": models.get(change.supplier)} for change in found]


def reference_rows(workspace: Workspace, suppliers: Sequence[str] | None) -> list[dict[str, Any]]:
    """What is known of suppliers and the reference of their model: those that differ first, then by key.

    By default of all that were compared.
    """
    where = {} if suppliers is None else {"_id": {"in": sorted(suppliers)}}
    order = {"no": 0, "not yet known": 1, "yes": 2}
    found = sorted(
        typed.find(workspace.documents, ReferenceRecord, where),
        key=lambda one: (one.reference, order[one.as_reference], one.id),
    )
    return [{"supplier": one.id, **_plain_fields(one)} for one in found]


def public_gap_rows(
    workspace: Workspace, suppliers: Sequence[str] | None, *, every: bool = False
) -> list[dict[str, Any]]:
    """How suppliers did on public questions and on fresh ones: those flagged first, then by p value.

    By default of the active suppliers, the newest epoch of each task; ``every``: all epochs, newest first.
    """
    if suppliers is None:
        suppliers = [supplier.key for supplier in active_suppliers(workspace)]
    if every:
        where = {"supplier": {"in": sorted(suppliers)}}
        found = list(typed.find(workspace.documents, PublicGapRecord, where))
        found.sort(key=lambda one: (one.supplier, one.task, -one.epoch))
    else:
        found = newest_gaps(workspace, suppliers)
        found.sort(key=lambda one: (not one.flagged, 2 if one.p is None else one.p, one.supplier, one.task))
    return [_plain_fields(one) for one in found]


def _plain_fields(of: Record) -> dict[str, Any]:
    """What a record holds besides its id, as people and JSON are shown it."""
    return {name: _plain(value) for name, value in of.to_document().items() if name != ID}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
