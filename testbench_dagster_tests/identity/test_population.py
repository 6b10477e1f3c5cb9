"""The whole of identity on a made-up population: groups, relays saved, mixtures, swaps, day by day."""

from __future__ import annotations

import random
import statistics
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import combinations

import pytest

from testbench_dagster.identity import (
    Answer,
    Assignment,
    Change,
    Evidence,
    Grouping,
    IdentitySettings,
    elect,
    find_changes,
    find_groups,
)
from testbench_dagster_tests.identity.population import START, World, ask

# 15 s: forty days of sixty suppliers, once for all tests
pytestmark = pytest.mark.slow

SETTINGS = IdentitySettings()
SUPPLIERS, BACKENDS = 60, 8
COLD = 160  # common prompts everybody is asked before anybody stands for others
DAYS, DOCS = 30, 60  # then so many days of so many docs
MIXTURES = {"s58": {0: 0.5, 2: 0.5}, "s59": {3: 0.7, 4: 0.3}}
SWAPS = {"s10": (5, 5), "s20": (9, 7), "s31": (14, 2)}  # supplier: day, backend it changes to


@dataclass
class Outcome:
    """What a run of the population came to."""

    relays: int = 0
    audits: Counter[str] = field(default_factory=Counter)
    group_relays: Counter[str] = field(default_factory=Counter)
    merged_at: dict[frozenset[str], int] = field(default_factory=dict)
    false_merges: set[frozenset[str]] = field(default_factory=set)
    changes: list[Change] = field(default_factory=list)
    probes_to_alarm: dict[str, int] = field(default_factory=dict)
    swapped_at: dict[str, datetime] = field(default_factory=dict)
    suspects: dict[str, str] = field(default_factory=dict)
    twins: set[frozenset[str]] = field(default_factory=set)
    last: Grouping | None = None


class Population:
    """Suppliers, and a planner that asks proxies and lone suppliers all docs and members an audit share."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.rng = random.Random(seed + 1)
        self.names = [f"s{i:02d}" for i in range(SUPPLIERS)]
        self.weights = {n: {i % BACKENDS: 1.0} for i, n in enumerate(self.names)} | MIXTURES
        self.answers: list[Answer] = []
        self.cut_at: dict[str, datetime] = {}
        self.assigned: dict[str, Assignment] = {}
        self.outcome = Outcome()
        self.outcome.twins = {frozenset(p) for p in combinations(self.names, 2) if self.alike(*p)}

    def alike(self, a: str, b: str) -> bool:
        return self.weights[a] == self.weights[b] and len(self.weights[a]) == 1

    def run(self) -> Outcome:
        self.cold_start()
        for day in range(DAYS):
            self.day(day)
        return self.outcome

    def cold_start(self) -> None:
        for step in range(0, COLD, 20):
            for name in self.names:
                self.send(name, range(step, step + 20), START + timedelta(hours=step))
                # one prompt in ten is asked again, which is what self-agreement rests on
                self.send(name, range(step, step + 20, 10), START + timedelta(hours=step + 10), round=1)
            self.group(START + timedelta(hours=step + 20), prompts=step + 20)

    def day(self, day: int) -> None:
        begin = START + timedelta(days=10 + day)
        for name, (when, backend) in SWAPS.items():
            if when == day:
                self.weights[name] = {backend: 1.0}
                self.outcome.swapped_at[name] = begin
        docs = range(COLD + day * DOCS, COLD + (day + 1) * DOCS)
        by_group: dict[str, list[str]] = {}
        for name, assignment in self.assigned.items():
            by_group.setdefault(assignment.group, []).append(name)
        for group, members in sorted(by_group.items()):
            proxy = self.assigned[members[0]].proxy
            sent = self.send(proxy, docs, begin)
            if len(members) == 1:
                self.send(proxy, range(docs.start, docs.stop, 10), begin + timedelta(hours=8), round=1)
                self.outcome.relays += DOCS // 10
            else:
                # the fewest audits that are audit_share of the group's relays: a / (a + docs) >= share
                share = SETTINGS.audit_share
                audits = -int(-share * DOCS // (1 - share))
                others = [m for m in members if m != proxy]
                for doc in self.rng.sample(list(docs), audits):
                    sent += self.send(self.rng.choice(others), range(doc, doc + 1), begin)
                self.outcome.audits[group] += audits
                self.outcome.group_relays[group] += sent
            self.outcome.relays += sent
        self.detect(begin + timedelta(hours=20))
        self.group(begin + timedelta(hours=21))

    def send(self, name: str, docs: range, begin: datetime, round: int = 0) -> int:
        new = ask(
            self.world,
            name,
            self.weights[name],
            docs,
            lambda t: begin + timedelta(minutes=5 * (t % 60), seconds=self.rng.random() * 60),
            round=round,
        )
        self.answers += new
        return len(new)

    def detect(self, now: datetime) -> None:
        groups: dict[str, list[str]] = {}
        for name, assignment in self.assigned.items():
            groups.setdefault(assignment.group, []).append(name)
        multiple = [members for members in groups.values() if len(members) > 1]
        for change in find_changes(self.answers, SETTINGS, cut_at=self.cut_at, groups=multiple):
            self.outcome.changes.append(change)
            self.cut_at[change.supplier] = change.at - timedelta(milliseconds=1)
            swap = self.outcome.swapped_at.get(change.supplier)
            if swap is not None:
                self.outcome.probes_to_alarm.setdefault(
                    change.supplier,
                    sum(
                        a.supplier == change.supplier and swap <= a.at <= change.detected_at
                        for a in self.answers
                    ),
                )

    def group(self, now: datetime, prompts: int | None = None) -> None:
        evidence = Evidence.of(self.answers, SETTINGS, cut_at=self.cut_at, suppliers=self.names)
        grouping = find_groups(evidence, SETTINGS, self.assigned.values(), now=now)
        self.outcome.last = grouping
        self.outcome.suspects = {s.supplier: s.kind for s in grouping.suspects}
        before, self.assigned = self.assigned, {}
        for group in grouping.groups:
            previous = next((before[m] for m in group.members if m in before), None)
            chosen = elect(
                group.members,
                availability=dict.fromkeys(group.members, 1.0),
                self_agreement={m: grouping.profiles[m].self_agreement for m in group.members},
                alive=group.members,
                previous=previous,
                now=now,
                rng=self.rng,
                settings=SETTINGS,
            )
            for m in group.members:
                self.assigned[m] = Assignment(m, group.id, chosen.proxy, group.since[m], chosen.rotates_at)
            for pair in combinations(group.members, 2):
                # a swapped supplier stays where it was until its change is noticed; that is no false merge
                noticed = all(m not in self.outcome.swapped_at or m in self.cut_at for m in pair)
                if not self.alike(*pair) and noticed:
                    self.outcome.false_merges.add(frozenset(pair))
                elif prompts is not None:
                    self.outcome.merged_at.setdefault(frozenset(pair), prompts)


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return Population(20260101).run()


def test_no_two_distinct_models_are_merged(outcome: Outcome) -> None:
    assert outcome.false_merges == set()


def test_twins_are_merged_within_160_common_prompts(outcome: Outcome) -> None:
    found = outcome.twins & set(outcome.merged_at)
    median = statistics.median(outcome.merged_at.values())
    print(f"{len(found)} of {len(outcome.twins)} twin pairs, median of {median} prompts")
    assert len(found) >= 0.95 * len(outcome.twins)


def test_swaps_are_found_within_12_probes_and_dated(outcome: Outcome) -> None:
    print(outcome.probes_to_alarm, [(c.supplier, c.kind, c.wording) for c in outcome.changes])
    assert set(outcome.probes_to_alarm) == set(SWAPS), "each swap is found"
    assert {c.supplier for c in outcome.changes} == set(SWAPS), "and nothing else"
    assert statistics.median(outcome.probes_to_alarm.values()) <= 12
    for change in outcome.changes:
        swap = outcome.swapped_at[change.supplier]
        # dated by answers: a member is asked about two a day, so within a day and a half of the swap
        assert abs(change.at - swap) <= timedelta(days=1.5)
        assert change.before_at is not None and change.before_at < change.at <= change.detected_at


def test_swapped_suppliers_join_the_group_they_now_answer_like(outcome: Outcome) -> None:
    assert outcome.last is not None
    for name, (_, backend) in SWAPS.items():
        twin = next(
            n for i, n in enumerate(f"s{i:02d}" for i in range(58)) if i % 8 == backend and n not in SWAPS
        )
        assert outcome.last.group_of(name) is outcome.last.group_of(twin)
        assert outcome.last.pair(name, twin).relation == "same stack"


def test_mixtures_are_suspects_and_stand_alone(outcome: Outcome) -> None:
    assert outcome.suspects == {"s58": "mixture", "s59": "mixture"}
    assert outcome.last is not None
    for name in MIXTURES:
        assert outcome.last.group_of(name).members == (name,)
    first, second = outcome.last.suspects
    assert sorted(first.shares)[0] == pytest.approx(0.5, abs=0.1)
    assert sorted(second.shares)[0] == pytest.approx(0.3, abs=0.1)


def test_relays_are_saved_five_times_with_audits_kept(outcome: Outcome) -> None:
    everybody = SUPPLIERS * DOCS * DAYS
    print(f"{everybody} relays for everybody, {outcome.relays} sent: {everybody / outcome.relays:.2f}x")
    assert everybody >= 5 * outcome.relays
    assert len(outcome.audits) == BACKENDS
    for group, audits in outcome.audits.items():
        assert audits >= SETTINGS.audit_share * outcome.group_relays[group], group


def test_lineage_is_told_from_one_stack(outcome: Outcome) -> None:
    assert outcome.last is not None
    finding = outcome.last.pair("s00", "s01")
    assert finding.relation == "same lineage"
    assert finding.low < 0.6 < finding.high
    assert finding.distance_low is not None and finding.distance_low > 0.2
