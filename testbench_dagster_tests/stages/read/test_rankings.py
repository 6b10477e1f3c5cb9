"""Rankings by any node of a taxonomy, from the stored summaries, and on the board."""

from __future__ import annotations

import html
import re

import pytest
from starlette.testclient import TestClient

from testbench_dagster.board import links
from testbench_dagster.board.app import make_app
from testbench_dagster.board.site import Site
from testbench_dagster.core.records.rankings import LeaderboardRecord, SupplierAbilities
from testbench_dagster.ranking.entry import Entry
from testbench_dagster.stages.rank import make_board, store_board
from testbench_dagster.stages.read.rankings import Rankings
from testbench_dagster.stages.summarize.refresh import refresh_summaries
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.stages.rank.test_ranking import NOW, facts, fill  # noqa: F401  a fixture
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts

APIS = {ALPHA: "chat", BETA: "chat"}


def stored(facts: Facts) -> Workspace:  # noqa: F811
    """Alpha is better at one task, and by the root; Beta at the other."""
    fill(
        facts,
        {
            (ALPHA, "starter_logic"): 20, (BETA, "starter_logic"): 2,
            (ALPHA, "starter_units"): 8, (BETA, "starter_units"): 19,
        },
    )  # fmt: skip
    refresh_summaries(facts.workspace, [ALPHA, BETA], now=NOW)
    store_board(facts.workspace, make_board(facts.workspace, now=NOW))
    return facts.workspace


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_every_node_ranks_as_its_summaries_say(facts: Facts) -> None:  # noqa: F811
    workspace = stored(facts)
    rankings = Rankings(workspace)
    [current] = rankings.current()
    summaries = {one.supplier: one for one in typed.find(workspace.documents, SupplierAbilities)}
    root = summaries[ALPHA].root
    nodes = rankings.nodes(current)
    assert set(nodes) == set(summaries[ALPHA].nodes) - {root} and len(nodes) > 1
    for node in nodes:
        ranking = rankings.by_node(current, node, APIS)
        assert (ranking.node, ranking.made_at) == (node, current.made_at)
        scores = {key: one.nodes[node].score for key, one in summaries.items()}
        assert {row.supplier: row.score for row in ranking.rows} == scores
        known = [row for row in ranking.rows if row.score is not None]
        assert known == sorted(known, key=lambda row: -(row.score or 0.0))
        for row in known:
            ability = summaries[row.supplier].nodes[node]
            assert (row.ci_low, row.ci_high, row.n) == (ability.ci_low, ability.ci_high, ability.n)
            assert row.rank_low is not None and row.availability is None is row.latency_ms["p50"]
    first = {node: rankings.by_node(current, node, APIS).rows[0].supplier for node in nodes}
    assert set(first.values()) == {ALPHA, BETA}, "who is best depends on the node"
    assert rankings.by_node(current, nodes[0], APIS) is rankings.by_node(current, nodes[0], APIS), "once"


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_the_board_ranks_by_any_node(facts: Facts) -> None:  # noqa: F811
    workspace = stored(facts)
    site = Site(workspace)
    site.prepare()
    taxonomy = site.rankings.current()[0].taxonomy
    with TestClient(make_app(site, clock=lambda: NOW), base_url="http://127.0.0.1") as client:
        whole = client.get("/").text
        offered = re.search(r'<select name="node">(.*?)</select>', whole)
        assert offered
        nodes = re.findall(r'<option value="([^"]+)"', offered[1])
        assert tuple(map(html.unescape, nodes)) == tuple(site.nodes(taxonomy))
        for node in nodes:
            path = links.with_query("/", {"taxonomy": taxonomy, "node": node})
            shown = client.get(path)
            assert shown.status_code == 200
            order = [row.supplier for row in site.ranking_by_node(taxonomy, node).rows]
            found = re.findall(r'<th scope="row"><a href="/supplier/([^"]+)"', shown.text)
            assert found == order
            assert f'<option value="{node}" selected>' in shown.text
            assert ">Available</th>" in whole and ">Available</th>" not in shown.text, "unknown of a node"
            # its filters keep the node
            model = re.search(r'class="plain" href="([^"]+)"', shown.text)
            assert model and f"node={node}" in model[1]
            assert client.get(html.unescape(model[1])).status_code == 200
        leads = client.get(links.supplier(ALPHA)).text
        assert links.with_query("/", {"taxonomy": taxonomy, "node": nodes[0]}) in html.unescape(leads)
        other = client.get(links.with_query("/", {"taxonomy": taxonomy, "node": "nothing"})).text
        assert "has no ability" in other and ">Available</th>" in other


@pytest.mark.parametrize("facts", [["builtin:starter"]], indirect=True)
def test_rows_that_another_version_stored_are_read(facts: Facts) -> None:  # noqa: F811
    workspace = stored(facts)
    [record] = typed.find(workspace.documents, LeaderboardRecord)
    assert [Entry.from_json(row).to_json() for row in record.entries] == record.entries
    for row in record.entries:
        row["newer"] = 1
        del row["model"], row["ranked_among"]
    typed.upsert(workspace.documents, LeaderboardRecord, [record])
    rankings = Rankings(workspace)
    [current] = rankings.current()
    assert [row.supplier for row in rankings.read(current).rows] == [ALPHA, BETA]
