"""Frameworks of an operator's own that hang or give nonsense: told by name, set aside, nobody's loss."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import Interrupted, TaskError
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.core.records.set_aside import ScorerOutageRecord, SetAsideRecord
from testbench_dagster.stages.check import findings
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.sample.set_aside import prepare_dataset, prepare_prompts
from testbench_dagster.stages.score import scorer
from testbench_dagster.stages.score.missing import why_no_scores
from testbench_dagster.stages.score.outages import who_waits_for_scorers
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.tasks import frameworks, worker
from testbench_dagster.tasks.worker import Waiting
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, Facts, configuration
from testbench_dagster_tests.tasks.layouts import REPOSITORY
from testbench_dagster_tests.tasks.own_framework import installed, written
from testbench_dagster_tests.tasks.test_worker import alive, gone_within

Open = Callable[..., Workspace]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """An installation whose tasks have the given options, by name."""
    monkeypatch.setenv("TESTBENCH_HOME", str(tmp_path / "home"))
    with ExitStack() as stack:
        stack.enter_context(installed(tmp_path / "lib", monkeypatch))

        def build(**tasks: dict[str, Any]) -> Workspace:
            entries = [
                {"name": name, "framework": "own", "options": options} for name, options in tasks.items()
            ]
            return stack.enter_context(Workspace(configuration(tmp_path, {"tasks": entries})))

        yield build


def prepared(workspace: Workspace) -> Facts:
    """Tasks that are asked, and nothing answered."""
    refresh_roster(workspace)
    for spec in workspace.specs:
        refresh_dataset(workspace, spec)
        refresh_prompts(workspace, spec)
    return Facts(workspace)


def answer(workspace: Workspace, facts: Facts, task: str, *suppliers: str) -> None:
    """Suppliers answer all docs of a task."""
    registration = workspace.datasets.current(task)
    assert registration is not None
    for supplier in suppliers:
        api = "chat" if supplier == ALPHA else "completions"
        for prompt in typed.find(workspace.documents, PromptRecord, {"task": task, "api": api}):
            facts.attempt(
                registration, prompt.doc_id, prompt_id=prompt.id, text="x", supplier=supplier,
                at=datetime.now(UTC) - timedelta(minutes=1),
            )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("hang", "step"), [("register", "dataset"), ("build_prompts", "prompts")])
def test_a_task_that_never_gets_ready_is_set_aside_at_its_first_time_out(
    opened: Open, monkeypatch: pytest.MonkeyPatch, hang: str, step: str
) -> None:
    workspace = opened(stuck={"hang": hang}, good={})
    refresh_roster(workspace)
    stuck, good = workspace.specs
    assert prepare_dataset(workspace, good).reason is None  # the adapter is loaded
    monkeypatch.setattr(frameworks, "REGISTER_S", 0.5)
    made = prepare_dataset(workspace, stuck)
    reason = made.reason or prepare_prompts(workspace, stuck).reason
    assert reason == f"task 'stuck': framework 'own': {hang} took longer than 0.5 s and was stopped"
    (record,) = typed.find(workspace.documents, SetAsideRecord)
    assert (record.id, record.step) == ("stuck", step)
    monkeypatch.setattr(frameworks, "REGISTER_S", 0.0)  # what is set aside is not called again in a run
    if step == "dataset":
        assert prepare_prompts(workspace, stuck).reason == reason
    monkeypatch.setattr(frameworks, "REGISTER_S", 600.0)
    assert prepare_prompts(workspace, good).report is not None


@pytest.mark.slow
def test_who_looks_on_is_told_which_task_is_waited_for_and_stopping_ends_it_at_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stored of it: no registration, and no word that it was the task's fault."""
    monkeypatch.setattr(worker, "_TELL_AFTER_S", 0.2)
    workspace = opened(stuck={"hang": "register", "sleep": True}, good={})
    stuck, good = workspace.specs
    told: list[Waiting | None] = []
    stop = threading.Event()

    def look(waiting: Waiting | None) -> None:
        told.append(waiting)
        if waiting is not None and waiting.task == "stuck":
            stop.set()

    assert prepare_dataset(workspace, good).reason is None
    workspace.worker.on_wait, workspace.worker.stop = look, stop
    child = workspace.worker.process("own")
    with pytest.raises(Interrupted, match=r"waiting for task 'stuck', register\(\) of framework 'own'"):
        prepare_dataset(workspace, stuck)
    assert child.pid is None, "it was killed"
    assert told[-1] is None and {one.function for one in told if one is not None} == {"register"}
    with pytest.raises(Interrupted):
        prepare_dataset(workspace, good)  # nothing more is begun
    assert child.pid is None
    assert workspace.datasets.current("stuck") is None
    assert not list(typed.find(workspace.documents, SetAsideRecord))


@pytest.mark.slow
def test_scoring_that_comes_to_nothing_after_a_stop_is_ended_and_the_rest_is_scored(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(stuck={"hang": "score", "sleep": True}, good={})
    facts = prepared(workspace)
    for task in ("stuck", "good"):
        answer(workspace, facts, task, ALPHA)
    monkeypatch.setattr(worker, "_STOP_S", 0.5)
    workspace.worker.stop = threading.Event()
    workspace.worker.stop.set()
    report = score_new(workspace, [ALPHA])
    assert "interrupted while waiting for task 'stuck'" in report.problems["stuck"]
    assert report.scored == {"good": 8}
    assert not workspace.given_up and not list(typed.find(workspace.documents, ScorerOutageRecord))


@pytest.mark.slow
def test_a_scorer_that_never_ends_is_given_up_for_the_run_and_told_of_wherever_it_is_missed(
    opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    workspace = opened(stuck={"hang": "score", "calls": str(calls)}, good={})
    facts = prepared(workspace)
    for task in ("stuck", "good"):
        answer(workspace, facts, task, ALPHA, BETA)
    monkeypatch.setattr(scorer, "SECONDS_PER_CALL", 1.0)
    monkeypatch.setattr(scorer, "_SECONDS_PER_DOC", 0.0)
    report = score_new(workspace, [ALPHA, BETA])
    assert report.scored == {"good": 16}, "the other task is scored"
    assert "no end at empty answers" in report.problems["stuck"].replace("not come to an", "no")
    made = calls.read_text(encoding="utf-8").count("scored")
    assert made == 3, "the batch, and empty answers to two docs"
    again = score_new(workspace, [ALPHA, BETA])
    assert again.problems["stuck"] == report.problems["stuck"]
    assert calls.read_text(encoding="utf-8").count("scored") == made, "it is not tried again in the run"
    told = who_waits_for_scorers(workspace.documents, [ALPHA, BETA], ["stuck"])["stuck"]
    assert "16 answered docs wait because the task's framework does not score" in told
    assert "counts against no supplier" in told
    rows = [row for row in windows(workspace) if row.primary and row.task == "stuck"]
    assert {row.score for row in rows} == {None}
    why = why_no_scores(workspace, rows)
    assert why[ALPHA, "stuck"].startswith(
        "8 answered docs are not scored: the scorer does not come to an end"
    )
    shown = [one.detail for one in findings(workspace, suppliers=False) if one.what == "answers to stuck"]
    assert shown == [told]


def test_an_aggregation_that_fails_leaves_the_other_rows_and_is_told(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(good={})
    facts = prepared(workspace)
    answer(workspace, facts, "good", ALPHA)
    assert score_new(workspace, [ALPHA]).scored == {"good": 8}
    registration = workspace.datasets.current("good")
    assert registration is not None
    monkeypatch.setattr("testbench_dagster.scoring.rows.is_mean", lambda *_: False)
    monkeypatch.setattr(
        frameworks.Framework,
        "aggregate",
        lambda *_: (_ for _ in ()).throw(TaskError("cannot be put together")),
    )
    (row,) = [row for row in windows(workspace, suppliers=[ALPHA]) if row.primary]
    assert (row.score, row.n) == (None, 8)
    assert workspace.unaggregated == {"good": "cannot be put together"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": 1}, r"framework 'own': version is 1 (int); give a text, such as '1'"),
        ({"field": "nan"}, "framework 'own': doc 3: field is nan, for which JSON has no word; give null"),
        (
            {"aggregation": "medain"},
            "framework 'own': register(): metric 'exact': aggregation 'medain' is unknown; name 'mean'",
        ),
    ],
)
def test_check_names_framework_task_field_value_and_remedy(
    opened: Open, options: dict[str, Any], said: str
) -> None:
    workspace = opened(wrong=options, good={})
    found = {one.what: one for one in findings(workspace, suppliers=False)}
    assert found["task good"].ok
    assert found["task wrong"].failed and said in found["task wrong"].detail


def test_a_request_that_nobody_can_be_sent_sets_the_task_aside_and_nobody_is_asked(opened: Open) -> None:
    """Five docs are well: check, which tries three, may not see it; the run does."""
    workspace = opened(wrong={"request": {"generation": {"until": 5}}}, good={})
    refresh_roster(workspace)
    for spec in workspace.specs:
        assert prepare_dataset(workspace, spec).reason is None
    wrong, good = workspace.specs
    reason = prepare_prompts(workspace, wrong).reason
    assert reason is not None
    assert "task 'wrong': framework 'own': build_prompts(): doc 5: request 0: generation.until is 5" in reason
    assert prepare_prompts(workspace, good).report is not None
    assert {one.task for one in typed.find(workspace.documents, PromptRecord)} == {"good"}
    rows = [row for row in windows(workspace, suppliers=[ALPHA]) if row.primary]
    why = why_no_scores(workspace, rows)
    assert why[ALPHA, "wrong"].startswith("the task is set aside, nobody is asked: task 'wrong'")
    assert why[ALPHA, "good"] == "it was never asked: no evaluation planned it yet"


@pytest.mark.slow
def test_a_child_that_waits_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """It does not compute, so that no timer of its CPU time looks after its parent."""
    code = inspect.cleandoc("""
        import threading, time
        from dataclasses import replace
        from testbench_dagster.tasks.worker import FrameworkWorker
        from testbench_dagster_tests.tasks.quiz import spec_of
        spec = replace(spec_of("stuck"), framework="own", options={"hang": "register", "sleep": True})
        worker = FrameworkWorker()
        threading.Thread(target=worker.call, args=("own", "register", spec), daemon=True).start()
        while not worker.process("own")._loaded:
            time.sleep(0.05)
        print(worker.process("own").pid, flush=True)
        time.sleep(600)
    """)
    path = os.pathsep.join([str(REPOSITORY), str(written(tmp_path / "lib"))])
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
    finally:
        parent.kill()  # no chance to clean up
        parent.wait()
    assert gone_within(pid, 60)
