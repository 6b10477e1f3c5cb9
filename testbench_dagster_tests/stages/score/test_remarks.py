"""What is told of the answers behind rows: late ones, empty ones, refused ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.window import Window
from testbench_dagster.stages.score.remarks import (
    empty_answers,
    late_answers,
    refused_parameters,
    who_has_failed,
)
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES
from testbench_dagster_tests.stages.score.facts import ALPHA, NOW, Facts, configuration

TASK, N = "starter_logic", 20


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Facts]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    with Workspace(configuration(tmp_path, {"tasks": [{"name": TASK, "samples": "all"}]})) as workspace:
        yield Facts(workspace)


def row_of(facts: Facts) -> Window:
    rows = windows(facts.workspace, suppliers=[ALPHA], now=NOW + timedelta(minutes=1))
    (row,) = [row for row in rows if row.primary]
    return row


def answer(facts: Facts, doc: int, fault: Fault, text: str, *, opening: str | None, round_: int = 1) -> None:
    """A scored answer as the stages store it; ``opening`` is None where it was not asked at temperature 0."""
    task = facts.workspace.datasets.current(TASK)
    assert task is not None
    facts.attempt(task, doc, fault, text=text, round_=round_, at=NOW + timedelta(seconds=round_))
    (stored,) = typed.find(facts.workspace.documents, AttemptRecord, {"doc_id": doc, "round": round_})
    found = facts.workspace.documents.get(ATTEMPTS, stored.id)
    facts.workspace.documents.upsert(ATTEMPTS, [{**(found or {}), "opening": opening}])
    facts.score(
        task, doc, 0.0, NOW + timedelta(seconds=round_), round_=round_, truncated=fault is Fault.TRUNCATED
    )
    (score,) = facts.workspace.documents.find(SCORES, {"doc_id": doc, "round": round_})
    facts.workspace.documents.upsert(SCORES, [{**score, "attempt_ids": [stored.id]}])


def prompts(facts: Facts, **generation: Any) -> None:
    task = facts.registration(TASK, N)
    request = {"type": "generate_until", "idx": 0, "messages": [], "generation": generation}
    facts.workspace.documents.put_new(
        PROMPTS,
        [
            {
                "_id": f"{TASK}-{doc}", "task": TASK, "epoch": 1, "api": "chat", "task_hash": task.task_hash,
                "position": doc, "doc_id": doc, "doc_hash": "", "calls": 1, "relayable": True,
                "requests": [request],
            }
            for doc in range(N)
        ],
    )  # fmt: skip


@pytest.mark.parametrize("opening", ["", None])
@pytest.mark.parametrize(("empty", "told"), [(2, False), (3, True)])
def test_answers_cut_before_they_began(facts: Facts, opening: str | None, empty: int, told: bool) -> None:
    """More than a tenth of them, whether or not how they begin was kept; what was cut later is none."""
    prompts(facts)
    for doc in range(N):
        if doc < empty:
            answer(facts, doc, Fault.TRUNCATED, " \n", opening=opening)
        elif doc < 10:
            answer(
                facts, doc, Fault.TRUNCATED, "it goes on", opening=None if opening is None else "it goes on"
            )
        else:
            answer(facts, doc, Fault.OK, "", opening="")
    remarks = empty_answers(facts.workspace, [row_of(facts)])
    assert list(remarks) == ([(ALPHA, TASK)] if told else [])
    if told:
        assert remarks[ALPHA, TASK].startswith("3 of 20 answers are empty, cut at our token limit")


def test_only_the_newest_answer_to_a_doc_is_looked_at(facts: Facts) -> None:
    prompts(facts)
    for doc in range(N):
        answer(facts, doc, Fault.TRUNCATED, "", opening="")
        answer(facts, doc, Fault.TRUNCATED, "well", opening="well", round_=2)
    assert empty_answers(facts.workspace, [row_of(facts)]) == {}


@pytest.mark.parametrize(("late", "told"), [(0, False), (1, False), (2, True)])
def test_late_answers(facts: Facts, late: int, told: bool) -> None:
    facts.registration(TASK, N)
    row = replace(row_of(facts), n=N, n_late=late)
    assert bool(late_answers([row])) is told
    if told:
        assert late_answers([row])[ALPHA, TASK].startswith("2 of 20 docs were answered only in a later run")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Unsupported parameter: 'temperature'", "because of temperature;"),
        ("no", "because of one of max_tokens, seed, stop, temperature;"),
    ],
)
def test_a_refused_parameter_is_named(facts: Facts, message: str, told: str) -> None:
    prompts(facts, temperature=0.0, max_gen_toks=8)
    task = facts.workspace.datasets.current(TASK)
    assert task is not None
    for doc in range(N):
        facts.attempt(task, doc, Fault.CLIENT_REQUEST, text="x")
    for attempt in list(facts.workspace.documents.find(ATTEMPTS, {})):
        body = orjson.dumps({"error": {"message": message}})
        facts.workspace.documents.upsert(ATTEMPTS, [{**attempt, "status": 400, "body": body}])
    row = row_of(facts)
    assert row.status == "refused"
    (remark,) = refused_parameters(facts.workspace, [row]).values()
    assert remark.startswith("its requests are refused (HTTP 400)") and told in remark


def test_where_nothing_is_refused_nothing_is_told(facts: Facts) -> None:
    facts.registration(TASK, N)
    row = row_of(facts)
    assert refused_parameters(facts.workspace, [row]) == late_answers([row]) == {}
    assert empty_answers(facts.workspace, [row]) == {}


def test_who_left_docs_unanswered_for_good_is_told_in_a_line(facts: Facts) -> None:
    facts.registration(TASK, N)
    row = row_of(facts)

    def failed(supplier: str, n: int, *faults: str) -> Window:
        return replace(row, supplier=supplier, n_failed=n, errors=dict.fromkeys(faults, n))

    assert who_has_failed([row]) == ""
    assert who_has_failed([row, failed("a@x", 1, "supplier_refused")]) == (
        "1 doc has failed: 1 of a@x (supplier_refused); it was left unanswered on several occasions while "
        "others were answered, and counts as wrong"
    )
    many = [failed(f"s{n}@x", n, "supplier_http") for n in range(1, 6)]
    assert who_has_failed([*many, failed("s5@x", 2, "transport")]) == (
        "17 docs have failed: 7 of s5@x (supplier_http, transport), 4 of s4@x (supplier_http), 3 of s3@x "
        "(supplier_http), 3 of 2 others; they were left unanswered on several occasions while others were "
        "answered, and count as wrong"
    )
