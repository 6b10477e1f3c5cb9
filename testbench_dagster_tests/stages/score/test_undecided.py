"""Answers that a metric cannot digest, where it does not digest an empty one either, count as wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.prompt import Answered, DocScore
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.window import Window
from testbench_dagster.stages.score import batch as module
from testbench_dagster.stages.score.score import ScoreReport, score_new
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration

TASK = "starter_logic"
N = 50


class Picky:
    """A scorer with a metric that takes numbers only, and asks a service that may be down."""

    def __init__(self) -> None:
        self.down = False

    def score(self, spec: Any, data: Any, answers: Sequence[Answered], *, timeout_s: float) -> list[DocScore]:
        return [self._one(a.doc_id, a.responses[0][0]) for a in answers]

    def score_empty(
        self, spec: Any, data: Any, asked: Sequence[Answered], *, timeout_s: float
    ) -> list[DocScore]:
        return [self._one(a.doc_id, "") for a in asked]

    def _one(self, doc: int, text: str) -> DocScore:
        if self.down:
            return DocScore(doc, error="ConnectionError: the judge is down")
        try:
            return DocScore(doc, {"none": {"exact_match": float(text)}})
        except ValueError as error:
            return DocScore(doc, error=f"ValueError: {error}")


class Installation:
    def __init__(self, workspace: Workspace, picky: Picky) -> None:
        self.workspace, self.picky, self.facts = workspace, picky, Facts(workspace)
        self.task: Registration = self.facts.registration(TASK, N)
        request = {"type": "generate_until", "idx": 0, "messages": [], "generation": {}}
        prompts = [
            {
                "_id": f"{TASK}-{doc}", "task": TASK, "epoch": 1, "api": "chat", "position": doc,
                "doc_id": doc, "task_hash": self.task.task_hash, "doc_hash": "",
                "calls": 1, "relayable": True,
                "requests": [request],
            }
            for doc in range(N)
        ]  # fmt: skip
        workspace.documents.put_new(PROMPTS, prompts)

    def answer(self, docs: Sequence[int], text: str, supplier: str = ALPHA) -> None:
        for doc in docs:
            self.facts.attempt(self.task, doc, text=text, supplier=supplier)

    def score(self) -> ScoreReport:
        return score_new(self.workspace, [ALPHA, BETA], now=NOW)

    def row(self, supplier: str = ALPHA) -> Window:
        rows = windows(self.workspace, suppliers=[supplier], tasks=[TASK], now=NOW)
        (row,) = [row for row in rows if row.primary]
        return row


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    picky = Picky()
    monkeypatch.setattr(Workspace, "framework", lambda self, spec: picky)
    monkeypatch.setattr(module, "task_data", lambda *_: None)
    monkeypatch.setattr("testbench_dagster.stages.score.score.definition_changed", lambda *_: False)
    settings = {"tasks": [{"name": TASK, "samples": "all"}]}
    with Workspace(configuration(tmp_path, settings)) as workspace:
        yield Installation(workspace, picky)


def test_answers_that_a_well_scorer_cannot_digest_are_open(made: Installation) -> None:
    """Who is right at 30 docs and sends what no metric takes for the other 20 has no 1.00."""
    made.answer(range(30), "1")
    made.answer(range(30, N), "not a number")
    report = made.score()
    assert (report.n_scored, report.n_failed, report.n_put_off) == (30, 0, 20)
    row = made.row()
    assert (row.status, row.n, row.n_open, row.n_failed, row.score) == ("partial", 30, 20, 0, 30 / N)
    again = made.score()
    assert (again.n_scored, again.n_put_off) == (0, 20), "they are tried again"
    assert made.row() == row


def test_they_are_unscorable_where_another_answer_to_the_doc_is_scored(made: Installation) -> None:
    made.answer(range(30), "1")
    made.answer(range(30, N), "not a number")
    made.score()
    made.answer(range(30, 40), "0", BETA)
    report = made.score()
    assert (report.n_scored, report.n_failed, report.n_put_off) == (10, 10, 10)
    row = made.row()
    assert (row.n, row.n_open, row.n_failed, row.errors["unscorable"]) == (30, 10, 10, 10)
    assert row.score == 30 / N


def test_what_waits_for_a_service_of_the_scorer_counts_nowhere(made: Installation) -> None:
    made.answer(range(30), "1")
    made.score()
    made.picky.down = True
    made.answer(range(30, N), "1")
    assert made.score().n_put_off == 20
    row = made.row()
    assert (row.status, row.n, row.n_open, row.n_failed, row.score) == ("partial", 30, 0, 0, 1.0)
    made.picky.down = False
    made.score()
    assert (made.row().n, made.row().score) == (N, 1.0)


def test_what_is_digested_later_is_scored(made: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    made.answer(range(10), "1")
    made.answer(range(10, 12), "one")
    made.score()
    assert (made.row().n_open, made.row().score) == (2, 10 / 12)
    whole = made.picky._one
    monkeypatch.setattr(made.picky, "_one", lambda doc, text: whole(doc, "1" if text == "one" else text))
    made.score()
    assert (made.row().n_open, made.row().n, made.row().score) == (0, 12, 1.0)
