"""The item matrix: from what is cached of windows as from the facts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.scores import UNSCORABLE
from testbench_dagster.stages.discover.roster import active_suppliers
from testbench_dagster.stages.rank.items import items
from testbench_dagster.stages.score.samples import window_samples
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, Facts, configuration

TASK = "starter_logic"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    settings = {
        "suppliers": [{"address": "alpha", "base_url": "http://127.0.0.1:9/v1", "model": "m"}],
        "tasks": [{"name": TASK, "samples": "all"}],
    }
    with Workspace(configuration(tmp_path, settings)) as workspace:
        facts = Facts(workspace)
        made = Asked(facts, facts.registration(TASK, n_docs=20))
        made.answer(0, 1.0)
        made.answer(1, 0.0, fault=Fault.TRUNCATED)
        made.answer(2, 0.25)
        for occasion in (1, 2, 3):
            facts.attempt(
                made.registration, 3, Fault.SUPPLIER_HTTP, NOW - timedelta(hours=26 - 8 * occasion),
                prompt_id=made.prompt(3), number=occasion, occasion=occasion,
            )  # fmt: skip
        yield made


def outcomes(asked: Asked) -> list[tuple[int, float | None, str]]:
    return [(row["doc_id"], row["value"], row["outcome"]) for row in items(asked.facts.workspace, NOW)]


def test_rows_come_from_what_is_cached(asked: Asked) -> None:
    workspace = asked.facts.workspace
    from_facts = list(items(workspace, NOW))
    assert outcomes(asked) == [
        (0, 1.0, "ok"),
        (1, 0.0, "truncated"),
        (2, 0.25, "ok"),
        (3, None, "supplier_http"),
    ]
    refresh_window_cache(workspace, [ALPHA], now=NOW)
    for collection in (ATTEMPTS, SCORES):
        workspace.documents.purge(collection, {"supplier": ALPHA})
    assert list(items(workspace, NOW)) == from_facts


def test_outcomes_are_those_of_the_windows(asked: Asked) -> None:
    workspace = asked.facts.workspace
    asked.answer(4, None, fault=Fault.TRUNCATED, error=f"{UNSCORABLE}too deep")
    asked.answer(5, None, fault=Fault.TRUNCATED)
    asked.answer(6, None)
    (supplier,) = active_suppliers(workspace)
    spec = workspace.spec(TASK)
    samples = window_samples(workspace, supplier, spec, asked.registration, NOW)
    expected = [(sample.doc_id, sample.fault.value) for sample in samples]
    assert len(expected) == 7 and {name for _, name in expected} >= {
        "ok",
        "truncated",
        "supplier_http",
        "unscorable",
    }
    for _ in range(2):  # from the facts, then as cached
        assert [(doc, outcome) for doc, _, outcome in outcomes(asked)] == expected
        refresh_window_cache(workspace, [ALPHA], now=NOW)
