"""The identity stage: groups of suppliers that answer alike, their proxies, and detected changes, stored.

Groups are a view (``identity_groups``, one document per supplier), made anew from the stored answers. Changes
are facts (``changes``), found by reading each supplier's answers and scores since its last cut in the order
they came: a change has an id made of what it says, so finding it again adds nothing. It is recorded before
the supplier is cut, so that no cut goes without its reason, whenever the process dies.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from testbench_dagster.core.clock import is_ahead
from testbench_dagster.core.records.identity import (
    MEMBERS_TOLD,
    ChangeRecord,
    GroupAssignment,
    IdentityGroupRecord,
    ProxyOfSupplier,
    ScoreStreamRecord,
)
from testbench_dagster.core.records.plans import FailedEvaluations
from testbench_dagster.core.records.splits import KnownSplit, SplitRecord
from testbench_dagster.core.records.suspicions import SuspicionRecord
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.identity import (
    AnswerTable,
    Assignment,
    Change,
    Content,
    GradedAnswer,
    Group,
    Grouping,
    IdentitySettings,
    elect,
    find_changes,
    find_divergence,
    find_groups,
    score_change,
    stays,
)
from testbench_dagster.identity.content import graded_by_supplier
from testbench_dagster.identity.evidence import Evidence
from testbench_dagster.stages.discover.roster import active_suppliers, cut_windows
from testbench_dagster.stages.identify.reading import (
    docs_per_task,
    read_answers,
    read_availability,
    read_failed,
    read_graded,
)
from testbench_dagster.stages.identify.score_streams import ScoreStreams
from testbench_dagster.stages.identify.splits import (
    Watched,
    kept_apart,
    record_departures,
    record_splits,
    watch_groups,
)
from testbench_dagster.stages.identify.suspicions import refresh_suspicions
from testbench_dagster.stages.plan.planner import PROXY_FAILURES
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import Where, document_id, typed

_MOMENT = timedelta(milliseconds=1)  # what the stores tell apart
#: Suppliers, of whole groups, whose scores are compared at a time: some 100 kB each while they are.
_SUPPLIERS = 500
#: Records that are written at a time: with the members that they name some 5 kB each.
_RECORDS = 2_000


@dataclass
class IdentityReport:
    """What a comparison found: records of ``identity_groups``, suspects by supplier, changes and splits.

    ``suspicions`` are looked for where all services are compared only. ``groupings`` hold the evidence
    behind, by service.
    """

    documents: list[IdentityGroupRecord] = field(default_factory=list)
    suspects: dict[str, str] = field(default_factory=dict)
    changes: list[ChangeRecord] = field(default_factory=list)
    splits: list[SplitRecord] = field(default_factory=list)
    suspicions: list[SuspicionRecord] = field(default_factory=list)
    n_answers: int = 0
    groupings: dict[str, Grouping] = field(default_factory=dict)

    @property
    def n_suppliers(self) -> int:
        """How many suppliers were compared."""
        return len(self.documents)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Members of the groups of several, by group."""
        return {
            group.id: list(group.members)
            for grouping in self.groupings.values()
            for group in grouping.groups
            if len(group.members) > 1
        }


def identity_settings(workspace: Workspace) -> IdentitySettings:
    """The constants of identity, as far as the configuration sets them."""
    return IdentitySettings(rotation_days=workspace.config.settings.identity.rotate_days)


def refresh_identity(
    workspace: Workspace, *, services: Iterable[str] | None = None, now: datetime | None = None
) -> IdentityReport:
    """Compare all active suppliers, of all or the named services; record changes, store groups and proxies.

    A member that left its group's answers leaves the group. Where its own repeats show the change too it is
    cut there, and compared once more without what it answered before.
    """
    now = now or datetime.now(UTC)
    report = IdentityReport()
    by_service = _by_service(workspace)
    for service in by_service if services is None else sorted(set(services)):
        suppliers = by_service.get(service, [])
        answers = AnswerTable.of(read_answers(workspace, service, suppliers, now))
        found = find_changes(
            answers,
            identity_settings(workspace),
            cut_at=cuts_of(suppliers),
            groups=_known_groups(workspace, suppliers),
        )
        recorded = record_changes(workspace, found, now)
        report.changes += recorded
        report.splits += record_departures(workspace, service, suppliers, _parting(workspace, found), now)
        splits, watched = watch_groups(workspace, service, suppliers, now, identity_settings(workspace))
        report.splits += splits
        if any(change.cut for change in recorded):
            suppliers = _by_service(workspace).get(service, [])
            answers = answers.since(cuts_of(suppliers))
        report.n_answers += len(answers)
        evidence = _group(workspace, service, suppliers, answers, watched, now, report)
        if services is None:
            report.suspicions += refresh_suspicions(
                workspace, service, suppliers, evidence, report.groupings[service], answers, now
            )
    if services is None:
        _forget(workspace, {placed.id for placed in report.documents})
    return report


def detect_changes(
    workspace: Workspace, keys: Sequence[str], now: datetime | None = None
) -> list[ChangeRecord]:
    """Look for changes in what suppliers answer to the same prompts, and in their scores over all tasks.

    What is found is recorded and, as ``identity.cut_on`` says, the supplier is cut and compared anew with the
    others of its service, so that it stands for nobody any more and nobody for it. Its plan is due at once:
    all its docs are asked anew. Members that differ from their proxy are split off likewise.

    Returns:
        The changes that were not known before, as stored.
    """
    now = now or datetime.now(UTC)
    wanted = set(keys)
    settings = identity_settings(workspace)
    recorded: list[ChangeRecord] = []
    for service, suppliers in _by_service(workspace).items():
        chosen = [s for s in suppliers if s.key in wanted]
        if not chosen:
            continue
        found = find_changes(read_answers(workspace, service, chosen, now), settings, cut_at=cuts_of(chosen))
        found += _score_changes(workspace, service, suppliers, chosen, now)
        new = record_changes(workspace, found, now)
        split = record_splits(workspace, service, suppliers, now, settings, wanted)
        if split or any(change.cut for change in new):
            refresh_identity(workspace, services=[service], now=now)
        recorded += new
    return recorded


def _score_changes(
    workspace: Workspace,
    service: str,
    suppliers: Sequence[Supplier],
    chosen: Sequence[Supplier],
    now: datetime,
) -> list[Change]:
    """The first change of the scores of each of the chosen suppliers since its cut, unless it is known."""
    cuts = cuts_of(chosen)
    streams = ScoreStreams(workspace, service, suppliers, now)
    found = (
        score_change(key, stream, streams.period, folded) for key, stream, folded in streams.read(chosen)
    )
    return [c for c in found if c is not None and not _reported(workspace, c, cuts.get(c.supplier))]


def _reported(workspace: Workspace, change: Change, cut_at: datetime | None) -> bool:
    """Whether a change of this era was recorded that is to be told only: its dates move with what follows."""
    if change.kind in workspace.config.settings.identity.cut_on:
        return False
    where: dict[str, Any] = {"supplier": change.supplier, "kind": change.kind, "task": None}
    if cut_at is not None:
        where["at"] = {"gt": cut_at + _MOMENT}
    return typed.count(workspace.documents, ChangeRecord, where) > 0


def record_changes(workspace: Workspace, found: Iterable[Change], now: datetime) -> list[ChangeRecord]:
    """Store changes and cut their suppliers where ``identity.cut_on`` says so; return the new ones.

    What only others' answers say of a supplier cuts nothing: else whoever copies it, and then changes, has
    its window voided (:func:`~testbench_dagster.stages.identify.splits.record_departures` parts them).
    """
    cut_on = workspace.config.settings.identity.cut_on
    new = []
    for change in found:
        record = ChangeRecord(
            id=document_id("change", change.supplier, change.kind, change.stream, str(change.at)),
            supplier=change.supplier,
            service=change.supplier.rpartition("@")[2],
            kind=change.kind,
            task=None,
            at=change.at,
            detected_at=now,
            seen_at=change.detected_at,
            cut=change.kind in cut_on and change.confirmed,
            reason=change.wording,
            before_at=change.before_at,
            log_e=change.log_e,
            arl=change.arl,
            observations=change.observations,
            since_change=change.since_change,
            null_rate=change.null_rate,
            rate_after=change.rate_after,
            direction=change.direction,
            certain=change.certain,
        )
        if typed.put_new(workspace.documents, ChangeRecord, [record]):
            new.append(record)
        if record.cut:
            cut_windows(workspace, change.supplier, change.at - _MOMENT, change.wording)
    return new


def _parting(workspace: Workspace, found: Iterable[Change]) -> list[Change]:
    """Changes that end the membership in a group, and no more than that."""
    cut_on = workspace.config.settings.identity.cut_on
    return [change for change in found if change.kind in cut_on and not change.confirmed]


def _group(
    workspace: Workspace,
    service: str,
    suppliers: Sequence[Supplier],
    answers: AnswerTable,
    watched: Watched,
    now: datetime,
    report: IdentityReport,
) -> Evidence:
    settings = identity_settings(workspace)
    cuts = cuts_of(suppliers)
    previous = _last_groups(workspace, suppliers, now)
    evidence = Evidence.of(answers, settings, cut_at=cuts, suppliers=[s.key for s in suppliers])
    apart = kept_apart(workspace, suppliers, now, settings)
    grouping = _grouped(workspace, suppliers, evidence, answers, list(previous.values()), apart.pairs, now)
    report.groupings[service] = grouping
    suspects = {suspect.supplier: suspect.wording for suspect in grouping.suspects}
    failing = {
        plan.id
        for plan in typed.find(workspace.documents, FailedEvaluations, {"service": service})
        if (plan.failures or 0) >= PROXY_FAILURES
    }
    alive = {s.key for s in suppliers} - failing
    references = [key for key in workspace.config.settings.reference_keys if key in alive]
    elections = [
        _Election(group, _trusted(group, references), _before(group, previous)) for group in grouping.groups
    ]
    voted = {key for one in elections if one.held(alive, now) for key in one.group.members}
    availability = read_availability(workspace, voted, now)
    records: list[IdentityGroupRecord] = []
    for election in elections:
        group = election.group
        proxy, rotates_at = _elected(election, grouping, availability, alive, now, settings)
        told = list(group.members[:MEMBERS_TOLD])
        records += [
            _record(
                service,
                key,
                group,
                told,
                proxy,
                rotates_at,
                grouping,
                suspects.get(key),
                cuts.get(key),
                apart.splits.get(key),
                watched.stamp(key, group, proxy, now),
                now,
            )
            for key in group.members
        ]
    for start in range(0, len(records), _RECORDS):
        typed.upsert(workspace.documents, IdentityGroupRecord, records[start : start + _RECORDS])
    report.documents += records
    report.suspects |= suspects
    return evidence


def compared(
    workspace: Workspace, service: str, suppliers: Sequence[Supplier], now: datetime
) -> tuple[Evidence, Grouping]:
    """Compare suppliers of a service as :func:`refresh_identity` does, without recording anything."""
    settings = identity_settings(workspace)
    answers = AnswerTable.of(read_answers(workspace, service, suppliers, now))
    evidence = Evidence.of(answers, settings, cut_at=cuts_of(suppliers))
    apart = kept_apart(workspace, suppliers, now, settings)
    previous = list(_last_groups(workspace, suppliers, now).values())
    return evidence, _grouped(workspace, suppliers, evidence, answers, previous, apart.pairs, now)


def _last_groups(workspace: Workspace, suppliers: Sequence[Supplier], now: datetime) -> dict[str, Assignment]:
    """Where suppliers were placed last, of those that have not changed since.

    What was drawn by a clock that was ahead, and has been set back, is no date at which a proxy makes room.
    """
    cuts = cuts_of(suppliers)
    # a cut may lie before the grouping it undoes: what counts is whether it was known then
    return {
        placed.id: Assignment(
            placed.id,
            placed.group,
            placed.proxy,
            placed.since,
            None if is_ahead(placed.compared_at, now) else placed.rotates_at,
        )
        for placed in typed.find(workspace.documents, GroupAssignment, _of(suppliers))
        if placed.cut_at == cuts.get(placed.id)
    }


def _grouped(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    evidence: Evidence,
    answers: AnswerTable,
    previous: Sequence[Assignment],
    apart: frozenset[tuple[str, str]],
    now: datetime,
) -> Grouping:
    """Groups of who begins answers alike and, where that would join them anew, gives whole answers alike."""
    settings = evidence.settings
    grouping = find_groups(evidence, settings, previous, now=now, apart=apart)
    before = {one.supplier: one.group for one in previous}
    joining = [
        group.members
        for group in grouping.groups
        if len({before.get(member, member) for member in group.members}) > 1
    ]
    if not joining:
        return grouping
    del grouping  # its tables are as large as those of the next
    content, differing = _whole(workspace, suppliers, answers, joining, settings, now)
    return find_groups(evidence, settings, previous, now=now, content=content, apart=apart | differing)


def _whole(
    workspace: Workspace,
    suppliers: Sequence[Supplier],
    answers: AnswerTable,
    groups: Sequence[Sequence[str]],
    settings: IdentitySettings,
    now: datetime,
) -> tuple[Content, set[tuple[str, str]]]:
    """Whole answers of the members of groups, and pairs of members whose scores of common docs differ."""
    by_key = {supplier.key: supplier for supplier in suppliers}
    tasks = [spec.name for spec in workspace.specs if not spec.signs]
    first = docs_per_task(workspace, suppliers)
    content = Content(settings=settings)
    differing: set[tuple[str, str]] = set()
    wanted = ([by_key[member] for member in members] for members in groups)
    for some in _batches(wanted):
        chosen = [supplier for group in some for supplier in group]
        graded = list(read_graded(workspace, chosen, now, first=first))
        content.add(graded)
        delivered = graded_by_supplier([*graded, *read_failed(workspace, chosen, now)])
        differing |= _differing(some, delivered, tasks, settings)
    signing = {spec.name for spec in workspace.specs if spec.signs}
    for supplier in sorted(member for members in groups for member in members) if signing else ():
        content.add(
            GradedAnswer(one.supplier, one.family, one.prompt, one.at, one.answer_prefix, None)
            for one in answers.of_supplier(supplier)
            if one.family in signing
        )
    content.settle()
    return content, differing


def _batches(groups: Iterable[list[Supplier]]) -> Iterator[list[list[Supplier]]]:
    """Groups, so many together that the answers of their members lie in memory and queries are few."""
    batch: list[list[Supplier]] = []
    for group in groups:
        if group:
            batch.append(group)
        if sum(map(len, batch)) >= _SUPPLIERS:
            yield batch
            batch = []
    if batch:
        yield batch


def _differing(
    groups: Sequence[Sequence[Supplier]],
    graded: Mapping[str, Sequence[GradedAnswer]],
    tasks: Sequence[str],
    settings: IdentitySettings,
) -> set[tuple[str, str]]:
    """Who would be grouped with whom, though their scores of common docs differ.

    Each is compared with the one of its group that answered most.
    """
    found = set()
    for group in groups:
        known = [member.key for member in group if member.key in graded]
        if len(known) > 1:
            answered = {member: sum(not one.failed for one in graded[member]) for member in known}
            most = max(known, key=lambda member: (answered[member], member))
            found |= {
                (member, most)
                for member in known
                if member != most
                and find_divergence(graded[member], graded[most], tasks, settings=settings) is not None
            }
    return found


@dataclass(frozen=True)
class _Election:
    """What decides who stands for a group: a member that is ``trusted``, or who stood for it ``before``."""

    group: Group
    trusted: str | None
    before: Assignment | None

    def held(self, alive: set[str], now: datetime) -> bool:
        """Whether members are compared by how available they were."""
        members = self.group.members
        alone = len(members) == 1 or self.trusted is not None
        return not alone and not stays(members, alive=alive, previous=self.before, now=now)


def _trusted(group: Group, references: Sequence[str]) -> str | None:
    """The first of the references that is a member."""
    return next((key for key in references if key in group.members), None)


def _before(group: Group, previous: Mapping[str, Assignment]) -> Assignment | None:
    """A member's place in the same group when it was compared last."""
    return next(
        (p for key in group.members if (p := previous.get(key)) is not None and p.group == group.id), None
    )


def _elected(
    election: _Election,
    grouping: Grouping,
    availability: Mapping[str, float],
    alive: set[str],
    now: datetime,
    settings: IdentitySettings,
) -> tuple[str, datetime | None]:
    """Who stands for a group, and until when; None where nobody else's turn comes."""
    members = election.group.members
    if len(members) == 1:
        return members[0], None
    if election.trusted is not None:
        # it is asked all docs anyhow; so every doc that a member is asked is one to compare the two on
        return election.trusted, None
    made = elect(
        members,
        availability=availability,
        self_agreement={key: grouping.profiles[key].self_agreement for key in members},
        alive=alive,
        previous=election.before,
        now=now,
        rng=random.SystemRandom(),
        settings=settings,
    )
    return made.proxy, made.rotates_at


def _record(
    service: str,
    key: str,
    group: Group,
    told: list[str],
    proxy: str,
    rotates_at: datetime | None,
    grouping: Grouping,
    suspect: str | None,
    cut_at: datetime | None,
    split: KnownSplit | None,
    watched: tuple[datetime | None, str | None],
    now: datetime,
) -> IdentityGroupRecord:
    profile = grouping.profiles[key]
    like = grouping.pair(key, proxy) if key != proxy else None
    alone = len(group.members) == 1
    return IdentityGroupRecord(
        id=key,
        service=service,
        group=group.id,
        proxy=proxy,
        role="alone" if alone else "proxy" if key == proxy else "member",
        members=told,
        n_members=len(group.members),
        since=group.since[key],
        rotates_at=rotates_at,
        compared_at=now,
        n_prompts=profile.answers,
        self_agreement=profile.self_agreement,
        self_low=profile.self_low,
        self_high=profile.self_high,
        repeats=profile.repeats,
        agreement=like.agreement if like else None,
        distance=like.distance if like else None,
        nearest=profile.nearest,
        nearest_agreement=profile.nearest_agreement,
        nearest_low=profile.nearest_low,
        nearest_high=profile.nearest_high,
        nearest_common=profile.nearest_common,
        suspect=suspect,
        reason=profile.reason if split is None else f"{split.reason}; {profile.reason}",
        cut_at=cut_at,
        split_at=None if split is None else split.at,
        watched_at=watched[0],
        watched_as=watched[1],
    )


def _by_service(workspace: Workspace) -> dict[str, list[Supplier]]:
    found: dict[str, list[Supplier]] = {}
    for supplier in active_suppliers(workspace):
        found.setdefault(supplier.service, []).append(supplier)
    return found


def cuts_of(suppliers: Iterable[Supplier]) -> dict[str, datetime]:
    """When the models of suppliers last changed, of those that did."""
    return {s.key: s.cut_at for s in suppliers if s.cut_at is not None}


def _of(suppliers: Iterable[Supplier]) -> Where:
    """Matches what is stored under the keys of suppliers."""
    return {"_id": {"in": sorted(s.key for s in suppliers)}}


def _known_groups(workspace: Workspace, suppliers: Sequence[Supplier]) -> list[list[str]]:
    """Who was grouped with whom when suppliers were compared last."""
    members: dict[str, list[str]] = defaultdict(list)
    for placed in typed.find(workspace.documents, GroupAssignment, _of(suppliers)):
        members[placed.group].append(placed.id)
    return [group for group in members.values() if len(group) > 1]


def _forget(workspace: Workspace, known: set[str]) -> None:
    """Remove the documents of suppliers that left; who comes back is read from the facts again."""
    gone = {placed.id for placed in typed.find(workspace.documents, ProxyOfSupplier)} - known
    if gone:
        typed.purge(workspace.documents, IdentityGroupRecord, {"_id": {"in": sorted(gone)}})
        typed.purge(workspace.documents, ScoreStreamRecord, {"_id": {"in": sorted(gone)}})
