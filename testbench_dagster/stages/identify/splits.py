"""Members that no longer answer like their proxy: found, recorded, and kept apart for the time being.

A split is a fact (``splits``): from then on the supplier has own docs alone, and is asked in full. It is
grouped again with those it was apart from at the earliest once both have answered so many new docs
(:attr:`~testbench_dagster.identity.IdentitySettings.apart_docs`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from testbench_dagster.core.records.identity import GroupAssignment
from testbench_dagster.core.records.splits import KnownSplit, SplitRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.wording import counted
from testbench_dagster.identity import Change, Divergence, GradedAnswer, IdentitySettings, find_divergence
from testbench_dagster.identity.content import graded_by_supplier
from testbench_dagster.identity.splits import odd_ones
from testbench_dagster.stages.discover.roster import plan_at_once
from testbench_dagster.stages.identify.reading import read_failed, read_graded
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Where, document_id, typed

#: Members that are looked at at once when their proxy was evaluated.
_MEMBERS = 20
#: What makes a member a witness against its proxy, where another is certain to differ from it.
_WITNESS_ALPHA = 0.2


@dataclass(frozen=True)
class Apart:
    """Pairs that are kept apart, and by supplier the split that is in force."""

    pairs: frozenset[tuple[str, str]]
    splits: Mapping[str, KnownSplit]


def record_splits(
    workspace: Workspace,
    service: str,
    suppliers: Sequence[Supplier],
    now: datetime,
    settings: IdentitySettings,
    evaluated: Collection[str] | None = None,
) -> list[SplitRecord]:
    """Find and store splits in the groups of a service, return the new ones.

    ``evaluated``: only what these suppliers answered is looked at; None for all.
    """
    by_key = {s.key: s for s in suppliers}
    where: Where = {"_id": {"in": sorted(by_key)}}
    if evaluated is not None:
        own = typed.find(workspace.documents, GroupAssignment, {"_id": {"in": sorted(evaluated)}})
        where = {"group": {"in": sorted({one.group for one in own})}}
    placed = {
        one.id: one
        for one in typed.find(workspace.documents, GroupAssignment, where)
        if one.id in by_key and one.cut_at == by_key[one.id].cut_at
    }
    groups: dict[str, list[str]] = {}
    for key, one in placed.items():
        groups.setdefault(one.group, []).append(key)
    found: list[SplitRecord] = []
    for members in groups.values():
        proxy = placed[members[0]].proxy
        if len(members) < 2 or proxy not in placed or placed[proxy].group != placed[members[0]].group:
            continue
        others = sorted(member for member in members if member != proxy)
        chosen = others
        if evaluated is not None and not (proxy in evaluated and len(members) <= _MEMBERS):
            chosen = [member for member in others if member in evaluated]
        if chosen:
            found += _of_group(workspace, service, by_key, placed, others, chosen, proxy, now, settings)
    # asked in full from now on, and so is whoever stands for nobody any more
    plan_at_once(workspace.documents, {key for split in found for key in (split.supplier, split.proxy)}, now)
    return found


def record_departures(
    workspace: Workspace,
    service: str,
    suppliers: Sequence[Supplier],
    changes: Sequence[Change],
    now: datetime,
) -> list[SplitRecord]:
    """Store splits of members that no longer answer like others of their group, as far as only these tell.

    Which of them changed their own repeats are to decide; until then each has own docs alone.
    """
    keys = {s.key for s in suppliers}
    placed = typed.by_id(workspace.documents, GroupAssignment, [c.supplier for c in changes])
    records = []
    for change in changes:
        apart_from = sorted(keys.intersection(change.against))
        if not apart_from or change.supplier not in placed:
            continue
        proxy = placed[change.supplier].proxy
        records.append(
            SplitRecord(
                id=document_id("split", change.supplier, proxy, str(change.at)),
                supplier=change.supplier,
                service=service,
                proxy=proxy if proxy in apart_from else apart_from[0],
                at=change.detected_at,
                detected_at=now,
                apart_from=apart_from,
                docs=change.observations,
                differ=change.since_change * (1 - change.rate_after),
                mean_difference=0.0,
                log_e=change.log_e,
                reason=f"split off {change.detected_at:%Y-%m-%d %H:%M}: {change.wording}",
            )
        )
    if not records or not typed.put_new(workspace.documents, SplitRecord, records):
        return []
    plan_at_once(workspace.documents, {k for one in records for k in (one.supplier, one.proxy)}, now)
    return records


def _of_group(
    workspace: Workspace,
    service: str,
    by_key: Mapping[str, Supplier],
    placed: Mapping[str, GroupAssignment],
    others: Sequence[str],
    chosen: Sequence[str],
    proxy: str,
    now: datetime,
    settings: IdentitySettings,
) -> list[SplitRecord]:
    tasks = [spec.name for spec in workspace.specs if not spec.signs]

    def graded(keys: Sequence[str]) -> Mapping[str, list[GradedAnswer]]:
        some = [by_key[key] for key in keys]
        # what one leaves unanswered and the other does not tells them apart like any other difference
        return graded_by_supplier([*read_graded(workspace, some, now), *read_failed(workspace, some, now)])

    def diverged(member: str, answers: Sequence[GradedAnswer], alpha: float) -> Divergence | None:
        since = max(placed[member].since, placed[proxy].since)
        return find_divergence(answers, of_proxy, tasks, since, replace(settings, divergence_alpha=alpha))

    answers = graded([proxy, *chosen])
    of_proxy = answers.get(proxy, [])
    certain = {
        member: one
        for member in chosen
        if (one := diverged(member, answers.get(member, []), settings.divergence_alpha)) is not None
    }
    if not certain:
        return []
    rest = graded([member for member in others if member not in answers])
    witnesses = dict(certain)
    for member in others:
        own = answers.get(member) or rest.get(member, [])
        if member not in certain and (one := diverged(member, own, _WITNESS_ALPHA)) is not None:
            witnesses[member] = one
    odd = odd_ones(witnesses, [proxy, *others], proxy)
    records = []
    for supplier, apart_from in odd.items():
        if supplier != proxy and supplier not in certain:
            continue
        one = certain.get(supplier) or max(certain.values(), key=lambda d: d.log_e)
        sign = -1 if supplier == proxy else 1
        records.append(_record(supplier, service, proxy, apart_from, one, sign, now))
    return records if typed.put_new(workspace.documents, SplitRecord, records) else []


def _record(
    supplier: str,
    service: str,
    proxy: str,
    apart_from: list[str],
    one: Divergence,
    sign: int,
    now: datetime,
) -> SplitRecord:
    against = f"most of its group, such as {apart_from[0]}" if supplier == proxy else proxy
    return SplitRecord(
        id=document_id("split", supplier, proxy, str(one.at)),
        supplier=supplier,
        service=service,
        proxy=proxy,
        at=one.at,
        detected_at=now,
        apart_from=apart_from,
        docs=one.docs,
        differ=one.differ,
        mean_difference=sign * one.mean,
        log_e=one.log_e,
        reason=f"split off {one.at:%Y-%m-%d %H:%M}: on {counted(one.docs, 'common doc')} its scores "
        f"differed from those of {against} by {counted(one.differ, 'doc', 'g')}, "
        f"{sign * one.mean:+.2f} in the mean",
    )


def kept_apart(
    workspace: Workspace, suppliers: Sequence[Supplier], now: datetime, settings: IdentitySettings
) -> Apart:
    """Who is not grouped with whom at this instant, of some suppliers."""
    by_key = {s.key: s for s in suppliers}
    known = typed.find(
        workspace.documents, KnownSplit, {"supplier": {"in": sorted(by_key)}}, sort=[("at", 1)]
    )
    newest: dict[tuple[str, str], KnownSplit] = {}
    for split in known:
        for other in split.apart_from:
            if other in by_key:
                newest[split.supplier, other] = split
    if not newest:
        return Apart(frozenset(), {})
    answers = graded_by_supplier(
        read_graded(workspace, [by_key[key] for key in sorted({k for pair in newest for k in pair})], now)
    )

    def docs_after(key: str, at: datetime) -> set[tuple[str, str]]:
        return {(one.task, one.doc) for one in answers.get(key, ()) if one.at > at and not one.failed}

    pairs, splits = set(), {}
    for (supplier, other), split in newest.items():
        common = docs_after(supplier, split.at) & docs_after(other, split.at)
        if len(common) < settings.apart_docs:
            pairs.add((supplier, other))
            splits[supplier] = split
    return Apart(frozenset(pairs), splits)
