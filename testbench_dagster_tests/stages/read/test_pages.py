"""What pages read beside answers and history: pairs, hours, reach, rankings, identity, places of docs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.rank import make_board, store_board
from testbench_dagster.stages.read.activity import hours
from testbench_dagster.stages.read.identity import abilities, changes, placed
from testbench_dagster.stages.read.pairs import paired_answers
from testbench_dagster.stages.read.prompts import prompt_places
from testbench_dagster.stages.read.rankings import Newest, Rankings, Roster
from testbench_dagster.stages.read.reach import catalog
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.board.installations import DOCS, NOW, Names, filled
from testbench_dagster_tests.stages.score.facts import Facts

GOOD, HALF, TWIN, BAD = Names().suppliers
LOGIC, SUMS = Names().tasks


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with filled(tmp_path_factory.mktemp("filled")) as found:
        yield found


# ------------------------------------------------------------------------------------------------ pairs


@pytest.mark.parametrize(
    ("a", "b", "counts"),
    [
        (GOOD, HALF, {"a": 15, "b": 0, "same": 15, "different": 15}),
        (HALF, GOOD, {"a": 0, "b": 15, "same": 15, "different": 15}),
        (GOOD, TWIN, {"a": 0, "b": 0, "same": 30, "different": 0}),
        (HALF, BAD, {"a": 15, "b": 0, "same": 15, "different": 15}),
    ],
)
def test_pairs_say_who_did_better(workspace: Workspace, a: str, b: str, counts: dict[str, int]) -> None:
    known = Roster(workspace).suppliers()
    found = paired_answers(workspace, known[a], known[b], LOGIC, now=NOW)
    assert found.counts == counts
    assert all(one.supplier == a and other.supplier == b for one, other in found.pairs)
    assert all(one.doc_id == other.doc_id for one, other in found.pairs)


def test_a_failed_doc_is_worth_what_a_wrong_one_is(workspace: Workspace) -> None:
    known = Roster(workspace).suppliers()
    found = paired_answers(workspace, known[HALF], known[BAD], LOGIC, choice="same", limit=99, now=NOW)
    assert {(one.kind, other.kind) for one, other in found.pairs} == {("wrong", "wrong"), ("wrong", "failed")}


def test_pairs_are_paged_by_doc(workspace: Workspace) -> None:
    known = Roster(workspace).suppliers()
    seen: list[int] = []
    after: int | None = None
    while True:
        page = paired_answers(
            workspace, known[GOOD], known[HALF], LOGIC, choice="a", after=after, limit=4, now=NOW
        )
        seen += [one.doc_id for one, _ in page.pairs]
        after = page.after
        if after is None:
            break
    assert seen == list(range(0, DOCS, 2))


# ------------------------------------------------------------------------------------------------ hours


def test_hours_count_attempts_by_who_answers_for_them(tmp_path: Path) -> None:
    with filled(tmp_path) as workspace:
        facts, task = Facts(workspace), workspace.datasets.current(LOGIC)
        assert task is not None
        fresh = NOW + timedelta(days=10)
        for number, fault in enumerate(
            (Fault.OK, Fault.TRUNCATED, Fault.SUPPLIER_HTTP, Fault.TRANSPORT, Fault.INTERNAL, Fault.QUOTA)
        ):
            facts.attempt(task, number, fault, fresh - timedelta(minutes=number), supplier=GOOD)
        facts.attempt(task, 9, Fault.OK, fresh - timedelta(hours=3), supplier=GOOD)
        facts.attempt(task, 10, Fault.OK, fresh - timedelta(hours=5), supplier=GOOD)
        facts.attempt(task, 9, Fault.OK, fresh, supplier=HALF)
        found = hours(workspace, GOOD, fresh, count=4)
        assert [hour.total for hour in found] == [1, 0, 5, 1], "the last full hours, nobody else's attempts"
        last = [found[2], found[3]]
        assert sum(h.answered for h in last) == 2 and sum(h.supplier for h in last) == 1
        assert sum(h.network for h in last) == 1 and sum(h.ours for h in last) == 2


# ------------------------------------------------------------------------------------------------ reach


def test_the_catalog_says_whom_a_task_reaches(workspace: Workspace) -> None:
    suppliers = list(Roster(workspace).suppliers().values())
    found = {one.spec.name: one for one in catalog(workspace, suppliers)}
    assert list(found) == [LOGIC, SUMS]
    assert (found[LOGIC].asked, found[LOGIC].able, found[LOGIC].suppliers) == (4, 4, 4)
    assert found[LOGIC].metric == ("exact_match", "none")
    away = [replace(suppliers[0], left_at=NOW), *suppliers[1:]]
    assert {one.suppliers for one in catalog(workspace, away)} == {3}


def test_reach_follows_configuration_and_the_kind_of_requests(tmp_path: Path) -> None:
    with filled(tmp_path) as workspace:
        registration = workspace.datasets.current(LOGIC)
        assert registration is not None
        # log-probabilities, which no chat API gives
        flags = replace(registration.flags, output_type="multiple_choice")
        choice = replace(registration, task="choice", task_hash="c" * 40, flags=flags)
        workspace.datasets.register(choice, workspace.datasets.docs(registration.task_hash), [])
        spec = replace(workspace.specs[0], name="choice")
        applies = replace(spec.applies, suppliers=("good@*",))
        with workspace.with_specs([spec, replace(workspace.specs[1], applies=applies)]) as other:
            suppliers = list(Roster(workspace).suppliers().values())
            for_choice, for_one = catalog(other, suppliers)
            assert (for_choice.asked, for_choice.able) == (4, 0)
            assert (for_one.asked, for_one.able) == (1, 1)


# ------------------------------------------------------------------------------------------------ rankings


def test_the_newest_ranking_is_read_once_and_again_when_it_is_made_anew(tmp_path: Path) -> None:
    with filled(tmp_path) as workspace:
        rankings = Rankings(workspace)
        [stored] = rankings.current()
        first = rankings.read(stored)
        assert first is rankings.read(rankings.current()[0])
        assert [row.supplier for row in first.rows] == [GOOD, TWIN, HALF, BAD]
        assert first.order == {GOOD: 0, TWIN: 1, HALF: 2, BAD: 3}
        assert sum(first.shares[key] or 0 for key in (GOOD, HALF, BAD)) == pytest.approx(1.0)
        store_board(workspace, make_board(workspace, now=NOW + timedelta(minutes=1)))
        [again] = rankings.current()
        assert rankings.read(again).made_at == NOW + timedelta(minutes=1)


def test_rankings_of_former_configurations_are_not_current(tmp_path: Path) -> None:
    with filled(tmp_path) as workspace:
        board = make_board(workspace, now=NOW + timedelta(hours=1))
        store_board(workspace, replace(board, rankings={"other": board.rankings["all tasks"]}))
        assert [one.taxonomy for one in Rankings(workspace).current()] == ["other"]


def test_few_values_are_remembered_and_changed_ones_are_made_again() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    newest: Newest[str] = Newest(2)
    for key, mark in (("a", 1), ("a", 1), ("b", 1), ("a", 2), ("c", 1), ("b", 1)):
        assert newest.get(key, mark, lambda key=key: make(key)) == key
    assert made == ["a", "b", "a", "c", "b"], "a is made again when it changed, b when it was forgotten"


def test_the_roster_is_read_again_when_it_is_old(tmp_path: Path) -> None:
    with filled(tmp_path) as workspace:
        always, seldom = Roster(workspace, fresh_s=1e-9), Roster(workspace, fresh_s=1e9)
        assert set(always.suppliers()) == set(seldom.suppliers()) == {GOOD, HALF, TWIN, BAD}
        Facts(workspace).on_roster("new@external", source="listed")
        assert "new@external" in always.suppliers() and "new@external" not in seldom.suppliers()


# ------------------------------------------------------------------------------------------------ the rest


def test_identity_and_changes_of_one_and_of_all(workspace: Workspace) -> None:
    found = placed(workspace, TWIN)
    assert found is not None and (found.proxy, found.role) == (GOOD, "member")
    assert placed(workspace, HALF) is None
    assert abilities(workspace, GOOD) == [], "no taxonomy is configured"
    first = changes(workspace, limit=25)
    second = changes(workspace, before=first[-1].detected_at, limit=99)
    assert len(first) == 25 and len(second) == 35
    assert [c.detected_at for c in (*first, *second)] == sorted(
        (c.detected_at for c in (*first, *second)), reverse=True
    )
    assert {c.supplier for c in changes(workspace, BAD)} == {BAD}


def test_docs_are_listed_in_the_order_of_asking(workspace: Workspace) -> None:
    registration = workspace.datasets.current(LOGIC)
    first = prompt_places(workspace, registration, limit=10)
    assert [place.doc_id for place in first] == list(range(10))
    rest = prompt_places(workspace, registration, after=first[-1].position, limit=99)
    assert [place.doc_id for place in rest] == list(range(10, DOCS))
    assert prompt_places(workspace, None) == []
