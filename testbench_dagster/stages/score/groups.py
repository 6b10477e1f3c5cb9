"""Identity groups as scores look at them: who is in one, and who stands for whom now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from testbench_dagster.core.records.identity import GroupMembers, ProxyOfSupplier
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stores.documents import DocumentStore, typed


@dataclass(frozen=True)
class IdentityGroup:
    """An identity group of several suppliers, by key, ascending, and who stands for it."""

    id: str
    members: tuple[str, ...]
    proxy: str


def identity_groups(documents: DocumentStore, suppliers: Iterable[str]) -> dict[str, IdentityGroup]:
    """By supplier the identity group it is in with others; who stands alone is left out."""
    found = {}
    for placed in typed.find(documents, GroupMembers, {"_id": {"in": sorted(suppliers)}}):
        members = tuple(sorted(placed.members))
        if len(members) > 1:
            found[placed.id] = IdentityGroup(placed.group, members, placed.proxy)
    return found


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
