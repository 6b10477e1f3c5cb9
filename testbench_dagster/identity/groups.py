"""Who answers like whom: groups of suppliers by complete linkage of evidence.

Two clusters join when the evidence between their pooled majorities reaches the family-wise threshold and
nothing speaks against any pair across them: no noisy member, no split, no pair that leans to two models. A
chain A ~ B ~ C with A and C apart therefore never becomes one group. The strongest pairs join first; equal
ones in the order of their names, so that equal evidence gives equal groups.

A group of the last time stays together, without proving itself anew, as long as nothing speaks against a
pair in it: an e-value that once reached its threshold has rejected the null. Members whose model changed
since (``cut_at``) start alone.

How answers begin is not enough where whole answers are known (:mod:`.content`): these have to be equal too.

What is claimed is that suppliers answer alike at temperature 0, on prompts all were sent; never what a
supplier runs.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from testbench_dagster.core.wording import counted
from testbench_dagster.identity.content import Content
from testbench_dagster.identity.evidence import NONE, Evidence
from testbench_dagster.identity.kernel import moment
from testbench_dagster.identity.linkage import Linkage
from testbench_dagster.identity.mixtures import Suspect, find_suspects
from testbench_dagster.identity.nearest import Nearest
from testbench_dagster.identity.pairs import PairFinding, majorities
from testbench_dagster.identity.settings import IdentityError, IdentitySettings
from testbench_dagster.identity.tables import MANY, PairTables
from testbench_dagster.statistics.intervals import wilson

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is remembered of a supplier's last grouping: its group and proxy, and when it became a member."""

    supplier: str
    group: str
    proxy: str
    since: datetime
    rotates_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Suppliers that answer alike, or one that stands alone. ``since``: when each member joined."""

    id: str
    members: tuple[str, ...]
    since: Mapping[str, datetime]


@dataclass(frozen=True, slots=True)
class Profile:
    """How a supplier stands to itself and to the others.

    ``answers``: informative prompts; ``repeats``: comparisons with its own earlier answers, of which
    ``self_agreement`` agreed (None without any), in ``self_low`` to ``self_high`` with 95 %. ``nearest``: the
    other group whose majority it agrees with most, on ``nearest_common`` prompts, with a 95 % interval.
    """

    supplier: str
    group: str
    answers: int
    self_agreement: float | None
    self_low: float
    self_high: float
    repeats: int
    nearest: str | None
    nearest_agreement: float | None
    nearest_low: float | None
    nearest_high: float | None
    nearest_common: int
    reason: str


class Grouping:
    """The outcome of :func:`find_groups`; :meth:`pair` explains any two suppliers."""

    def __init__(
        self,
        groups: tuple[Group, ...],
        profiles: Mapping[str, Profile],
        suspects: tuple[Suspect, ...],
        contested: tuple[tuple[str, str], ...],
        tables: PairTables,
        content: Content | None = None,
    ) -> None:
        self.groups = groups
        self.profiles = profiles
        self.suspects = suspects
        #: Pairs whose own evidence would merge them, in different groups: a third kept them apart.
        self.contested = contested
        self._tables = tables
        self._content = content
        self._group_of = {member: group for group in groups for member in group.members}

    def group_of(self, supplier: str) -> Group:
        """The group of a supplier of the evidence. Raises IdentityError for another."""
        self._tables.number(supplier)
        return self._group_of[supplier]

    def pair(self, i: str, j: str) -> PairFinding:
        """What common prompts say of two suppliers. Raises IdentityError for one without evidence."""
        together = self.group_of(i) is self.group_of(j)
        found = self._tables.finding(self._tables.number(i), self._tables.number(j), together)
        whole = None if together or self._content is None else self._content.unlike(i, j)
        if found.relation != "same stack" or whole is None:
            return found
        begun, _, _ = found.wording.partition(":")
        wording = (
            f"{begun}, but only {whole[1]} of {counted(whole[0], 'whole answer')} are equal: certainly two"
        )
        return replace(found, relation="different", split=True, wording=wording)


def find_groups(
    evidence: Evidence,
    settings: IdentitySettings | None = None,
    previous: Iterable[Assignment] = (),
    *,
    now: datetime,
    content: Content | None = None,
    apart: Collection[tuple[str, str]] = (),
) -> Grouping:
    """Groups of all suppliers of the evidence, each in exactly one.

    ``previous`` is the last outcome: groups keep their names while a majority of their members stays.
    ``content``: whole answers, which have to be alike as well before any join; None to look at beginnings
    only. ``apart``: pairs that were found to differ otherwise and are in no group together.
    Settings are those the evidence was made with. Raises IdentityError for other settings or times without a
    zone.
    """
    if settings is not None and settings != evidence.settings:
        raise IdentityError("settings differ from those of the evidence; make the evidence with them")
    moment("now", now)
    before = _valid(evidence, previous)
    tables = PairTables(evidence, [members for _, members in sorted(_by_group(before).items())], apart)
    clusters = Linkage(tables, content).clusters()
    groups = _named(evidence, clusters, before, now)

    import numpy as np

    labels = np.empty(len(evidence.suppliers), dtype=np.int64)
    for number, group in enumerate(groups):
        for member in group.members:
            labels[evidence.index[member]] = number
    majority = majorities(evidence.cells, labels, len(groups))
    nearest = Nearest.of(evidence, labels, len(groups))
    suspects = find_suspects(evidence, majority, labels, tuple(g.id for g in groups), nearest)
    profiles = _profiles(tables, groups, labels, nearest, {s.supplier for s in suspects})
    contested = tuple(
        (evidence.suppliers[i], evidence.suppliers[j])
        for i, j, e in zip(tables.first, tables.second, tables.merge, strict=True)
        if e >= tables.threshold and labels[i] != labels[j]
    )
    return Grouping(groups, profiles, suspects, contested, tables, content)


def _valid(evidence: Evidence, previous: Iterable[Assignment]) -> dict[str, Assignment]:
    """The last assignments of suppliers that are still here with the model they had."""
    valid = {}
    for assignment in previous:
        since = moment(f"since of {assignment.supplier}", assignment.since)
        cut = evidence.cut_at.get(assignment.supplier)
        if assignment.supplier in evidence.index and not (cut is not None and cut > since):
            valid[assignment.supplier] = assignment
    return valid


def _by_group(assignments: Mapping[str, Assignment]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = defaultdict(list)
    for assignment in assignments.values():
        members[assignment.group].append(assignment.supplier)
    return members


def _named(
    evidence: Evidence, clusters: list[list[int]], before: Mapping[str, Assignment], now: datetime
) -> tuple[Group, ...]:
    """Clusters with names: that of the last group a majority of whose members is here, or a new one."""
    sizes = Counter(assignment.group for assignment in before.values())
    members = [tuple(evidence.suppliers[i] for i in cluster) for cluster in clusters]
    names: list[str | None] = []
    for names_here in members:
        here = Counter(before[m].group for m in names_here if m in before)
        stays = sorted(((n, g) for g, n in here.items() if 2 * n > sizes[g]), key=lambda x: (-x[0], x[1]))
        names.append(stays[0][1] if stays else None)
    used = {name for name in names if name} | set(sizes)
    groups = []
    for names_here, name in zip(members, names, strict=True):
        attempt = 0
        while name is None:
            text = "\n".join((*names_here, str(attempt)))
            fresh = "g-" + hashlib.sha256(text.encode()).hexdigest()[:12]
            attempt += 1
            if fresh not in used:
                name = fresh
                used.add(fresh)
        since = {m: before[m].since if m in before and before[m].group == name else now for m in names_here}
        groups.append(Group(name, names_here, since))
    return tuple(sorted(groups, key=lambda g: g.id))


def _alone(tables: PairTables, i: int, answers: np.ndarray) -> str:
    """Why a supplier stands alone: told apart from all others, or not surely like any of them yet."""
    import numpy as np

    answered = int(answers[i])
    others = np.flatnonzero((answers > 0) & (np.arange(len(answers)) != i))
    if not len(others):
        return f"{counted(answered, 'prompt')} answered; nobody else to compare with"
    unclear = others[~tables.told_apart(i, others)]
    if not len(unclear):
        return f"answers like nobody else on {counted(answered, 'prompt')}"
    apart = f"{len(others) - len(unclear)} of {counted(len(others), 'other')}"
    told = f"told apart from {apart} on {counted(answered, 'prompt')}"
    common, agree = (n[0].astype(int) for n in tables.counts.cross(np.array([i]), unclear))
    best = int(((agree + 0.5) / (common + 2.0)).argmax())
    if not common[best]:
        return f"{told}; with the rest it has no prompts in common yet"
    near = tables.evidence.suppliers[unclear[best]]
    return (
        f"{told}; nearest of the rest is {near}, which begins {agree[best]} of "
        f"{counted(common[best], 'common prompt')} alike: whether they are alike is not certain yet"
    )


def _alone_among_many(nearest: str | None, common: int, agree: int, answered: int) -> str:
    """The same where to look at everybody else would take too long: it says which group is nearest."""
    told = f"alike with no group beyond doubt, on {counted(answered, 'prompt')}"
    if nearest is None:
        return f"{told}; with too few prompts in common with any to say which is nearest"
    return f"{told}; nearest is {nearest}, which begins {agree} of {counted(common, 'common prompt')} alike"


def _profiles(
    tables: PairTables,
    groups: tuple[Group, ...],
    labels: np.ndarray,
    nearest: Nearest,
    suspects: set[str],
) -> dict[str, Profile]:
    evidence, selves = tables.evidence, tables.selves
    answered = (evidence.cells != NONE).sum(axis=1)
    profiles = {}
    for i, name in enumerate(evidence.suppliers):
        group = groups[labels[i]]
        near = int(nearest.group[i])
        known = near != NONE
        n, k = (int(nearest.common[i]), int(nearest.agree[i])) if known else (0, 0)
        low, high = wilson(k, n) if n else (None, None)
        others = len(group.members) - 1
        if name in suspects:
            reason = "its answers are those of two groups"
        elif selves.noisy[i]:
            reason = (
                f"repeats itself on {selves.rate[i]:.0%} of {counted(int(evidence.repeats[i]), 'prompt')} "
                "asked again: too noisy to say whom it answers like"
            )
        elif others:
            n_own = int(nearest.own_common[i])
            reason = f"answers like {counted(others, 'other')} on {counted(n_own, 'common prompt')}"
        elif not answered[i]:
            reason = "no informative answers yet"
        elif len(evidence.suppliers) > MANY:
            reason = _alone_among_many(groups[near].id if known else None, n, k, int(answered[i]))
        else:
            reason = _alone(tables, i, answered)
        profiles[name] = Profile(
            supplier=name,
            group=group.id,
            answers=int(answered[i]),
            self_agreement=float(selves.rate[i]) if evidence.repeats[i] else None,
            self_low=float(selves.low[i]),
            self_high=float(selves.high[i]),
            repeats=int(evidence.repeats[i]),
            nearest=groups[near].id if known else None,
            nearest_agreement=k / n if n else None,
            nearest_low=low,
            nearest_high=high,
            nearest_common=n,
            reason=reason,
        )
    return profiles
