"""How docs vary among suppliers: measured when an epoch is started, and stored with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.prompts import EpochRecord
from testbench_dagster.core.sampling import STAYS, Measurement, Spread
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.sample.catalogue import current_epoch, roll_epoch, start_epoch
from testbench_dagster.stages.sample.epochs import wanted_slots
from testbench_dagster.stages.sample.spread import measured_spreads
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS
from testbench_dagster_tests.stages.score.facts import Facts, configuration

TASK = "starter_logic"
NOW = datetime.now(UTC).replace(microsecond=0)
KEYS = [f"s{n}@external" for n in range(7)]
RULE = {"min": 25, "max": 100}


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Callable[..., Facts]]:
    """Makes installations of seven suppliers and one task."""
    made: list[Workspace] = []

    def build(samples: Any = RULE, **task: Any) -> Facts:
        suppliers = [
            {"address": key.split("@")[0], "base_url": "http://127.0.0.1:9/v1", "model": "m", "api": "chat"}
            for key in KEYS
        ]
        tasks = [{"name": TASK, "samples": samples, **task}]
        made.append(Workspace(configuration(tmp_path, {"suppliers": suppliers, "tasks": tasks})))
        return Facts(made[-1])

    yield build
    for workspace in made:
        workspace.close()


def answered(facts: Facts, supplier: str, right: int, wrong: int, value: float = 1.0, epoch: int = 1) -> None:
    """Scores of one supplier."""
    registration = facts.workspace.datasets.current(TASK)
    assert registration is not None
    for doc in range(right + wrong):
        scored = value if doc < right else 0.0
        facts.score(registration, doc, scored, NOW - timedelta(hours=1), supplier=supplier, epoch=epoch)


def spread(facts: Facts) -> Spread:
    return measured_spreads(facts.workspace, [facts.workspace.spec(TASK)])[TASK]


def wanted(facts: Facts) -> int:
    registration = facts.workspace.datasets.current(TASK)
    assert registration is not None
    tasks = [(facts.workspace.spec(TASK), registration)]
    return wanted_slots(facts.workspace.documents, tasks, "chat")[TASK].docs


def test_the_complete_rows_of_five_groups_say_how_docs_vary(installation: Callable[..., Facts]) -> None:
    facts = installation()
    facts.registration(TASK)
    for number, key in enumerate(KEYS[:4]):
        answered(facts, key, 30 + number, 10)
    assert spread(facts) == Spread(4, None)
    answered(facts, KEYS[4], 25, 25)
    found = spread(facts)
    assert found.groups == 5
    assert found.variance == pytest.approx(10 * 31 / 41**2), "the median's"


def test_rows_with_open_docs_or_too_few_say_nothing(installation: Callable[..., Facts]) -> None:
    facts = installation()
    registration = facts.registration(TASK)
    for key in KEYS[:5]:
        answered(facts, key, 40, 10)
    facts.attempt(registration, 60, Fault.TRANSPORT, NOW, supplier=KEYS[0])
    answered(facts, KEYS[5], 12, 12)
    assert spread(facts) == Spread(4, None)


def test_a_group_counts_once(installation: Callable[..., Facts]) -> None:
    facts = installation()
    facts.registration(TASK)
    for key in KEYS:
        answered(facts, key, 40, 10)
    members = KEYS[:4]
    rows = [{"_id": m, "group": "g", "proxy": m, "members": members} for m in members]
    facts.workspace.documents.upsert(IDENTITY_GROUPS, rows)
    assert spread(facts) == Spread(4, None)


def test_a_stake_owner_counts_once(
    installation: Callable[..., Facts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who stakes five suppliers that answer unlike each other sets everybody's number of docs."""
    facts = installation()
    facts.registration(TASK)
    for key in KEYS:
        answered(facts, key, 40, 10)
    assert spread(facts).groups == 7

    def of_a_chain(workspace: Workspace) -> list[Supplier]:
        return [
            replace(one, owner="pokt1owner") if one.key in KEYS[:4] else one
            for one in active_suppliers(workspace)
        ]

    monkeypatch.setattr("testbench_dagster.stages.sample.spread.active_suppliers", of_a_chain)
    assert spread(facts) == Spread(4, None)


def test_values_between_0_and_1_vary_less(installation: Callable[..., Facts]) -> None:
    facts = installation()
    facts.registration(TASK)
    for key in KEYS:
        answered(facts, key, 25, 25, value=0.4)
    assert spread(facts).variance == pytest.approx(0.04)


@pytest.mark.parametrize("samples", ["all", 40, {"min": 5, "max": 40, "half_width": None}])
def test_a_rule_that_fixes_the_number_needs_none(installation: Callable[..., Facts], samples: Any) -> None:
    facts = installation(samples)
    facts.registration(TASK, n_docs=60)
    for key in KEYS:
        answered(facts, key, 40, 10)
    assert spread(facts) == Spread()
    start_epoch(facts.workspace, facts.workspace.spec(TASK), 1)
    start_epoch(facts.workspace, facts.workspace.spec(TASK), 2)
    assert wanted(facts) == (60 if samples == "all" else 40)


def test_the_number_is_set_at_an_epochs_start_and_answers_do_not_move_it(
    installation: Callable[..., Facts],
) -> None:
    facts = installation()
    facts.registration(TASK)
    workspace, spec = facts.workspace, facts.workspace.spec(TASK)
    assert (wanted(facts), current_epoch(workspace, spec).variance) == (50, None)
    for key in KEYS[:5]:
        answered(facts, key, 48, 2)
    assert wanted(facts) == 50
    begun = roll_epoch(workspace, spec, datetime.now(UTC) + timedelta(seconds=1))
    assert (begun.epoch, begun.groups, begun.variance) == (2, 5, pytest.approx(0.04 * 0.96))
    assert wanted(facts) == 25
    answered(facts, KEYS[5], 20, 20)
    answered(facts, KEYS[6], 0, 40)
    assert wanted(facts) == 25
    rows = [row for row in windows(workspace, tasks=[TASK]) if row.primary]
    assert {row.n_planned for row in rows} == {25}
    assert [row.n for row in rows] == [25] * 7
    planner = Planner(workspace)
    facts_of = [planner.facts(s).tasks[TASK] for s in active_suppliers(workspace)]
    assert {task.variance for task in facts_of} == {begun.variance}


def measured_in(facts: Facts, rolled: int) -> EpochRecord:
    """The epoch that begins after ``rolled`` hours more."""
    spec = facts.workspace.spec(TASK)
    return roll_epoch(facts.workspace, spec, datetime.now(UTC) + timedelta(hours=rolled))


def test_the_number_stays_for_four_times_the_age_of_a_score(installation: Callable[..., Facts]) -> None:
    """Set from week to week it would follow its own docs: stopping while ahead in small steps."""
    facts = installation()
    facts.registration(TASK)
    current_epoch(facts.workspace, facts.workspace.spec(TASK))
    for key in KEYS[:5]:
        answered(facts, key, 48, 2)
    first = measured_in(facts, 1)
    assert first.measurement == Measurement(2, first.started_at, first.seed_sha256)
    for key in KEYS:
        answered(facts, key, 12, 13, epoch=2)
    held = measured_in(facts, 2)
    assert (held.epoch, held.variance, held.measurement) == (3, first.variance, first.measurement)
    assert held.groups == len(KEYS), "told as of now"
    over = datetime.now(UTC) - STAYS * timedelta(days=32)
    typed.upsert(facts.workspace.documents, EpochRecord, [replace(held, spread_at=over)])
    anew = measured_in(facts, 3)
    assert anew.measurement == Measurement(4, anew.started_at, anew.seed_sha256)
    assert anew.variance == pytest.approx(12 * 13 / 25**2)


def test_below_five_groups_nothing_holds(installation: Callable[..., Facts]) -> None:
    facts = installation()
    facts.registration(TASK)
    current_epoch(facts.workspace, facts.workspace.spec(TASK))
    for key in KEYS[:5]:
        answered(facts, key, 48, 2)
    assert measured_in(facts, 1).measurement is not None
    rows = [{"_id": m, "group": "g", "proxy": m, "members": KEYS[:2]} for m in KEYS[:2]]
    facts.workspace.documents.upsert(IDENTITY_GROUPS, rows)
    fallen = measured_in(facts, 2)
    assert (fallen.groups, fallen.variance, fallen.measurement) == (4, None, None)
    assert wanted(facts) == 50


def test_an_epoch_of_before_the_rule_is_followed_by_a_measured_one(
    installation: Callable[..., Facts],
) -> None:
    facts = installation()
    facts.registration(TASK)
    begun = current_epoch(facts.workspace, facts.workspace.spec(TASK))
    for key in KEYS[:5]:
        answered(facts, key, 48, 2)
    typed.upsert(facts.workspace.documents, EpochRecord, [replace(begun, groups=5, variance=0.2)])
    assert measured_in(facts, 1).variance == pytest.approx(0.04 * 0.96)
