"""Real answers of real models, replayed as suppliers: nobody is merged, split or accused wrongly.

AlpacaEval's outputs are sampled, so one model agrees with itself rarely there; its distinct models are real,
and so is how often they begin alike. Data of `../shared`, never copied.
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
from datetime import timedelta
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testbench_dagster.identity import (
    Answer,
    Assignment,
    Evidence,
    Grouping,
    ScoreStream,
    find_changes,
    find_groups,
    score_change,
)
from testbench_dagster_tests.identity.population import START
from testbench_dagster_tests.identity.scored import milliseconds

MINUTE = timedelta(minutes=1)
#: One snapshot, behind an alias and by its own name, by its date.
ALIAS = {"gpt4", "gpt4_0314"}


@cache
def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def answer_prefix(text: str, skip: int = 0) -> str:
    return " ".join(text.split())[skip : skip + 64]


# ------------------------------------------------------------------------------------------- alpaca_eval


@pytest.fixture(scope="module")
def outputs(shared: Path) -> dict[str, dict[str, str]]:
    """Answer prefixes by model and prompt."""
    return {
        path.name.removeprefix("outputs_").removesuffix(".jsonl.gz"): {
            row["id"]: answer_prefix(row["output"]) for row in rows(path)
        }
        for path in sorted((shared / "alpaca_eval").glob("outputs_*.jsonl.gz"))
    }


def replay(
    outputs: dict[str, dict[str, str]], n: int, twice: tuple[str, ...] = (), seed: int = 0
) -> Grouping:
    """Groups after the first ``n`` prompts in a random order; models of ``twice`` serve two suppliers."""
    order = sorted(outputs["gpt4"], key=int)
    random.Random(seed).shuffle(order)
    answers = []
    for model, said in outputs.items():
        for name in (model, f"{model} again") if model in twice else (model,):
            for minute, prompt in enumerate(order[:n]):
                if prompt in said:
                    answers.append(Answer(name, prompt, "alpaca", START + minute * MINUTE, 0, said[prompt]))
    return find_groups(Evidence.of(answers), now=START)


def test_no_distinct_models_are_ever_merged(outputs: dict[str, dict[str, str]]) -> None:
    assert len(outputs) == 13
    for n in (10, 20, 40, 80, 160, 320, 805):
        grouping = replay(outputs, n)
        assert all(len(group.members) == 1 for group in grouping.groups), n
        assert grouping.suspects == (), n
        assert not any(grouping.pair(a, b).relation == "same stack" for a, b in combinations(outputs, 2))


def test_distinct_models_are_split_within_15_prompts(outputs: dict[str, dict[str, str]]) -> None:
    needed: dict[tuple[str, str], list[int]] = {pair: [] for pair in combinations(sorted(outputs), 2)}
    for seed in range(3):
        open_pairs = set(needed)
        for n in (*range(4, 40), 60, 100, 200, 400, 805):
            grouping = replay(outputs, n, seed=seed)
            for pair in sorted(open_pairs):
                if grouping.pair(*pair).split:
                    needed[pair].append(n)
                    open_pairs.discard(pair)
            if not open_pairs:
                break
        assert not {p for p in open_pairs if set(p) != ALIAS}
    medians = sorted(statistics.median(found) for found in needed.values() if found)
    print(f"prompts to split: median {statistics.median(medians)}, most {medians[-1]}")
    assert statistics.median(medians) <= 15


def test_the_same_answers_twice_merge(outputs: dict[str, dict[str, str]]) -> None:
    twice = ("gpt4_0613", "gemma-7b-it", "llama-2-7b-chat-hf", "Mixtral-8x7B-Instruct-v0.1")
    grouping = replay(outputs, 160, twice)
    merged = {group.members for group in grouping.groups if len(group.members) > 1}
    assert merged == {(model, f"{model} again") for model in twice}
    # one of them begins nearly half of its answers with a phrase of its own, which counts for little
    boilerplate = grouping.pair("llama-2-7b-chat-hf", "llama-2-7b-chat-hf again")
    plain = grouping.pair("gemma-7b-it", "gemma-7b-it again")
    assert boilerplate.agreement == plain.agreement == 1
    assert boilerplate.log_merge < 0.75 * plain.log_merge


def test_suppliers_that_swap_between_real_models_are_found(outputs: dict[str, dict[str, str]]) -> None:
    """Three suppliers replay one model; after 100 prompts one of them turns to another, kin included."""
    delays = {}
    order = sorted(outputs["gpt4"], key=int)
    random.Random(1).shuffle(order)
    for before, after in (
        ("gpt4_0613", "gpt4_0314"),
        ("Meta-Llama-3.1-70B-Instruct-Turbo", "Meta-Llama-3.1-8B-Instruct-Turbo"),
        ("Mixtral-8x7B-Instruct-v0.1", "Mistral-7B-Instruct-v0.2"),
        ("gemma-7b-it", "gpt-3.5-turbo-1106"),
    ):
        answers = [
            Answer(name, prompt, "alpaca", START + minute * MINUTE, 0, outputs[model][prompt])
            for minute, prompt in enumerate(order[:200])
            for name in ("a", "b", "c")
            for model in [after if name == "b" and minute >= 100 else before]
            if prompt in outputs[model]
        ]
        (change,) = find_changes(answers, groups=[["a", "b", "c"]])
        assert change.supplier == "b" and change.certain
        assert abs(change.at - START - 100 * MINUTE) <= 12 * MINUTE
        delays[before, after] = (change.detected_at - START) // MINUTE - 99
    print(delays)
    assert statistics.median(delays.values()) <= 12


# ------------------------------------------------------------------------------------------ llm_stability


@pytest.mark.parametrize("skip", [0, 60, 120, 300])
@pytest.mark.parametrize("model", ["azure_gpt-35-turbo", "gpt-4o_jsonschema"])
def test_one_endpoint_is_never_split_from_itself(shared: Path, model: str, skip: int) -> None:
    """Ten runs of one endpoint as ten suppliers, then as one supplier asked again and again.

    Its answers open with the same phrase; further into the text they start to differ, so the text from
    ``skip`` characters on stands for noisier answer prefixes.
    """
    given = rows(shared / "llm_stability" / f"runs_logical_deduction_few__{model}.jsonl.gz")
    runs = sorted({int(row["run"]) for row in given})
    suppliers, repeats = [], []
    for row in given:
        run, item, text = int(row["run"]), int(row["item"]), answer_prefix(str(row["response"]), skip)
        suppliers.append(Answer(f"run{run}", str(item), "deduction", START + item * MINUTE, 0, text))
        at = START + (run * 300 + item) * MINUTE
        repeats.append(Answer("endpoint", str(item), "deduction", at, run, text))
    grouping = find_groups(Evidence.of(suppliers), now=START)
    names = [f"run{run}" for run in runs]
    assert not any(grouping.pair(a, b).split for a, b in combinations(names, 2))
    assert grouping.suspects == ()
    assert find_changes(suppliers, groups=[names]) == []
    assert find_changes(repeats) == []
    previous = [Assignment(name, "g", "run0", START) for name in names]
    kept = find_groups(Evidence.of(suppliers), previous=previous, now=START)
    assert [group.members for group in kept.groups] == [tuple(sorted(names))]
    evidence = Evidence.of(repeats)
    if model == "azure_gpt-35-turbo" and skip == 300:
        assert 0.9 < evidence.repeated[0] / evidence.repeats[0] < 0.97  # noisy indeed
        assert max(len(group.members) for group in grouping.groups) == len(runs)


# ---------------------------------------------------------------------------------------------- llm_drift


def drift(shared: Path, service: str, seed: int, n: int) -> list[dict[str, Any]]:
    """Answers of one snapshot to a random part of the questions; the file has all primes first."""
    given = [r for r in rows(shared / "llm_drift" / "prime_full.jsonl.gz") if r["model"].endswith(service)]
    random.Random(seed).shuffle(given)
    return given[:n]


def right(row: dict[str, Any]) -> float:
    """The data's own rule: "yes" anywhere counts as yes, else "no"."""
    text = row["answer"].lower()
    said = "yes" if "yes" in text else "no" if "no" in text else ""
    return float(said == row["ref_answer"].lower())


@pytest.mark.parametrize(
    ("march", "june", "direction"),
    [("gpt-4-0314", "gpt-4-0613", "down"), ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613", "up")],
)
def test_march_to_june_is_seen_in_scores(shared: Path, march: str, june: str, direction: str) -> None:
    """One task, no peers; about a third of June's questions were asked in March."""
    delays, inside = [], []
    for seed in range(10):
        given = [*drift(shared, march, seed, 300), *drift(shared, june, seed + 50, 300)]
        ids = sorted({r["id"] for r in given})
        nothing, at = np.zeros(600), [START + n * MINUTE for n in range(600)]
        stream = ScoreStream(
            at=milliseconds(at),
            docs=np.array([ids.index(r["id"]) for r in given]),
            tasks=nothing.astype(np.int64),
            values=np.array([right(r) for r in given]),
            peers=nothing,
            n_peers=nothing.astype(np.int64),
        )
        change = score_change("s", stream, timedelta(days=32))
        if change is None:  # not within the 300 questions of June
            delays.append(301)
            continue
        assert change.direction == direction
        assert change.detected_at > at[299], "nothing changed in March"
        delays.append(at.index(change.detected_at) - 299)
        inside.append((change.before_at or START) < at[300] <= change.at)
    print(march, "delay", sorted(delays), "interval holds it", inside)
    assert statistics.median(delays) <= 170 and sum(delay <= 300 for delay in delays) >= 9
    assert sum(inside) >= len(inside) - 1


@pytest.mark.parametrize(
    ("march", "june"), [("gpt-4-0314", "gpt-4-0613"), ("gpt-3.5-turbo-0301", "gpt-3.5-turbo-0613")]
)
def test_march_to_june_is_seen_in_prefixes(shared: Path, march: str, june: str) -> None:
    """A group of three replays March's answers; one of them turns to June's after 100 questions."""
    old = {r["id"]: answer_prefix(r["answer"]) for r in drift(shared, march, 0, 1000)}
    new = {r["id"]: answer_prefix(r["answer"]) for r in drift(shared, june, 0, 1000)}
    order = sorted(old)
    random.Random(3).shuffle(order)
    answers = [
        Answer(name, item, "prime", START + n * MINUTE, 0, (new if name == "b" and n >= 100 else old)[item])
        for n, item in enumerate(order[:300])
        for name in ("a", "b", "c")
    ]
    (change,) = find_changes(answers, groups=[["a", "b", "c"]])
    assert change.supplier == "b"
    assert abs((change.at - START) // MINUTE - 100) <= 10
    assert (change.detected_at - START) // MINUTE - 99 <= 20
