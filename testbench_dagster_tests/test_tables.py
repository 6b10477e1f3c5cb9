"""Frames: the same columns and types with rows and without, and nothing in a notebook that could run."""

from __future__ import annotations

import importlib.util
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.core.errors import TestbenchError
from testbench_dagster.stages.score.windows import refresh_window_cache
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.tables import SHOWN_CHARS, SHOWN_COLUMNS, SHOWN_ROWS, Table
from testbench_dagster_tests.stages.read.asked import NOW, Asked
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration

TASK = "starter_logic"
KINDS: dict[str, type] = {
    "name": str,
    "n": int,
    "gaps": int,
    "score": float,
    "flag": bool,
    "maybe": bool,
    "at": datetime,
    "nested": dict,
    "listed": list,
}
ROWS: list[dict[str, Any]] = [
    {
        "name": "a",
        "n": 1,
        "gaps": None,
        "score": 0.5,
        "flag": True,
        "maybe": None,
        "at": "2026-11-01T12:00:00+00:00",
        "nested": {"x": 1},
        "listed": [1, 2],
    },
    {
        "name": "lone \ud800 surrogate",
        "n": 2,
        "gaps": 3,
        "score": None,
        "flag": False,
        "maybe": True,
        "at": None,
        "nested": {},
        "listed": None,
    },
]


@pytest.mark.parametrize("rows", [ROWS, []])
def test_frames_have_the_declared_columns_and_types(rows: list[dict[str, Any]]) -> None:
    table = Table(rows, KINDS)
    frame = table.to_pandas()
    assert list(frame.columns) == list(KINDS)
    assert len(frame) == len(rows)
    types = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert types["n"] == "int64"
    assert types["score"] == "float64"
    assert types["flag"] == "bool"
    assert types["at"].startswith("datetime64") and types["at"].endswith("UTC]")
    assert types["gaps"] == ("Int64" if rows else "int64")
    arrow = table.to_arrow()
    assert [str(field.type) for field in arrow.schema] == [
        "string", "int64", "int64", "double", "bool", "bool", "timestamp[us, tz=UTC]", "string", "string",
    ]  # fmt: skip
    assert arrow.num_rows == len(rows)


def test_values_come_through() -> None:
    table = Table(ROWS, KINDS)
    frame = table.to_pandas()
    assert frame["at"][0] == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert frame["nested"][0] == {"x": 1}
    assert frame["gaps"].isna().tolist() == [True, False]
    first, second = table.to_arrow().to_pylist()
    assert (first["nested"], first["listed"], first["gaps"]) == ('{"x": 1}', "[1, 2]", None)
    assert first["at"] == datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert second["name"] == "lone \\ud800 surrogate"


def test_columns_that_only_rows_have_are_shown_too() -> None:
    table = Table([{"a": None, "b": 1}, {"a": 2.5, "c": None}])
    assert sorted(table.to_pandas().columns) == ["a", "b", "c"]
    assert {f.name: str(f.type) for f in table.to_arrow().schema} == {
        "a": "double",
        "b": "int64",
        "c": "string",
    }
    assert Table([]).to_arrow().num_columns == 0
    assert len(Table([]).to_pandas()) == 0


def test_without_polars_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "polars", None)
    with pytest.raises(TestbenchError, match=r"polars is not installed.*pip install polars.*to_pandas"):
        Table(ROWS, KINDS).to_polars()


@pytest.mark.skipif(importlib.util.find_spec("polars") is None, reason="polars is not installed")
def test_polars_has_the_same_columns() -> None:
    assert Table(ROWS, KINDS).to_polars().columns == list(KINDS)
    assert Table([], KINDS).to_polars().columns == list(KINDS)


def test_a_notebook_shows_a_bounded_escaped_table() -> None:
    hostile = "<script>alert(1)</script>\u202egnp\x00" + "x" * 500
    rows = [{f"c{i}<b>": hostile for i in range(SHOWN_COLUMNS + 5)} for _ in range(500)]
    html = Table(rows)._repr_html_()
    assert "<script" not in html
    assert "<b>" not in html
    assert not re.search("[\u202e\x00]", html)
    assert html.count("<tr>") == SHOWN_ROWS + 1
    assert html.count("<th>") == SHOWN_COLUMNS
    assert len(html) < SHOWN_ROWS * SHOWN_COLUMNS * (SHOWN_CHARS * 2 + 50)
    assert f"500 rows × {SHOWN_COLUMNS + 5} columns, the first {SHOWN_ROWS} rows shown" in html
    assert "0 rows × 1 column" in Table([], {"a": int})._repr_html_()


@pytest.fixture
def testbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    settings = {
        "tasks": [{"name": TASK, "samples": "all"}],
        "taxonomies": ["builtin:starter"],
        "sampling": {"max_age_days": 30},
    }
    with Workspace(configuration(tmp_path, settings)) as workspace:
        yield Testbench(workspace)


def filled(testbench: Testbench, *, cached: bool = True) -> Asked:
    facts = Facts(testbench._workspace)
    asked = Asked(facts, facts.registration(TASK, n_docs=20))
    for doc_id in range(6):
        asked.answer(doc_id, float(doc_id % 2), f"answer {doc_id}")
    if cached:  # facts that a test writes later are not told to the cache, as the stages do
        refresh_window_cache(testbench._workspace, [ALPHA, BETA])
    return asked


def test_every_table_of_the_face_declares_its_columns(testbench: Testbench) -> None:
    filled(testbench)
    tables = {
        "scores": testbench.scores(),
        "leaderboard": testbench.leaderboard(),
        "answers": testbench.answers(ALPHA, TASK),
        "doc": testbench.doc(TASK, 3),
        "history": testbench.history(ALPHA),
        "taxonomies": testbench.taxonomies(),
        "plan": testbench.plan(),
        "compare": testbench.compare(ALPHA, BETA),
        "identity": testbench.identity(),
        "identity_pairs": testbench.identity_pairs(),
        "references": testbench.references(),
        "twins": testbench.twins(),
        "changes": testbench.changes(),
        "attempts": testbench.attempts(),
        "item_matrix": testbench.item_matrix(),
    }
    for name, table in tables.items():
        assert table.columns, name
        assert {key for row in table.rows for key in row} <= set(table.columns), name
        assert list(table.to_pandas().columns) == list(table.columns), name
        assert table.to_arrow().column_names == list(table.columns), name
    empty = {name for name, table in tables.items() if not table.rows}
    assert empty <= {"taxonomies", "identity", "identity_pairs", "references", "twins", "changes"}


def test_answers_and_docs_carry_what_stands_beside_their_rows(testbench: Testbench) -> None:
    filled(testbench)
    page = testbench.answers(ALPHA, TASK, "wrong", limit=2)
    assert [row["doc_id"] for row in page.rows] == [0, 2]
    assert (page.counts["wrong"], page.counts["right"], page.after) == (3, 3, 2)
    assert [row["doc_id"] for row in testbench.answers(ALPHA, TASK, search="ANSWER 4").rows] == [4]
    doc = testbench.doc(TASK, 3)
    assert (doc.target, doc.after, len(doc.requests)) == ("yes", None, 1)
    assert [row["answer"] for row in doc.rows] == ["answer 3"]
    one = testbench.answer(ALPHA, TASK, 3)
    assert one is not None
    assert [attempt["text"] for attempt in one["sent"]] == ["answer 3"]
    assert testbench.answer(ALPHA, TASK, 19) is None
    assert testbench.supplier(ALPHA).windows[0].model == "m"


def test_scores_are_those_of_an_instant(testbench: Testbench) -> None:
    asked = filled(testbench, cached=False)
    early = NOW - timedelta(days=3)
    for doc_id in range(10, 14):
        asked.answer(doc_id, 1.0, at=early)
    later = testbench.scores([ALPHA]).rows[0]
    assert (later["n"], later["model"]) == (10, "m")
    then = testbench.scores([ALPHA], as_of=early + timedelta(hours=1)).rows[0]
    assert (then["n"], then["score"]) == (4, 1.0)
    of_day = testbench.scores([ALPHA], as_of=early.date()).rows[0]
    assert of_day["n"] == 4
    assert testbench.scores([ALPHA], as_of=early - timedelta(hours=1)).rows[0]["status"] == "no_data"
    today = testbench.scores([ALPHA], as_of=date.today()).rows[0]
    assert today["n"] in (4, 10)


def test_a_change_after_an_instant_does_not_count_then(testbench: Testbench) -> None:
    from testbench_dagster.stages.discover.roster import cut_windows, refresh_roster

    asked = filled(testbench, cached=False)
    early = NOW - timedelta(days=3)
    for doc_id in range(10, 14):
        asked.answer(doc_id, 1.0, at=early)
    refresh_roster(testbench._workspace)
    assert cut_windows(testbench._workspace, ALPHA, NOW - timedelta(days=1), "another model")
    assert testbench.scores([ALPHA]).rows[0]["n"] == 6
    then = testbench.scores([ALPHA], as_of=early + timedelta(hours=1)).rows[0]
    assert (then["n"], then["cut_at"]) == (4, None)
