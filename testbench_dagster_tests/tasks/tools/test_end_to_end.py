"""Tasks with tools over HTTP, from the configuration to rows: requests, calls as evidence, scores."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from starlette.testclient import TestClient

from testbench_dagster.api import Testbench
from testbench_dagster.board import links
from testbench_dagster.board.app import make_app
from testbench_dagster.board.run import allowed_hosts
from testbench_dagster.board.site import Site
from testbench_dagster.config import load_config
from testbench_dagster.core.window import Window
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.dispute.rescore import rescore
from testbench_dagster.stages.read.answers import answers, attempts
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster.tasks.tools import TASKS
from testbench_dagster.tasks.worker import FrameworkWorker
from testbench_dagster_tests.board.installations import HOSTILE
from testbench_dagster_tests.board.test_app import Elements
from testbench_dagster_tests.stages.dispute.forging import contents, edited, write
from testbench_dagster_tests.tasks.signatures.simulated import evaluated
from testbench_dagster_tests.tasks.tools.endpoints import ToolSuppliers, serving
from testbench_dagster_tests.tasks.tools.scripted import always_calling, bad_json, right, silent, stored

MANNERS = {
    "good": right,
    "streamed": right,
    "no_tools": silent,
    "bad_json": lambda row: bad_json(row) if "tools" in row else silent(row),
    "streamed_bad_json": lambda row: bad_json(row) if "tools" in row else silent(row),
    "ignores_irrelevance": lambda row: always_calling(row) if "tools" in row else right(row),
    "hostile": lambda row: stored("".join(HOSTILE), [(text, text) for text in HOSTILE]),
}
DOCS = 10


@pytest.fixture(scope="module")
def suppliers() -> ToolSuppliers:
    return ToolSuppliers(MANNERS)


@contextlib.contextmanager
def measured(folder: Path, suppliers: ToolSuppliers, tasks: Sequence[str], docs: int) -> Iterator[Workspace]:
    """An installation over the suppliers, after one pass."""
    with serving(suppliers) as address:
        settings = {
            "suppliers": [
                {"address": name, "service": "s", "base_url": f"{address}/{name}/v1", "model": "m"}
                for name in suppliers.manners
            ],
            "tasks": [{"name": name, "framework": "tools", "samples": docs} for name in tasks],
        }
        path = folder / "testbench.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        with Workspace(load_config(path)) as opened:
            evaluated(opened)
            yield opened


@pytest.fixture(scope="module")
def workspace(suppliers: ToolSuppliers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with measured(tmp_path_factory.mktemp("tools"), suppliers, TASKS, DOCS) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(workspace: Workspace) -> dict[tuple[str, str, str], Window]:
    return {(row.address, row.task, str(row.metric)): row for row in windows(workspace)}


CALLS = [name for name in TASKS if name != "tools_schema"]


@pytest.mark.parametrize(
    ("name", "exact", "triggered", "valid"),
    [
        ("good", (1, 1), (1, 1), (1, None)),
        ("streamed", (1, 1), (1, 1), (1, None)),
        ("no_tools", (0, 1), (0, 1), (None, None)),
        ("bad_json", (0, 1), (1, 1), (0, None)),
        ("streamed_bad_json", (0, 1), (1, 1), (0, None)),
        ("ignores_irrelevance", (1, 0), (1, 0), (1, 0)),
    ],
)
@pytest.mark.parametrize("task", CALLS)
def test_rows_say_what_each_does(rows, name, task, exact, triggered, valid):
    """Values where a tool fits, and where none does; None where there is no call to look at."""
    fits = task == "tools_none"
    main = rows[name, task, "exact"]
    assert (main.primary, main.status, main.n, main.score) == (True, "ok", DOCS, exact[fits])
    assert rows[name, task, "triggered"].score == triggered[fits]
    of_calls = rows[name, task, "schema_valid"]
    if valid[fits] is None:
        assert (of_calls.n, of_calls.score) == (0, None)
    else:
        # the first tool without arguments may be a valid call, but is none that is wanted
        assert of_calls.n == DOCS
        assert of_calls.score == valid[fits]


@pytest.mark.parametrize(("name", "score"), [("good", 1), ("streamed", 1), ("no_tools", 0)])
def test_structured_answers_are_rows_too(rows, name, score):
    for metric in ("exact", "json_valid", "schema_valid"):
        row = rows[name, "tools_schema", metric]
        assert (row.n, row.score) == (DOCS, score)


def test_streams_give_the_scores_of_plain_answers(workspace):
    def found(name):
        return {
            (s["task"], s["doc_id"]): (s["metrics"], s["extracted"])
            for s in workspace.documents.find(SCORES, {"supplier": f"{name}@s"})
        }

    assert found("streamed") == found("good") and len(found("good")) == len(TASKS) * DOCS
    assert found("streamed_bad_json") == found("bad_json")


def test_calls_are_kept_as_what_was_extracted(workspace):
    for score in workspace.documents.find(SCORES, {"supplier": "good@s", "task": "tools_parallel"}):
        assert len(json.loads(score["extracted"])) >= 2


def test_requests_carry_tools_and_forms(suppliers, workspace):
    sent = {}
    for name, body in suppliers.asked:
        kind = "schema" if "response_format" in body else "tools"
        sent.setdefault((name, kind), []).append(body)
    for body in sent["good", "tools"]:
        assert body["tool_choice"] == "auto" and body["max_tokens"] == 1024 and body["temperature"] == 0
        assert all(tool["type"] == "function" for tool in body["tools"])
        row = suppliers.rows[body["messages"][0]["content"]]
        # the order of properties is part of what a model reads
        assert json.dumps([tool["function"] for tool in body["tools"]]) == json.dumps(row["tools"])
    for body in sent["good", "schema"]:
        assert body["response_format"]["json_schema"]["strict"] is True and "tools" not in body


def test_no_supplier_is_blamed_for_calls_without_a_text(workspace):
    attempts = list(workspace.documents.find(ATTEMPTS, {}))
    assert {attempt["fault"] for attempt in attempts} == {"ok"}
    assert len(attempts) == len(MANNERS) * len(TASKS) * DOCS


def test_people_read_tools_and_calls_not_their_json(workspace):
    page = answers(workspace, "good@s", "tools_one", search="rain(")
    assert not page.rows, "no tool of that name"
    rows = answers(workspace, "good@s", "tools_one").rows
    assert len(rows) == DOCS
    for row in rows:
        tool = row.answer.partition("(")[0]
        assert row.answer == row.target.partition("  [")[0], "a call as it is wanted, and as it was made"
        assert f"\n\nTools:\n{tool}(" in row.question
        found = answers(workspace, "good@s", "tools_one", search=row.answer.upper()).rows
        assert row.doc_id in {one.doc_id for one in found}
        [sent] = attempts(workspace, "good@s", "tools_one", row.doc_id)
        assert sent.text == row.answer
        assert row.extracted.partition("(")[0] == tool
    several = answers(workspace, "good@s", "tools_parallel").rows
    assert all(2 <= len(row.answer.splitlines()) <= 4 for row in several)
    assert {row.target for row in answers(workspace, "no_tools@s", "tools_none").rows} == {"no call"}
    for row in answers(workspace, "good@s", "tools_schema").rows:
        assert "\n\nAnswer as " in row.question and json.loads(row.answer) == json.loads(row.target)


def test_exports_have_what_people_read(workspace, tmp_path):
    testbench = Testbench(workspace)
    rows = testbench.answers("good@s", "tools_several").rows
    written = testbench.export(tmp_path, suppliers=["good@s"], tasks=["tools_several"])
    [path] = [path for path in written if path.name == "answers.parquet"]
    exported = pq.read_table(path).to_pylist()
    keys = ("doc_id", "question", "target", "answer", "extracted")
    assert [[one[key] for key in keys] for one in exported] == [[row[key] for key in keys] for row in rows]


@pytest.mark.parametrize("supplier", ["good@s", "hostile@s"])
def test_pages_show_tools_and_calls(workspace, supplier):
    doc = answers(workspace, "good@s", "tools_one", limit=1).rows[0].doc_id
    site = Site(workspace)
    site.prepare()
    with TestClient(make_app(site, hosts=allowed_hosts("127.0.0.1")), base_url="http://127.0.0.1:1") as board:
        for address in (
            links.answers(supplier, "tools_one"),
            links.answers(supplier, "tools_schema"),
            links.answer(supplier, "tools_one", doc),
            links.doc("tools_one", doc),
        ):
            response = board.get(address)
            assert response.status_code == 200, address
            page = Elements(response.text)
            assert "Tools:" in page.text or "Answer as " in page.text
            assert page.count("script") == page.count("img") == page.count("iframe") == page.count("svg") == 0
            assert all(c.isprintable() or c in "\n\t" for c in response.text), address
            if supplier == "hostile@s" and address == links.answer(supplier, "tools_one", doc):
                assert f"{HOSTILE[0]}({HOSTILE[0]})" in page.text


@pytest.mark.slow
def test_who_refuses_tools_is_refused_them_and_measured_on_the_rest(tmp_path):
    """Slow: what is refused is asked again at later occasions, to see whether it still is."""
    suppliers = ToolSuppliers({"refuses": lambda row: None if "tools" in row else right(row)})
    with measured(tmp_path, suppliers, ["tools_one", "tools_schema"], 5) as opened:
        rows = {row.task: row for row in windows(opened) if row.primary}
    assert (rows["tools_one"].status, rows["tools_one"].n, rows["tools_one"].score) == ("refused", 0, None)
    assert (rows["tools_schema"].status, rows["tools_schema"].score) == ("ok", 1)


def test_a_bundle_is_computed_again_elsewhere_and_a_changed_call_shows(workspace, tmp_path):
    path = tmp_path / "good.zip"
    write_bundle(workspace, "good@s", path, tasks=["tools_one", "tools_schema"])
    with FrameworkWorker() as worker:
        report = rescore(path, worker=worker)
        assert report.equal, list(report.lines())

        def called_otherwise(rows):
            for attempt in rows:
                body = json.loads(base64.b64decode(attempt["body_base64"]))
                for call in body["choices"][0]["message"].get("tool_calls", []):
                    call["function"]["arguments"] = "{}"
                data = json.dumps(body).encode()
                attempt["body_base64"] = base64.b64encode(data).decode()
                attempt["body_sha256"] = hashlib.sha256(data).hexdigest()

        forged = edited(path, tmp_path / "forged.zip", "attempts.jsonl", called_otherwise)
        assert not rescore(forged, worker=worker).equal

        files = contents(path)
        task = json.loads(files["tasks/tools_one.json"])
        task["spec"]["generation"] = {"max_tokens": 5}
        write(tmp_path / "other.zip", {**files, "tasks/tools_one.json": json.dumps(task).encode()})
        whats = {finding.what for finding in rescore(tmp_path / "other.zip", worker=worker).findings}
        assert "task hash" in whats, whats
