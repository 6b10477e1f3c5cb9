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
import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from testbench_dagster.core.wording import counted
from testbench_dagster.identity import pairs
from testbench_dagster.identity.content import Content
from testbench_dagster.identity.evidence import NONE, Evidence
from testbench_dagster.identity.kernel import moment
from testbench_dagster.identity.mixtures import Suspect, find_suspects
from testbench_dagster.identity.pairs import PairFinding
from testbench_dagster.identity.settings import IdentityError, IdentitySettings
from testbench_dagster.identity.tables import PairTables
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
    clusters = _Linkage(tables, content).clusters()
    groups = _named(evidence, clusters, before, now)

    import numpy as np

    labels = np.empty(len(evidence.suppliers), dtype=np.int64)
    for number, group in enumerate(groups):
        for member in group.members:
            labels[evidence.index[member]] = number
    majority = pairs.majorities(evidence.cells, labels, len(groups))
    suspects = find_suspects(evidence, majority, labels, tuple(g.id for g in groups))
    profiles = _profiles(tables, groups, labels, majority, {s.supplier for s in suspects})
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


class _Linkage:
    """Agglomeration: clusters by number, their members and pooled answer prefixes."""

    def __init__(self, tables: PairTables, content: Content | None) -> None:
        import numpy as np

        self.tables = tables
        self.content = content
        size = len(tables.evidence.suppliers)
        self.of = list(range(size))
        self.members: dict[int, np.ndarray] = {i: np.array([i]) for i in range(size)}
        self._pooled: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}
        self._refused: set[tuple[int, int, int, int]] = set()
        for group in tables.before:
            self._keep(group)

    def clusters(self) -> list[list[int]]:
        """Join what may be joined; members in ascending order, clusters by their first."""
        tables = self.tables
        queue = [
            (-e, int(i), int(j))
            for e, i, j in zip(tables.merge.tolist(), tables.first, tables.second, strict=True)
            if e > 0
        ]
        heapq.heapify(queue)
        ordered = [heapq.heappop(queue)[1:] for _ in range(len(queue))]
        joined = True
        while joined:
            # evidence of grown clusters may reach what their parts did not
            joined = False
            for i, j in ordered:
                a, b = self.of[i], self.of[j]
                if a != b and self._may_join(a, b):
                    self._join(a, b)
                    joined = True
        return sorted(sorted(members.tolist()) for members in self.members.values())

    def _keep(self, group: list[int]) -> None:
        """Start with a group of the last time, less the members that something speaks against."""
        import numpy as np

        tables, rows = self.tables, np.array(group)
        rows = rows[~tables.selves.noisy[rows]]
        while len(rows) > 1:
            cross = np.ix_(rows, rows)
            apart = tables.split[cross] | tables.opposed(tables.common[cross], tables.agree[cross])
            np.fill_diagonal(apart, False)
            against = apart.sum(axis=1)
            if not against.any():
                break
            # the one at odds with most; among equals the one that leans least to the rest, then the last
            leaning = tables.lean(rows[:, None], rows[None, :]).sum(axis=1)
            worst = max(range(len(rows)), key=lambda k: (against[k], -leaning[k], k))
            rows = np.delete(rows, worst)
        for row in rows[1:]:
            self._join(int(rows[0]), int(row))

    def _join(self, a: int, b: int) -> None:
        import numpy as np

        into, gone = min(a, b), max(a, b)
        moved = self.members.pop(gone)
        for row in moved.tolist():
            self.of[row] = into
        self.members[into] = np.concatenate([self.members[into], moved])
        self._pooled.pop(gone, None)
        self._pooled.pop(into, None)

    def _may_join(self, a: int, b: int) -> bool:
        ours, theirs = self.members[a], self.members[b]
        attempt = (a, len(ours), b, len(theirs)) if a < b else (b, len(theirs), a, len(ours))
        if attempt in self._refused:
            return False
        may = (
            not self.tables.against(ours, theirs)
            and self._evidence(a, b) >= self.tables.threshold
            and (self.content is None or self.content.alike(self._names(ours), self._names(theirs)))
        )
        if not may:
            self._refused.add(attempt)
        return may

    def _names(self, rows: np.ndarray) -> list[str]:
        return [self.tables.evidence.suppliers[row] for row in rows.tolist()]

    def _evidence(self, a: int, b: int) -> float:
        """Merge e-value (nats) between the majorities of two clusters."""
        import numpy as np

        (ours, our_habits, one), (theirs, their_habits, two) = self._majority(a), self._majority(b)
        tables = self.tables

        def shares(p: np.ndarray, t: np.ndarray, cells: np.ndarray) -> np.ndarray:
            return tables.collisions.shares(cells, t, np.full(len(t), one), np.full(len(t), two))

        habits = np.maximum(our_habits, their_habits)[None, :]
        return float(pairs.log_merge(ours[None, :], theirs[None, :], habits, shares, tables.settings)[0])

    def _majority(self, cluster: int) -> tuple[np.ndarray, np.ndarray, int]:
        """A cluster's answer prefixes, how common each is among its members' own, and its component."""
        import numpy as np

        if cluster not in self._pooled:
            evidence, rows = self.tables.evidence, self.members[cluster]
            cells = evidence.cells[rows]
            profile = pairs.majorities(cells, np.zeros(len(rows), dtype=np.int64), 1)[0]
            habits = np.where(cells == profile, evidence.common[rows], 0.0).max(axis=0)
            component = Counter(self.tables.component[rows].tolist()).most_common(1)[0][0]
            self._pooled[cluster] = (profile, habits, component)
        return self._pooled[cluster]


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
    unclear = others[~tables.told_apart(i, others, quickly=True)]
    if not len(unclear):
        return f"answers like nobody else on {counted(answered, 'prompt')}"
    apart = f"{len(others) - len(unclear)} of {counted(len(others), 'other')}"
    told = f"told apart from {apart} on {counted(answered, 'prompt')}"
    common, agree = tables.common[i, unclear].astype(int), tables.agree[i, unclear].astype(int)
    best = int(((agree + 0.5) / (common + 2.0)).argmax())
    if not common[best]:
        return f"{told}; with the rest it has no prompts in common yet"
    near = tables.evidence.suppliers[unclear[best]]
    return (
        f"{told}; nearest of the rest is {near}, which begins {agree[best]} of "
        f"{counted(common[best], 'common prompt')} alike: whether they are alike is not certain yet"
    )


def _profiles(
    tables: PairTables,
    groups: tuple[Group, ...],
    labels: np.ndarray,
    majority: np.ndarray,
    suspects: set[str],
) -> dict[str, Profile]:
    import numpy as np

    evidence, selves = tables.evidence, tables.selves
    common, agree = pairs.agreements(evidence.cells, majority)
    own = np.arange(len(labels)), labels
    least = evidence.settings.least_common
    answered = (evidence.cells != NONE).sum(axis=1)
    # nearest by the lower bound's cheap cousin: half an agreement in two more prompts is added to each
    score = np.where(common >= least, (agree + 0.5) / (common + 2.0), -1.0)
    score[own] = -1.0
    profiles = {}
    for i, name in enumerate(evidence.suppliers):
        group = groups[labels[i]]
        nearest = int(score[i].argmax())
        known = bool(score[i, nearest] >= 0)
        n, k = (int(common[i, nearest]), int(agree[i, nearest])) if known else (0, 0)
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
            n_own = int(common[i, labels[i]])
            reason = f"answers like {counted(others, 'other')} on {counted(n_own, 'common prompt')}"
        elif not answered[i]:
            reason = "no informative answers yet"
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
            nearest=groups[nearest].id if known else None,
            nearest_agreement=k / n if n else None,
            nearest_low=low,
            nearest_high=high,
            nearest_common=n,
            reason=reason,
        )
    return profiles
