"""Ranks, ties and what they rest on, over summaries made from hand-written scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbench_dagster.api import Testbench
from testbench_dagster.board.published import render_page
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.rankings import TaxonomySummaryRecord
from testbench_dagster.core.records.set_aside import SetAsideRecord
from testbench_dagster.core.records.windows import WindowRecord
from testbench_dagster.ranking.entry import ALL_TASKS, Entry
from testbench_dagster.ranking.feeds import render_json
from testbench_dagster.ranking.ranking import RankGroup, ranked, units_of
from testbench_dagster.stages.rank import leaderboard, make_board, ranking, store_board, stored_entries
from testbench_dagster.stages.rank.items import items
from testbench_dagster.stages.rank.ranking import FRESH
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.summarize.refresh import configured_taxonomies, refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.combinations import wilson_of_mean
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, LEADERBOARDS, TAXONOMY_SUMMARIES
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

NOW = datetime.now(UTC)


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Facts]:
    """Two tasks, a signature and two suppliers; parametrized with the taxonomies."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    tasks = [{"name": n, "samples": "all"} for n in ("starter_logic", "starter_units")]
    tasks.append({"name": "config", "framework": "signatures"})
    configured = {"tasks": tasks, "taxonomies": request.param, "simulation": True}
    with Workspace(configuration(tmp_path, configured)) as workspace:
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
    facts.fail(units, 30, Fault.EMPTY, NOW, supplier=BETA)
    facts.attempt(units, 31, Fault.TRANSPORT, NOW, supplier=BETA)
    assert {e.score for e in leaderboard(facts.workspace)} == {None}, "nothing is summarized yet"
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    first, second = leaderboard(facts.workspace)
    assert (first.supplier, first.rank_low, first.rank_high) == (BETA, 1, 1)
    assert (second.supplier, second.rank_low, second.rank_high) == (ALPHA, 2, 2)
    assert (first.n, first.errors, first.n_open) == (40, 1, 1), "one is closed as failed, one is open"
    assert (second.n, second.errors, second.tasks_measured) == (20, 0, 1)
    (summary,) = facts.workspace.documents.find(TAXONOMY_SUMMARIES, {"supplier": ALPHA})
    root = summary["nodes"][summary["root"]]
    assert second.coverage == root["weight_coverage"] != root["coverage"]
    assert first.simulation
    assert leaderboard(facts.workspace, first.taxonomy) == [first, second]


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_a_summary_past_the_age_ranks_nobody(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 20})
    (document, _) = refresh_summaries(facts.workspace, [ALPHA, BETA])
    old = dataclasses.replace(document, summarized_at=NOW - timedelta(days=33))
    typed.upsert(facts.workspace.documents, TaxonomySummaryRecord, [old])
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
    assert (first.ci_low, first.ci_high) == wilson_of_mean([0.5, 0.5], [0.5, 1.0], [20, 20])
    assert (first.rank_low, first.rank_high, second.rank_low, second.rank_high) == (1, 2, 1, 2)


@pytest.mark.parametrize("facts", [["builtin:starter"], []], indirect=True)
def test_where_lower_is_better_who_fails_is_last(facts: Facts) -> None:
    """A failed doc counts as 1 there: 19 of them and one answer are a score of .98, and the worst place."""
    for name in ("starter_logic", "starter_units"):
        task = facts.registration(name, n_docs=40, metrics={"toxicity": "mean"}, higher_is_better=False)
        for doc in range(20):
            for supplier, value in ((ALPHA, 0.6), (BETA, float(doc < 2))):
                if supplier == BETA or not doc:
                    metrics = {"none": {"toxicity": value}}
                    facts.score(task, doc, at=NOW, supplier=supplier, metrics=metrics)
            if doc:
                facts.fail(task, doc, Fault.SUPPLIER_REFUSED, NOW, supplier=ALPHA)
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    board = make_board(facts.workspace)
    (entries,) = board.rankings.values()
    first, second = entries
    assert (first.supplier, first.score) == (BETA, pytest.approx(0.9))
    assert (second.supplier, second.score) == (ALPHA, pytest.approx(0.4 / 20))
    assert first.rank_high == 1 and second.rank_low == 2
    assert all(row.score == pytest.approx(0.98) for row in board.windows[ALPHA]), "the row keeps its own"


@pytest.mark.parametrize("facts", [[]], indirect=True)
def test_signatures_take_no_part(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 10})
    alone = leaderboard(facts.workspace)
    signature = facts.registration("config", n_docs=1, metrics={"signature": "none"})
    later = NOW + timedelta(seconds=5)
    facts.score(signature, 0, at=later, metrics={"none": {"signature": "ab" * 32}}, latency_ms=9000.0)
    facts.attempt(signature, 0, Fault.EMPTY, later, supplier=BETA)
    assert leaderboard(facts.workspace) == alone
    board = make_board(facts.workspace)
    assert {row.task for rows in board.windows.values() for row in rows} == {"starter_logic", "starter_units"}
    assert {row["task"] for row in items(facts.workspace)} == {"starter_logic"}


@pytest.mark.parametrize("facts", [["builtin:starter"], []], indirect=True)
def test_a_board_tells_what_is_set_aside_and_where_it_is_missing(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 10})
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    names = [t.name for t in configured_taxonomies(facts.workspace)] or [ALL_TASKS]
    board = make_board(facts.workspace)
    assert (board.set_aside, board.lacking) == ({}, {name: [] for name in names})
    for task in ("starter_units", "config", "configured no more"):
        one = SetAsideRecord(
            id=task,
            step="dataset",
            since=NOW,
            tried_at=NOW,
            failures=1,
            retry_at=NOW,
            reason="/srv/me/a.jsonl is torn",
            source=None,
        )
        typed.upsert(facts.workspace.documents, SetAsideRecord, [one])
    board = make_board(facts.workspace)
    torn = "/srv/me/a.jsonl is torn"
    assert board.set_aside == {"starter_units": torn, "config": torn}
    assert set(board.published_set_aside.values()) == {"…/a.jsonl is torn"}
    assert "/srv/me" not in render_json(board) + render_page(board)
    assert board.lacking == {name: ["starter_units"] for name in names}
    testbench = Testbench(facts.workspace)
    assert testbench.leaderboard().set_aside == {"starter_units": torn}, "a signature ranks nobody"
    abilities = testbench.taxonomies()
    if names != [ALL_TASKS]:
        assert abilities.set_aside == {"starter_units": torn}
        roots = {row["supplier"]: row for row in abilities.rows if row["root"]}
        assert roots[ALPHA]["set_aside"] == ["starter_units"]
        assert "starter_units" in roots[ALPHA]["missing"]
        assert any(row["set_aside"] == [] for row in abilities.rows), "nodes without it"


@pytest.mark.parametrize("facts", [[]], indirect=True)
def test_refreshing_replaces_the_stored_board(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 10})
    for _ in range(2):
        board = make_board(facts.workspace)
        store_board(facts.workspace, board)
    (stored,) = facts.workspace.documents.find(LEADERBOARDS)
    entries = board.entries
    assert stored["entries"] == [e.to_json() for e in entries]
    assert [e.supplier for e in entries] == [ALPHA, BETA]
    assert entries[1].rank_low is None


def of_coverage(*coverages: float | None) -> list[Entry]:
    """Entries s0, s1, … whose score rests on these shares of the root's weight; None: no score."""
    return [
        dataclasses.replace(entry(i, None if c is None else 0.5, 0.1), coverage=c)
        for i, c in enumerate(coverages)
    ]


def standings(
    entries: list[Entry],
    apis: dict[str, str] | None = None,
    groups: dict[str, RankGroup] | None = None,
    owners: dict[str, str] | None = None,
) -> dict[str, tuple[str | None, bool]]:
    """By supplier its standing, and whether it has a rank."""
    return {e.supplier: (e.standing, e.rank_low is not None) for e in ranked(entries, groups, apis, owners)}


def test_who_answers_less_than_three_others_is_shown_unranked() -> None:
    entries = of_coverage(1.0, 0.8, 0.8, 0.7, 0.8 - 1e-12, None)
    found = standings(entries)
    assert found == {
        "s0": ("ranked", True),
        "s1": ("ranked", True),
        "s2": ("ranked", True),
        "s3": ("short", False),
        "s4": ("ranked", True),
        "s5": (None, False),
    }
    assert [e.supplier for e in ranked(entries)][-2:] == ["s3", "s5"], "after those that are ranked"


def test_below_three_units_of_an_api_all_are_ranked_and_marked() -> None:
    entries = of_coverage(1.0, 0.5, 1.0, 1.0, 1.0)
    apis = {f"s{i}": "chat" if i < 2 else "completions" for i in range(5)}
    found = standings(entries, apis)
    assert found["s0"] == ("ranked", True) and found["s1"] == ("few_units", True)
    alike = [dataclasses.replace(e, group="g") for e in of_coverage(1.0, 1.0, 1.0)]
    alike = {f"s{i}": RankGroup("g", "s0") for i in range(3)}
    found = standings(of_coverage(1.0, 1.0, 1.0, 0.5), groups=alike)
    assert found["s3"] == ("few_units", True), "three members of a group are one unit"
    owned = {f"s{i}": "pokt1owner" for i in range(3)}
    found = standings(of_coverage(1.0, 1.0, 1.0, 0.5), owners=owned)
    assert found["s3"] == ("few_units", True), "so are an owner's suppliers"


@given(st.lists(st.one_of(st.none(), st.floats(0.01, 1)), max_size=8))
@settings(max_examples=60)
def test_three_units_at_least_are_ranked_where_there_are_three(coverages: list[float | None]) -> None:
    found = standings(of_coverage(*coverages))
    scored = sum(c is not None for c in coverages)
    assert sum(ranked for _, ranked in found.values()) >= min(scored, 3)


def entry(number: int, score: float | None, half: float | None) -> Entry:
    low, high = (None, None) if half is None or score is None else (score - half, score + half)
    return Entry("t", f"s{number}", score, low, high, 1, 1, 10, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.none() | st.floats(0, 1), st.none() | st.floats(0, 0.5)), max_size=12))
def test_ranks_are_those_of_the_scored(values: list[tuple[float | None, float | None]]) -> None:
    entries = [entry(i, *v) for i, v in enumerate(values)]
    done = ranked(entries)
    assert sorted(e.supplier for e in done) == sorted(e.supplier for e in entries)
    scored = [e for e in done if e.score is not None]
    assert done[: len(scored)] == scored, "the unscored stand last"
    for place, one in enumerate(scored, start=1):
        assert one.rank_low is not None and one.rank_high is not None
        assert 1 <= one.rank_low <= place <= one.rank_high <= len(scored), (
            "its row's place is one it may have"
        )
        assert one.p_best is not None and 0 <= one.p_best <= 1
    assert all((e.rank_low, e.p_best) == (None, None) for e in done[len(scored) :])
    scores = [e.score for e in scored]
    assert scores == sorted(scores, key=lambda s: -(s or 0))


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_members_of_a_group_have_their_own_scores_and_one_place(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 1, (BETA, "starter_logic"): 18})
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    group = {"group": "g7", "proxy": BETA, "members": [ALPHA, BETA]}
    apart = {e.supplier: e for e in leaderboard(facts.workspace)}
    assert {(e.rank_low, e.rank_high) for e in apart.values()} == {(1, 1), (2, 2)}
    facts.workspace.documents.upsert(IDENTITY_GROUPS, [{"_id": key, **group} for key in (ALPHA, BETA)])
    first, second = leaderboard(facts.workspace)
    assert (first.supplier, second.supplier) == (BETA, ALPHA)
    for one in (first, second):
        alone = apart[one.supplier]
        assert (one.score, one.ci_low, one.ci_high) == (alone.score, alone.ci_low, alone.ci_high)
        assert (one.rank_low, one.rank_high, one.p_best) == (1, 1, 1.0)
        assert (one.group, one.proxy, one.unit) == ("g7", BETA, "g7")
    # a group whose other members are gone is none
    alone = {"_id": ALPHA, "group": "g8", "proxy": "gone@external", "members": [ALPHA, "gone@external"]}
    facts.workspace.documents.upsert(IDENTITY_GROUPS, [alone, {"_id": BETA, **group, "members": [BETA]}])
    assert {(e.group, e.unit) for e in leaderboard(facts.workspace)} == {(None, None)}


def test_units_are_groups_and_owners_and_never_both_together() -> None:
    groups = {"a": RankGroup("g", "a"), "copycat": RankGroup("g", "a"), "c": RankGroup("h", "c")}
    groups["d"] = RankGroup("h", "c")
    owners = {"copycat": "x", "sybil": "x", "another": "x", "c": "y", "d": "y", "e": "y"}
    found = units_of(groups, owners)
    assert found["a"] == found["copycat"] == "g"
    assert found["sybil"] == found["another"] == "owner x", "the copied one is no member of these"
    assert found["c"] == found["d"] == found["e"] == "owner y", "a group of one owner's is a part of it"
    assert "f" not in found


def test_sybils_and_copycats_move_nobody() -> None:
    """Twenty copies of the best, and one of another's owner: the others have the same places."""
    honest = [entry(i, 0.9 - 0.1 * i, 0.03) for i in range(6)]
    alone = {e.supplier: (e.rank_low, e.rank_high) for e in ranked(honest)}
    sybils = [entry(100 + i, 0.9, 0.03) for i in range(20)]
    groups = {e.supplier: RankGroup("g", "s0") for e in (honest[0], *sybils)}
    owners = {e.supplier: "pokt1sybil" for e in sybils} | {"s200": "pokt1sybil"}
    among = ranked([*honest, *sybils, entry(200, 0.05, 0.03)], groups, None, owners)
    found = {e.supplier: (e.rank_low, e.rank_high) for e in among}
    assert {key: found[key] for key in alone} == alone
    assert {found[e.supplier] for e in sybils} == {alone["s0"]}
    assert found["s200"] == (7, 7)


@pytest.mark.parametrize("open_too", [0, 1])
@pytest.mark.parametrize("one_owner", [False, True])
def test_a_copycat_that_falls_silent_takes_nobodys_place_down(one_owner: bool, open_too: int) -> None:
    """Its docs are open, which count as wrong: it is no evidence against who answered like it.

    Unless one owner staked both: of two the worse one's place is the owner's, whatever keeps it open.
    """
    honest = [dataclasses.replace(entry(i, 0.9 - 0.1 * i, 0.03), n_open=open_too) for i in range(6)]
    silent = dataclasses.replace(entry(100, 0.2, 0.05), n_open=140)
    groups = {e.supplier: RankGroup("g", "s0") for e in (honest[0], silent)}
    owners = {e.supplier: "pokt1owner" for e in (honest[0], silent)} if one_owner else {}
    alone = {e.supplier: (e.rank_low, e.rank_high, e.p_best) for e in ranked(honest)}
    for docs_open in (140, open_too):
        board = ranked([*honest, dataclasses.replace(silent, n_open=docs_open)], groups, None, owners)
        found = {e.supplier: (e.rank_low, e.rank_high, e.p_best) for e in board}
        others_unmoved = {key: found[key] for key in alone} == alone
        assert others_unmoved is (docs_open == 140 and not one_owner), docs_open
        assert found["s100"][:2] == (1, 6), "its own place is as uncertain as its score"


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_an_entry_tells_age_latency_errors_and_availability(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 10})
    logic = facts.registration("starter_logic", n_docs=40)
    for doc in range(20):
        facts.attempt(logic, doc, Fault.OK, NOW, supplier=ALPHA)
    facts.fail(logic, 30, Fault.EMPTY, NOW, supplier=ALPHA)
    for doc, fault in ((31, Fault.TRANSPORT), (32, Fault.TRANSPORT), (33, Fault.GATEWAY)):
        facts.attempt(logic, doc, fault, NOW, supplier=ALPHA)
    units = facts.registration("starter_units", n_docs=40)
    earlier = NOW - timedelta(hours=1)
    for doc in range(4):
        facts.score(units, doc, 1.0, earlier, supplier=ALPHA)
        facts.attempt(units, doc, Fault.OK, earlier, supplier=ALPHA, latency_ms=50.0)
    facts.attempt(units, 4, Fault.TRANSPORT, earlier, supplier=ALPHA)
    facts.attempt(units, 4, Fault.OK, NOW, supplier=ALPHA, number=2)
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    board = make_board(facts.workspace)
    one, other = board.entries
    assert one.latency_ms == {"p50": 30.0, "p95": 60_025.0}, "medians over tasks; unanswered: the deadline"
    assert one.last_sample_at is not None and abs(one.last_sample_at - NOW) < timedelta(seconds=1)
    assert (one.n, one.errors, one.error_rate) == (24, 1, 1 / 25)
    # in this minute 20 of 23 of the one task, one of the other and a canary; a quarter of an hour ago a
    # canary of two; 4 of 5 an hour ago; the gateway's is none
    assert one.availability == pytest.approx((22 / 25 + 1 / 2 + 4 / 5) / 3)
    assert one.first_attempt_success == 24 / 28
    assert other.first_attempt_success is None
    assert (other.latency_ms, other.last_sample_at) == ({"p50": None, "p95": None}, None)
    assert (other.error_rate, other.availability, other.p_best, other.rank_low) == (None, None, None, None)
    assert one.to_json()["last_sample_at"] == one.last_sample_at.isoformat()
    assert [row.task for row in board.windows[ALPHA]] == ["starter_logic", "starter_units"]
    assert board.roots == {one.taxonomy: next(iter(board.nodes[ALPHA, one.taxonomy]))}


def test_the_reference_lists_the_fields_of_an_entry() -> None:
    from testbench_dagster_tests.acceptance.test_docs import documented_keys

    assert documented_keys("Fields of `testbench leaderboard --format json`") == set(
        entry(0, 0.5, 0.1).to_json()
    )


@pytest.mark.parametrize("facts", [["builtin:starter", "builtin:demo"], []], indirect=True)
def test_the_stored_ranking_stands_for_a_new_one_until_anything_changes(facts: Facts) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 2, (BETA, "starter_logic"): 18})
    workspace = facts.workspace
    refresh_window_cache(workspace, [ALPHA, BETA])
    refresh_summaries(workspace, [ALPHA, BETA])

    def made() -> list[Entry]:
        board = make_board(workspace)
        store_board(workspace, board)
        return board.entries

    assert stored_entries(workspace) is None, "there is none yet"
    entries = made()
    assert stored_entries(workspace) == entries == leaderboard(workspace)
    assert stored_entries(workspace, datetime.now(UTC) + FRESH + timedelta(minutes=1)) is None, "it is old"
    typed.claim(workspace.documents, WindowRecord, {"_id": ALPHA}, token="facts were written")
    assert stored_entries(workspace) is None
    entries = made()
    if workspace.config.settings.taxonomies:
        refresh_summaries(workspace, [BETA])
        assert stored_entries(workspace) is None, "it was summarized anew"
        made()
    facts.on_roster(ALPHA, joined_at=NOW, cut_at=NOW - timedelta(days=9))
    assert stored_entries(workspace) is None, "its earlier answers became void"
    made()
    assert stored_entries(workspace) == leaderboard(workspace)


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_an_export_makes_no_ranking_where_the_stored_one_is_current(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(facts, {(ALPHA, "starter_logic"): 2, (BETA, "starter_logic"): 18})
    refresh_window_cache(facts.workspace, [ALPHA, BETA])
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    testbench = Testbench(facts.workspace)
    testbench.export(tmp_path / "made")
    store_board(facts.workspace, make_board(facts.workspace))
    with monkeypatch.context() as patch:
        patch.setattr(ranking, "make_board", None)
        testbench.export(tmp_path / "stored")
        testbench.export(tmp_path / "one", [ALPHA])
    made, stored, one = (
        parquet.read_table(tmp_path / name / "leaderboard.parquet").to_pylist()
        for name in ("made", "stored", "one")
    )
    assert made == stored
    assert one == [row for row in made if row["supplier"] == ALPHA] != []
