"""A metric that asks a service: while that is gone answers wait; no answer can make it look gone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.records.set_aside import ScorerOutageRecord
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.window import Window
from testbench_dagster.stages.discover.roster import active_suppliers, refresh_roster
from testbench_dagster.stages.plan.planner import Planner
from testbench_dagster.stages.sample.catalogue import refresh_dataset, refresh_prompts
from testbench_dagster.stages.score.outages import who_waits_for_scorers
from testbench_dagster.stages.score.score import ScoreReport, score_new
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import PROMPTS
from testbench_dagster.tasks import frameworks
from testbench_dagster.tasks import worker as worker_module
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.acceptance.documents import blocks_of, document
from testbench_dagster_tests.servers import free_port
from testbench_dagster_tests.stages.score.facts import ALPHA, Facts, configuration
from testbench_dagster_tests.stages.score.judging import Judge

SECOND = "second@external"
N = 12
DOCS = [{"country": f"country {n}", "capital": f"town {n}"} for n in range(N)]

#: A careless metric: what a supplier answers decides whom it asks, and what it raises.
CARELESS = """
import os
import urllib.request


def results(doc, results):
    text = results[0]
    if text.startswith("go to "):
        urllib.request.urlopen("http://" + text.removeprefix("go to "))
    if text == "break":
        raise ValueError("this answer breaks the metric")
    if text == "kill":
        os._exit(3)
    asked = b'{"answer": "1", "reference": "1"}'
    with urllib.request.urlopen(os.environ["JUDGE_URL"], asked, timeout=5):
        return {"judged": float(doc["capital"] in text)}
"""


def written(folder: Path, careless: bool) -> None:
    """The example of docs/scorers.md, or its careless twin."""
    (folder / "capitals").mkdir(exist_ok=True)
    for block in blocks_of(document("docs/scorers.md")):
        first, _, rest = block.text.partition("\n")
        if first.startswith("# capitals/"):
            (folder / first.removeprefix("# ")).write_text(rest, encoding="utf-8")
    if careless:
        (folder / "capitals/judge.py").write_text(CARELESS, encoding="utf-8")
    lines = "".join(json.dumps(doc) + "\n" for doc in DOCS)
    (folder / "capitals/capitals.jsonl").write_text(lines, encoding="utf-8")


class Installation:
    """Two suppliers whose answers the test writes, and a judge that comes and goes."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.spec: TaskSpec = workspace.specs[0]
        self.registration = refresh_dataset(workspace, self.spec)[0]
        refresh_roster(workspace)
        refresh_prompts(workspace, self.spec)
        prompts = workspace.documents.find(PROMPTS, {"task": self.spec.name, "api": "chat"})
        self.prompts = {p["doc_id"]: p["_id"] for p in prompts}
        self._facts = Facts(workspace)

    def answer(self, docs: Sequence[int], supplier: str = ALPHA, text: str | None = None) -> None:
        for doc in docs:
            said = text if text is not None else f"It is town {doc}."
            self._facts.attempt(
                self.registration, doc, prompt_id=self.prompts[doc], text=said, supplier=supplier,
                at=datetime.now(UTC) - timedelta(minutes=1),
            )  # fmt: skip

    def score(self, *suppliers: str) -> ScoreReport:
        return score_new(self.workspace, suppliers or [ALPHA, SECOND])

    def row(self, supplier: str = ALPHA) -> Window:
        (row,) = [r for r in windows(self.workspace, suppliers=[supplier]) if r.primary]
        return row

    def outages(self) -> dict[str, ScorerOutageRecord]:
        return {one.supplier: one for one in typed.find(self.workspace.documents, ScorerOutageRecord)}


def opened(folder: Path, careless: bool = False) -> Workspace:
    written(folder, careless)
    task = {"name": "capitals", "data": {"test": "capitals/capitals.jsonl"}, "samples": "all"}
    suppliers = [
        {"address": name, "base_url": "http://127.0.0.1:9/v1", "model": "m"} for name in ("alpha", "second")
    ]
    settings = {"tasks": [task], "task_paths": ["capitals"], "suppliers": suppliers}
    return Workspace(configuration(folder, settings))


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def asking(port: int, _own_environment: None) -> Iterator[FrameworkWorker]:
    """A worker whose metrics ask the judge; its environment is read when it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUDGE_URL", f"http://127.0.0.1:{port}/judge")
        patch.setattr(worker_module, "_WAITING", 0.05)
        patch.setattr(frameworks, "SCORER_WAITS_S", 1.5)
        with FrameworkWorker() as worker:
            yield worker


@pytest.fixture(params=[False], ids=["documented"])
def made(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asking: FrameworkWorker
) -> Iterator[Installation]:
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    with opened(tmp_path, request.param) as workspace:
        workspace.__dict__["worker"] = asking
        yield Installation(workspace)
        del workspace.__dict__["worker"]


careless = pytest.mark.parametrize("made", [True], indirect=True, ids=["careless"])


@pytest.mark.parametrize("how", ["closed", "busy", "full"])
def test_an_outage_leaves_answers_unscored_and_due(made: Installation, port: int, how: str) -> None:
    made.answer(range(N))
    if how == "closed":
        report = made.score()
    else:
        with Judge(port) as judge:
            judge.mode = how
            report = made.score()
            assert judge.asked <= 12, "the rest is not tried"
    assert (report.n_scored, report.n_failed, report.n_put_off) == (0, 0, N)
    assert report.waiting == {"capitals": N} and report.problems == {}
    assert typed.count(made.workspace.documents, ScoreRecord) == 0, "nothing is said of any answer"
    row = made.row()
    assert (row.n, row.n_open, row.n_failed, row.score) == (0, 0, 0, None)
    (outage,) = made.outages().values()
    assert (outage.supplier, outage.docs, outage.failures) == (ALPHA, N, 1)
    told = who_waits_for_scorers(made.workspace.documents, [ALPHA], ["capitals"])["capitals"]
    assert told.startswith("12 answered docs wait for the service that its metric asks (")

    with Judge(port):
        assert made.score().n_scored == N
    assert (made.row().n, made.row().score) == (N, 1.0)
    assert made.outages() == {}


def test_waits_of_the_daemon_grow_to_an_hour(made: Installation) -> None:
    made.answer(range(3))
    waits = []
    for _ in range(6):
        made.score()
        (outage,) = made.outages().values()
        waits.append((outage.retry_at - outage.tried_at) / timedelta(minutes=1))
    assert waits == [5, 10, 20, 40, 60, 60]


def test_what_waits_is_planned_as_unscored_and_never_asked_again(made: Installation, port: int) -> None:
    made.answer(range(N))
    made.score()
    (supplier,) = [s for s in active_suppliers(made.workspace) if s.key == ALPHA]
    plan = Planner(made.workspace).plan(supplier)
    decision = plan.tasks["capitals"]
    assert (decision.state, decision.plan.n_calls) == ("unscored", 0)
    assert "12 answered docs wait for the scorer" in decision.reason
    assert decision.due_at is not None and decision.due_at <= made.outages()[ALPHA].retry_at
    with Judge(port):
        made.score()
    decision = Planner(made.workspace).plan(supplier).tasks["capitals"]
    assert (decision.state, decision.plan.n_calls) == ("fresh", 0)


@pytest.mark.slow(minutes=1)
def test_a_service_that_never_answers_ends_the_wait(made: Installation, port: int) -> None:
    made.answer(range(N))
    with Judge(port) as judge:
        judge.mode = "silent"
        report = made.score()
        assert report.waiting == {"capitals": N}
        assert judge.asked <= 6
    with Judge(port) as judge:
        assert made.score().n_scored == 0 and not judge.asked, "it is given up for this run"
        made.workspace.given_up.clear()  # as the next run begins
        assert made.score().n_scored == N


def test_an_outage_in_the_middle_keeps_what_was_scored(made: Installation, port: int) -> None:
    made.answer(range(N))
    with Judge(port) as judge:
        whole = judge.answer
        judge.answer = lambda asked: (503, {}) if judge.asked > 5 else whole(asked)  # type: ignore[method-assign]
        report = made.score()
    assert report.n_scored == 5 and report.waiting == {"capitals": N - 5}
    row = made.row()
    assert (row.n, row.n_open, row.score) == (5, 0, 1.0)
    with Judge(port):
        assert made.score().n_scored == N - 5


def test_one_bad_moment_is_tried_again_at_once(made: Installation, port: int) -> None:
    made.answer(range(N))
    with Judge(port) as judge:
        whole = judge.answer
        judge.answer = lambda asked: (503, {}) if judge.asked == 3 else whole(asked)  # type: ignore[method-assign]
        assert made.score().n_scored == N
    assert made.row().score == 1.0 and made.outages() == {}


# --- answers that provoke it ---------------------------------------------------------------------------


@careless
def test_an_answer_cannot_fake_an_outage(made: Installation, port: int) -> None:
    """Who is right at four docs, and makes the metric fail at the others, has no 1.00; nobody else waits."""
    made.answer(range(4))
    made.answer(range(4, N), text=f"go to 127.0.0.1:{free_port()}")
    made.answer(range(N), SECOND)
    with Judge(port):
        report = made.score()
        assert report.scored == {"capitals": 4 + N} and report.waiting == {}
        row = made.row()
        assert (row.n, row.n_open, row.score) == (4, N - 4, 4 / N)
        assert (made.row(SECOND).n, made.row(SECOND).score) == (N, 1.0)
        assert made.outages() == {}
        made.score()
        assert (made.row().n_open, made.row().score) == (N - 4, 4 / N), "however often it is tried"


@careless
def test_nobody_is_blamed_while_the_service_is_gone(made: Installation, port: int) -> None:
    made.answer(range(4), text=f"go to 127.0.0.1:{free_port()}")
    made.answer(range(N), SECOND)
    report = made.score()
    assert report.waiting == {"capitals": 4 + N}
    assert made.row().n_open == 0
    with Judge(port):
        made.score()
    assert (made.row().n_open, made.row(SECOND).score) == (4, 1.0)


@careless
@pytest.mark.parametrize("text", ["break", pytest.param("kill", marks=pytest.mark.slow)])
def test_an_answer_that_breaks_the_metric_is_no_outage(made: Installation, port: int, text: str) -> None:
    made.answer([0], text=text)
    made.answer(range(1, N))
    with Judge(port):
        report = made.score()
    assert (report.n_scored, report.n_failed, report.waiting) == (N - 1, 1, {})
    assert made.row().errors["unscorable"] == 1


@pytest.mark.slow
@careless
def test_an_answer_that_makes_the_metric_wait_for_ever_is_open(made: Installation, port: int) -> None:
    import socket

    made.answer(range(1, N))
    with Judge(port), socket.create_server(("127.0.0.1", 0)) as deaf:
        made.answer([0], text=f"go to 127.0.0.1:{deaf.getsockname()[1]}")
        report = made.score()
    assert (report.n_scored, report.waiting) == (N - 1, {})
    assert (made.row().n, made.row().n_open) == (N - 1, 1)


def test_a_task_whose_scoring_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asking: FrameworkWorker, port: int
) -> None:
    from testbench_dagster.core.errors import TaskError
    from testbench_dagster.stages.score import score as module

    with opened(tmp_path) as workspace:
        workspace.__dict__["worker"] = asking
        made = Installation(workspace)
        made.answer(range(3))

        def fails(*_: object) -> None:
            raise TaskError("its resources are gone")

        monkeypatch.setattr(module, "score_answers", fails)
        report = made.score()
        assert report.problems == {"capitals": "its resources are gone"}
        assert report.n_scored == 0
        del workspace.__dict__["worker"]
