"""Identity and changes as pages read them: one supplier's place, and changes newest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from testbench_dagster.core.records.identity import ChangeRecord, IdentityGroupRecord
from testbench_dagster.core.records.rankings import SupplierAbilities
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.suspicions import SuspicionRecord
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed


def placed(workspace: Workspace, supplier: str) -> IdentityGroupRecord | None:
    """Whom a supplier answers like, as last compared; None before that."""
    return typed.get(workspace.documents, IdentityGroupRecord, supplier)


def against_reference(workspace: Workspace, supplier: str) -> ReferenceRecord | None:
    """How a supplier compares with the reference of its model, as last compared; None without one."""
    return typed.get(workspace.documents, ReferenceRecord, supplier)


def references(workspace: Workspace) -> dict[str, str]:
    """By supplier the reference that it was compared with."""
    return {one.id: one.reference for one in typed.find(workspace.documents, ReferenceRecord)}


def abilities(workspace: Workspace, supplier: str) -> list[SupplierAbilities]:
    """What a supplier can do by each taxonomy, by name."""
    where = {"supplier": supplier}
    return list(typed.find(workspace.documents, SupplierAbilities, where, sort=[("taxonomy", 1)]))


def current_abilities(workspace: Workspace, taxonomy: str, now: datetime) -> Iterator[SupplierAbilities]:
    """What suppliers can do by a taxonomy; older summaries rest on nothing that still counts."""
    oldest = now - timedelta(days=workspace.config.settings.sampling.max_age_days)
    where = {"taxonomy": taxonomy, "summarized_at": {"gt": oldest}}
    return typed.find(workspace.documents, SupplierAbilities, where)


def changes(
    workspace: Workspace,
    supplier: str | None = None,
    *,
    before: datetime | None = None,
    limit: int = 50,
) -> Sequence[ChangeRecord]:
    """Return detected changes, those recorded last first; ``before`` is where the page before ended."""
    where: dict[str, Any] = {} if supplier is None else {"supplier": supplier}
    if before is not None:
        where["detected_at"] = {"lt": before}
    found = typed.find(workspace.documents, ChangeRecord, where, sort=[("detected_at", -1)], limit=limit)
    return list(found)


def suspicions_of(
    workspace: Workspace, keys: Sequence[str], *, limit: int | None = None
) -> list[SuspicionRecord]:
    """Stored suspicions that name one of some suppliers or groups, the last seen and strongest first.

    ``limit``: at most so many.
    """
    found: dict[str, SuspicionRecord] = {}
    for name in ("supplier", "other"):
        where: dict[str, Any] = {name: {"in": list(keys)}}
        some = typed.find(workspace.documents, SuspicionRecord, where, sort=[("seen_at", -1)], limit=limit)
        found |= {one.id: one for one in some}
    ordered = sorted(
        found.values(), key=lambda one: (-one.seen_at.timestamp(), -one.strength, one.supplier, one.id)
    )
    return ordered[:limit]
