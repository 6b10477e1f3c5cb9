"""Identity groups as scores look at them: who is in one, and who stands for whom now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from testbench_dagster.core.records.identity import IdentityGroupRecord, MemberOfGroup, ProxyOfSupplier
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stores.documents import DocumentStore, typed


@dataclass(frozen=True)
class IdentityGroup:
    """An identity group of several suppliers, and who stands for it."""

    id: str
    proxy: str


def identity_groups(documents: DocumentStore, suppliers: Iterable[str]) -> dict[str, IdentityGroup]:
    """By supplier the identity group it is in with others; who stands alone is left out."""
    where = {"_id": {"in": sorted(suppliers)}, "role": {"ne": "alone"}}
    return {
        one.id: IdentityGroup(one.group, one.proxy) for one in typed.find(documents, ProxyOfSupplier, where)
    }


def members_of(documents: DocumentStore, placed: Collection[IdentityGroupRecord]) -> dict[str, Sequence[str]]:
    """By supplier all members of its group, its own key among them; those of one group share one list.

    Records name those of small groups. Of large ones members are who was placed in the group by the same
    comparison, or by the newest where that was made anew meanwhile.
    """
    groups = {one.group for one in placed if one.size > len(one.members)}
    found: dict[str, dict[datetime, list[str]]] = {group: {} for group in groups}
    where = {"group": {"in": sorted(groups)}}
    for member in typed.find(documents, MemberOfGroup, where) if groups else ():
        found[member.group].setdefault(member.compared_at, []).append(member.id)
    for comparisons in found.values():
        for members in comparisons.values():
            members.sort()
    made: dict[str, Sequence[str]] = {}
    for one in placed:
        comparisons = found.get(one.group, {}) if one.size > len(one.members) else {}
        newest = max(comparisons, default=one.compared_at)
        made[one.id] = comparisons.get(one.compared_at) or comparisons.get(newest) or one.members
    return made


def proxies_of(
    documents: DocumentStore, suppliers: Mapping[str, Supplier], references: Collection[str]
) -> dict[str, str]:
    """By supplier the other that stands for it, of suppliers by key.

    Nobody stands for who changed since the groups were made, nor who changed for anybody. Nobody stands for
    one of the ``references`` either: it is asked all docs itself.
    """
    wanted = {"_id": {"in": sorted(suppliers)}}
    placed = {one.id: one for one in typed.find(documents, ProxyOfSupplier, wanted)}
    unchanged = {key for key, one in placed.items() if one.cut_at == suppliers[key].cut_at}
    return {
        key: placed[key].proxy
        for key in unchanged
        if placed[key].proxy != key and placed[key].proxy in unchanged and key not in references
    }
