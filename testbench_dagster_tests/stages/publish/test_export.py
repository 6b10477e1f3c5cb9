"""Parquet files of facts: every declared column, whole files or none, memory bounded by batches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.core.columns import columns_of
from testbench_dagster.core.doc_answer import DocAnswer
from testbench_dagster.core.errors import ConfigError, StoreError
from testbench_dagster.core.faults import Fault
from testbench_dagster.stages.publish import export as module
from testbench_dagster.stages.publish.export import export_parquet, write_answers
from testbench_dagster.stages.read.answers import one_answer
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES
from testbench_dagster_tests.stages.read.asked import NOW as ASKED
from testbench_dagster_tests.stages.read.asked import Asked
from testbench_dagster_tests.stages.score.facts import NOW, Facts, configuration


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {"tasks": [{"name": "starter_logic", "samples": "all"}], "sampling": {"max_age_days": 36500}}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        yield Facts(workspace)


def test_every_fact_comes_back(facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 3)
    monkeypatch.setattr(module, "_GROUP_ROWS", 3)  # several row groups
    task = facts.registration("starter_logic", n_docs=10)
    text = 'héllo "wörld"\n\u0000 \U0001f600'
    for doc in range(7):
        facts.attempt(task, doc, Fault.OK if doc else Fault.EMPTY, text=text)
        if doc:
            facts.score(task, doc, float(doc % 2))
    out = tmp_path / "out"
    written = Testbench(facts.workspace).export(out)
    counts = {path.stem: rows for path, rows in written.items()}
    assert counts == {
        "prompts": 0,
        "attempts": 7,
        "scores": 6,
        "windows": 2,
        "answers": 7,
        "item_matrix": 7,
        "leaderboard": 2,
        "references": 0,
        "public_gaps": 0,
        "groups": 0,
        "service_probes": 0,
        "service_quality": 0,
    }
    assert {p.name for p in out.iterdir()} == {f"{name}.parquet" for name in counts}

    for collection in (PROMPTS, ATTEMPTS, SCORES):
        table = pq.read_table(out / f"{collection.name}.parquet")
        assert {"_id", *collection.fields} <= set(table.column_names)
        assert table.num_rows == counts[collection.name]
    attempts = pq.read_table(out / "attempts.parquet")
    assert pq.ParquetFile(out / "attempts.parquet").num_row_groups == 3
    assert attempts.schema.field("finished_at").type == pa.timestamp("ms", tz="UTC")
    rows = {row["doc_id"]: row for row in attempts.to_pylist()}
    assert rows[0]["fault"] == "empty"
    assert "wörld" in rows[1]["body"]
    assert rows[1]["finished_at"] == NOW
    items = {r["doc_id"]: r for r in pq.read_table(out / "item_matrix.parquet").to_pylist()}
    assert (items[0]["value"], items[0]["outcome"]) == (None, "empty")
    assert [items[doc]["value"] for doc in (1, 2)] == [1.0, 0.0]


@pytest.mark.parametrize("older", [0, 1, 2])
def test_facts_that_lack_a_field_stand_beside_others(facts: Facts, tmp_path: Path, older: int) -> None:
    task = facts.registration("starter_logic", n_docs=10)
    for doc in range(3):
        facts.attempt(task, doc, Fault.OK)
    stored = {document["doc_id"]: document for document in facts.workspace.documents.find(ATTEMPTS)}
    odd = {name: value for name, value in stored[older].items() if name != "classifier"}
    facts.workspace.documents.upsert(ATTEMPTS, [odd | {"reasoning_tokens": 7}])
    Testbench(facts.workspace).export(tmp_path)
    rows = {row["doc_id"]: row for row in pq.read_table(tmp_path / "attempts.parquet").to_pylist()}
    for doc, row in rows.items():
        document = odd if doc == older else stored[doc]
        assert row["supplier"] == document["supplier"]
        assert (row["classifier"], row["reasoning_tokens"]) == (
            document.get("classifier"),
            7 if doc == older else None,
        )
        assert row["evidence"] == "{}"


def test_answers_are_a_file_with_texts_and_types(facts: Facts, tmp_path: Path) -> None:
    asked = Asked(facts, facts.registration("starter_logic", n_docs=10))
    asked.answer(0, 1.0, "yes", extracted="yes")
    asked.answer(1, 0.0, "no", supplier="beta@external", api="completions")
    facts.attempt(asked.registration, 2, Fault.EMPTY, prompt_id=asked.prompt(2), at=ASKED)
    out = tmp_path / "out"
    Testbench(facts.workspace).export(out)
    table = pq.read_table(out / "answers.parquet")
    assert table.column_names == list(columns_of(DocAnswer))
    assert table.schema.field("at").type == pa.timestamp("ms", tz="UTC")
    assert table.schema.field("value").type == pa.float64()
    rows = {(row["supplier"], row["doc_id"]): row for row in table.to_pylist()}
    first = rows["alpha@external", 0]
    assert (first["kind"], first["value"], first["extracted"], first["question"]) == (
        "right",
        1.0,
        "yes",
        "Question 0?",
    )
    assert (rows["beta@external", 1]["kind"], rows["beta@external", 1]["answer"]) == ("wrong", "no")
    assert (rows["alpha@external", 2]["fault"], rows["alpha@external", 2]["owner"]) == ("empty", "supplier")


def test_texts_that_no_utf8_can_hold_are_escaped(facts: Facts, tmp_path: Path) -> None:
    asked = Asked(facts, facts.registration("starter_logic", n_docs=10))
    asked.answer(0, 1.0)
    row = one_answer(facts.workspace, "alpha@external", "starter_logic", 0)
    assert row is not None
    path = tmp_path / "answers.parquet"
    assert write_answers(path, [replace(row, answer="lone \ud800 half")]) == 1
    assert pq.read_table(path)["answer"].to_pylist() == ["lone \\ud800 half"]


def test_long_texts_end_a_row_group_early(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH", 2)
    monkeypatch.setattr(module, "_GROUP_BYTES", 30_000)
    asked = Asked(facts, facts.registration("starter_logic", n_docs=10))
    asked.answer(0, 1.0)
    row = one_answer(facts.workspace, "alpha@external", "starter_logic", 0)
    assert row is not None
    texts = ["x" * 20_000, "y", "z", *["w" * 20_000] * 4]
    path = tmp_path / "answers.parquet"
    assert write_answers(path, [replace(row, answer=text, model=text[:1]) for text in texts]) == len(texts)
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [4, 2, 1], "those that were read together when it was full"
    table = file.read()
    assert table["answer"].to_pylist() == texts
    assert table["model"].to_pylist() == [text[:1] for text in texts], "names that other groups lack"


def test_suppliers_and_tasks_are_chosen(facts: Facts, tmp_path: Path) -> None:
    asked = Asked(facts, facts.registration("starter_logic", n_docs=10))
    asked.answer(0, 1.0)
    asked.answer(1, 0.0, supplier="beta@external", api="completions")
    bench = Testbench(facts.workspace)
    written = bench.export(tmp_path / "one", suppliers=["beta@external"], tasks=["starter_logic"])
    assert {path.stem: n for path, n in written.items()} == {
        "prompts": 2,
        "attempts": 1,
        "scores": 1,
        "windows": 1,
        "answers": 1,
        "item_matrix": 1,
        "leaderboard": 1,
        "references": 0,
        "public_gaps": 0,
        "groups": 0,
        "service_probes": 0,
        "service_quality": 0,
    }
    for name in ("attempts", "scores", "windows", "answers", "item_matrix", "leaderboard"):
        rows = pq.read_table(tmp_path / "one" / f"{name}.parquet").to_pylist()
        assert {row["supplier"] for row in rows} == {"beta@external"}, name


def test_frames_hold_what_the_commands_print(facts: Facts) -> None:
    task = facts.registration("starter_logic", n_docs=10)
    facts.score(task, 3, 1.0)
    bench = Testbench(facts.workspace)
    frame = bench.scores().to_pandas()
    assert list(frame["supplier"]) == ["alpha@external", "beta@external"]
    assert list(frame["n"]) == [1, 0]
    assert len(bench.attempts().to_pandas()) == 0


def test_a_file_appears_whole_or_not_at_all(
    facts: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails in the middle of a file."""
    task = facts.registration("starter_logic", n_docs=10)
    facts.attempt(task, 0, text="fine")
    out = tmp_path / "out"
    export_parquet(facts.workspace.documents, out, {})
    before = (out / "attempts.parquet").read_bytes()
    find = facts.workspace.documents.find

    def failing(collection: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for row in find(collection, *args, **kwargs):
            yield row
            raise StoreError("the disk is gone")

    monkeypatch.setattr(facts.workspace.documents, "find", failing)
    with pytest.raises(StoreError, match="the disk is gone"):
        export_parquet(facts.workspace.documents, out, {})
    assert (out / "attempts.parquet").read_bytes() == before
    assert not list(out.glob("*.partial"))


def test_a_period_chooses_facts_and_answers(facts: Facts, tmp_path: Path) -> None:
    asked = Asked(facts, facts.registration("starter_logic", n_docs=10))
    for doc in range(3):
        asked.answer(doc, 1.0, at=ASKED - timedelta(hours=doc))
    bench = Testbench(facts.workspace)

    def docs(**period: datetime) -> dict[str, list[int]]:
        written = bench.export(tmp_path / "out", **period)
        assert {path.stem for path in written} >= {"windows", "leaderboard"}
        return {
            name: pq.read_table(tmp_path / "out" / f"{name}.parquet")["doc_id"].to_pylist()
            for name in ("attempts", "scores", "answers", "item_matrix")
        }

    def each(*chosen: int) -> dict[str, list[int]]:
        return {name: list(chosen) for name in ("attempts", "scores", "answers", "item_matrix")}

    def sorted_docs(**period: datetime) -> dict[str, list[int]]:
        return {name: sorted(found) for name, found in docs(**period).items()}

    assert sorted_docs() == each(0, 1, 2)
    assert sorted_docs(since=ASKED - timedelta(hours=1)) == each(0, 1), "from then on"
    assert sorted_docs(until=ASKED - timedelta(hours=1)) == each(2), "before"
    between = ASKED - timedelta(hours=1), ASKED
    assert sorted_docs(since=between[0], until=between[1].astimezone(timezone(timedelta(hours=5)))) == each(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "csv"}, "format is 'csv'; give one of parquet, inspect, lm-eval"),
        ({"format": None}, "format is None"),
        ({"since": datetime(2026, 1, 1)}, "since has no time zone"),
        ({"until": "2026-01-01"}, "until is '2026-01-01'; give a datetime with a time zone"),
        ({"since": ASKED, "until": ASKED}, "which is not after since"),
        ({"since": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9)))}, "no calendar reaches"),
    ],
)
def test_wrong_arguments_are_told(facts: Facts, tmp_path: Path, arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Testbench(facts.workspace).export(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
