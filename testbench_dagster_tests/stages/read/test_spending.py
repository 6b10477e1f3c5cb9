"""What the attempts of a day took, on both document stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.price import Price
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.read.spending import DaySpent, spending
from testbench_dagster.stages.read.supplier import supplier_page
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TASK = "starter_logic"
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "mongo"])
def facts(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    if request.param == "mongo":
        monkeypatch.setenv("TESTBENCH_MONGO_URI", request.getfixturevalue("mongo_database_uri"))
    price = {"prompt": 1.0, "completion": 10.0}
    own = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    suppliers = [{"address": "alpha", **own, "price": price}, {"address": "beta", **own}]
    settings = {"suppliers": suppliers, "tasks": [{"name": TASK, "samples": "all"}]}
    with Workspace(configuration(tmp_path, settings)) as opened:
        yield Facts(opened)


def test_all_attempts_of_a_utc_day_are_counted(facts: Facts) -> None:
    registration = facts.registration(TASK)
    midnight = NOON.replace(hour=0)
    for number, (at, fault, tokens) in enumerate(
        [
            (midnight - timedelta(microseconds=1), Fault.OK, (7, 7)),
            (midnight, Fault.OK, (100, 5)),
            (NOON, Fault.SUPPLIER_REFUSED, (20, 0)),  # a failed one that was counted all the same
            (NOON, Fault.SUPPLIER_REFUSED, (None, None)),  # took nothing that anybody knows of
            (NOON, Fault.TRUNCATED, (100, 300)),
            (NOON, Fault.OK, (None, None)),
            (NOON, Fault.OK, (100, None)),
            (midnight - timedelta(days=6), Fault.OK, (1, 0)),
            (midnight - timedelta(days=6, microseconds=1), Fault.OK, (10**6, 10**6)),  # too long ago
        ]
    ):
        facts.attempt(registration, number, fault, at, tokens=tokens)
    facts.attempt(registration, 0, Fault.OK, NOON, number=2, canary=True, tokens=(3, 1))
    facts.attempt(registration, 0, Fault.OK, NOON, supplier=BETA, tokens=(50, 5))
    alpha, beta = active_suppliers(facts.workspace)
    oldest, before, today = spending(facts.workspace, alpha, NOON)
    assert oldest == DaySpent("2026-05-14", 1, 0, 1, 0, pytest.approx(1e-6))
    assert before == DaySpent("2026-05-19", 1, 0, 7, 7, pytest.approx(77e-6))
    cost = (100 + 20 + 100 + 3 + 10 * (5 + 300 + 1)) / 1e6
    assert today == DaySpent("2026-05-20", 7, 2, 223, 306, pytest.approx(cost))
    assert spending(facts.workspace, beta, NOON) == [DaySpent("2026-05-20", 1, 0, 50, 5, None)]


def test_a_day_without_any_count_has_no_cost(facts: Facts) -> None:
    registration = facts.registration(TASK)
    facts.attempt(registration, 0, Fault.OK, NOON)
    free = replace(active_suppliers(facts.workspace)[0], price=Price(0, 0))
    assert spending(facts.workspace, free, NOON) == [DaySpent("2026-05-20", 1, 1, 0, 0, None)]
    facts.attempt(registration, 1, Fault.OK, NOON, tokens=(5, 5))
    assert spending(facts.workspace, free, NOON) == [DaySpent("2026-05-20", 2, 1, 5, 5, 0.0)]


def test_the_page_of_a_supplier_has_its_price_and_its_days(facts: Facts) -> None:
    registration = facts.registration(TASK)
    facts.attempt(registration, 0, Fault.OK, NOON, tokens=(100, 5))
    shown = supplier_page(facts.workspace, ALPHA, now=NOON).to_json()
    assert shown["price"] == {"prompt": 1.0, "completion": 10.0}
    (day,) = shown["spent"]
    assert day == {
        "day": "2026-05-20",
        "attempts": 1,
        "unmetered": 0,
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "cost": pytest.approx(150e-6),
    }
    assert supplier_page(facts.workspace, BETA, now=NOON).to_json()["price"] is None
