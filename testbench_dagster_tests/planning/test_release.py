"""Which docs are released within a number of relays: examples, then properties over arbitrary plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.core.doc_states import DocState
from testbench_dagster.core.faults import Fault
from testbench_dagster.planning.due import CallOutcome
from testbench_dagster.planning.release import release
from testbench_dagster.planning.supplier import SupplierPlan
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


def test_open_docs_and_their_canaries_come_first() -> None:
    begun = task("a", 9, 4)
    failed = CallOutcome("a-6", 0, 0, 1, Fault.TRANSPORT, NOW - HOUR)
    lives = {("a-6", 1): life(DocState.OPEN, NOW - HOUR, NOW)}
    again = replace(begun, outcomes=[*begun.outcomes, failed], lives=lives)
    plans = {"x": plan(supplier(again), chance=Random(3)), "y": plan(supplier(task("a", 9, 4)))}
    found = {calls: release(plans, calls) for calls in (1, 2, 5, 8)}
    assert {c: positions(made)["x"]["a"] for c, made in found.items()} == {
        1: [6], 2: [6], 5: [6, 4], 8: [6, 4, 5]
    }  # fmt: skip
    assert {c: len(made["x"].canaries) for c, made in found.items()} == {1: 0, 2: 1, 5: 2, 8: 3}
    assert positions(found[8])["y"]["a"] == [4, 5]


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
        before = docs
    assert release(plans, total) == plans


def places(made: SupplierPlan) -> list[tuple[bool, int, str]]:
    return [(not doc.open, doc.prompt.position, name) for name, d in made.tasks.items() for doc in d.plan.due]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1), st.integers(0, 40))
def test_of_one_supplier_tasks_of_one_call_get_the_same(wanted: dict[str, int], calls: int) -> None:
    """Max-min fair: none gets less than another unless it wants no more."""
    made = release({"x": plan(supplier(*(task(name, docs) for name, docs in wanted.items())))}, calls)["x"]
    got = {name: len(d.plan.due) for name, d in made.tasks.items()}
    assert sum(got.values()) == min(calls, sum(wanted.values()))
    top = max(got.values())
    assert all(got[name] >= top - 1 or got[name] == wanted[name] for name in wanted)
