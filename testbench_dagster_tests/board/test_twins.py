"""Public questions and fresh ones on the board: the page, and the section of a supplier."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.rank import make_board, store_board
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.board.test_app import client
from testbench_dagster_tests.public_gaps import CONFIGURED, TASK, flagged, gap, paired, store

pytestmark = pytest.mark.parametrize("open_installation", ["sqlite"], indirect=True)


def test_those_flagged_stand_first_and_each_leads_to_its_supplier(
    open_installation: Callable[..., Workspace],
) -> None:
    names = ("honest", "parrot", "newcomer")
    workspace = open_installation(*({"address": name} for name in names), tasks=[CONFIGURED])
    refresh_roster(workspace)
    board = client(workspace)
    assert "Nothing was compared yet" in board.get("/twins").text
    paired(workspace)
    store(
        workspace,
        gap("honest", excess_low=-0.6, n_open=2),  # final: nobody waits
        flagged("parrot"),
        gap("newcomer", verdict="no verdict", p=None, excess=None, excess_low=None, excess_high=None),
    )
    page = board.get("/twins").text
    places = [page.index(f"/supplier/{name}@external") for name in ("parrot", "honest", "newcomer")]
    assert places == sorted(places)
    assert page.count("better on public questions</span>") == 1
    for said in ("98", "61", "2.910", "1.800–4.400", "-0.600 to ", "beside 7 peers"):
        assert said in page, said
    assert "2 wait" not in page
    assert page == board.get("/twins", params={"task": TASK}).text.replace(f"?task={TASK}", "")
    assert "Nothing was compared yet" in board.get("/twins", params={"task": "another"}).text
    own = board.get("/supplier/parrot@external").text
    assert 'id="twins"' in own and "+2.91 logits" in own
    assert 'href="/twins' in board.get(f"/task/{TASK}").text
    store_board(workspace, make_board(workspace))
    assert '<a href="/twins"' in board.get("/").text


def test_the_leaderboard_leads_there_only_where_pairs_are_asked(
    open_installation: Callable[..., Workspace],
) -> None:
    workspace = open_installation({"address": "a"})
    refresh_roster(workspace)
    store_board(workspace, make_board(workspace))
    assert "/supplier/a@external" in (page := client(workspace).get("/").text) and "/twins" not in page


def test_whoever_is_asked_no_pairs_has_no_such_section(open_installation: Callable[..., Workspace]) -> None:
    workspace = open_installation({"address": "a"})
    refresh_roster(workspace)
    assert 'id="twins"' not in client(workspace).get("/supplier/a@external").text
