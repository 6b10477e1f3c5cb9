"""Summaries as stored: from windows, over groups of tasks, with and without partial pooling."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.core.records.rankings import TaxonomySummaryRecord
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.summarize.refresh import (
    configured_taxonomies,
    node_covariance,
    refresh_summaries,
)
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.shrinkage import fit_prior
from testbench_dagster.stores.documents import typed
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

NOW = datetime.now(UTC)
TREE = """\
name: tree
root: all
nodes:
  all: {children: [thinking, units]}
  thinking: {tasks: [starter_all, undefined_task1]}
  units: {tasks: [starter_units_again]}
"""


def opened(folder: Path, **settings: Any) -> Workspace:
    tasks = [
        {"name": "starter_all", "only": ["starter_logic", "starter_units"], "samples": "all"},
        {"name": "starter_units", "alias": "starter_units_again", "samples": "all"},
    ]
    (folder / "tree.yaml").write_text(TREE, encoding="utf-8")
    return Workspace(configuration(folder, {"tasks": tasks, "taxonomies": ["tree.yaml"], **settings}))


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with opened(tmp_path) as found:
        yield found


def answered(facts: Facts, task: str, right: int, n: int, supplier: str = ALPHA) -> None:
    registration = facts.registration(task, n_docs=60)
    for doc in range(n):
        facts.score(registration, doc, float(doc < right), NOW, supplier=supplier)


def test_a_group_stands_for_its_configured_tasks(workspace: Workspace) -> None:
    (taxonomy,) = configured_taxonomies(workspace)
    assert taxonomy.groups == {"starter_all": ("starter_logic", "starter_units")}
    assert taxonomy.leaves() == ("starter_logic", "starter_units", "undefined_task1", "starter_units_again")


def test_a_group_of_lm_eval_stands_for_those_of_its_tasks_that_are_configured(tmp_path: Path) -> None:
    tasks = [{"name": "mmlu", "only": ["mmlu_anatomy", "mmlu_virology", "mmlu_astronomy"]}]
    with opened(tmp_path, tasks=tasks, taxonomies=["builtin:general"]) as workspace:
        (taxonomy,) = configured_taxonomies(workspace)
    assert taxonomy.groups == {
        "mmlu_other": ("mmlu_virology",),
        "mmlu_stem": ("mmlu_anatomy", "mmlu_astronomy"),
    }


def test_a_group_that_overlaps_another_task_of_the_node_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as workspace:
        (tmp_path / "tree.yaml").write_text(
            TREE.replace("undefined_task1", "starter_logic"), encoding="utf-8"
        )
        with pytest.raises(TestbenchError, match="'starter_logic' through 'starter_all' and 'starter_logic'"):
            configured_taxonomies(workspace)


def test_what_is_stored_of_a_summary(workspace: Workspace) -> None:
    facts = Facts(workspace)
    answered(facts, "starter_logic", 30, 40)
    answered(facts, "starter_units_again", 10, 10)
    (document,) = refresh_summaries(workspace, [ALPHA])
    stored = typed.get(workspace.documents, TaxonomySummaryRecord, document.id)
    assert stored is not None and (stored.nodes, stored.tasks) == (document.nodes, document.tasks)
    root, thinking, units = (document.nodes[name] for name in ("all", "thinking", "units"))
    assert root.score == 0.875 and root.weights == {"starter_logic": 0.5, "starter_units_again": 0.5}
    assert root.missing == ["starter_units", "undefined_task1"]
    assert (root.coverage, root.weight_coverage) == (0.5, 0.625)
    assert (thinking.n_measured, thinking.n_tasks, thinking.weight_coverage) == (1, 3, 0.25)
    rows = {row.task: row for row in windows(workspace, suppliers=[ALPHA], now=NOW) if row.primary}
    one = rows["starter_units_again"]
    assert (units.ci_low, units.ci_high) == (one.ci_low, one.ci_high), "the window's own interval"
    assert root.se == pytest.approx(0.5 * (0.75 * 0.25 / 40) ** 0.5)
    assert root.partial_pooling is None
    order, covariance = node_covariance(document)
    place = {name: i for i, name in enumerate(order)}
    assert covariance[place["all"]][place["all"]] == pytest.approx(root.se**2)
    assert covariance[place["all"]][place["thinking"]] == pytest.approx(0.5 * thinking.se**2)
    assert covariance[place["thinking"]][place["units"]] == 0.0


def test_a_supplier_without_data_has_a_summary_without_numbers(workspace: Workspace) -> None:
    Facts(workspace)
    (document,) = refresh_summaries(workspace, [BETA])
    assert document.score is None and document.tasks == {}
    assert {node.status for node in document.nodes.values()} == {"no_data"}
    assert {value for row in node_covariance(document)[1] for value in row} == {None}


def test_partial_pooling_stands_beside_the_raw_scores(tmp_path: Path) -> None:
    shares = {"alpha": (3, 4), "beta": (30, 40), **{f"s{i}": (20 + 3 * i, 40) for i in range(5)}}
    roster = [{"address": name, "base_url": "http://127.0.0.1:9/v1", "model": "m"} for name in shares]
    suppliers = {f"{name}@external": share for name, share in shares.items()}
    with opened(tmp_path, summaries={"partial_pooling": True}, suppliers=roster) as workspace:
        facts = Facts(workspace)
        for supplier, (right, n) in suppliers.items():
            answered(facts, "starter_logic", right, n, supplier)
        documents = {d.supplier: d for d in refresh_summaries(workspace, list(suppliers))}
        prior = fit_prior([k for k, _ in suppliers.values()], [n for _, n in suppliers.values()])
        assert prior is not None
        expected = prior.pooled(3, 4)
        node = documents[ALPHA].nodes["all"]
        assert node.score == 0.75, "the raw score stays"
        pooled = node.partial_pooling
        assert pooled is not None
        assert pooled.tasks == ["starter_logic"]
        assert (pooled.score, pooled.se) == (expected.score, expected.se)
        assert pooled.ci_high - pooled.ci_low < 0.6 * (node.ci_high - node.ci_low)
        assert documents[BETA].nodes["all"].partial_pooling is None, "40 docs speak for themselves"
        # one supplier alone is pooled with what is stored of the others
        (alone,) = refresh_summaries(workspace, [ALPHA])
        assert alone.nodes["all"].partial_pooling == pooled
