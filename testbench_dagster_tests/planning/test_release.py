"""Which docs are released within a number of relays: examples, then properties over arbitrary plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.planning.due import CallOutcome
from testbench_dagster.planning.release import release
from testbench_dagster.planning.supplier import SupplierPlan, TaskFacts
from testbench_dagster_tests.planning.lives import life
from testbench_dagster_tests.planning.test_supplier import HOUR, NOW, plan, supplier, suppliers, task


def positions(plans: Mapping[str, SupplierPlan]) -> dict[str, dict[str, list[int]]]:
    return {
        key: {name: [doc.prompt.position for doc in d.plan.due] for name, d in made.tasks.items()}
        for key, made in plans.items()
    }


def test_all_get_the_same_first_docs() -> None:
    """One supplier has answered three docs before: what it needs costs less, and it gets no more."""
    plans = {
        "x": plan(supplier(task("a", 9), task("b", 9))),
        "y": plan(supplier(task("a", 9, 3), task("b", 9))),
    }
    assert positions(release(plans, 12)) == {
        "x": {"a": [0, 1, 2, 3], "b": [0, 1, 2]},
        "y": {"a": [3], "b": [0, 1, 2]},
    }
    made = release(plans, 12)["y"]
    assert made.tasks["a"].reason == "3 of 9 docs are fresh; 1 of 6 docs fit into 12 calls"
    assert release(plans, 99) == plans


def test_whole_docs_only() -> None:
    made = release({"x": plan(supplier(task("a", requests=4), task("b", requests=4)))}, 7)["x"]
    assert {name: (d.state, len(d.plan.due), d.due_at) for name, d in made.tasks.items()} == {
        "a": ("due", 1, NOW),
        "b": ("capped", 0, NOW),
    }
    assert made.tasks["b"].reason == "its next doc does not fit into 7 calls, shared by all"
    nothing = release({"x": plan(supplier(task("a")))}, 0)["x"]
    assert (nothing.n_calls, nothing.due_at, nothing.tasks["a"].state) == (0, NOW, "capped")


def test_fewer_relays_than_suppliers_go_to_the_first_and_then_to_the_others() -> None:
    plans = {key: plan(supplier(task("a", 2))) for key in "xyz"}
    assert positions(release(plans, 2)) == {"x": {"a": [0]}, "y": {"a": [0]}, "z": {"a": []}}
    later = {key: plan(supplier(task("a", 2, answered))) for key, answered in (("x", 1), ("y", 1), ("z", 0))}
    assert positions(release(later, 2)) == {"x": {"a": []}, "y": {"a": []}, "z": {"a": [0]}}


def begun(name: str, docs: int, answered: int, opened: int, again: bool = False) -> TaskFacts:
    """A task of which after the answered docs some are open, from the last on; by ``again`` asked in vain."""
    known = task(name, docs, answered)
    last = range(docs - opened, docs)
    failed = [CallOutcome(f"{name}-{doc}", 0, 0, 1, Fault.TRANSPORT, NOW - HOUR) for doc in last]
    lives = {(one.prompt_id, 1): life(DocState.OPEN, NOW - HOUR, NOW) for one in failed}
    return replace(known, outcomes=[*known.outcomes, *failed], lives=lives)


def test_of_one_supplier_open_docs_and_their_canaries_come_first() -> None:
    plans = {"x": plan(supplier(begun("a", 7, 4, 1)), chance=Random(3))}
    found = {calls: release(plans, calls)["x"] for calls in range(1, 6)}
    assert {c: positions({"x": made})["x"]["a"] for c, made in found.items()} == {
        1: [6], 2: [6], 3: [6, 4], 4: [6, 4], 5: [6, 4, 5]
    }  # fmt: skip
    assert {c: len(made.canaries) for c, made in found.items()} == {1: 0, 2: 1, 3: 1, 4: 2, 5: 2}


def test_open_docs_and_their_canaries_take_no_more_than_their_suppliers_share() -> None:
    plans = {
        "x": plan(supplier(begun("a", 7, 4, 1)), chance=Random(3)), "y": plan(supplier(task("a", 7, 4)))
    }  # fmt: skip
    found = {calls: release(plans, calls) for calls in (1, 2, 3, 4, 6)}
    assert {c: positions(made)["x"]["a"] for c, made in found.items()} == {
        1: [4], 2: [4], 3: [6, 4], 4: [6, 4], 6: [6, 4, 5]
    }  # fmt: skip
    assert {c: len(made["x"].canaries) for c, made in found.items()} == {1: 0, 2: 0, 3: 0, 4: 1, 6: 1}
    assert [positions(made)["y"]["a"] for made in found.values()] == [[], [4], [4], [4], [4, 5]]


@pytest.mark.parametrize("evil", ["a", "z"])
def test_who_leaves_docs_open_does_not_take_the_relays_of_others(evil: str) -> None:
    plans = {
        evil: plan(supplier(begun("t", 103, 3, 100)), chance=Random(3)), "m": plan(supplier(task("t", 100)))
    }  # fmt: skip
    for calls in (1, 10, 99, 100, 101, 160):
        made = release(plans, calls)
        assert made["m"].n_calls >= calls // 2
        assert made["m"].n_calls + made[evil].n_calls == calls, "nothing is left over"
    least = release(plans, 202)
    assert (least["m"].n_calls, least[evil].n_calls) == (100, 102), "what honest ones leave is for the others"
    shares = {evil: 10, "m": 90}
    assert release(plans, 100, shares)[evil].n_calls == 10
    assert release(plans, 100, {evil: 0, "m": 1})[evil].n_calls == 0


@pytest.mark.parametrize("calls", [2, 3, 4, 5])
def test_open_docs_of_many_calls_hold_up_nobody(calls: int) -> None:
    many = task("t", 4, 3, requests=4)
    failed = [CallOutcome("t-3", idx, 0, 1, Fault.TRANSPORT, NOW - HOUR) for idx in range(4)]
    lives = {("t-3", 1): life(DocState.OPEN, NOW - HOUR, NOW)}
    many = replace(many, outcomes=[*many.outcomes, *failed], lives=lives)
    plans = {"a": plan(supplier(many), chance=Random(3)), "m": plan(supplier(task("t", 9)))}
    assert release(plans, calls)["m"].n_calls >= min(calls, 4)


@st.composite
def some_plans(draw: st.DrawFn) -> dict[str, SupplierPlan]:
    made = {}
    for key in draw(st.sampled_from(["x", "xy", "xyz"])):
        made[key] = plan(draw(suppliers()), chance=Random(7))
    return made


@settings(max_examples=20)
@given(some_plans())
def test_more_calls_never_take_a_doc_away_and_none_gets_a_later_place(plans: dict[str, SupplierPlan]) -> None:
    total = sum(made.n_calls for made in plans.values())
    before = {key: dict.fromkeys(made.tasks, 0) for key, made in plans.items()}
    for calls in range(total + 1):
        cut = release(plans, calls)
        assert sum(made.n_calls for made in cut.values()) <= calls
        docs = {key: {name: len(d.plan.due) for name, d in made.tasks.items()} for key, made in cut.items()}
        assert all(docs[key][name] >= n for key, known in before.items() for name, n in known.items())
        kept = [place for key, made in cut.items() for place in places(made)]
        left = [place for key in plans for place in places(plans[key]) if place not in places(cut[key])]
        assert not kept or not left or max(kept) <= min(left), "the same first places to all"
        for key, made in cut.items():
            opened = sorted(places(plans[key], opened=True))
            assert sorted(places(made, opened=True)) == opened[: len(places(made, opened=True))]
        assert calls >= total or 2 * sum(len(made.canaries) for made in cut.values()) <= calls
        before = docs
    assert release(plans, total) == plans


def places(made: SupplierPlan, opened: bool = False) -> list[tuple[int, str]]:
    due = [(doc, name) for name, d in made.tasks.items() for doc in d.plan.due]
    return [
        (doc.prompt.position if doc.place is None else doc.place, name)
        for doc, name in due
        if doc.open == opened
    ]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1), st.integers(0, 40))
def test_of_one_supplier_tasks_of_one_call_get_the_same(wanted: dict[str, int], calls: int) -> None:
    """Max-min fair: none gets less than another unless it wants no more."""
    made = release({"x": plan(supplier(*(task(name, docs) for name, docs in wanted.items())))}, calls)["x"]
    got = {name: len(d.plan.due) for name, d in made.tasks.items()}
    assert sum(got.values()) == min(calls, sum(wanted.values()))
    top = max(got.values())
    assert all(got[name] >= top - 1 or got[name] == wanted[name] for name in wanted)
