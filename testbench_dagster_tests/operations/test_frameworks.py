"""Tasks of every framework under Dagster's daemon: the run is killed in the middle, and nobody repairs it.

In the end every doc is answered and scored once, as the suppliers' scripts say; what was asked again was not
stored yet at the kill. Bundles of each supplier are computed again in another folder, without the data.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from testbench_dagster.api import Testbench
from testbench_dagster.stages.dispute.bundle import write_bundle
from testbench_dagster.stages.identify.identify import refresh_identity
from testbench_dagster.stages.score.windows import windows
from testbench_dagster.stores.documents.collections import PROMPTS, SCORES
from testbench_dagster_tests.acceptance.harness import Installation
from testbench_dagster_tests.operations.evidence import DURABLE_S, assert_scored_once, docs_scored
from testbench_dagster_tests.operations.harness import Platform, platform, wait_until
from testbench_dagster_tests.operations.scripted import PAGE, Scripted, digest, serving
from testbench_dagster_tests.tasks.chat_choice.stock import mmlu
from testbench_dagster_tests.tasks.quiz import jsonl

pytestmark = pytest.mark.slow(minutes=3)

DOCS, PROBES = 20, 40
CHOICE, SUMS = "mmlu_abstract_algebra~chat", "starter_arithmetic"
SCORED = {SUMS: "exact_match", CHOICE: "letter_acc", "tools_parallel": "exact", "tools_schema": "exact"}
EXPECTED = {**dict.fromkeys(SCORED, DOCS), "identity": PROBES, "config": 1}
WITHIN_S = 120.0
LAG_S = 1.0


def settings(address: str, folder: Path) -> dict[str, object]:
    rows = jsonl(folder / "data" / "test.jsonl", [mmlu(number) for number in range(DOCS)])
    tools = [{"name": name, "framework": "tools", "samples": DOCS} for name in SCORED if "tools" in name]
    signatures = [{"name": name, "framework": "signatures"} for name in ("identity", "config")]
    return {
        "suppliers": [
            {"address": name, "service": "s", "base_url": f"{address}/{name}/v1", "model": "m"}
            for name in Scripted.SUPPLIERS
        ],
        "supplier_sources": [],
        "tasks": [
            {"name": SUMS, "samples": DOCS},
            {
                "name": CHOICE.partition("~")[0],
                "mode": "chat_choice",
                "data": {"test": rows, "dev": rows},
                "num_fewshot": 1,
                "samples": DOCS,
            },
            *tools,
            *signatures,
        ],
        "taxonomies": [],
        "identity": {"probes": PROBES},
        "relays": {"connect_s": 2, "first_byte_s": 5, "total_s": 10, "max_in_flight": 4},
    }


@pytest.fixture
def suppliers() -> Scripted:
    return Scripted(delay_s=0.05)


@pytest.fixture
def running(suppliers: Scripted, tmp_path: Path) -> Iterator[Platform]:
    monitoring = {"start_timeout_seconds": 30, "poll_interval_seconds": 5}
    with (
        serving(suppliers) as address,
        platform(tmp_path, 1, run_monitoring=monitoring) as made,
    ):
        made.configure(**settings(address, tmp_path))
        made.start()
        yield made


def killed_in_the_middle(running: Platform, suppliers: Scripted) -> float:
    """Kill the process that relays once a third of all is asked; return when."""
    third = len(Scripted.SUPPLIERS) * sum(EXPECTED.values()) // 3

    def relaying() -> list[int]:
        leases = set(running.leases().values()) if len(suppliers.received) >= third else set()
        return [pid for run, pid in running.workers().items() if run in leases]

    pids = wait_until("relays", relaying, WITHIN_S, every_s=0.02)
    at = running.kill(pids)
    assert len(suppliers.received) < 2.5 * third, "all was asked before the kill: nothing was tested"
    return at


def test_every_framework_is_continued_after_a_kill(
    running: Platform, suppliers: Scripted, tmp_path: Path
) -> None:
    killed_at = killed_in_the_middle(running, suppliers)
    print(f"killed after {len(suppliers.received)} requests")
    everything = {f"{name}@s": sum(EXPECTED.values()) for name in Scripted.SUPPLIERS}
    wait_until("all scores", lambda: docs_scored(running) == everything, WITHIN_S)
    print(f"complete {time.time() - killed_at:.1f} s after the kill")

    assert_scored_once(running)
    asked = prompts(running)
    assert_asked_again_only_what_was_lost(running, suppliers, asked, killed_at)
    right = dict.fromkeys(((name, task) for name in Scripted.SUPPLIERS for task in SCORED), 0)
    with running.documents() as documents:
        scores = list(documents.find(SCORES, {"task": {"in": sorted(SCORED)}}))
    for score in scores:
        metric, name = SCORED[score["task"]], score["supplier"].partition("@")[0]
        if metric in score["metrics"]:
            knows = suppliers.knows(name, asked[score["prompt_id"]])
            assert score["metrics"][metric] == float(knows), score
            right[name, score["task"]] += knows and score["filter"] in ("none", "extract", "strict")
    with running.workspace() as workspace:
        rows = {(row.address, row.task): row for row in windows(workspace) if row.primary}
        for (name, task), n in right.items():
            assert (rows[name, task].n, rows[name, task].score) == (DOCS, pytest.approx(n / DOCS)), (
                name,
                task,
            )
        assert 0 < right["half", CHOICE] < DOCS
        placed = refresh_identity(workspace).documents  # by itself it is done once a day
        assert {one.id: one.role for one in placed} == dict.fromkeys(everything, "alone")
        assert all(one.n_prompts > PROBES for one in placed), "docs of other frameworks are compared too"
        for name in Scripted.SUPPLIERS:
            write_bundle(workspace, f"{name}@s", tmp_path / f"{name}.zip")
        written = Testbench(workspace).export(tmp_path / "exports")
    answers = next(path for path in written if path.name == "answers.parquet")
    exported = Counter((row["supplier"], row["task"]) for row in pq.read_table(answers).to_pylist())
    assert exported == {(key, task): n for key in everything for task, n in EXPECTED.items()}

    (tmp_path / "data" / "test.jsonl").unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in Scripted.SUPPLIERS:
        done = Installation(elsewhere).command("rescore", str(tmp_path / f"{name}.zip"))
        assert done.code == 0, done


def prompts(running: Platform) -> dict[str, str]:
    """How the suppliers call the request of each prompt, by its id."""
    found = {}
    with running.documents() as documents:
        for prompt in documents.find(PROMPTS):
            (request,) = prompt["requests"]
            found[prompt["_id"]] = PAGE if request["type"] == "get" else digest(request)
    return found


def assert_asked_again_only_what_was_lost(
    running: Platform, suppliers: Scripted, asked: dict[str, str], killed_at: float
) -> None:
    """Every request is a stored attempt, but for those that were on their way to the store at the kill."""
    stored = Counter((a["supplier"].partition("@")[0], asked[a["prompt_id"]]) for a in running.attempts())
    received = Counter((one.supplier, one.key) for one in suppliers.received)
    assert stored - received == Counter(), "attempts that no supplier received"
    lost = received - stored
    print(f"lost: {lost.total()} of {received.total()} requests")
    for supplier, key in lost:
        ended = [one.ended for one in suppliers.received if (one.supplier, one.key) == (supplier, key)]
        assert any(killed_at - DURABLE_S - LAG_S <= at <= killed_at + LAG_S for at in ended), (supplier, key)
