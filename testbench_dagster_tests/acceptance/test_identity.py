"""The commands over replayed real models: who answers alike is grouped, nobody else; a change is found."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster_tests.acceptance.harness import Answers, Installation, Replay, replays

pytestmark = pytest.mark.slow
PRIME = {
    "task": "prime_drift",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{query}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 512},
    # the word "yes" anywhere counts as yes, else the word "no": the rule of the published figures
    "filter_list": [
        {
            "name": "verdict",
            "filter": [
                {"function": "lowercase"},
                {"function": "regex", "regex_pattern": r"(?s)^.*?\b(yes)\b|\b(no)\b", "group_select": 0},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
OPEN = {
    "task": "open_instructions",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{instruction}}",
    "doc_to_target": "nothing is right or wrong here",
    "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 256},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def define(installation: Installation, task: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    folder = installation.folder / "tasks"
    folder.mkdir(exist_ok=True)
    (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    data = "\n".join(json.dumps(row) for row in rows)
    (installation.folder / "test.jsonl").write_text(data, encoding="utf-8")


def shown(installation: Installation, *arguments: str) -> list[dict[str, Any]]:
    done = installation.command("identity", *arguments, "--format", "json")
    assert done.code == 0, done
    rows: list[dict[str, Any]] = json.loads(done.out)
    return rows


def test_the_march_to_june_change_is_found_when_replayed_in_time_order(
    installation: Installation, answers: Answers, shared: Path
) -> None:
    """gpt-4 on 1,000 primes: .84 in March 2023, .51 in June, under one name."""
    source = shared / "llm_drift" / "prime_full.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    docs = {r["query"]: r["ref_answer"].lower() for r in rows if r["model"] == "openaichat/gpt-4-0314"}
    define(installation, PRIME, [{"query": q, "answer": a} for q, a in docs.items()])

    def recorded(model: str) -> Path:
        where = f"model=openaichat/{model}"
        fields = ("--match", "query", "--response", "answer", "--where", where)
        return answers("rows", "--file", str(source), *fields)

    with Replay(recorded("gpt-4-0314"), installation.folder) as march:
        installation.configure(
            suppliers=[{"address": "gpt-4", "base_url": march.url, "model": "gpt-4"}],
            task_paths=["tasks"],
            tasks=[{"name": "prime_drift", "data": {"test": "test.jsonl"}, "samples": "all"}],
        )
        installation.run()
        (row,) = [r for r in installation.scores() if r["primary"]]
        assert row["score"] == pytest.approx(0.84, abs=0.01)
        assert shown(installation, "--changes") == []
        port = march.port
    june_began = datetime.now(UTC)
    with Replay(recorded("gpt-4-0613"), installation.folder, port=port):
        done = installation.run("--force")
    changes = shown(installation, "--changes")
    assert len(changes) == 1, (changes, done)
    (change,) = changes
    assert (change["supplier"], change["kind"], change["cut"]) == ("gpt-4@external", "score", True)
    assert change["direction"] == "down"
    at = datetime.fromisoformat(change["at"])
    assert abs((at - june_began).total_seconds()) < 30, "dated by the answers"
    (row,) = [r for r in installation.scores() if r["primary"]]
    assert datetime.fromisoformat(row["cut_at"]) < at
    assert row["score"] == pytest.approx(0.51, abs=0.05), "only June counts"


def test_distinct_models_stay_apart_and_one_model_twice_is_one_group(
    installation: Installation, answers: Answers, shared: Path
) -> None:
    models = sorted(
        p.name.removeprefix("outputs_").removesuffix(".jsonl.gz")
        for p in (shared / "alpaca_eval").glob("outputs_*.jsonl.gz")
    )
    assert len(models) == 13
    with gzip.open(shared / "alpaca_eval" / "instructions.jsonl.gz", "rt", encoding="utf-8") as file:
        instructions = [json.loads(line)["instruction"] for line in file]
    define(installation, OPEN, [{"instruction": i} for i in dict.fromkeys(instructions)])
    twin = "gemma-7b-it"
    files = [answers("alpaca", "--model", m) for m in [*models, twin]]
    names = [*models, "twin"]
    with replays(files, installation.folder) as served:
        installation.configure(
            suppliers=[
                {"address": n, "base_url": s.url, "model": n} for n, s in zip(names, served, strict=True)
            ],
            task_paths=["tasks"],
            tasks=[
                {
                    "name": "open_instructions",
                    "data": {"test": "test.jsonl"},
                    "samples": {"min": 200, "max": 200, "half_width": None},
                }
            ],
            sampling={"window": 200, "epoch_seed": 7},
        )
        installation.run()
        rows = {r["supplier"].partition("@")[0]: r for r in shown(installation)}
        assert set(rows) == set(names)
        twins = [f"{twin}@external", "twin@external"]
        assert rows["twin"]["members"] == rows[twin]["members"] == twins
        assert all(r["role"] == "alone" for n, r in rows.items() if n not in ("twin", twin)), rows
        pairs = shown(installation, "--pairs")
        assert len(pairs) == 14 * 13 // 2
        assert [(p["a"], p["b"]) for p in pairs if p["same_group"]] == [tuple(twins)]
        before = sum(s.stats()["requests"] for s in served)
        again = installation.command("plan", "--format", "json")
        assert again.code == 0, again
        states = {
            r["supplier"]: r["state"] for r in json.loads(again.out) if r["task"] == "open_instructions"
        }
        assert sorted(states.values()) == ["fresh"] * 13 + ["represented"]
        assert sum(s.stats()["requests"] for s in served) == before, "a plan asks nobody"
