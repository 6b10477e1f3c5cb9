"""Members that no longer answer like their proxy: found, recorded, and kept apart for the time being.

A split is a fact (``splits``): from then on the supplier has own docs alone, and is asked in full. It is
grouped again with those it was apart from at the earliest once both have answered so many new docs
(:attr:`~testbench_dagster.identity.IdentitySettings.apart_docs`).

An evaluation looks at what it brought. A comparison of everybody looks at the members of whom, or of whose
proxy, something new was stored since the last one: what an evaluation left that was killed, and what came
late, is among it. All is looked at anew where the proxy, the tasks or this code are others than they were,
and once in a while.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from testbench_dagster.core.records.attempts import AttemptsOfSupplier
from testbench_dagster.core.records.identity import GroupAssignment, WatchedMember
from testbench_dagster.core.records.scores import ScoresOfSupplier
from testbench_dagster.core.records.splits import KnownSplit, SplitRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.versions import SPLITS, WINDOWS, scorer_version
from testbench_dagster.core.wording import counted
from testbench_dagster.identity import (
    Change,
    Divergence,
    GradedAnswer,
    Group,
    IdentitySettings,
    find_divergence,
)
from testbench_dagster.identity.content import graded_by_supplier
from testbench_dagster.identity.splits import odd_ones
from testbench_dagster.scoring.failures import failures_of, is_mean
from testbench_dagster.scoring.rows import primary_pair
from testbench_dagster.stages.discover.roster import plan_at_once
from testbench_dagster.stages.identify.reading import UNANSWERED, read_failed, read_graded
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Where, content_hash, document_id, typed

#: Members that are looked at at once when their proxy was evaluated.
_MEMBERS = 20
#: Records of a group that an evaluation reads to see whether it is that small: some may be of who left.
_RECORDS = 100
#: Suppliers whose scores are read and compared at a time: some 100 kB each while they are.
_SUPPLIERS = 500
#: What makes a member a witness against its proxy, where another is certain to differ from it.
_WITNESS_ALPHA = 0.2
#: Facts may be written so much later than they are dated.
_LATE = timedelta(hours=1)
#: How long what was compared once need not be compared again, while nothing new comes.
_ANEW = timedelta(days=7)


@dataclass(frozen=True)
class Apart:
    """Pairs that are kept apart, and by supplier the split that is in force."""

    pairs: frozenset[tuple[str, str]]
    splits: Mapping[str, KnownSplit]


@dataclass(frozen=True)
class Watched:
    """What a comparison of everybody looked at: who was placed where, and since when all of whom is known.

    ``made_by`` says what compares the scores of a supplier.
    """

    placed: Mapping[str, WatchedMember]
    at: Mapping[str, datetime]
    made_by: Callable[[str], str]

    def stamp(self, key: str, group: Group, proxy: str, now: datetime) -> tuple[datetime | None, str | None]:
        """``watched_at`` and ``watched_as`` of a member as it is placed now; None where all is to be read.

        Nothing counts of what both answered before one of them joined.
        """
        if max(group.since[key], group.since[proxy]) == now:
            return now, self.made_by(key)
        own, stands = self.placed.get(key), self.placed.get(proxy)
        as_before = (
            own is not None
            and stands is not None
            and own.group == stands.group == group.id
            and (own.since, stands.since) == (group.since[key], group.since[proxy])
            and (key == proxy or own.proxy == proxy)
        )
        return (self.at[key], self.made_by(key)) if as_before and key in self.at else (None, None)


@dataclass(frozen=True)
class _Members:
    """The members of a group that are looked at, and who stands for them. ``others``: all but the proxy."""

    group: str
    proxy: str
    chosen: Sequence[str]
    others: Callable[[], Sequence[str]]


def record_splits(
    workspace: Workspace,
    service: str,
    suppliers: Sequence[Supplier],
    now: datetime,
    settings: IdentitySettings,
    evaluated: Collection[str],
) -> list[SplitRecord]:
    """Find and store splits by what suppliers that were evaluated answered, return the new ones.

    Of a small group whose proxy was evaluated all members are looked at.
    """
    look = _Look(workspace, service, suppliers, now, settings)
    own = look.find({"_id": {"in": sorted(evaluated)}})
    groups = []
    for group in sorted({one.group for one in own}):
        some = list(typed.find(workspace.documents, WatchedMember, {"group": group}, limit=_RECORDS))
        few = len(some) < _RECORDS
        members = look.valid(some) if few else [one for one in own if one.group == group]
        if not members:
            continue
        proxy = members[0].proxy
        if not look.stands(proxy, group):
            continue
        keys = sorted(one.id for one in members if one.id != proxy)
        all_ = few and proxy in evaluated and len(keys) < _MEMBERS
        chosen = keys if all_ else [key for key in keys if key in evaluated]
        groups.append(_Members(group, proxy, chosen, partial(look.others, group, proxy)))
    found = look.splits(groups, only_chosen=True)
    _plan(workspace, found, now)
    return found


def watch_groups(
    workspace: Workspace,
    service: str,
    suppliers: Sequence[Supplier],
    now: datetime,
    settings: IdentitySettings,
) -> tuple[list[SplitRecord], Watched]:
    """Find and store splits in all groups of a service; return the new ones, and what was looked at.

    Only members are looked at of whom, or of whose proxy, something may be new since the last time.
    """
    look = _Look(workspace, service, suppliers, now, settings)
    made_by = _made_by(workspace, suppliers, settings)
    by_group: dict[str, list[str]] = {}
    for one in look.find({"_id": {"in": sorted(look.by_key)}}):
        by_group.setdefault(one.group, []).append(one.id)
    changed = look.changed(made_by)
    groups = []
    for group, members in by_group.items():
        proxy = look.placed[members[0]].proxy
        if len(members) > 1 and look.stands(proxy, group):
            others = sorted(member for member in members if member != proxy)
            chosen = others if proxy in changed else [member for member in others if member in changed]
            groups.append(_Members(group, proxy, chosen, partial(tuple, others)))
    found = look.splits(groups, only_chosen=False)
    _plan(workspace, found, now)
    seen = {key for one in groups if one.chosen for key in (one.proxy, *one.chosen)}
    known = {key: one.watched_at for key, one in look.placed.items() if key not in changed}
    at = {key: at for key, at in known.items() if at is not None} | dict.fromkeys(seen, now)
    return found, Watched(
        look.placed, {key: when for key, when in at.items() if key not in look.unsettled}, made_by
    )


def _plan(workspace: Workspace, found: Iterable[SplitRecord], now: datetime) -> None:
    """Have those asked in full from now on who were split off, and who stands for nobody any more."""
    plan_at_once(workspace.documents, {key for split in found for key in (split.supplier, split.proxy)}, now)


def _made_by(
    workspace: Workspace, suppliers: Sequence[Supplier], settings: IdentitySettings
) -> Callable[[str], str]:
    """By supplier a hash of what compares its scores: this code, its constants, the tasks it is asked."""
    max_age_days = workspace.config.settings.sampling.max_age_days
    tasks: dict[str, list[object]] = {}
    for spec in workspace.specs:
        registration = None if spec.signs else workspace.datasets.current(spec.name)
        if registration is None:
            tasks[spec.name] = [spec.signs]
            continue
        metric, name = primary_pair(spec, registration)
        worst = failures_of(spec, registration, metric, (0.0,)).worst
        age_s = spec.max_age(max_age_days).total_seconds()
        of_scores = [registration.task_hash, scorer_version(registration), metric, name]
        tasks[spec.name] = [*of_scores, is_mean(registration, metric), repr(worst), age_s]
    restricted = [spec for spec in workspace.specs if not spec.applies.for_everybody]
    by_key = {supplier.key: supplier for supplier in suppliers}
    made: dict[tuple[str, ...], str] = {}
    versions = [SPLITS.number, WINDOWS.number]  # which docs were left unanswered for good windows say

    def made_by(key: str) -> str:
        if key not in by_key:  # joined meanwhile: it is compared next time
            return ""
        spared = tuple(spec.name for spec in restricted if not spec.asked_of(by_key[key]))
        if spared not in made:
            made[spared] = content_hash([*versions, repr(settings), tasks, list(spared)])[:16]
        return made[spared]

    return made_by


class _Look:
    """Reads what members and their proxies answered, many at a time, and compares them.

    ``placed``: the suppliers whose last placing still holds. ``unsettled``: those of whom docs may come or go
    though they answer nothing more.
    """

    def __init__(
        self,
        workspace: Workspace,
        service: str,
        suppliers: Sequence[Supplier],
        now: datetime,
        settings: IdentitySettings,
    ) -> None:
        self._workspace, self._documents = workspace, workspace.documents
        self._service, self._now, self._settings = service, now, settings
        self._tasks = [spec.name for spec in workspace.specs if not spec.signs]
        self.by_key = {s.key: s for s in suppliers}
        self.placed: dict[str, WatchedMember] = {}
        self.unsettled: set[str] = set()

    def find(self, where: Where) -> list[WatchedMember]:
        """Records of suppliers that have not changed since."""
        return self.valid(typed.find(self._documents, WatchedMember, where))

    def valid(self, records: Iterable[WatchedMember]) -> list[WatchedMember]:
        """Those of suppliers that are active and have not changed since."""
        known = self.by_key
        found = [one for one in records if one.id in known and one.cut_at == known[one.id].cut_at]
        self.placed |= {one.id: one for one in found}
        return sorted(found)

    def stands(self, proxy: str, group: str) -> bool:
        """Whether a proxy is itself in the group it stands for."""
        if proxy not in self.placed:
            self.find({"_id": proxy})
        return proxy in self.placed and self.placed[proxy].group == group

    def others(self, group: str, proxy: str) -> Sequence[str]:
        """All members of a group but its proxy."""
        return [one.id for one in self.find({"group": group}) if one.id != proxy]

    def changed(self, made_by: Callable[[str], str]) -> set[str]:
        """Those of the placed of whom something may be new since they were compared last.

        Whoever was not compared then, or otherwise than it would be now, is one of them.
        """
        newest = max((one.compared_at for one in self.placed.values()), default=self._now)
        known = {
            key
            for key, one in self.placed.items()
            if one.watched_at is not None
            and self._now - _ANEW < one.watched_at
            and one.compared_at == newest <= self._now  # else a clock was set back meanwhile
            and one.watched_as == made_by(key)
        }
        return (self.placed.keys() - known) | (self._news(newest - _LATE) if known else set())

    def _news(self, since: datetime) -> set[str]:
        """Suppliers of whom scores, or attempts that brought no answer, were stored after an instant."""
        scored = {"service": self._service, "scored_at": {"gt": since}}
        lost = {"service": self._service, "finished_at": {"gt": since}, "fault": {"in": UNANSWERED}}
        return {row.supplier for row in typed.group(self._documents, ScoresOfSupplier, scored)} | {
            row.supplier for row in typed.group(self._documents, AttemptsOfSupplier, lost)
        }

    def splits(self, groups: Sequence[_Members], *, only_chosen: bool) -> list[SplitRecord]:
        """Find and store splits in groups, return the new ones; ``only_chosen`` members are split off."""
        certain: dict[str, dict[str, Divergence]] = {}
        for batch in self._batches(groups):
            answers = self._graded({key for one, member in batch for key in (one.proxy, member)})
            for one, member in batch:
                found = self._diverged(answers, member, one.proxy, self._settings.divergence_alpha)
                if found is not None:
                    certain.setdefault(one.group, {})[member] = found
        records: list[SplitRecord] = []
        for one in groups:
            if one.group in certain:
                records += self._of_group(one, certain[one.group], only_chosen=only_chosen)
        return records

    def _of_group(
        self, of: _Members, certain: dict[str, Divergence], *, only_chosen: bool
    ) -> list[SplitRecord]:
        """Splits of a group in which some are certain to differ from their proxy: the new ones, stored."""
        others = of.others()
        witnesses: dict[str, Divergence] = {}
        for start in range(0, len(others), _SUPPLIERS):
            some = [member for member in others[start : start + _SUPPLIERS] if member not in certain]
            answers = self._graded({of.proxy, *some})
            for member in some:
                found = self._diverged(answers, member, of.proxy, _WITNESS_ALPHA)
                if found is not None:
                    witnesses[member] = found
                    surely = self._diverged(answers, member, of.proxy, self._settings.divergence_alpha)
                    if surely is not None and not only_chosen:
                        certain[member] = surely
        odd = odd_ones(witnesses | certain, [of.proxy, *others], of.proxy)
        records = []
        for supplier, apart_from in odd.items():
            if supplier != of.proxy and supplier not in certain:
                continue
            one = certain.get(supplier) or max(certain.values(), key=lambda d: d.log_e)
            sign = -1 if supplier == of.proxy else 1
            records.append(_record(supplier, self._service, of.proxy, apart_from, one, sign, self._now))
        return records if typed.put_new(self._documents, SplitRecord, records) else []

    def _batches(self, groups: Iterable[_Members]) -> Iterator[list[tuple[_Members, str]]]:
        """Members that are looked at, so many together that answers lie in memory and queries are few."""
        batch: list[tuple[_Members, str]] = []
        whose: set[str] = set()
        for one in groups:
            for member in one.chosen:
                batch.append((one, member))
                whose |= {member, one.proxy}
                if len(whose) >= _SUPPLIERS:
                    yield batch
                    batch, whose = [], set()
        if batch:
            yield batch

    def _graded(self, keys: Collection[str]) -> Mapping[str, Sequence[GradedAnswer]]:
        some = [self.by_key[key] for key in sorted(keys)]
        # what one leaves unanswered and the other does not tells them apart like any other difference
        failed = read_failed(self._workspace, some, self._now, unsettled=self.unsettled)
        return graded_by_supplier([*read_graded(self._workspace, some, self._now), *failed])

    def _diverged(
        self, answers: Mapping[str, Sequence[GradedAnswer]], member: str, proxy: str, alpha: float
    ) -> Divergence | None:
        since = max(self.placed[member].since, self.placed[proxy].since)
        settings = replace(self._settings, divergence_alpha=alpha)
        return find_divergence(answers.get(member, []), answers.get(proxy, []), self._tasks, since, settings)


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
