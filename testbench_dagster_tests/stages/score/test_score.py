"""Scoring stored answers: the real lm-eval worker, own tasks, answers written as the relay stage does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.prompt import Answered
from testbench_dagster.core.records.attempts import CallAttempt
from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Window
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.sample.data import task_data
from testbench_dagster.stages.score import batch as module
from testbench_dagster.stages.score import scorer
from testbench_dagster.stages.score.answered import AnsweredDoc, answered_docs, unscored
from testbench_dagster.stages.score.batch import score_batch
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, EMPTY_SCORES, PROMPTS, SCORES
from testbench_dagster.tasks import worker as worker_module
from testbench_dagster.tasks.worker import FrameworkWorker, cpu_seconds
from testbench_dagster_tests.stages.score.facts import ALPHA, NOW, Facts, configuration

N_DOCS = 12
SECOND = "second@external"

#: Matches runs of "a"; on a run that ends otherwise it tries all ways to cut the run, for ever.
CATASTROPHIC = "^(a+)+$"

HEAD = """task: {name}
dataset_path: json
output_type: generate_until
test_split: test
doc_to_text: "Question {{{{n}}}}:"
doc_to_target: "{{{{answer}}}}"
num_fewshot: 0
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 64}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
REGEX = f"""filter_list:
  - name: strict
    filter: [{{function: regex, regex_pattern: "{CATASTROPHIC}"}}, {{function: take_first}}]
  - name: plain
    filter: [{{function: take_first}}]
"""


CHOICE = """task: own_choice
dataset_path: json
output_type: multiple_choice
test_split: test
doc_to_text: "Question {{n}}:"
doc_to_choice: options
doc_to_target: right
num_fewshot: 0
metric_list:
  - {metric: mcc, aggregation: mcc, higher_is_better: true}
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


class Case:
    """One task whose prompts are built and whose answers the test writes."""

    def __init__(self, workspace: Workspace, spec: TaskSpec) -> None:
        self.workspace, self.spec = workspace, spec
        self.registration: Registration = refresh_dataset(workspace, spec)[0]
        refresh_prompts(workspace, spec)
        self.prompts = {
            p["doc_id"]: p for p in workspace.documents.find(PROMPTS, {"task": spec.name, "api": "chat"})
        }
        self._facts = Facts(workspace)

    def answer(
        self, doc_id: int, text: str | None, fault: Fault = Fault.OK, supplier: str = ALPHA, **more: Any
    ) -> None:
        prompt = self.prompts[doc_id]["_id"]
        self._facts.attempt(
            self.registration, doc_id, fault, prompt_id=prompt, text=text, supplier=supplier, **more
        )

    def scores(self, supplier: str = ALPHA) -> list[dict[str, Any]]:
        where = {"task": self.spec.name, "supplier": supplier}
        return list(self.workspace.documents.find(SCORES, where, sort=[("doc_id", 1), ("filter", 1)]))

    def values(self, name: str = "plain", supplier: str = ALPHA) -> dict[int, float]:
        return {
            s["doc_id"]: s["metrics"]["exact_match"]
            for s in self.scores(supplier)
            if s["filter"] == name and s["error"] is None
        }


@pytest.fixture
def workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: FrameworkWorker
) -> Iterator[Workspace]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TESTBENCH_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "docs.jsonl").write_text(
        "".join(json.dumps({"n": i, "answer": "a" * (i + 1)}) + "\n" for i in range(N_DOCS)), encoding="utf-8"
    )
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "own_regex.yaml").write_text(HEAD.format(name="own_regex") + REGEX, encoding="utf-8")
    (folder / "own_repeats.yaml").write_text(
        HEAD.format(name="own_repeats") + "repeats: 2\n", encoding="utf-8"
    )
    (folder / "own_corpus.yaml").write_text(
        HEAD.format(name="own_corpus").replace("exact_match, aggregation: mean", "bleu, aggregation: bleu"),
        encoding="utf-8",
    )
    choices = [{"n": i, "options": ["yes", "no"], "right": i % 2} for i in range(N_DOCS)]
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(c) + "\n" for c in choices), encoding="utf-8")
    (folder / "own_choice.yaml").write_text(CHOICE, encoding="utf-8")
    tasks = [
        {"name": name, "data": {"test": "docs.jsonl"}, "samples": "all"}
        for name in ("own_regex", "own_repeats", "own_corpus")
    ]
    tasks.append({"name": "own_choice", "data": {"test": "choices.jsonl"}, "samples": "all"})
    suppliers = [
        {"address": name, "base_url": "http://127.0.0.1:9/v1", "model": "m"} for name in ("alpha", "second")
    ]
    config = configuration(tmp_path, {"tasks": tasks, "task_paths": ["mine"], "suppliers": suppliers})
    with Workspace(config) as opened:
        opened.__dict__["worker"] = worker
        yield opened
        del opened.__dict__["worker"]


@pytest.fixture
def case(workspace: Workspace) -> Case:
    return Case(workspace, workspace.spec("own_regex"))


def test_answers_are_scored_by_every_filter_once(case: Case) -> None:
    case.answer(0, "a")
    case.answer(1, "wrong")
    case.answer(2, "aaa", Fault.TRUNCATED)
    case.answer(3, None, Fault.EMPTY)
    case.answer(4, None, Fault.TRANSPORT)
    report = score_new(case.workspace, [ALPHA], now=NOW)
    assert (report.scored, report.failed, report.put_off) == ({"own_regex": 3}, {}, {})
    assert case.values("plain") == {0: 1.0, 1: 0.0, 2: 1.0}
    assert case.values("strict") == {0: 1.0, 1: 0.0, 2: 1.0}
    first = case.scores()
    assert [s["truncated"] for s in first] == [False] * 4 + [True] * 2
    for score in first:
        assert score["prompt_id"] == case.prompts[score["doc_id"]]["_id"]
        assert case.workspace.documents.get(ATTEMPTS, score["attempt_ids"][0]) is not None
        assert (score["service"], score["answered_at"]) == ("external", NOW)
    kept = {(s["doc_id"], s["filter"]): s["extracted"] for s in first}
    assert [kept[doc, "plain"] for doc in range(3)] == ["a", "wrong", "aaa"]
    assert {kept[doc, "strict"] for doc in range(3)} == {"a", "[invalid]", "aaa"}

    again = score_new(case.workspace, [ALPHA], now=NOW)
    assert (again.scored, again.n_scored) == ({}, 0)
    assert case.scores() == first


def test_only_what_is_new_is_scored(case: Case) -> None:
    case.answer(0, "a")
    score_new(case.workspace, [ALPHA, SECOND], now=NOW)
    case.answer(1, "aa")
    case.answer(0, "b", supplier=SECOND)
    assert score_new(case.workspace, [ALPHA], now=NOW).n_scored == 1
    assert case.values(supplier=SECOND) == {}
    assert score_new(case.workspace, [ALPHA, SECOND], now=NOW).n_scored == 1
    assert (case.values(), case.values(supplier=SECOND)) == ({0: 1.0, 1: 1.0}, {0: 0.0})


def test_a_retried_answer_is_scored_by_its_last_attempt(case: Case) -> None:
    case.answer(0, None, Fault.SUPPLIER_HTTP, number=1)
    assert score_new(case.workspace, [ALPHA], now=NOW).n_scored == 0
    case.answer(0, "a", number=2)
    assert score_new(case.workspace, [ALPHA], now=NOW).n_scored == 1
    assert case.values() == {0: 1.0}


def test_rounds_are_scored_apart(case: Case) -> None:
    case.answer(0, "b", round_=1)
    case.answer(0, "a", round_=2)
    assert score_new(case.workspace, [ALPHA], now=NOW).n_scored == 2
    rounds = {s["round"]: s["metrics"]["exact_match"] for s in case.scores() if s["filter"] == "plain"}
    assert rounds == {1: 0.0, 2: 1.0}


def test_a_doc_of_several_calls_is_scored_when_all_are_answered(workspace: Workspace) -> None:
    case = Case(workspace, workspace.spec("own_repeats"))
    assert case.prompts[0]["calls"] == 2
    case.answer(0, "a", repeat=0)
    case.answer(1, "aa", repeat=0)
    case.answer(1, None, Fault.RATE_LIMITED, repeat=1)
    case.answer(2, "aaa", repeat=0)
    case.answer(2, "x", repeat=1)
    assert score_new(workspace, [ALPHA], now=NOW).scored == {"own_repeats": 1}
    assert [s["doc_id"] for s in case.scores()] == [2]
    assert len(case.scores()[0]["attempt_ids"]) == 2
    assert case.scores()[0]["latency_ms"] == 20.0
    case.answer(0, "a", repeat=1)
    case.answer(1, "aa", repeat=1, number=2)
    assert score_new(workspace, [ALPHA], now=NOW).scored == {"own_repeats": 2}
    assert case.values("none") == {0: 1.0, 1: 1.0, 2: 1.0}


def hanging(case: Case, docs: list[int], supplier: str = ALPHA) -> None:
    for doc in docs:
        case.answer(doc, "a" * 60 + "!", supplier=supplier)


@pytest.fixture
def short_limits(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Limits a test can wait for, as an answer that hangs computes until it meets them.

    They are of CPU time: as much as a worker takes here for its start and a call together, where a call alone
    is what is limited. By the clock they are far longer, as this machine may be busy.
    """
    with FrameworkWorker() as worker, Workspace(case.workspace.config) as other:
        other.__dict__["worker"] = worker
        case.answer(N_DOCS - 1, "a" * N_DOCS)
        docs = list(answered_docs(other.documents, ALPHA, case.spec, case.registration))
        score_batch(other, case.spec, case.registration, docs)
        taken = cpu_seconds(worker.process("lm_eval").pid or 0) or 10.0
    monkeypatch.setattr(scorer, "SECONDS_PER_CALL", max(1.0, taken))
    monkeypatch.setattr(scorer, "_SECONDS_PER_DOC", 0.05)
    monkeypatch.setattr(worker_module, "_WAITING", 60.0)
    return case


def test_a_failed_doc_counts_as_an_empty_answer_in_a_metric_over_all_docs(workspace: Workspace) -> None:
    """BLEU has no worst value of a doc; what an empty answer is worth is asked of the task once per doc."""
    case = Case(workspace, workspace.spec("own_corpus"))
    facts = Facts(workspace)

    def row() -> Window:
        (found,) = windows(workspace, suppliers=[ALPHA], tasks=["own_corpus"], now=NOW)
        return found

    for doc in range(8):
        case.answer(doc, " ".join("abcdefgh"[: doc + 1]) if doc < 7 else "")
    score_new(workspace, [ALPHA], now=NOW)
    honest = row()
    assert (honest.n, honest.failures, honest.score) == (8, "as_empty", honest.score_answered)
    second = Case(workspace, workspace.spec("own_corpus"))
    for doc in range(7):
        second.answer(doc, " ".join("abcdefgh"[: doc + 1]), supplier=SECOND)
    facts.fail(case.registration, 7, prompt_id=case.prompts[7]["_id"], supplier=SECOND)
    assert score_new(workspace, [SECOND], now=NOW).n_scored == 7
    (found,) = windows(workspace, suppliers=[SECOND], tasks=["own_corpus"], now=NOW)
    assert (found.n, found.n_failed, found.status) == (7, 1, "ok")
    assert found.score == honest.score, "as if it had answered nothing at all"
    score_new(workspace, [SECOND], now=NOW)
    assert workspace.documents.count(EMPTY_SCORES) == 1, "once for all"


def test_in_a_choice_a_failed_doc_misses_the_right_option(workspace: Workspace) -> None:
    spec = workspace.spec("own_choice")
    registration, _ = refresh_dataset(workspace, spec)
    data = task_data(workspace, registration)
    requests = [
        {"type": "loglikelihood", "idx": idx, "context": "q", "continuation": choice}
        for idx, choice in enumerate((" yes", " no"))
    ]
    asked = [Answered(doc, requests, [[None], [None]]) for doc in range(4)]
    scores = workspace.framework(spec).score_empty(spec, data, asked)
    assert [score.error for score in scores] == [None] * 4
    assert [score.metrics["none"]["acc"] for score in scores] == [0.0] * 4
    assert [score.metrics["none"]["mcc"] for score in scores] == [[0, 1], [1, 0], [0, 1], [1, 0]]


@pytest.mark.slow
def test_an_answer_that_hangs_a_filter_becomes_an_outcome_of_its_own(short_limits: Case) -> None:
    case = short_limits
    hanging(case, [3])
    for doc in (0, 1, 2, 4, 5):
        case.answer(doc, "a" * (doc + 1))
        case.answer(doc, "wrong", supplier=SECOND)
    report = score_new(case.workspace, [ALPHA, SECOND], now=NOW)
    assert (report.n_scored, report.failed, report.put_off) == (11, {"own_regex": 1}, {})
    assert case.values("strict") == dict.fromkeys((0, 1, 2, 4, 5, 11), 1.0)
    assert case.values("strict", SECOND) == dict.fromkeys((0, 1, 2, 4, 5), 0.0)
    stopped = [s for s in case.scores() if s["error"] is not None]
    assert {(s["doc_id"], s["filter"]) for s in stopped} == {(3, "plain"), (3, "strict")}
    assert all("was stopped" in s["error"] and s["metrics"] == {} for s in stopped)
    rows = windows(case.workspace, suppliers=[ALPHA], tasks=["own_regex"], now=NOW)
    assert [(row.n, row.errors, row.n_failed) for row in rows] == [(6, {"unscorable": 1}, 1)] * 2
    assert score_new(case.workspace, [ALPHA, SECOND], now=NOW).n_failed == 0, "it is not tried again"


@pytest.mark.slow(minutes=1.5)
def test_a_supplier_that_hangs_the_scorer_again_and_again_is_put_off(
    short_limits: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "_STRIKES", 2)
    case = short_limits
    hanging(case, list(range(8)))
    case.answer(0, "a", supplier=SECOND)
    report = score_new(case.workspace, [ALPHA, SECOND], now=NOW)
    assert report.n_failed == 2
    assert report.n_put_off + report.n_scored == 8  # six hang as well; two more are fine
    assert case.values(supplier=SECOND) == {0: 1.0}, "the other supplier does not wait for it"
    left = list(unscored(case.workspace.documents, ALPHA, case.spec, case.registration))
    assert len(left) == report.n_put_off >= 6


def test_trouble_that_is_not_the_answers_fails_the_stage(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that cannot even start must not mark answers as unscorable for ever."""
    case.answer(0, "a")
    case.workspace.worker.process("lm_eval").close()
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(TaskError, match="process ended"):
        score_new(case.workspace, [ALPHA], now=NOW)
    assert case.scores() == []
    monkeypatch.delenv("PYTHONHOME")
    assert score_new(case.workspace, [ALPHA], now=NOW).n_scored == 1


def test_raw_answers_are_held_a_few_at_a_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for doc in range(N_DOCS):
        case.answer(doc, "a" * (doc + 1))
    docs = list(answered_docs(case.workspace.documents, ALPHA, case.spec, case.registration))
    assert all("body" not in attempt._fields for doc in docs for attempt in doc.attempts)
    whole = score_batch(case.workspace, case.spec, case.registration, docs)
    monkeypatch.setattr(module, "_EVIDENCE", 5)
    parts = score_batch(case.workspace, case.spec, case.registration, docs, Counter())
    assert [(s.id, s.metrics) for s in parts] == [(s.id, s.metrics) for s in whole]
    assert len(whole) == 2 * N_DOCS


def test_the_answers_id_is_its_attempts() -> None:
    def attempt(id_: str) -> CallAttempt:
        return CallAttempt(id_, "s", "p", 0, 0, 1, 1, 0, 0, 1, "ok", NOW, 1.0, None, None, None, 1, False)

    one = AnsweredDoc(ALPHA, "p", 1, (attempt("x"),))
    two = AnsweredDoc(ALPHA, "p", 1, (attempt("x"), attempt("y")))
    assert one.answer_id == "x"
    assert two.answer_id not in ("x", "y")
    assert two.answer_id != AnsweredDoc(ALPHA, "p", 1, (attempt("y"), attempt("x"))).answer_id
