"""Standard errors and clusters over hand-made facts in a real store."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.registration import StoredDoc
from testbench_dagster.core.window import Window
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.statistics.intervals import wilson
from testbench_dagster.stores.documents import content_hash
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration

TASK = "starter_logic"


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Facts]]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    opened: list[Workspace] = []

    def build(window: int = 100, **task: Any) -> Facts:
        tasks = [{"name": TASK, **task}]
        opened.append(Workspace(configuration(tmp_path, {"tasks": tasks, "sampling": {"window": window}})))
        return Facts(opened[-1])

    yield build
    for workspace in opened:
        workspace.close()


def row_of(facts: Facts, supplier: str = ALPHA) -> Window:
    (row,) = [row for row in windows(facts.workspace, now=NOW) if row.primary and row.supplier == supplier]
    return row


@pytest.mark.parametrize("cluster", [None, "n"])
def test_scores_too_large_to_square_have_no_standard_error(
    installation: Callable[..., Facts], cluster: str | None
) -> None:
    facts = installation(cluster=cluster) if cluster else installation()
    task = facts.registration(TASK)
    for doc in range(4):
        facts.score(task, doc, 1e200 * doc)
    row = row_of(facts)
    assert row.score == pytest.approx(1.5e200)
    assert (row.se, row.ci_low) == (None, None)


def test_standard_error_of_a_mean(installation: Callable[..., Facts]) -> None:
    facts = installation()
    task = facts.registration(TASK)
    for doc in range(10):
        facts.score(task, doc, float(doc < 7))
    assert row_of(facts).se == pytest.approx(math.sqrt(0.7 * 0.3 / 10))
    assert row_of(facts, BETA).se is None


def test_docs_that_share_no_cluster_are_independent(installation: Callable[..., Facts]) -> None:
    facts = installation(cluster="n")
    task = facts.registration(TASK)  # its docs are {"n": doc id}: each a cluster of its own
    for doc in range(10):
        facts.score(task, doc, float(doc < 7))
    alone = row_of(facts)
    assert alone.se == pytest.approx(math.sqrt(0.7 * 0.3 / 10))
    assert (alone.ci_low, alone.ci_high) == pytest.approx(wilson(7, 10))


def test_docs_of_one_cluster_that_agree_tell_as_much_as_one(installation: Callable[..., Facts]) -> None:
    facts = installation(cluster="passage")
    bodies = [f'{{"passage": "p{i // 2}"}}' for i in range(20)]
    docs = [StoredDoc(i, body, content_hash(body)) for i, body in enumerate(bodies)]
    facts.workspace.datasets.register(
        replace(facts.registration(TASK), task_hash="d" * 40, n_docs=20, splits={"test": 20}), docs, []
    )
    task = facts.workspace.datasets.current(TASK)
    assert task is not None and task.task_hash == "d" * 40
    for doc in range(20):
        facts.score(task, doc, float(doc < 14))  # passages 0 to 6 right, 7 to 9 wrong
    row = row_of(facts)
    assert (row.n, row.score) == (20, 0.7)
    assert row.se == pytest.approx(math.sqrt(0.7 * 0.3 / 10))
    assert (row.ci_low, row.ci_high) == pytest.approx(wilson(7, 10))


def test_a_cluster_that_no_doc_has_is_refused(installation: Callable[..., Facts]) -> None:
    facts = installation(cluster="passage")
    facts.score(facts.registration(TASK), 0)
    with pytest.raises(ConfigError, match="cluster 'passage' is no column of doc 0; name one of n"):
        windows(facts.workspace, now=NOW)
