"""Costs of windows as they are read: from facts and from the cache alike, at the price of now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.window import Window
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster_tests.reads import documents_read
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration

TASK = "starter_logic"
URL = "http://127.0.0.1:9/v1"


@pytest.fixture
def priced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Facts]]:
    """Opens one installation at a price of its first supplier, again and again."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    opened: list[Workspace] = []

    def at(price: dict[str, Any] | None) -> Facts:
        first = {"address": "alpha", "base_url": URL, "model": "m", **({"price": price} if price else {})}
        suppliers = [first, {"address": "beta", "base_url": URL, "model": "m", "api": "completions"}]
        settings = {"suppliers": suppliers, "tasks": [{"name": TASK, "samples": "all"}]}
        opened.append(Workspace(configuration(tmp_path, settings)))
        return Facts(opened[-1])

    yield at
    for workspace in opened:
        workspace.close()


def primary(facts: Facts, supplier: str = ALPHA, **options: Any) -> Window:
    rows = windows(facts.workspace, suppliers=[supplier], now=NOW, **options)
    (row,) = [row for row in rows if row.primary]
    return row


def test_a_window_has_a_cost_only_at_a_price(priced: Callable[..., Facts]) -> None:
    facts = priced({"prompt": 1.0, "completion": 4.0})
    registration = facts.registration(TASK, n_docs=4)
    for supplier in (ALPHA, BETA):
        for doc, value in enumerate((1.0, 1.0, 0.0)):
            facts.score(registration, doc, value, supplier=supplier)
        facts.fail(registration, 3, Fault.SUPPLIER_REFUSED, NOW, supplier=supplier)
    row = primary(facts)
    assert (row.n, row.n_failed, row.tokens) == (3, 1, {"prompt": 300, "completion": 15})
    assert row.cost == pytest.approx((300 * 1 + 15 * 4) / 1e6)
    assert row.cost_per_1000_right == pytest.approx(row.cost / 2 * 1000)
    other = primary(facts, BETA)
    assert (other.tokens, other.cost, other.cost_per_1000_right) == (row.tokens, None, None)


def test_another_price_holds_at_once_and_makes_no_window_anew(
    priced: Callable[..., Facts], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = priced({"prompt": 1.0, "completion": 4.0})
    registration = facts.registration(TASK, n_docs=3)
    for doc in range(3):
        facts.score(registration, doc, 1.0)
    computed = primary(facts, from_facts=True)
    assert refresh_window_cache(facts.workspace, [ALPHA], now=NOW) == 1
    assert primary(facts) == computed
    for price, times in (({"prompt": 2.0, "completion": 8.0}, 2.0), ({"prompt": 0, "completion": 0}, 0.0)):
        dearer = priced(price)
        read = documents_read(dearer.workspace.documents, monkeypatch)
        row = primary(dearer)
        assert row.cost == pytest.approx(times * (computed.cost or 0))
        assert row == primary(dearer, from_facts=True)
        assert refresh_window_cache(dearer.workspace, [ALPHA], now=NOW) == 0
        assert read[SCORES.name] == 3, "those of the comparison alone"
    without = primary(priced(None))
    assert (without.cost, without.tokens) == (None, computed.tokens)


def test_a_doc_whose_tokens_nobody_counts_leaves_the_cost_unknown(priced: Callable[..., Facts]) -> None:
    facts = priced({"prompt": 1.0, "completion": 4.0})
    registration = facts.registration(TASK, n_docs=4)
    facts.score(registration, 0, 1.0)
    assert (primary(facts).cost, primary(facts).n_unmetered) == (pytest.approx(120 / 1e6), 0)
    facts.score(registration, 1, 1.0, tokens=(None, None))
    facts.score(registration, 2, 1.0, tokens=(100, None))
    row = primary(facts)
    assert (row.cost, row.cost_per_1000_right, row.n_unmetered) == (None, None, 2)
    refresh_window_cache(facts.workspace, [ALPHA], now=NOW)
    assert primary(facts) == row


def test_attempts_that_no_score_rests_on_are_no_part_of_it(priced: Callable[..., Facts]) -> None:
    facts = priced({"prompt": 1.0, "completion": 4.0})
    registration = facts.registration(TASK, n_docs=4)
    facts.attempt(registration, 0, Fault.SUPPLIER_REFUSED, NOW, tokens=(10**6, 10**6))
    facts.attempt(registration, 0, Fault.OK, NOW, number=2, tokens=(100, 5))
    facts.attempt(registration, 0, Fault.OK, NOW, number=3, canary=True, tokens=(10**6, 0))
    facts.score(registration, 0, 1.0)
    assert primary(facts).cost == pytest.approx(120 / 1e6)
    assert facts.workspace.documents.count(ATTEMPTS) == 3
