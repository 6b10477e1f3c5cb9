"""Ranks, ties and what they rest on, over summaries made from hand-written scores."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.errors import ConfigError
from testbench_dagster.leaderboard import ALL_TASKS, Entry, _ranked, leaderboard, refresh_leaderboard
from testbench_dagster.relays.faults import Fault
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.stores.documents.collections import LEADERBOARDS, TAXONOMY_SUMMARIES
from testbench_dagster.taxonomies.refresh import refresh_summaries
from testbench_dagster.workspace import Workspace
from testbench_dagster_tests.scoring.facts import ALPHA, BETA, Facts, configuration

NOW = datetime.now(UTC)


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Facts]:
    """Two tasks and two suppliers; parametrized with the taxonomies."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    tasks = [{"name": n, "samples": "all"} for n in ("starter_logic", "starter_units")]
    settings = {"tasks": tasks, "taxonomies": request.param, "simulation": True}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        yield Facts(workspace)


def fill(facts: Facts, shares: dict[tuple[str, str], int]) -> None:
    """Score 20 docs of a task, so many of them right."""
    for task in ("starter_logic", "starter_units"):
        registration = facts.registration(task, n_docs=40)
        for (supplier, name), right in shares.items():
            if name == task:
                for doc in range(20):
                    facts.score(registration, doc, float(doc < right), NOW, supplier=supplier)


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_ranks_come_from_the_stored_summaries(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 2, (BETA, "starter_logic"): 18, (BETA, "starter_units"): 19})
    units = facts.registration("starter_units", n_docs=40)
    facts.attempt(units, 30, Fault.EMPTY, NOW, supplier=BETA)
    facts.attempt(units, 31, Fault.TRANSPORT, NOW, supplier=BETA)
    assert {e.score for e in leaderboard(facts.workspace)} == {None}, "nothing is summarized yet"
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    first, second = leaderboard(facts.workspace)
    assert (first.supplier, first.rank_low, first.rank_high) == (BETA, 1, 1)
    assert (second.supplier, second.rank_low, second.rank_high) == (ALPHA, 2, 2)
    assert (first.n, first.errors) == (40, 1), "the network's fault is not the supplier's"
    assert (second.n, second.errors, second.tasks_measured) == (20, 0, 1)
    assert first.simulation
    assert leaderboard(facts.workspace, first.taxonomy) == [first, second]


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_a_summary_past_the_age_ranks_nobody(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 20})
    (document, _) = refresh_summaries(facts.workspace, [ALPHA, BETA])
    old = {**document, "summarized_at": NOW - timedelta(days=33)}
    facts.workspace.documents.upsert(TAXONOMY_SUMMARIES, [old])
    entry = next(e for e in leaderboard(facts.workspace) if e.supplier == ALPHA)
    assert (entry.score, entry.rank_low, entry.n) == (None, None, 0)


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_an_unknown_taxonomy_is_refused(facts: Facts) -> None:
    with pytest.raises(ConfigError, match="taxonomy 'nope' is not configured; configured are: "):
        leaderboard(facts.workspace, "nope")


@pytest.mark.parametrize("facts", [[]], indirect=True)
def test_without_taxonomies_the_mean_over_all_tasks_ranks(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 10, (ALPHA, "starter_units"): 20, (BETA, "starter_logic"): 12})
    first, second = leaderboard(facts.workspace)
    assert {first.taxonomy, second.taxonomy} == {ALL_TASKS}
    assert (first.supplier, first.score, first.tasks_measured, first.tasks_total) == (ALPHA, 0.75, 2, 2)
    assert (second.supplier, second.score, second.tasks_measured) == (BETA, 0.6, 1)
    assert (second.ci_low, second.ci_high) == wilson(12, 20), "of one task its own interval"
    assert (first.rank_low, first.rank_high, second.rank_low, second.rank_high) == (1, 2, 1, 2)


@pytest.mark.parametrize("facts", [[]], indirect=True)
def test_refreshing_replaces_the_stored_board(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 10})
    for _ in range(2):
        entries = refresh_leaderboard(facts.workspace)
    (board,) = facts.workspace.documents.find(LEADERBOARDS)
    assert board["entries"] == [e.to_json() for e in entries]
    assert [e.supplier for e in entries] == [ALPHA, BETA]
    assert entries[1].rank_low is None


def entry(number: int, score: float | None, half: float | None) -> Entry:
    low, high = (None, None) if half is None or score is None else (score - half, score + half)
    return Entry("t", f"s{number}", score, low, high, 1, 1, 10, 0)


@given(st.lists(st.tuples(st.none() | st.floats(0, 1), st.none() | st.floats(0, 0.5)), max_size=12))
def test_ranks_are_those_of_their_definition(values: list[tuple[float | None, float | None]]) -> None:
    entries = [entry(i, *v) for i, v in enumerate(values)]
    ranked = _ranked(entries)
    assert sorted(e.supplier for e in ranked) == sorted(e.supplier for e in entries)
    scored = [e for e in ranked if e.score is not None]
    assert ranked[: len(scored)] == scored, "the unscored stand last"

    def ends(e: Entry) -> tuple[float, float]:
        assert e.score is not None
        return (e.score if e.ci_low is None else e.ci_low, e.score if e.ci_high is None else e.ci_high)

    for one in scored:
        assert one.rank_low == 1 + sum(ends(other)[0] > ends(one)[1] for other in scored)
        assert one.rank_high == len(scored) - sum(ends(other)[1] < ends(one)[0] for other in scored)
        assert one.rank_low <= one.rank_high
    assert all(e.rank_low is None for e in ranked[len(scored) :])
    scores = [e.score for e in scored]
    assert scores == sorted(scores, key=lambda s: -(s or 0))
