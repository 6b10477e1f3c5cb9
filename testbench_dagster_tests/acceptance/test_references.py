"""Recorded models under one model's name, one of them the reference: who is as it is, and who is not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from testbench_dagster_tests.acceptance.harness import Answers, Installation, replays
from testbench_dagster_tests.acceptance.test_identity import define

MODELS = ("Meta-Llama-3_1-8B-Instruct", "Mistral-7B-v0.1", "jamba-1.5-large")
#: As many as it takes to be certain that equal scores differ by less than five points.
DOCS = 240
LETTERS = {
    "task": "letters",
    "dataset_path": "json",
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{query}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 512},
    "filter_list": [
        {
            "name": "letter",
            "filter": [
                {"function": "regex", "regex_pattern": r"answer is \(?([A-J])\b"},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.mark.slow
def test_a_recorded_model_is_as_it_is_itself_and_as_no_other(
    installation: Installation, answers: Answers, shared: Path
) -> None:
    """The scores of two differ by five points only: there the answers tell, once both were asked again."""
    files = [answers("mmlu_pro", "--model", model) for model in MODELS]
    with gzip.open(shared / "mmlu_pro" / "questions.jsonl.gz", "rt", encoding="utf-8") as file:
        right = {row["question"]: row["answer"] for row in map(json.loads, file)}
    asked = [json.loads(line)["match"] for line in files[0].read_text("utf-8").splitlines()]
    docs = {text: right[text.partition("\nOptions:\n")[0]] for text in asked[:: len(asked) // DOCS]}
    define(installation, LETTERS, [{"query": q, "answer": a} for q, a in list(docs.items())[:DOCS]])
    names = ("reference", "mistral", "jamba", "twin")
    with replays([*files, files[0]], installation.folder) as served:
        suppliers = [
            {"address": name, "base_url": one.url, "model": "m", "service": f"s-{name}"}
            for name, one in zip(names, served, strict=True)
        ]
        installation.configure(
            suppliers=[{**suppliers[0], "reference": True}, *suppliers[1:]],
            task_paths=["tasks"],
            tasks=[{"name": "letters", "data": {"test": "test.jsonl"}, "samples": "all"}],
            sampling={"epoch_seed": 7},
        )
        installation.run()
        again = (f"--supplier={name}@s-{name}" for name in names[:-1])
        installation.run("--force", *again)
    done = installation.command("references", "--format", "json")
    assert done.code == 0, done
    rows = {row["supplier"].partition("@")[0]: row for row in json.loads(done.out)}
    verdicts = {name: row["as_reference"] for name, row in rows.items()}
    assert verdicts == {"mistral": "no", "jamba": "no", "twin": "yes"}, rows
    twin = rows["twin"]
    assert (twin["difference"], twin["n_docs"], twin["n_equal"]) == (0.0, DOCS, DOCS)
    assert all(rows[name]["reference"] == "reference@s-reference" for name in verdicts)
    assert "differ from the reference" in rows["jamba"]["finding"]
