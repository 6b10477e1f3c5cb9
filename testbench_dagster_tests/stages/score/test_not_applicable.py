"""Rows of tasks that a supplier is not asked, or no more, and whom that makes no peer of others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.columns import Shape
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.snapshot_rows import unpack_rows
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.core.window import WINDOW_VIEWS, Window
from testbench_dagster.defs.metadata import window_table
from testbench_dagster.ranking.cells import cell_writer
from testbench_dagster.stages.identify.reading import docs_per_task, read_answers, read_failed, read_graded
from testbench_dagster.stages.sample.spread import complete_row
from testbench_dagster.stages.score.states import Peers
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.snapshot import take_snapshots
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import SUPPLIER_SNAPSHOTS
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration

TASK, OTHER = "starter_logic", "starter_units"


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Facts]]:
    """Opens the installation anew with settings of the first of its two tasks."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    opened: list[Workspace] = []

    def build(**task: Any) -> Facts:
        tasks = [{"name": TASK, "samples": "all", **task}, {"name": OTHER, "samples": "all"}]
        opened.append(Workspace(configuration(tmp_path, {"tasks": tasks})))
        return Facts(opened[-1])

    yield build
    for workspace in opened:
        workspace.close()


def rows(facts: Facts, **options: Any) -> dict[tuple[str, str], Window]:
    return {(r.supplier, r.task): r for r in windows(facts.workspace, now=NOW, **options) if r.primary}


def test_a_row_says_so_even_before_there_is_a_dataset(installation: Callable[..., Facts]) -> None:
    found = rows(installation(suppliers=["beta@*"]))
    assert {key: row.status for key, row in found.items()} == {
        (ALPHA, TASK): "not_applicable",
        (BETA, TASK): "no_data",
        (ALPHA, OTHER): "no_data",
        (BETA, OTHER): "no_data",
    }


@pytest.mark.parametrize("cached", [False, True])
def test_what_is_no_longer_asked_has_no_score_until_it_is_asked_again(
    installation: Callable[..., Facts], cached: bool
) -> None:
    facts = installation()
    task = facts.registration(TASK, n_docs=8)
    for supplier in (ALPHA, BETA):
        for doc in range(8):
            facts.attempt(task, doc, at=NOW, supplier=supplier, text="x")
            facts.score(task, doc, float(doc < 6), NOW, supplier=supplier)
    if cached:
        refresh_window_cache(facts.workspace, [ALPHA, BETA], now=NOW)
    before = rows(facts)
    assert (before[ALPHA, TASK].status, before[ALPHA, TASK].score) == ("ok", 0.75)
    left_out = installation(suppliers=["!alpha@*"])
    after = rows(left_out)
    gone = after[ALPHA, TASK]
    assert (gone.status, gone.n, gone.score, gone.n_planned, gone.errors) == (
        "not_applicable",
        0,
        None,
        None,
        {},
    )
    assert after[BETA, TASK] == before[BETA, TASK]
    assert complete_row(gone, "unit", 1) is None, "no say in how many docs all are asked"
    if cached:
        assert refresh_window_cache(left_out.workspace, [ALPHA, BETA], now=NOW) == 0
    assert rows(installation()) == before
    assert rows(installation(), from_facts=True) == before


def test_tables_and_the_page_say_it_in_the_place_of_docs(installation: Callable[..., Facts]) -> None:
    facts = installation(suppliers=["!alpha@*"])
    facts.registration(TASK, n_docs=8)
    row = rows(facts)[ALPHA, TASK]
    assert r"not\_applicable" in str(window_table([row]).value)
    (docs,) = [cell for cell in WINDOW_VIEWS.page if cell.shape is Shape.DOCS]
    assert cell_writer(Window, docs, NOW)(row) == "not_applicable"


def test_snapshots_do_not_repeat_it_every_day(installation: Callable[..., Facts]) -> None:
    facts = installation(suppliers=["!alpha@*"])
    tasks = [facts.registration(name, n_docs=8) for name in (TASK, OTHER)]
    for key in (ALPHA, BETA):
        facts.on_roster(key)
        for task in tasks:
            facts.score(task, 0, 1.0, at=datetime.now(UTC), supplier=key)
    assert take_snapshots(facts.workspace, NOW.date()) == 2
    taken = {one["supplier"]: one for one in facts.workspace.documents.find(SUPPLIER_SNAPSHOTS)}
    assert [row.task for row in unpack_rows(taken[ALPHA]["rows"])] == [OTHER]
    assert [row.task for row in unpack_rows(taken[BETA]["rows"])] == [TASK, OTHER]


def on_roster(facts: Facts, *names: str) -> list[str]:
    keys = [f"{name}@external" for name in names]
    for key in keys:
        facts.on_roster(key, source="chain")
    return keys


def test_who_is_not_asked_is_no_peer(installation: Callable[..., Facts]) -> None:
    """Neither an answer of theirs nor a refusal says anything of a prompt."""
    facts = installation()
    task = facts.registration(TASK, n_docs=8)
    refusing = ["alpha@external", "beta@external"]
    for key in refusing:
        for doc in range(4):
            facts.score(task, doc, 1.0, NOW, supplier=key)
        facts.fail(task, 5, Fault.CLIENT_REQUEST, NOW, supplier=key)
    prompt = f"{TASK}-5"
    peers = Peers(facts.workspace, NOW)

    def heard(peers: Peers) -> set[str]:
        return {outcome.supplier for outcome in peers._peers(prompt, _attempts(facts, prompt))}

    assert heard(peers) == set(refusing)
    fewer = installation(suppliers=["!beta@*"])
    assert heard(Peers(fewer.workspace, NOW)) == {ALPHA}


def _attempts(facts: Facts, prompt: str) -> list[Any]:
    from testbench_dagster.stages.score.states import attempts_at

    return list(attempts_at(facts.workspace.documents, {prompt}))


def test_an_answer_of_who_is_not_asked_ends_no_void(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, n_docs=8)
    made = _attempt(facts, task)
    facts.attempt(task, 5, at=NOW, supplier=BETA, text="x")
    facts.score(task, 5, 1.0, NOW, supplier=BETA)
    for patterns, counts in (({}, True), ({"suppliers": ["!beta@*"]}, False)):
        peers = Peers(installation(**patterns).workspace, NOW)
        assert bool(peers._answered_otherwise("external", [made])) is counts, patterns


def _attempt(facts: Facts, task: Any) -> Any:
    facts.attempt(task, 5, Fault.CLIENT_REQUEST, NOW)
    (made,) = _attempts(facts, f"{TASK}-5")
    return made


def test_identity_rests_on_what_is_asked(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK, n_docs=8)
    for supplier in (ALPHA, BETA):
        for doc in range(4):
            facts.attempt(task, doc, at=NOW, supplier=supplier, text="x")
            facts.score(task, doc, 1.0, NOW, supplier=supplier)
        facts.fail(task, 5, Fault.SUPPLIER_REFUSED, NOW, supplier=supplier)

    def read(opened: Facts) -> list[set[str]]:
        from testbench_dagster.stages.discover.roster import active_suppliers

        suppliers: list[Supplier] = active_suppliers(opened.workspace)
        return [
            {one.supplier for one in answers}
            for answers in (
                read_answers(opened.workspace, "external", suppliers, NOW),
                read_graded(opened.workspace, suppliers, NOW),
                read_failed(opened.workspace, suppliers, NOW),
            )
        ]

    assert read(facts)[1:] == [{ALPHA, BETA}] * 2
    before = read(facts)[0]
    left_out = installation(suppliers=["!alpha@*"])
    assert read(left_out) == [before - {ALPHA}, {BETA}, {BETA}]


def test_fewer_tasks_are_compared_on_more_docs_each(installation: Callable[..., Facts]) -> None:
    from testbench_dagster.stages.discover.roster import active_suppliers

    facts = installation(suppliers=["!alpha@*"])
    alpha, beta = active_suppliers(facts.workspace)
    assert docs_per_task(facts.workspace, [alpha, beta]) == docs_per_task(facts.workspace, [beta]) == 120
    assert docs_per_task(facts.workspace, [alpha]) == 240
