"""Boards of suppliers that are not asked every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.board.published import render_page
from testbench_dagster.ranking.entry import ALL_TASKS
from testbench_dagster.ranking.feeds import feed
from testbench_dagster.stages.rank import make_board
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.stages.rank.test_ranking import fill
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

LOGIC, UNITS = "starter_logic", "starter_units"
BOTH = {(key, task): 10 for key in (ALPHA, BETA) for task in (LOGIC, UNITS)}


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Facts]]:
    """Opens the installation anew with patterns of its two tasks, and taxonomies."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    made: list[Workspace] = []

    def build(
        logic: dict[str, Any], units: dict[str, Any], taxonomies: tuple[str, ...] = ("builtin:starter",)
    ) -> Facts:
        tasks = [{"name": LOGIC, "samples": "all", **logic}, {"name": UNITS, "samples": "all", **units}]
        settings = {"tasks": tasks, "taxonomies": list(taxonomies)}
        made.append(Workspace(configuration(tmp_path, settings)))
        return Facts(made[-1])

    yield build
    for workspace in made:
        workspace.close()


def places(facts: Facts) -> list[tuple[str, str | None, int | None, float | None]]:
    (entries,) = make_board(facts.workspace).rankings.values()
    return [(e.supplier, e.ranked_among, e.rank_low, e.coverage) for e in entries]


NOT_ALPHA = {"suppliers": ["!alpha@*"]}


@pytest.mark.parametrize("taxonomies", [("builtin:starter",), ()])
def test_who_is_asked_other_tasks_is_ranked_apart(
    opened: Callable[..., Facts], taxonomies: tuple[str, ...]
) -> None:
    facts = opened({}, NOT_ALPHA, taxonomies)
    fill(facts, {**BOTH, (ALPHA, LOGIC): 20})
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    found = places(facts)
    assert [place[:3] for place in found] == [(BETA, "all tasks", 1), (ALPHA, f"only {LOGIC}", 1)]
    if not taxonomies:
        assert [place[3] for place in found] == [1.0, 1.0], "of the tasks that each is asked all have data"
        return
    # the taxonomy has tasks that are not configured, which both lack
    coverage = {place[0]: place[3] for place in found}
    assert coverage[ALPHA] is not None and 0 < coverage[ALPHA] < 1
    alone = opened({}, {}, taxonomies)
    refresh_summaries(alone.workspace, [ALPHA, BETA])
    assert {place[1] for place in places(alone)} == {None}


@pytest.mark.parametrize("taxonomies", [("builtin:starter",), ()])
def test_who_is_asked_nothing_of_a_ranking_is_not_in_it(
    opened: Callable[..., Facts], taxonomies: tuple[str, ...]
) -> None:
    facts = opened(NOT_ALPHA, NOT_ALPHA, taxonomies)
    fill(facts, BOTH)
    refresh_summaries(facts.workspace, [ALPHA, BETA])
    assert [place[:3] for place in places(facts)] == [(BETA, None, 1)]
    board = make_board(facts.workspace)
    assert [row["supplier"] for row in feed(board)["suppliers"]] == [BETA]
    assert ALPHA not in render_page(board)
    if not taxonomies:
        assert list(board.rankings) == [ALL_TASKS]


def test_a_board_tells_what_the_stored_score_rests_on(opened: Callable[..., Facts]) -> None:
    """Between a changed pattern and the next evaluation the score is still the one over all tasks."""
    before = opened({}, {})
    fill(before, BOTH)
    refresh_summaries(before.workspace, [ALPHA, BETA])
    after = opened({}, NOT_ALPHA)
    assert {place[1] for place in places(after)} == {None}
    refresh_summaries(after.workspace, [ALPHA, BETA])
    assert {place[:2] for place in places(after)} == {(ALPHA, f"only {LOGIC}"), (BETA, "all tasks")}


def test_who_has_no_summary_yet_stands_where_it_will(opened: Callable[..., Facts]) -> None:
    facts = opened({}, NOT_ALPHA)
    fill(facts, BOTH)
    refresh_summaries(facts.workspace, [BETA])
    assert [place[:3] for place in places(facts)] == [(BETA, "all tasks", 1), (ALPHA, f"only {LOGIC}", None)]
