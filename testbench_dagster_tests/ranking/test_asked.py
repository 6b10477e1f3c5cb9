"""Who is ranked with whom where not all are asked the same tasks, and in which words that is told."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.ranking.asked import ranked_among
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.ranking.feeds import feed, render_prometheus
from testbench_dagster.ranking.ranking import ranked
from testbench_dagster_tests.ranking.boards import board

TASKS = ("arc", "gsm8k", "ifeval", "mbpp", "mmlu")


def test_the_shorter_of_what_is_asked_and_what_is_not_is_told() -> None:
    found = ranked_among(
        {
            "a": frozenset(),
            "b": frozenset({"mbpp"}),
            "c": frozenset({"arc", "gsm8k", "ifeval", "mmlu"}),
            "d": frozenset({"mbpp", "arc"}),
        },
        TASKS,
    )
    assert found == {"a": "all tasks", "b": "not mbpp", "c": "only mbpp", "d": "not arc, mbpp"}


def test_nothing_is_told_where_all_are_asked_the_same() -> None:
    for left_out in (frozenset(), frozenset({"mbpp"})):
        assert ranked_among({"a": left_out, "b": left_out}, TASKS) == {"a": None, "b": None}
    assert ranked_among({}, TASKS) == {}


def test_long_lists_are_cut_unless_they_would_read_alike() -> None:
    tasks = [f"t{i:02}" for i in range(40)]
    some, others = frozenset(tasks[:10]), frozenset([*tasks[:9], tasks[11]])
    assert ranked_among({"a": some, "b": frozenset()}, tasks)["a"] == "not t00, t01, t02 and 7 more"
    found = ranked_among({"a": some, "b": others}, tasks)
    assert found["a"] != found["b"]
    assert found["a"] == f"not {', '.join(sorted(some))}"


@given(st.lists(st.frozensets(st.sampled_from(TASKS)), min_size=1, max_size=12))
def test_two_read_alike_only_where_they_are_asked_the_same(left_out: list[frozenset[str]]) -> None:
    found = ranked_among({f"s{i}": names for i, names in enumerate(left_out)}, TASKS)
    for i, one in enumerate(left_out):
        for j, other in enumerate(left_out):
            assert (found[f"s{i}"] == found[f"s{j}"]) == (one == other)


def entry(key: str, score: float | None, coverage: float = 1.0) -> Entry:
    low, high = (None, None) if score is None else (score - 0.01, score + 0.01)
    return Entry("t", key, score, low, high, 1, 1, 10, 0, coverage=coverage)


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.none() | st.floats(0.1, 0.9),
            st.sampled_from([0.5, 1.0]),
            st.sampled_from(["all tasks", "only mbpp", "not mbpp"]),
        ),
        max_size=12,
    )
)
def test_those_asked_the_same_are_ranked_as_if_there_were_no_others(
    given_: list[tuple[float | None, float, str]],
) -> None:
    entries = [entry(f"s{i}", score, coverage) for i, (score, coverage, _) in enumerate(given_)]
    among = {f"s{i}": name for i, (_, _, name) in enumerate(given_)}
    done = ranked(entries, among=among)
    assert sorted(e.supplier for e in done) == sorted(e.supplier for e in entries)
    kinds = list(dict.fromkeys(e.ranked_among for e in done))
    assert [e.ranked_among for e in done] == sorted(
        (e.ranked_among for e in done), key=lambda name: kinds.index(name)
    ), "they stand together"
    sizes = [sum(e.ranked_among == kind for e in done) for kind in kinds]
    assert sizes == sorted(sizes, reverse=True)
    for kind in kinds:
        alone = ranked([e for e in entries if among[e.supplier] == kind])
        # which draws of the bootstrap a supplier has depends on nobody else either
        assert [dataclasses.replace(e, ranked_among=kind) for e in alone] == [
            e for e in done if e.ranked_among == kind
        ]


def test_a_feed_has_whoever_is_in_any_ranking_and_every_taxonomy_of_each() -> None:
    made = board(["one", "two", "three"], ["gsm8k"], ["general", "code"])
    first, *rest = made.rankings["general"]
    without = dataclasses.replace(made, rankings={**made.rankings, "general": rest})
    rows = {row["supplier"]: row for row in feed(without)["suppliers"]}
    assert set(rows) == {supplier.key for supplier in made.suppliers}
    assert list(rows)[-1] == first.supplier, "after those of the first ranking"
    unasked = rows[first.supplier]["taxonomies"]["general"]
    assert (unasked["score"], unasked["rank_low"]) == (None, None)
    assert set(rows[first.supplier]["taxonomies"]) == {"general", "code"}
    in_code = next(e for e in made.rankings["code"] if e.supplier == first.supplier)
    assert rows[first.supplier]["score"] == in_code.score
    assert f'testbench_supplier_info{{supplier="{first.supplier}"' in render_prometheus(without)
