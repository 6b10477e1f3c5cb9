"""Recorded answers of real models come out with exactly the scores that lm-eval gives (data README)."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from testbench_dagster.stores.documents.collections import ATTEMPTS, SCORES
from testbench_dagster_tests.acceptance.harness import EXAMPLES, Answers, Installation, Replay, replays
from testbench_dagster_tests.tasks.layouts import shared_rows

GSM8K = {"6b_finetuning": 286, "6b_verification": 515, "175b_finetuning": 458, "175b_verification": 742}
BBH = {  # percent under exact_match, get-answer
    "boolean_expressions": (92.80, 250),
    "causal_judgement": (54.01, 187),
    "date_understanding": (87.20, 250),
    "dyck_languages": (55.60, 250),
    "logical_deduction_three_objects": (87.60, 250),
    "navigate": (96.40, 250),
    "object_counting": (93.20, 250),
    "penguins_in_a_table": (79.45, 146),
    "sports_understanding": (97.60, 250),
}
MMLU_PRO = {
    "Mistral-7B-v0.1": ("Mistral-7B-v0.1", "MISTRAL", 3594),
    "Llama-3.1-8B-Instruct": ("Meta-Llama-3_1-8B-Instruct", "LLAMA", 5237),
    "jamba-1.5-large": ("jamba-1.5-large", "JAMBA", 5811),
}
IFEVAL = {
    "prompt_level_strict_acc": 77.22,
    "inst_level_strict_acc": 83.77,
    "prompt_level_loose_acc": 79.63,
    "inst_level_loose_acc": 85.58,
}

#: Design section 6: every field of a row of `scores`, with the types it may have.
_NUMBER, _COUNT = (int, float), int
FIELDS: dict[str, tuple[type, ...]] = {
    "supplier": (str,),
    "service": (str,),
    "address": (str,),
    "task": (str,),
    "group": (str, type(None)),
    "framework": (str,),
    "metric": (str,),
    "filter": (str,),
    "primary": (bool,),
    "status": (str,),
    "n": (_COUNT,),
    "n_planned": (_COUNT,),
    "coverage": (float,),
    "score": (float,),
    "ci_low": (float, type(None)),
    "ci_high": (float, type(None)),
    "score_errors_as_zero": (float, type(None)),
    "bound_low": (float, type(None)),
    "bound_high": (float, type(None)),
    "errors": (dict,),
    "latency_ms": (dict,),
    "first_sample_at": (str,),
    "last_sample_at": (str,),
    "cut_at": (type(None),),
    "task_hash": (str,),
    "epoch": (_COUNT,),
    "round": (_COUNT,),
}


def assert_complete_row(row: dict[str, Any], supplier: str, task: str) -> None:
    """Every field of the design is there, of its type, and they agree with each other."""
    for name, types in FIELDS.items():
        assert name in row, f"{name} is missing"
        assert type(row[name]) in types, f"{name} is {row[name]!r}"
    assert (row["supplier"], row["task"]) == (f"{supplier}@external", task)
    assert (row["service"], row["address"]) == ("external", supplier)
    assert (row["framework"], row["status"]) == ("lm_eval", "ok")
    assert (row["epoch"], row["round"], row["cut_at"]) == (1, 1, None)
    assert set(row["latency_ms"]) == {"p50", "p95"}
    assert 0 < row["latency_ms"]["p50"] <= row["latency_ms"]["p95"]
    first, last = (datetime.fromisoformat(row[f"{which}_sample_at"]) for which in ("first", "last"))
    assert first.tzinfo is not None and first <= last
    if row["ci_low"] is not None:
        assert 0 <= row["ci_low"] <= row["score"] <= row["ci_high"] <= 1
        assert row["bound_low"] <= row["score"] <= row["bound_high"]


def by_filter(rows: list[dict[str, Any]], supplier: str) -> dict[str, dict[str, Any]]:
    """The rows of one supplier by filter."""
    return {row["filter"]: row for row in rows if row["address"] == supplier}


def gsm8k_urls(servers: list[Replay]) -> dict[str, str]:
    """What ``gsm8k-replay.yaml`` wants to know."""
    return {f"GSM8K_{name.upper()}_URL": s.url for name, s in zip(GSM8K, servers, strict=True)}


def assert_gsm8k_figures(rows: list[dict[str, Any]]) -> None:
    assert len(rows) == 2 * len(GSM8K), "one row per supplier and filter"
    for supplier, correct in GSM8K.items():
        windows = by_filter(rows, supplier)
        assert set(windows) == {"flexible-extract", "strict-match"}
        for name, expected in (("flexible-extract", correct), ("strict-match", 0)):
            row = windows[name]
            assert_complete_row(row, supplier, "gsm8k")
            assert (row["metric"], row["primary"]) == ("exact_match", name == "flexible-extract")
            assert (row["n"], row["n_planned"], row["coverage"]) == (1319, 1319, 1.0)
            assert row["score"] == expected / 1319
            assert row["score_errors_as_zero"] == row["bound_low"] == row["bound_high"] == expected / 1319
            assert row["errors"] == {}
            assert row["group"] is None


def assert_verdicts_equal_the_flags(installation: Installation) -> None:
    """Not only the sums: every doc's verdict is the one the authors recorded."""
    recorded = shared_rows("gsm8k/openai_model_solutions.jsonl.gz")
    with installation.documents() as documents:
        for system in GSM8K:
            where = {"supplier": f"{system}@external", "filter": "flexible-extract"}
            verdicts = {s["doc_id"]: s["metrics"]["exact_match"] for s in documents.find(SCORES, where)}
            flags = {i: float(row[system]["is_correct"]) for i, row in enumerate(recorded)}
            assert verdicts == flags


@pytest.mark.slow
def test_gsm8k_of_four_recorded_systems(
    server_installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    """On MongoDB and PostgreSQL; on the embedded stores the last of test_kill.py scores all docs."""
    with replays([answers.gsm8k(s) for s in GSM8K], tmp_path, "--latency-ms", "2") as servers:
        server_installation.configure_example("gsm8k-replay.yaml", **gsm8k_urls(servers))
        done = server_installation.run()
        assert done.out == "", "results go to stdout, and run has none"
        assert_gsm8k_figures(server_installation.scores())
        assert_verdicts_equal_the_flags(server_installation)
        sent = [server.stats() for server in servers]
        assert [(s["requests"], s["hits"]) for s in sent] == [(1319, 1319)] * 4

        again = server_installation.run()
        assert "0 relays sent" in again.err
        assert [server.stats()["requests"] for server in servers] == [1319] * 4
    assert_gsm8k_figures(server_installation.scores())
    embedded = [path for path in server_installation.home.rglob("*") if path.suffix in (".sqlite3", ".db")]
    assert embedded == [], "everything is on the servers"


@pytest.mark.slow
def test_nine_bbh_chain_of_thought_tasks_as_one_group(
    installation: Installation, answers: Answers, tmp_path: Path
) -> None:
    recorded = answers("bbh", "--mode", "cot", "--task", "all")
    with Replay(recorded, tmp_path, "--latency-ms", "2") as server:
        installation.configure_example("bbh-cot-replay.yaml", BBH_COT_URL=server.url)
        installation.run()
        stats = server.stats()
    total = sum(n for _, n in BBH.values())
    assert (stats["requests"], stats["hits"]) == (total, total)
    everything = installation.scores()
    rows = [row for row in everything if row["kind"] == "task"]
    assert [row["task"] for row in rows] == [f"bbh_cot_fewshot_{name}" for name in BBH]
    assert rows == everything, "of a part of a group there is no score of the group"
    for row, (percent, n) in zip(rows, BBH.values(), strict=True):
        assert_complete_row(row, "code-davinci-002", row["task"])
        assert (row["group"], row["metric"], row["filter"]) == (
            "bbh_cot_fewshot",
            "exact_match",
            "get-answer",
        )
        assert (row["n"], row["errors"]) == (n, {})
        assert round(100 * row["score"], 2) == percent, row["task"]
    assert installation.scores("--task", "bbh_cot_fewshot") == rows, "a group's name selects its tasks"


@pytest.mark.slow
def test_mmlu_pro_without_shots(installation: Installation, answers: Answers, tmp_path: Path) -> None:
    recorded = [answers("mmlu_pro", "--model", model) for model, _, _ in MMLU_PRO.values()]
    with replays(recorded, tmp_path, "--latency-ms", "2") as servers:
        urls = {
            f"MMLU_PRO_{variable}_URL": server.url
            for (_, variable, _), server in zip(MMLU_PRO.values(), servers, strict=True)
        }
        installation.configure_example("mmlu-pro-replay.yaml", **urls)
        installation.run(timeout_s=600)
        assert [server.stats()["hits"] for server in servers] == [12_032] * 3
    everything = installation.scores()
    rows = [row for row in everything if row["kind"] == "task"]
    assert len(rows) == 14 * 3
    groups = {row["address"]: row for row in everything if row["kind"] == "group"}
    assert len(everything) == 15 * 3
    for supplier, (_, _, correct) in MMLU_PRO.items():
        leaves = [row for row in rows if row["address"] == supplier]
        assert len({row["task"] for row in leaves}) == 14
        for row in leaves:
            assert_complete_row(row, supplier, row["task"])
            assert (row["group"], row["filter"], row["errors"]) == ("mmlu_pro", "custom-extract", {})
        assert sum(row["n"] for row in leaves) == 12_032
        group = groups[supplier]
        assert (group["task"], group["n"], group["status"]) == ("mmlu_pro", 12_032, "ok")
        assert group["score"] == group["score_answered"] == pytest.approx(correct / 12_032, abs=1e-12)
        assert group["ci_low"] < group["score"] < group["ci_high"]
        assert sum(row["score"] * row["n"] for row in leaves) == pytest.approx(correct, abs=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("punkt")
def test_ifeval_on_what_gpt_4_answered(
    installation: Installation, answers: Answers, shared: Path, tmp_path: Path
) -> None:
    data, model = tmp_path / "ifeval.jsonl", "gpt-4-20231107"
    command = [sys.executable, str(EXAMPLES / "prepare_ifeval.py")]
    command += [str(shared / "ifeval/input_data.jsonl.gz"), str(data)]
    command += ["--answered", str(shared / f"ifeval/responses_{model}.jsonl.gz")]
    subprocess.run(command, check=True, capture_output=True)
    with Replay(answers("ifeval", "--model", model), tmp_path, "--latency-ms", "2") as server:
        installation.configure_example(
            "ifeval-replay.yaml", IFEVAL_GPT4_URL=server.url, IFEVAL_DATA=str(data)
        )
        installation.run()
        assert server.stats()["hits"] == 540
    rows = {row["metric"]: row for row in installation.scores()}
    assert set(rows) == set(IFEVAL)
    for metric, percent in IFEVAL.items():
        assert_complete_row(rows[metric], "gpt-4", "ifeval")
        assert (rows[metric]["n"], rows[metric]["filter"]) == (540, "none")
        assert 100 * rows[metric]["score"] == pytest.approx(percent, abs=0.8)
    with installation.documents() as documents:
        assert documents.count(ATTEMPTS, {"fault": "ok"}) == 540
