"""The notebook in ``examples/`` answers its questions over a demo, cell by cell, as Jupyter would run it."""

from __future__ import annotations

import ast
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from testbench_dagster_tests.acceptance.harness import _FOREIGN, EXAMPLES, Installation

NAME = "analysis.ipynb"
LINES = 3
"""Of code, at most, for each question."""
SUPPLIERS = {f"sim-0{number}@simulation" for number in range(1, 8)}
#: Cells that answer nothing: what is opened, named and closed.
SILENT = {"open", "choose", "close"}
#: Question → columns of its answer.
ANSWERS = {
    "all": None,  # one for each task
    "best": ["supplier", "model", "task", "score", "ci_low", "ci_high", "n", "n_failed"],
    "sure": ["a", "b", "difference", "ci_low", "ci_high", "verdict", "docs_needed"],
    "rank": [
        *("taxonomy", "rank_low", "rank_high", "supplier", "model", "score", "ci_low", "ci_high", "group"),
    ],
    "since": ["day", "score", "ci_low", "ci_high", "n", "p50_ms", "source", "cut"],
    "changes": ["supplier", "kind", "task", "at", "detected_at", "reason"],
    "wrong": ["doc_id", "question", "target", "answer", "extracted"],
    "differ": ["task", "n_common", "mean_a", "mean_b", "difference", "ci_low", "ci_high", "verdict"],
    "docs": ["question", "target", "kind", "answer", "kind_other", "answer_other"],
    "speed": ["p50_ms", "p95_ms", "first_attempt_success"],
}


def cells(kind: str) -> dict[str, dict[str, Any]]:
    """The cells of a kind by their ids, in their order."""
    notebook = json.loads((EXAMPLES / NAME).read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    return {cell["id"]: cell for cell in notebook["cells"] if cell["cell_type"] == kind}


def test_the_notebook_is_kept_without_outputs() -> None:
    for name, cell in cells("code").items():
        assert cell["outputs"] == [] and cell["execution_count"] is None, name


def test_each_question_is_put_in_words_and_takes_three_lines_at_most() -> None:
    code, words = cells("code"), cells("markdown")
    assert list(code) == ["open", "choose", *ANSWERS, "close"]
    for name, cell in code.items():
        assert sum(bool(line.strip()) for line in cell["source"]) <= LINES, name
    for name in ANSWERS:
        assert "".join(words[f"{name}-text"]["source"]).strip(), name


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what ``testbench demo`` measured, and the notebook where a checkout has it."""
    folder = tmp_path_factory.mktemp("notebook")
    done = Installation(folder).command("demo", "--no-ui")
    assert done.code == 0, done
    (folder / "examples").mkdir()
    shutil.copy(EXAMPLES / NAME, folder / "examples")
    return folder


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the cells have named."""
    return {}


@pytest.fixture(scope="module")
def said(demo: Path, names: dict[str, Any]) -> dict[str, Any]:
    """What each code cell shows: the value of its last expression."""
    shown: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(demo / "examples")
        for name in _FOREIGN:
            patched.delenv(name, raising=False)
        for name, cell in cells("code").items():
            shown[name] = run("".join(cell["source"]), name, names)
    return shown


def run(source: str, name: str, names: dict[str, Any]) -> Any:
    """Run a cell among the names of those before it."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), names)  # noqa: S102  the checkout's own notebook
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), name, "eval"), names)


@pytest.mark.slow(minutes=1)
def test_cells_without_a_question_show_nothing(said: dict[str, Any]) -> None:
    assert {name for name, shown in said.items() if shown is None} == SILENT


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("name", ANSWERS)
def test_a_question_is_answered(said: dict[str, Any], name: str) -> None:
    frame = said[name]
    assert isinstance(frame, pd.DataFrame)
    if ANSWERS[name] is not None:
        assert list(frame.columns) == ANSWERS[name]
    if name == "changes":
        assert frame.empty, "a network that was asked once has not changed"
        return
    assert len(frame), "no rows"
    empty = set(frame.columns[frame.isna().all()])
    assert empty <= ({"docs_needed"} if name == "sure" else set()), "a column without any value"


@pytest.mark.slow(minutes=1)
def test_the_answers_are_those_of_the_demo(said: dict[str, Any], names: dict[str, Any]) -> None:
    assert {key for _, key in said["all"].index} == SUPPLIERS
    best = said["best"]
    assert list(best["supplier"]) == ["sim-01@simulation", "sim-03@simulation"], "who serve that model"
    assert best["score"].is_monotonic_decreasing and best["score"].between(0.7, 1).all()
    assert ((best["ci_low"] <= best["score"]) & (best["score"] <= best["ci_high"])).all()
    assert set(said["sure"]["verdict"]) <= {"undecided", "equal within"}, "they are twins"
    assert set(said["rank"]["supplier"]) == SUPPLIERS
    assert said["since"]["source"].iloc[-1] == "snapshot", "what the run kept of today"
    wrong = said["wrong"]
    assert len(wrong) == 5 and (wrong["extracted"] != wrong["target"]).all()
    assert wrong["question"].str.startswith("Question:").all()
    assert said["differ"]["task"].iloc[-1] == "overall"
    counted = names["tasks"].set_index("task").loc[names["TASK"]]
    assert counted["verdict"] == "B better", "one is good at numbers"
    docs = said["docs"]
    assert (docs["kind"] != docs["kind_other"]).all()
    assert len(docs) == counted["only_a_higher"] + counted["only_b_higher"]
    assert set(said["speed"].index) == SUPPLIERS
    assert said["speed"].index[-1] == "sim-06@simulation", "the slow one"
    assert (said["speed"]["p50_ms"] <= said["speed"]["p95_ms"]).all()
