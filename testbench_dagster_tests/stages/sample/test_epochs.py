"""Epochs: which is the newest, and docs that no store holds, which nobody wants and no window waits for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.records.set_aside import VoidDocRecord
from testbench_dagster.core.relay import Api
from testbench_dagster.core.sampling import Slots, Spread
from testbench_dagster.core.window import Window
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.sample.catalogue import roll_epoch
from testbench_dagster.stages.sample.epochs import newest_epochs, wanted_slots
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, NOW, Stage
from testbench_dagster_tests.stages.sample.epochs import stored_epoch
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA


def void(made: Stage, positions: range, api: Api = "chat", epoch: int = 1, task_hash: str = "") -> None:
    """Nothing holds the prompts at these places, as the stage that builds them leaves it."""
    task_hash = task_hash or made.registrations[GATED].task_hash
    for position in positions:
        one = VoidDocRecord(
            id=f"{GATED}-{epoch}-{api}-{position}-{task_hash}",
            task=GATED,
            task_hash=task_hash,
            epoch=epoch,
            api=api,
            position=position,
            doc_id=position,
            reason="its prompt cannot be stored: it takes 17 MB",
        )
        typed.put_new(made.workspace.documents, VoidDocRecord, [one])
        prompt = {"task": GATED, "task_hash": task_hash, "epoch": epoch, "api": api, "position": position}
        for document in list(made.workspace.documents.find(PROMPTS, prompt)):
            made.workspace.documents.upsert(PROMPTS, [{**document, "relayable": False, "requests": []}])


def row(made: Stage, supplier: str) -> Window:
    rows = windows(made.workspace, suppliers=[supplier], tasks=[GATED], now=NOW)
    (primary,) = [one for one in rows if one.primary]
    return primary


def targets(made: Stage) -> dict[str, int]:
    """By supplier what the planner lets it be asked."""
    plans = Planner(made.workspace, now=NOW).shared_plans(active_suppliers(made.workspace)).plans
    return {key: plan.tasks[GATED].plan.target for key, plan in plans.items()}


@pytest.fixture
def made(tmp_path: Path) -> Any:
    stage = Stage(tmp_path, {})
    yield stage
    stage.workspace.close()


def test_a_window_is_complete_without_the_docs_that_nobody_can_be_asked(made: Stage) -> None:
    made.answered(GATED, range(7))
    refresh_window_cache(made.workspace, [ALPHA, BETA], now=NOW)
    before = row(made, ALPHA)
    assert (before.n, before.n_planned, before.coverage) == (7, DOCS, 0.7)
    void(made, range(7, 10))
    after = row(made, ALPHA)
    assert (after.n, after.n_planned, after.coverage) == (7, 7, 1.0), "what was cached does not hold any more"
    assert after.score == before.score
    assert (after.n_void, after.n_open, after.status) == (0, 0, "ok")
    # in the other form they can be asked
    assert row(made, BETA).n_planned == DOCS
    assert targets(made) == {ALPHA: 7, BETA: DOCS}, "the planner wants what the windows say"


def test_only_the_present_sequence_counts(made: Stage) -> None:
    void(made, range(2), task_hash="another version of the task")
    void(made, range(3), epoch=2)
    assert row(made, ALPHA).n_planned == DOCS
    made.epoch(GATED, 2)
    assert row(made, ALPHA).n_planned == DOCS - 3


@pytest.mark.parametrize(
    ("samples", "n_void", "wanted"),
    [
        ("all", 3, 47),
        ("all", 50, 0),
        (20, 3, 17),  # the sequence has no other places
        ({"min": 5, "max": 40, "start": 30}, 3, 30),
        ({"min": 5, "max": 40, "start": 30}, 15, 25),
        ({"min": 30, "max": 40, "start": 30}, 20, 20),
    ],
)
def test_as_many_are_wanted_as_there_are(tmp_path: Path, samples: Any, n_void: int, wanted: int) -> None:
    stage = Stage(tmp_path, {}, [{"name": GATED, "samples": samples}])
    void(stage, range(n_void))
    known = [(stage.workspace.spec(GATED), stage.registrations[GATED])]
    documents = stage.workspace.documents
    assert wanted_slots(documents, known, "chat") == {GATED: Slots(wanted)}
    assert wanted_slots(documents, known, "completions")[GATED].docs == wanted_without(samples)
    stage.workspace.close()


def wanted_without(samples: Any) -> int:
    if samples == "all":
        return 50
    return int(samples) if isinstance(samples, int) else int(samples["start"])


@pytest.fixture
def workspace(open_installation: Callable[..., Workspace]) -> Workspace:
    return open_installation({"address": "a"}, tasks=[{"name": "starter_logic"}])


@pytest.mark.parametrize("named_by", ["the same clock", "a right one", "nobody"])
def test_an_epoch_dated_ahead_keeps_no_other_waiting(workspace: Workspace, named_by: str) -> None:
    """A clock was 30 days ahead for a while: the weekly epochs go on, each once."""
    spec, present = workspace.spec("starter_logic"), datetime.now(UTC)
    ahead = present + timedelta(days=30)
    roll_before = {"the same clock": ahead, "a right one": present - timedelta(days=1), "nobody": None}
    stored_epoch(workspace.documents, spec.name, 1, present - timedelta(days=7))
    stored_epoch(workspace.documents, spec.name, 2, ahead, roll_before[named_by])
    tick = present - timedelta(seconds=5)
    assert [roll_epoch(workspace, spec, tick, Spread()).epoch for _ in range(3)] == [3, 3, 3]
    assert roll_epoch(workspace, spec, present - timedelta(days=3), Spread()).epoch == 3
    assert newest_epochs(workspace.documents, [spec.name]) == {spec.name: 3}


def test_a_tick_of_a_right_clock_is_not_made_good_where_the_epoch_has_it(workspace: Workspace) -> None:
    """The clock that dated the epoch was ahead, that of the schedule not: no repetition starts another."""
    spec, tick = workspace.spec("starter_logic"), datetime.now(UTC).replace(microsecond=0)
    stored_epoch(workspace.documents, spec.name, 1, tick + timedelta(days=30), tick)
    assert roll_epoch(workspace, spec, tick, Spread()).epoch == 1
    assert roll_epoch(workspace, spec, tick + timedelta(seconds=1), Spread()).epoch == 2


def test_a_tick_of_a_clock_that_stays_ahead_rolls_once(workspace: Workspace) -> None:
    spec, tick = workspace.spec("starter_logic"), datetime.now(UTC) + timedelta(days=30)
    assert [roll_epoch(workspace, spec, tick, Spread()).epoch for _ in range(3)] == [1, 1, 1]
    later = tick + timedelta(days=7)
    assert [roll_epoch(workspace, spec, later, Spread()).epoch for _ in range(3)] == [2, 2, 2]


def test_the_newest_epoch_is_the_last_one_whatever_its_date(workspace: Workspace) -> None:
    """Long after: what was dated ahead is of this month, what followed it seems older."""
    present = datetime.now(UTC)
    stored_epoch(workspace.documents, "starter_logic", 1, present - timedelta(days=60))
    stored_epoch(workspace.documents, "starter_logic", 2, present - timedelta(days=20))
    for number in (3, 4):
        stored_epoch(workspace.documents, "starter_logic", number, present - timedelta(days=50 - number))
    assert newest_epochs(workspace.documents, ["starter_logic", "others"]) == {"starter_logic": 4}
