"""What an export of a period reads: the store looks up its facts by time, and reads no others."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pymongo import MongoClient

from testbench_dagster.api import Testbench
from testbench_dagster.core.period import Period
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.stages.publish.export import export_parquet
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster_tests.reads import documents_read
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, Facts

DOCS, LATE = 60, 7
PERIOD = Period(since=NOW - timedelta(minutes=LATE - 1), until=NOW + timedelta(minutes=1))


@pytest.fixture
def asked(open_installation: Callable[..., Workspace]) -> Workspace:
    """A supplier that answered one doc a minute; the last ones lie in the period."""
    workspace = open_installation({"address": "alpha"}, tasks=[{"name": "starter_logic", "samples": "all"}])
    facts = Facts(workspace)
    facts.on_roster(ALPHA)
    asked = Asked(facts, facts.registration("starter_logic", n_docs=DOCS))
    for doc in range(DOCS):
        asked.answer(doc, 1.0, at=NOW - timedelta(minutes=DOCS - 1 - doc))
    return workspace


@contextmanager
def profiled(uri: str) -> Iterator[list[dict[str, Any]]]:
    """What MongoDB did meanwhile, as it notes it itself."""
    found: list[dict[str, Any]] = []
    with MongoClient(uri) as client:
        database = client.get_default_database()
        database.command("profile", 2)
        yield found
        database.command("profile", 0)
        found += database["system.profile"].find({"op": {"$in": ["query", "getmore"]}})


def test_the_store_looks_a_period_up_by_time(
    asked: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    given = documents_read(asked.documents, monkeypatch)
    uri = asked.config.mongo_uri
    if uri is not None:
        with profiled(uri) as found:
            export_parquet(asked.documents, out, {}, period=PERIOD)
        for of in (AttemptRecord, ScoreRecord):
            done = [one for one in found if one["ns"].endswith(f".{of.collection.name}")]
            assert sum(one["docsExamined"] for one in done) == LATE, of
            assert {one["planSummary"].split()[0] for one in done} == {"IXSCAN"}, of
    else:
        export_parquet(asked.documents, out, {}, period=PERIOD)
        raw = sqlite3.connect(asked.config.home / "documents.sqlite3")
        for of, name in ((AttemptRecord, "finished_at"), (ScoreRecord, "answered_at")):
            plan = raw.execute(
                f'EXPLAIN QUERY PLAN SELECT t."_seq" FROM "{of.collection.name}" AS t '
                f'WHERE t."{name}" >= 1 AND t."{name}" < 2 ORDER BY t."_id" LIMIT -1'
            ).fetchall()
            assert f"SEARCH t USING INDEX {of.collection.name}.index_{name} " in plan[0][3], plan
        raw.close()
    assert (given[AttemptRecord.collection.name], given[ScoreRecord.collection.name]) == (LATE, LATE)
    for name in ("attempts", "scores"):
        docs = pq.read_table(out / f"{name}.parquet")["doc_id"].to_pylist()
        assert sorted(docs) == list(range(DOCS - LATE, DOCS))


def test_the_texts_of_no_other_answers_are_read(
    asked: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Testbench(asked)
    bench.scores()  # windows are cached before, as after every evaluation
    bench.export(tmp_path / "all")
    given = documents_read(asked.documents, monkeypatch)
    bench.export(tmp_path / "all")
    everything = given[AttemptRecord.collection.name]
    given.clear()
    bench.export(tmp_path / "out", since=PERIOD.since, until=PERIOD.until)
    late = given[AttemptRecord.collection.name]
    docs = pq.read_table(tmp_path / "out" / "answers.parquet")["doc_id"].to_pylist()
    assert docs == list(range(DOCS - LATE, DOCS))
    # what is left out of the attempts, and of the answers that are shown with what was read for them
    assert everything - late >= 2 * (DOCS - LATE), dict(given)
