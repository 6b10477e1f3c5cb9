"""Scoring anew from stored answers: edited scorers, epochs, ages and cuts; nothing is relayed twice."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.versions import scorer_version
from testbench_dagster.stages.plan.due_suppliers import due_suppliers
from testbench_dagster.stages.relay.relay import relay_due
from testbench_dagster.stages.sample.catalogue import (
    prompt_filter,
    refresh_dataset,
    refresh_prompts,
    stale_tasks,
)
from testbench_dagster.stages.score import score as module
from testbench_dagster.stages.score.score import score_new
from testbench_dagster.stages.score.windows import refresh_window_cache, windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, PROMPTS, SCORES, SUPPLIERS, WINDOWS
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.stages.score.facts import ALPHA, BETA, NOW, Facts, configuration, days_ago

N_DOCS = 12
HEAD = """dataset_path: json
output_type: generate_until
test_split: test
doc_to_text: "Question {{n}}:"
doc_to_target: "{{answer}}"
num_fewshot: 0
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 64}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def definition(pattern: str) -> str:
    """The task's YAML with the regular expression that its only filter takes the answer by."""
    filters = [
        {
            "name": "number",
            "filter": [{"function": "regex", "regex_pattern": pattern}, {"function": "take_first"}],
        }
    ]
    return f"task: sums\n{HEAD}{yaml.safe_dump({'filter_list': filters})}"


FIRST, LAST = r"(\d+)", r"(\d+)\D*$"


def settings(folder: Path) -> dict[str, Any]:
    rows = "".join(json.dumps({"n": i, "answer": str(i)}) + "\n" for i in range(N_DOCS))
    (folder / "docs.jsonl").write_text(rows, encoding="utf-8")
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine/sums.yaml").write_text(definition(FIRST), encoding="utf-8")
    return {
        "tasks": [{"name": "sums", "data": {"test": "docs.jsonl"}, "samples": "all"}],
        "task_paths": ["mine"],
    }


@pytest.fixture(autouse=True)
def _embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)


class Sums:
    """The task ``sums`` with answers that name the right number last and another one first."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace, self.spec = workspace, workspace.spec("sums")
        self._path = folder / "mine/sums.yaml"
        self._facts = Facts(workspace)
        self.refresh()

    def refresh(self, roll_before: datetime | None = None) -> bool:
        """Refresh dataset and prompts; whether the registration changed."""
        self.registration, changed = refresh_dataset(self.workspace, self.spec)
        self.epoch = refresh_prompts(self.workspace, self.spec, roll_before).epoch.epoch
        return changed

    def edit(self, pattern: str) -> None:
        self._path.write_text(definition(pattern), encoding="utf-8")

    def answer(self, doc_id: int, text: str | None = None, supplier: str = ALPHA, **more: Any) -> None:
        api = "chat" if supplier == ALPHA else "completions"
        where = {**prompt_filter(self.registration, self.epoch, api), "doc_id": doc_id}
        (prompt,) = self.workspace.documents.find(PROMPTS, where, fields=["_id"])
        said = f"99 minus {99 - doc_id} is {doc_id}" if text is None else text
        self._facts.attempt(
            self.registration,
            doc_id,
            prompt_id=prompt["_id"],
            text=said,
            supplier=supplier,
            epoch=self.epoch,
            **more,
        )

    def score(self, now: datetime = NOW) -> int:
        return score_new(self.workspace, [ALPHA, BETA], now=now).n_scored

    def window(self, now: datetime = NOW) -> tuple[int, float | None]:
        (row,) = windows(self.workspace, suppliers=[ALPHA], tasks=["sums"], now=now)
        return row.n, row.score

    def scored_docs(self) -> list[int]:
        """Docs with a score of the current scorer."""
        where = {"supplier": ALPHA, "scorer_version": scorer_version(self.registration)}
        return [s["doc_id"] for s in self.workspace.documents.find(SCORES, where, sort=[("doc_id", 1)])]

    def cut(self, at: datetime | None) -> None:
        """The supplier's model changed at this instant."""
        self.workspace.documents.upsert(
            SUPPLIERS,
            [
                {
                    "_id": ALPHA,
                    "address": "alpha",
                    "service": "external",
                    "status": "active",
                    "joined_at": days_ago(90),
                    "left_at": None,
                    "cut_at": at,
                    "echo_logprobs": None,
                    "history": [],
                }
            ],
        )


@pytest.fixture
def sums(tmp_path: Path, worker: FrameworkWorker) -> Iterator[Sums]:
    with Workspace(configuration(tmp_path, settings(tmp_path))) as opened:
        opened.worker = worker
        yield Sums(opened, tmp_path)
        del opened.worker


# --- an edited scorer -----------------------------------------------------------------------------------


def test_a_new_filter_scores_every_stored_answer_and_keeps_the_old_scores(sums: Sums) -> None:
    for doc in range(8):
        sums.answer(doc, round_=1)
    sums.answer(0, "0", round_=2, at=NOW)
    assert (sums.score(), sums.window()) == (9, (8, 1 / 8))
    before = list(sums.workspace.documents.find(SCORES, sort=[("_id", 1)]))
    old, old_version = sums.registration, scorer_version(sums.registration)
    sums.edit(LAST)
    assert sums.refresh() is True
    assert sums.registration.task_hash == old.task_hash
    assert sums.window() == (0, None), "no score of another scorer stands in"
    assert (sums.score(), sums.window()) == (9, (8, 1.0))
    after = list(sums.workspace.documents.find(SCORES, sort=[("_id", 1)]))
    assert [s for s in after if s["scorer_version"] == old_version] == before
    assert sums.score() == 0
    sums.edit(FIRST)
    assert sums.refresh() is True
    assert (sums.score(), sums.window()) == (0, (8, 1 / 8)), "the old scorer's scores are still there"


def test_what_is_edited_but_not_registered_scores_nothing(sums: Sums) -> None:
    """The scores would claim to be the registered scorer's."""
    sums.answer(3)
    sums.edit(LAST)
    report = score_new(sums.workspace, [ALPHA], now=NOW)
    assert (report.n_scored, report.put_off) == (0, {"sums": 1})
    assert sums.workspace.documents.count(SCORES) == 0
    sums.refresh()
    assert (sums.score(), sums.window()) == (1, (1, 1.0))


def test_an_edit_during_scoring_keeps_the_scores_back(sums: Sums, monkeypatch: pytest.MonkeyPatch) -> None:
    sums.answer(3)
    score_answers = module.score_answers

    def edited_meanwhile(*arguments: Any) -> Any:
        found = score_answers(*arguments)
        sums.edit(LAST)
        return found

    monkeypatch.setattr(module, "score_answers", edited_meanwhile)
    assert score_new(sums.workspace, [ALPHA], now=NOW).put_off == {"sums": 1}
    assert sums.workspace.documents.count(SCORES) == 0


# --- what is kept of windows ----------------------------------------------------------------------------


def test_scoring_takes_kept_windows_out(sums: Sums) -> None:
    sums.answer(0)
    assert (sums.score(), refresh_window_cache(sums.workspace, [ALPHA, BETA], now=NOW)) == (1, 2)
    assert sums.window() == (1, 0.0)
    sums.answer(1)
    assert sums.window() == (1, 0.0), "what is not scored is in no window"
    assert (sums.score(), sums.window()) == (1, (2, 0.0))
    assert refresh_window_cache(sums.workspace, [ALPHA, BETA], now=NOW) == 1, "only what was scored is new"


def test_relaying_takes_kept_windows_out(sums: Sums) -> None:
    """Nobody listens where this supplier should be: its windows show that at once."""
    sums.answer(0, supplier=BETA, at=datetime.now(UTC))
    refresh_window_cache(sums.workspace, [ALPHA, BETA])
    (kept,) = sums.workspace.documents.find(WINDOWS, {"_id": BETA})
    report = relay_due(sums.workspace, [ALPHA], max_relays=2)
    assert report.relays is not None and report.relays.total.sent == 2
    (row,) = windows(sums.workspace, suppliers=[ALPHA])
    assert sum(row.errors.values()) == 2
    assert BETA in {wanted.key for wanted in due_suppliers(sums.workspace)}, "there is something to ask it"
    assert relay_due(sums.workspace, [BETA], max_relays=0).relays is not None
    assert list(sums.workspace.documents.find(WINDOWS, {"_id": BETA})) == [kept], "nothing was to be written"


# --- what can still count -------------------------------------------------------------------------------


def test_only_answers_that_can_still_count_are_scored_anew(sums: Sums) -> None:
    ages = {0: 33.0, 1: 32.0, 2: 31.9, 3: 10.0, 4: 5.0, 5: 0.0}
    for doc, age in ages.items():
        sums.answer(doc, at=days_ago(age))
    assert sums.score() == 4
    assert sums.scored_docs() == [2, 3, 4, 5]
    sums.edit(LAST)
    sums.refresh()
    sums.cut(days_ago(5.0))
    assert sums.score() == 1
    assert sums.scored_docs() == [5]
    assert sums.window() == (1, 1.0)
    sums.cut(None)
    assert sums.score() == 3
    assert sums.window() == (4, 1.0)


def test_an_answer_of_calls_before_and_after_the_cut_is_no_answer(tmp_path: Path, sums: Sums) -> None:
    path = tmp_path / "mine/sums.yaml"
    path.write_text(definition(LAST) + "repeats: 2\n", encoding="utf-8")
    sums.refresh()
    sums.cut(days_ago(5))
    for repeat, age in enumerate((6, 4)):
        sums.answer(1, at=days_ago(age), repeat=repeat)
        sums.answer(2, at=days_ago(3), repeat=repeat)
    assert sums.score() == 1
    assert sums.scored_docs() == [2]


# --- epochs ---------------------------------------------------------------------------------------------


def test_a_doc_answered_in_two_epochs_counts_once_and_the_newest_wins(sums: Sums) -> None:
    for doc in range(6):
        sums.answer(doc, "none", at=days_ago(8))  # wrong
    assert (sums.score(), sums.window()) == (6, (6, 0.0))
    sums.refresh(roll_before=datetime.now(UTC) + timedelta(seconds=1))
    assert sums.epoch == 2
    for doc in range(3, 9):
        sums.answer(doc, str(doc), at=days_ago(1))  # right
    assert (sums.score(), sums.window()) == (6, (9, 6 / 9))
    (row,) = windows(sums.workspace, suppliers=[ALPHA], tasks=["sums"], now=NOW)
    assert (row.epoch, row.first_sample_at, row.last_sample_at) == (2, days_ago(8), days_ago(1))
    # the order of arrival decides, not the number of the epoch
    sums.epoch = 1
    sums.answer(8, "none", at=NOW)
    assert (sums.score(), sums.window()) == (1, (9, 5 / 9))
    # in 25 days the first epoch's answers are due; they keep their slots for three more
    assert sums.window(NOW + timedelta(days=25)) == (9, 5 / 9)
    later = NOW + timedelta(days=28)
    assert sums.window(later) == (6, 5 / 6)


def test_a_new_scorer_scores_the_answers_of_all_epochs(sums: Sums) -> None:
    sums.answer(3, at=days_ago(8))
    sums.refresh(roll_before=datetime.now(UTC) + timedelta(seconds=1))
    sums.answer(4, at=days_ago(1))
    assert (sums.score(), sums.window()) == (2, (2, 0.0))
    sums.edit(LAST)
    sums.refresh()
    assert (sums.score(), sums.window()) == (2, (2, 1.0))


# --- cost -----------------------------------------------------------------------------------------------


def test_two_queries_per_supplier_see_that_nothing_is_to_do(
    sums: Sums, monkeypatch: pytest.MonkeyPatch
) -> None:
    for doc in range(N_DOCS):
        sums.answer(doc)
        sums.answer(doc, supplier=BETA)
    assert sums.score() == 2 * N_DOCS
    asked: Counter[str] = Counter()
    for name in ("find", "rows", "group", "get", "count", "put_new"):
        operation = getattr(sums.workspace.documents, name)

        def counting(
            collection: Any, *arguments: Any, _name: str = name, _operation: Any = operation, **more: Any
        ) -> Any:
            asked[f"{_name} {collection.name}"] += 1
            return _operation(collection, *arguments, **more)

        monkeypatch.setattr(sums.workspace.documents, name, counting)
    assert sums.score() == 0
    assert asked == {
        "rows suppliers": 1,
        "group attempts": 2,
        "group scores": 2,
        "find scorer_outages": 1,
    }
    asked.clear()
    sums.answer(0, round_=2, at=NOW)
    asked.clear()
    assert sums.score() == 1
    reads = asked["rows attempts"], asked["find attempts"]
    assert reads == (1, 1), "the supplier with something new, its list and then its evidence"


# --- the whole of it, against a live supplier -----------------------------------------------------------


class _Supplier(BaseHTTPRequestHandler):
    """Answers as :class:`Sums` does, and counts."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        _Supplier.asked[question] += 1
        n = int(re.findall(r"\d+", question)[-1])
        choice = {"message": {"content": f"99 minus {99 - n} is {n}"}, "finish_reason": "stop"}
        answer = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def supplier_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Supplier)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    _Supplier.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_an_edited_filter_is_applied_without_a_relay(tmp_path: Path, supplier_url: str) -> None:
    """The real jobs in the Dagster instance, twice; the edit lies between."""
    from testbench_dagster.defs.local_runs import LocalRuns

    supplier = {"address": "live", "base_url": supplier_url, "model": "m", "api": "chat"}
    path = tmp_path / "testbench.yaml"
    path.write_text(yaml.safe_dump({"suppliers": [supplier], **settings(tmp_path)}), encoding="utf-8")
    with Workspace(load_config(path)) as workspace, LocalRuns(workspace) as runs:

        def evaluate() -> tuple[int, int, float | None]:
            runs.refresh_catalog(stale_tasks(workspace, workspace.specs))
            relayed = runs.evaluate(["live@external"])
            (row,) = windows(workspace, suppliers=["live@external"], tasks=["sums"])
            return relayed.sent, row.n, row.score

        runs.refresh_suppliers()
        assert evaluate() == (N_DOCS, N_DOCS, 0.0)
        prompts = sorted(p["_id"] for p in workspace.documents.find(PROMPTS, fields=["_id"]))
        (tmp_path / "mine/sums.yaml").write_text(definition(LAST), encoding="utf-8")
        assert [spec.name for spec in stale_tasks(workspace, workspace.specs)] == ["sums"]
        assert evaluate() == (0, N_DOCS, 1.0)
        assert stale_tasks(workspace, workspace.specs) == []
        assert sorted(p["_id"] for p in workspace.documents.find(PROMPTS, fields=["_id"])) == prompts
        assert workspace.documents.count(ATTEMPTS) == N_DOCS
        by_version = Counter(s["scorer_version"] for s in workspace.documents.find(SCORES))
        assert sorted(by_version.values()) == [N_DOCS, N_DOCS]
    assert set(_Supplier.asked.values()) == {1} and len(_Supplier.asked) == N_DOCS
