"""Kept health: what is noted of suppliers, part by part, in rows that stay small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.health import HealthRecord
from testbench_dagster.stages.health import (
    lowest_coverage,
    not_looked_at,
    note_attempts,
    note_scores,
    unhealthy,
    widest_scores,
)
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, HEALTH
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TASKS = [f"starter_{name}" for name in ("logic", "units", "strings", "reading", "calendar", "arithmetic")]


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    samples = {"min": 10, "max": 40, "half_width": 0.1}
    settings = {"tasks": [{"name": name, "samples": samples} for name in TASKS]}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        yield Facts(workspace)


def row(facts: Facts, key: str) -> HealthRecord:
    found = typed.get(facts.workspace.documents, HealthRecord, key)
    assert found is not None
    return found


def test_attempts_are_counted_by_whom_they_blame(facts: Facts) -> None:
    task, now = facts.registration("starter_logic"), datetime.now(UTC)
    for doc in range(6):
        facts.attempt(task, doc, Fault.OK, now, text="x")
    for doc in range(6, 8):
        facts.attempt(task, doc, Fault.SUPPLIER_REFUSED, now)
    facts.attempt(task, 8, Fault.BUDGET, now)  # ours: it says nothing of the supplier
    facts.attempt(task, 9, Fault.SUPPLIER_REFUSED, now - timedelta(days=40))
    note_attempts(facts.workspace, [ALPHA, BETA])
    alpha, beta = row(facts, ALPHA), row(facts, BETA)
    assert (alpha.attempts, alpha.fault_share) == (8, 0.25)
    assert (beta.attempts, beta.fault_share, beta.n_unowned) == (0, None, 0)
    assert alpha.attempts_at is not None and alpha.scores_at is None


def test_an_attempt_that_names_another_owner_is_noted(facts: Facts) -> None:
    task, now = facts.registration("starter_logic"), datetime.now(UTC)
    facts.attempt(task, 0, Fault.SUPPLIER_REFUSED, now)
    (stored,) = typed.find(facts.workspace.documents, AttemptRecord)
    document = facts.workspace.documents.get(ATTEMPTS, stored.id)
    facts.workspace.documents.upsert(ATTEMPTS, [{**(document or {}), "owner": "nobody"}])
    note_attempts(facts.workspace, [ALPHA])
    alpha = row(facts, ALPHA)
    assert (alpha.n_unowned, alpha.unowned) == (1, {Fault.SUPPLIER_REFUSED.value: "1 attempt"})


def test_windows_are_noted_with_what_is_wrong_and_until_when_they_hold(facts: Facts) -> None:
    task = facts.registration("starter_logic")
    now = datetime.now(UTC).replace(microsecond=0)
    for doc in range(12):
        facts.score(task, doc, float(doc % 2), now - timedelta(days=30))
        facts.attempt(task, doc, Fault.OK, now - timedelta(days=30), text="x")
    rows = windows(facts.workspace, suppliers=[ALPHA])
    note_scores(facts.workspace, [ALPHA], rows)
    alpha = row(facts, ALPHA)
    # 32 days of age, and 72 hours in which an outcome counts on until what replaces it closes
    assert alpha.scores_until == now - timedelta(days=30) + timedelta(days=32, hours=72)
    (window,) = [one for one in rows if one.task == "starter_logic" and one.primary]
    assert window.ci_high is not None and window.ci_low is not None
    assert alpha.half_width == (window.ci_high - window.ci_low) / 2
    assert alpha.half_width_task == "starter_logic"
    assert alpha.n_stale == len(TASKS) - 1 == 5
    assert alpha.stale is not None and all("never asked" in text for text in alpha.stale.values())


def test_a_part_leaves_the_others_as_they_are(facts: Facts) -> None:
    task, now = facts.registration("starter_logic"), datetime.now(UTC)
    facts.attempt(task, 0, Fault.OK, now, text="x")
    note_attempts(facts.workspace, [ALPHA])
    note_scores(facts.workspace, [ALPHA], windows(facts.workspace, suppliers=[ALPHA]))
    once = row(facts, ALPHA)
    assert (once.attempts, once.n_stale) == (1, len(TASKS))
    facts.attempt(task, 1, Fault.OK, now, text="x")
    note_attempts(facts.workspace, [ALPHA])
    assert (row(facts, ALPHA).attempts, row(facts, ALPHA).n_stale) == (2, len(TASKS))
    assert row(facts, ALPHA).scores_at == once.scores_at


def test_a_row_stays_small_however_much_is_wrong(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred tasks, each with a long story."""
    long = {(ALPHA, f"task_{n:03}"): "x" * 10_000 for n in range(200)}
    monkeypatch.setattr("testbench_dagster.stages.health.why_no_scores", lambda workspace, rows: long)
    note_scores(facts.workspace, [ALPHA], [])
    alpha = row(facts, ALPHA)
    assert alpha.n_stale == 200
    assert alpha.stale is not None and list(alpha.stale) == [f"task_{n:03}" for n in range(5)]
    assert len(str(facts.workspace.documents.get(HEALTH, ALPHA))) < 4_000


def test_only_active_suppliers_count_and_who_has_no_row_is_named(
    open_installation: Callable[..., Workspace],
) -> None:
    workspace = open_installation({"address": "a"}, {"address": "b"}, {"address": "c"})
    now = datetime.now(UTC)
    typed.upsert(
        workspace.documents,
        HealthRecord,
        [
            HealthRecord(
                id="a@external", n_late=1, scores_at=now, half_width=0.1, half_width_task="t", coverage=0.5
            ),
            HealthRecord(id="b@external", attempts_at=now, half_width=0.3, half_width_task="u"),
            HealthRecord(id="gone@external", n_late=9, scores_at=now, half_width=0.4, coverage=0.1),
        ],
    )
    active = ["a@external", "b@external", "c@external"]
    assert [one.id for one in unhealthy(workspace, active, {"n_late": {"gt": 0}})] == ["a@external"]
    assert not_looked_at(workspace, active, "scores_at") == ["b@external", "c@external"]
    assert not_looked_at(workspace, active, "attempts_at") == ["a@external", "c@external"]
    assert widest_scores(workspace, active) == [["b@external", "u", 0.3], ["a@external", "t", 0.1]]
    assert lowest_coverage(workspace, active) == 0.5
    assert lowest_coverage(workspace, ["c@external"]) is None
