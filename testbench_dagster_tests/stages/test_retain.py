"""What retention removes, and that nothing that still counts is touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.coordination.budgets import BudgetLedger
from testbench_dagster.coordination.heartbeats import Heartbeat
from testbench_dagster.coordination.leases import SupplierLeases
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.registration import Registration
from testbench_dagster.stages.retain import apply_retention, check_retention
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import (
    ATTEMPTS,
    BUDGETS,
    EPOCHS,
    HEARTBEATS,
    LEASES,
    PROMPTS,
    SCORES,
)
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration, days_ago

TASK = "starter_logic"


@contextmanager
def opened(folder: Path, evidence_days: float | None, **more: Any) -> Iterator[Workspace]:
    settings = {"tasks": [TASK], "retention": {"evidence_days": evidence_days}, **more}
    settings["tasks"] = [{"name": name} if isinstance(name, str) else name for name in settings["tasks"]]
    with Workspace(configuration(folder, settings)) as workspace:
        yield workspace


@pytest.fixture(autouse=True, params=["sqlite", "mongodb"])
def _stores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test on both document stores."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    if request.param == "mongodb":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))


def prompt(
    workspace: Workspace,
    registration: Registration,
    epoch: int,
    doc_id: int = 0,
    at: datetime | None = None,
) -> str:
    document = {
        "_id": f"{registration.task_hash}-{epoch}-{doc_id}",
        "task": TASK,
        "task_hash": registration.task_hash,
        "epoch": epoch,
        "api": "chat",
        "position": doc_id,
        "doc_id": doc_id,
        "calls": 1,
        "relayable": True,
        "requests": [],
        "created_at": at or days_ago(100),
    }
    workspace.documents.put_new(PROMPTS, [document])
    return str(document["_id"])


def epoch(workspace: Workspace, number: int, at: datetime) -> None:
    document = {"_id": f"epoch-{number}", "task": TASK, "epoch": number, "seed": "s", "started_at": at}
    workspace.documents.put_new(EPOCHS, [document])


def sequences(workspace: Workspace) -> list[tuple[str, int]]:
    return sorted((p["task_hash"], p["epoch"]) for p in workspace.documents.find(PROMPTS))


def test_evidence_goes_by_age_and_windows_stay_as_they_are(tmp_path: Path) -> None:
    with opened(tmp_path, 32) as workspace:
        facts = Facts(workspace)
        registration = facts.registration(TASK)
        for doc, age in enumerate((40.0, 32.5, 32.0, 31.9, 5.0)):
            facts.attempt(registration, doc, at=days_ago(age), text="x")
            facts.score(registration, doc, float(doc % 2), at=days_ago(age))
        facts.attempt(registration, 9, Fault.SUPPLIER_HTTP, at=days_ago(31.9))
        facts.attempt(registration, 10, Fault.SUPPLIER_HTTP, at=days_ago(36))
        before = windows(workspace, now=NOW)
        assert (before[0].n, before[0].errors) == (4, {"supplier_http": 1}), "what is due keeps its slot"
        removed = apply_retention(workspace, NOW)
        assert (removed["attempts"], removed["scores"]) == (2, 1)
        assert windows(workspace, now=NOW) == before
        left = [a["doc_id"] for a in workspace.documents.find(ATTEMPTS, sort=[("doc_id", 1)])]
        assert left == [1, 2, 3, 4, 9]
        assert workspace.documents.count(SCORES) == 4
        assert set(apply_retention(workspace, NOW).values()) == {0}


def test_without_a_limit_evidence_stays_for_good(tmp_path: Path) -> None:
    with opened(tmp_path, None) as workspace:
        facts = Facts(workspace)
        registration = facts.registration(TASK)
        facts.attempt(registration, 0, at=days_ago(4000), text="x")
        facts.score(registration, 0, at=days_ago(4000))
        prompt(workspace, registration, 1)
        epoch(workspace, 1, days_ago(4000))
        epoch(workspace, 2, days_ago(3000))
        assert set(apply_retention(workspace, NOW).values()) == {0}
        assert workspace.documents.count(ATTEMPTS) == workspace.documents.count(SCORES) == 1
        assert sequences(workspace) == [(registration.task_hash, 1)]


def test_prompts_go_when_their_epoch_is_long_over_and_nothing_refers_to_it(tmp_path: Path) -> None:
    with opened(tmp_path, 40) as workspace:
        facts = Facts(workspace)
        registration = facts.registration(TASK)
        task_hash, made = registration.task_hash, {}
        for number, began in enumerate((100, 90, 80, 50, 30, 1), 1):
            epoch(workspace, number, days_ago(began))
            made[number] = prompt(workspace, registration, number, at=days_ago(began))
        facts.attempt(registration, 0, at=days_ago(85), epoch=1, text="x", prompt_id=made[1])
        for number in (2, 3):  # by runs that took their time
            facts.attempt(
                registration, number, at=days_ago(39), epoch=number, text="x", prompt_id=made[number]
            )
        facts.score(registration, 3, at=days_ago(39), epoch=3)
        removed = apply_retention(workspace, NOW)
        assert (removed["attempts"], removed["prompts"]) == (1, 1)
        # 1 is over; 2 and 3 are referred to; 4 ended 30 days ago, a run may still be using it; 6 is current
        assert sequences(workspace) == [(task_hash, number) for number in (2, 3, 4, 5, 6)]
        assert apply_retention(workspace, NOW + timedelta(days=50))["prompts"] == 4
        assert sequences(workspace) == [(task_hash, 6)], "the current epoch stays, however old"
        assert workspace.documents.count(EPOCHS) == 6, "seeds stay"


def test_prompts_of_an_earlier_registration_go_as_well(tmp_path: Path) -> None:
    with opened(tmp_path, 40) as workspace:
        facts = Facts(workspace)
        first = facts.registration(TASK, n_docs=5)
        epoch(workspace, 1, days_ago(100))
        prompt(workspace, first, 1)
        second = replace(first, task_hash="second", n_docs=0, registered_at=days_ago(39))
        workspace.datasets.register(second, [], [])
        prompt(workspace, second, 1)
        assert apply_retention(workspace, NOW)["prompts"] == 0, "replaced too short a time ago"
        assert apply_retention(workspace, NOW + timedelta(days=2))["prompts"] == 1
        assert sequences(workspace) == [("second", 1)]


def test_leases_and_hearts_of_the_living_stay(tmp_path: Path) -> None:
    with opened(tmp_path, None) as workspace:
        documents = workspace.documents
        now = datetime.now(UTC)
        with Heartbeat(documents, "living") as heartbeat, SupplierLeases(documents, heartbeat) as leases:
            assert leases.acquire([ALPHA]).held
            gone = {"ttl_s": 30.0, "host": "another", "pid": 1, "started": "1", "boot_deadline": None}
            documents.put_new(
                HEARTBEATS,
                [
                    {"_id": "long gone", "expires_at": now - timedelta(hours=2), **gone},
                    {"_id": "just expired", "expires_at": now - timedelta(minutes=1), **gone},
                ],
            )
            for key, holder in ((BETA, "long gone"), ("c@x", "just expired"), ("d@x", "never heard of")):
                documents.put_new(LEASES, [{"_id": key, "holder": holder, "token": 1, "since": now}])
            removed = apply_retention(workspace, now)
            assert (removed["heartbeats"], removed["leases"]) == (1, 2)
            held = {d["_id"]: d["holder"] for d in documents.find(LEASES) if d.get("holder")}
            assert held == {ALPHA: "living", "c@x": "just expired"}
            assert leases.verify([ALPHA]) == set()
            assert heartbeat.alive
            before = leases.acquire([ALPHA]).held[ALPHA]
        with Heartbeat(documents, "next") as heartbeat, SupplierLeases(documents, heartbeat) as leases:
            assert leases.acquire([ALPHA, BETA]).held[ALPHA] > before, "the counter of tokens is still there"


def test_old_budgets_go(tmp_path: Path) -> None:
    with opened(tmp_path, None) as workspace:
        ledger = BudgetLedger(workspace.documents)
        for age in (0, 39, 40, 41, 90):
            ledger.grant("service", days_ago(age), 10, 3)
        assert apply_retention(workspace, NOW)["budgets"] == 2
        assert workspace.documents.count(BUDGETS) == 3
        assert ledger.spent("service", days_ago(40)) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"evidence_days 20 is less than sampling.max_age_days 32: .* raise the first to at least 32"),
        (
            {"sampling": {"max_age_days": 10}, "tasks": [{"name": TASK, "planning": {"max_age_days": 25}}]},
            r"evidence_days 20 is less than max_age_days 25 of task 'starter_logic': .* at least 25",
        ),
    ],
)
def test_what_would_remove_counting_answers_is_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with opened(tmp_path, 20, **settings) as workspace:
        facts = Facts(workspace)
        facts.score(facts.registration(TASK), 0, at=days_ago(24))
        with pytest.raises(ConfigError, match=message):
            check_retention(workspace)
        with pytest.raises(ConfigError, match=message):
            apply_retention(workspace, NOW)
        assert workspace.documents.count(SCORES) == 1
    with opened(tmp_path, 32, **settings) as workspace:
        check_retention(workspace)
