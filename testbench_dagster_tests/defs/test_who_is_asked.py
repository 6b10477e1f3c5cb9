"""Two services with tasks of their own over the simulated network: who was asked what, and what shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import orjson
import pytest
import yaml

from testbench_dagster.api import Testbench
from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.defs.local_runs import LocalRuns
from testbench_dagster.localnet.requests import parse
from testbench_dagster.localnet.run import LocalnetProcess
from testbench_dagster.localnet.supplier import prompt_digest
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents import typed
from testbench_dagster.stores.documents.collections import ATTEMPTS
from testbench_dagster.transports.payload import build_payload
from testbench_dagster_tests.defs.conftest import opened_instance, starter_settings

pytestmark = pytest.mark.slow

DOCS = 4
TEXT = ["sim-01@text", "sim-02@text"]
CODE = ["sim-03@code", "sim-04@code"]
LOGIC, UNITS, CHOICE = "starter_logic", "starter_units", "starter_choice"
#: By supplier the tasks that the patterns of :func:`configured` leave.
ASKED = {
    "sim-01@text": {LOGIC, UNITS},
    "sim-02@text": {LOGIC, UNITS, CHOICE},
    "sim-03@code": {UNITS},
    "sim-04@code": {LOGIC, UNITS},
}


@pytest.fixture(scope="module")
def network() -> Iterator[LocalnetProcess]:
    """Suppliers that only this file asks: what they were asked is counted."""
    with LocalnetProcess(suppliers=4, latency_ms=1, fail_rate=0.0) as process:
        yield process


def configured(network: LocalnetProcess, path: Path, **patterns: dict[str, list[str]]) -> Path:
    """Two text suppliers and two for code; ``patterns`` by task and, with its address, by supplier."""
    settings = starter_settings(network)
    for supplier in settings["suppliers"]:
        key = next(key for key in ASKED if key.startswith(f"{supplier['address']}@"))
        supplier["service"] = key.partition("@")[2]
        supplier |= patterns.get(supplier["address"].replace("-", "_"), {})
    settings["taxonomies"] = ["builtin:starter"]
    settings["tasks"] = [{"name": n, "samples": DOCS, **patterns.get(n, {})} for n in (LOGIC, UNITS, CHOICE)]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


PATTERNS: dict[str, dict[str, list[str]]] = {
    UNITS: {"services": ["text", "c?de"]},
    CHOICE: {"services": ["*", "!code"], "suppliers": ["!sim-01@*"]},
    "sim_03": {"tasks": ["*_units"]},
}


@pytest.fixture(scope="module")
def measured(network: LocalnetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbench]:
    path = configured(network, tmp_path_factory.mktemp("asked") / "testbench.yaml", **PATTERNS)
    with Testbench(Workspace(load_config(path))) as testbench:
        notes: list[str] = []
        report = testbench.run(on_note=notes.append)
        assert report.problem == "" and report.final == report.sent
        assert "evaluation: 4 suppliers, 3 tasks; 4 of 12 pairs of them are not asked" in notes
        yield testbench


def asked(network: LocalnetProcess, testbench: Testbench) -> Counter[tuple[str, str]]:
    """Docs that the suppliers themselves say they were asked, by address and task, by what they received."""
    docs: dict[str, tuple[str, str]] = {}
    for prompt in typed.find(testbench._workspace.documents, PromptRecord):
        for request in prompt.requests:
            if prompt.api == "chat" and request["type"] != "generate_until":
                continue
            _, body = build_payload(request, prompt.api, "any")
            docs[prompt_digest(parse(orjson.dumps(body), prompt.api).prompts).hex()] = (
                prompt.task,
                prompt.id,
            )
    found = {
        (address, *docs[request["digest"]])
        for address in network.stats()
        for request in network.requests(address)
        if request["digest"] in docs
    }
    return Counter((address, task) for address, task, _ in found)


def expected(asked_of: dict[str, set[str]]) -> Counter[tuple[str, str]]:
    return Counter({(key.partition("@")[0], task): DOCS for key, tasks in asked_of.items() for task in tasks})


def test_each_supplier_receives_the_docs_of_its_tasks_and_no_other(
    network: LocalnetProcess, measured: Testbench
) -> None:
    assert asked(network, measured) == expected(ASKED)
    # who is asked no choice is not asked what only choices need
    probed = {row["supplier"] for row in measured.attempts().rows if row["task"] == "capability probe"}
    assert probed == {"sim-02@text"}
    n_requests = {address: own["requests"] for address, own in network.stats().items()}
    probes = [row for row in measured.service_quality().rows if row["workload"] != "all"]
    stored = Counter(row["supplier"].partition("@")[0] for row in measured.attempts().rows)
    for row in probes:
        stored[row["supplier"].partition("@")[0]] += row["n"]
    assert n_requests == dict(stored), "nothing was sent besides"


def test_plans_and_rows_say_what_is_not_asked(measured: Testbench) -> None:
    plan = {(row["supplier"], row["task"]): row for row in measured.plan().rows}
    rows = {(row["supplier"], row["task"]): row for row in measured.scores().rows if row["primary"]}
    assert len(plan) == len(rows) == 12
    for (supplier, task), row in rows.items():
        planned = plan[supplier, task]
        if task in ASKED[supplier]:
            assert (row["status"], row["n"], planned["state"]) == ("ok", DOCS, "fresh"), (supplier, task)
        else:
            assert (row["status"], row["n"], row["score"]) == ("not_applicable", 0, None)
            assert (planned["state"], planned["calls"], planned["due_at"]) == ("not_applicable", 0, None)
    assert plan["sim-04@code", CHOICE]["reason"] == "the task's services leave code out"
    assert plan["sim-01@text", CHOICE]["reason"] == "the task's suppliers leave sim-01@text out"
    assert plan["sim-03@code", LOGIC]["reason"] == "the tasks of supplier sim-03@code leave it out"


def test_abilities_miss_nothing_that_is_not_asked(measured: Testbench) -> None:
    nodes = {(row["supplier"], row["node"]): row for row in measured.taxonomies().rows}
    reasoning = nodes["sim-01@text", "reasoning"]
    assert (reasoning["missing"], reasoning["not_applicable"]) == ([], [CHOICE])
    assert (reasoning["n_tasks"], reasoning["coverage"], reasoning["weight_coverage"]) == (1, 1.0, 1.0)
    none = nodes["sim-03@code", "reasoning"]
    assert (none["status"], none["n_tasks"], none["score"]) == ("not_applicable", 0, None)
    both = nodes["sim-02@text", "reasoning"]
    assert (both["n_tasks"], both["n_measured"], both["not_applicable"]) == (2, 2, [])


def test_only_those_that_are_asked_the_same_are_ranked_together(measured: Testbench) -> None:
    board = measured.leaderboard().rows
    found = [(row["supplier"], row["ranked_among"]) for row in board]
    assert sorted(found[:2]) == [("sim-01@text", f"not {CHOICE}"), ("sim-04@code", f"not {CHOICE}")]
    assert found[2:] == [("sim-02@text", "all tasks"), ("sim-03@code", f"only {UNITS}")]
    assert [(row["rank_low"], row["rank_high"]) for row in board[2:]] == [(1, 1), (1, 1)]
    assert max(row["rank_high"] for row in board) <= 2
    assert {row["standing"] for row in board} == {"ranked"}


def test_the_two_are_compared_by_what_both_are_asked(measured: Testbench) -> None:
    rows = measured.compare("sim-02@text", "sim-03@code").rows
    assert [row["task"] for row in rows] == [UNITS, "overall"]
    assert rows[0]["n_common"] == DOCS
    (named, _) = measured.compare("sim-02@text", "sim-03@code", [CHOICE]).rows
    assert (named["n_common"], named["note"]) == (0, "it is not asked of both")
    assert {row["task"] for row in measured.item_matrix().rows if row["supplier"] == "sim-03@code"} == {UNITS}


def test_a_check_tells_what_nobody_who_is_asked_can_answer(
    network: LocalnetProcess, measured: Testbench, tmp_path: Path
) -> None:
    assert [one for one in measured.check() if not one.ok] == []
    only_chat = configured(network, tmp_path / "testbench.yaml", starter_choice={"services": ["code"]})
    with Testbench.open(only_chat) as testbench:
        found = [one for one in testbench.check() if not one.ok]
    (told,) = [one for one in found if one.what.startswith("task ")]
    assert all(one.warning for one in found), "the other one is about the reference, which is asked less"
    assert (told.what, told.failed) == (f"task {CHOICE}", False)
    assert "(multiple_choice) want log-probabilities of given texts, which no chat API gives" in told.detail
    assert "ask it as a choice of letters (mode: chat_choice), take a task that generates its" in told.detail


def test_what_is_chosen_and_not_asked_at_all_is_refused(measured: Testbench) -> None:
    with pytest.raises(
        ConfigError,
        match=f"nothing is asked: {CHOICE} not of sim-04@code .the task's services leave code out",
    ):
        measured.run(["sim-04@code"], [CHOICE])


def test_a_run_over_pairs_that_are_not_asked_skips_them_with_a_word(measured: Testbench) -> None:
    workspace = measured._workspace
    before = workspace.documents.count(ATTEMPTS)
    with LocalRuns(workspace) as runs:
        relayed = runs.evaluate([*CODE], tasks=[CHOICE])
    assert (relayed.sent, relayed.failed, workspace.documents.count(ATTEMPTS)) == (0, False, before)
    with opened_instance(workspace) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("relay_responses"))
        assert event is not None and event.asset_materialization is not None
        metadata: dict[str, Any] = {k: v.value for k, v in event.asset_materialization.metadata.items()}
        assert metadata["not_applicable"] == {key: [CHOICE] for key in CODE}
        run = instance.get_runs(limit=1)[0]
        told = [record.user_message for record in instance.all_logs(run.run_id)]
        assert any(f"skipped, for it is not asked: {CHOICE} of sim-03@code" in text for text in told)
        assert run.status is dg.DagsterRunStatus.SUCCESS
        for asset, name in (
            ("supplier_scores", "scores_fresh"),
            ("supplier_scores", "windows_tight"),
            ("taxonomy_summaries", "taxonomies_covered"),
        ):
            key = dg.AssetCheckKey(dg.AssetKey(asset), name)
            (record, *_) = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
            assert record.event is not None and record.event.dagster_event is not None
            assert record.event.dagster_event.asset_check_evaluation_data.passed, name


def test_a_changed_pattern_asks_only_what_was_not_asked_before(
    network: LocalnetProcess, measured: Testbench
) -> None:
    """The last here: it changes the configuration of the installation that the others look at."""
    path = measured._workspace.config.path
    hashes = {row["task"]: row["task_hash"] for row in measured.scores().rows if row["task_hash"]}
    configured(network, path, starter_choice={"services": ["text"]})
    with Testbench(Workspace(load_config(path))) as wider:
        report = wider.run()
        everything = {**ASKED, "sim-03@code": {LOGIC, UNITS}}
        assert asked(network, wider) == expected(everything)
        assert report.sent == DOCS, "of sim-03 the docs of one task; sim-01 cannot be asked a choice"
        assert {row["task"]: row["task_hash"] for row in wider.scores().rows} == hashes
        status = {(r["supplier"], r["task"]): r["status"] for r in wider.scores().rows}
        assert status["sim-01@text", CHOICE] == "unsupported"
    configured(network, path, **PATTERNS)
    with Testbench(Workspace(load_config(path))) as again:
        rows = {(row["supplier"], row["task"]): row for row in again.scores().rows if row["primary"]}
        assert rows["sim-03@code", LOGIC]["status"] == "not_applicable", "though it was asked meanwhile"
        assert again.run().sent == 0
        assert len(again.leaderboard().rows) == 4
