"""Docs that no store holds are asked of nobody: nobody wants them, and no window waits for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.records.set_aside import VoidDocRecord
from testbench_dagster.core.relay import Api
from testbench_dagster.core.sampling import Slots
from testbench_dagster.core.window import Window
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.sample.epochs import wanted_slots
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster_tests.stages.plan.stage import DOCS, GATED, NOW, Stage
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
