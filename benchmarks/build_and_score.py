"""Request building and scoring against stock lm-eval, side by side: docs per CPU second and ratios.

    python benchmarks/build_and_score.py [--docs 1319] [--rounds 3] [--case gsm8k]

Each measurement runs in a process of its own, one after another, both sides over the same docs and answers.
Stock is ``ConfigurableTask.build_all_requests`` and the scoring steps of ``evaluate`` (filters over all
instances, then ``process_results`` per doc and filter) in a process that never imports our adapter and so has
none of its template cache. Ours is a whole call of ``build_prompts`` and of ``score``, with decoding the
stored docs and the few-shot pool. CPU time, fastest of the rounds: other load disturbs it least. Requests and
scores of both sides are compared by hash; a difference ends the run with exit code 1. The target for
building, 15 times stock, is set for gsm8k; scoring is to be no slower than stock anywhere.

Data: ``../shared/data`` (or ``$TESTBENCH_SHARED/data``) when present, else the starter catalog.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("TESTBENCH_SHARED") or REPOSITORY.parent / "shared") / "data"
SCORE_TARGET = 1.0


@dataclass(frozen=True)
class Case:
    """Leaf tasks measured together. ``files`` maps a split to its file, ``column`` picks a leaf's rows."""

    title: str
    folder: str
    leaves: tuple[str, ...]
    files: dict[str, str]
    shots: int | None = None
    column: str | None = None
    build_target: float | None = None


SHARED_CASES = {
    "gsm8k": Case(
        "gsm8k, 5 shots",
        "gsm8k",
        ("gsm8k",),
        {"train": "gsm8k/train.jsonl.gz", "test": "gsm8k/test.jsonl.gz"},
        5,
        build_target=15.0,
    ),
    "mmlu": Case(
        "mmlu, 5 shots, 5 subjects",
        "mmlu/default",
        tuple(
            f"mmlu_{subject}"
            for subject in ("anatomy", "astronomy", "marketing", "philosophy", "high_school_biology")
        ),
        {"test": "mmlu/test.jsonl.gz", "dev": "mmlu/dev.jsonl.gz"},
        5,
        "subject",
    ),
    "bbh": Case(
        "bbh chain of thought, 4 tasks",
        "bbh/cot_fewshot",
        tuple(
            f"bbh_cot_fewshot_{name}"
            for name in ("boolean_expressions", "navigate", "snarks", "date_understanding")
        ),
        {"test": "bbh/tasks/{dataset_name}.jsonl.gz"},
    ),
}
STARTER_CASES = {
    "generate": Case("starter, generative", "starter", ("starter_arithmetic", "starter_logic"), {}),
    "choice": Case("starter, multiple choice", "starter", ("starter_choice",), {}),
}


def cases() -> dict[str, Case]:
    return SHARED_CASES if DATA.is_dir() else STARTER_CASES


def rows_of(case: Case, split: str, dataset_name: str | None) -> list[dict[str, Any]]:
    path = DATA / case.files[split].replace("{dataset_name}", str(dataset_name))
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row for row in rows if case.column is None or row[case.column] == dataset_name]


def answer(kind: str, args: Iterable[Any], target: Any) -> Any:
    """A pure function of the request: right, wrong or hardly parsable, or a hash as log-likelihood."""
    text = json.dumps([kind, *args], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    if kind != "generate_until":
        return (-(number % 100_000) / 1000 - 0.001, number % 3 == 0)
    gold = str(target).rpartition("#### ")[2]
    return (
        f"First 12, then so many. So the answer is {gold}.\n#### {gold}",
        f"It is {number % 1000}, so the answer is (Z). #### {number % 1000}",
        "I do not know. " * 20,
    )[number % 3]


class Digest:
    """Order-independent hash over what both sides must agree on."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def add(self, *values: Any) -> None:
        self.parts.append(json.dumps(values, sort_keys=True, default=lambda v: v.item()))

    def __str__(self) -> str:
        return hashlib.sha256("\n".join(sorted(self.parts)).encode()).hexdigest()


def best(call: Callable[[], Any], rounds: int, reset: Callable[[], Any] = lambda: None) -> tuple[float, Any]:
    """CPU seconds of the fastest round, and the last result."""
    fastest, result = float("inf"), None
    for _ in range(rounds):
        reset()
        started = time.process_time()
        result = call()
        fastest = min(fastest, time.process_time() - started)
    return fastest, result


def measure_stock(case: Case, docs: int, rounds: int) -> dict[str, Any]:
    import datasets
    import lm_eval
    from lm_eval.tasks import TaskManager

    def load_dataset(path: str, name: str | None = None, **_: Any) -> Any:
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_list(rows_of(case, split, name)) for split in case.files}
        )

    folder = Path(lm_eval.__file__).parent / "tasks" / case.folder
    if case.files:
        datasets.load_dataset = load_dataset
    else:
        folder = REPOSITORY / "testbench_dagster/tasks/starter"
    manager = TaskManager(include_defaults=False, include_path=str(folder))
    built = scored = 0.0
    count = 0
    requests, scores = Digest(), Digest()
    for task in manager.load(list(case.leaves))["tasks"].values():
        if case.shots is not None:
            task.set_config(key="num_fewshot", value=case.shots)
        limit = min(docs, len(task.eval_docs))
        seconds, _ = best(
            lambda task=task, limit=limit: task.build_all_requests(limit=limit),
            rounds,
            lambda task=task: task.set_fewshot_seed(seed=1234),
        )
        built += seconds
        count += limit
        for instance in task.instances:
            requests.add(task.task_name, instance.doc_id, instance.idx, list(instance.args))
            target = task.doc_to_target(instance.doc)
            instance.resps = [answer(instance.request_type, instance.args, target)]

        def evaluate(task: Any = task, limit: int = limit) -> list[Any]:
            task.apply_filters()
            by_doc = defaultdict(list)
            for instance in task.instances:
                by_doc[instance.doc_id].append(instance)
            return [
                (doc_id, name, task.process_results(doc, [i.filtered_resps[name] for i in by_doc[doc_id]]))
                for name in task.instances[0].filtered_resps
                for doc_id, doc in task.doc_iterator(limit=limit)
            ]

        seconds, results = best(evaluate, rounds)
        scored += seconds
        for doc_id, name, metrics in results:
            scores.add(task.task_name, doc_id, name, metrics)
    assert not any(name.startswith("testbench_dagster") for name in sys.modules), "stock must be stock"
    return report(count, built, scored, requests, scores)


def measure_ours(case: Case, docs: int, rounds: int) -> dict[str, Any]:
    import yaml

    from testbench_dagster.config import load_config
    from testbench_dagster.core.prompt import Answered
    from testbench_dagster.stages.configured_tasks import task_specs
    from testbench_dagster.tasks.lm_eval_adapter import build_prompts, register, score
    from testbench_dagster.tasks.lm_eval_adapter.requests import arguments_of

    data = {split: str(DATA / path) for split, path in case.files.items()}
    tasks = [{"name": leaf} for leaf in case.leaves]
    for task in tasks:
        task |= {"data": data} if data else {}
        task |= {"num_fewshot": case.shots} if case.shots is not None else {}
        task |= {"where": {case.column: "{dataset_name}"}} if case.column else {}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "testbench.yaml"
        config.write_text(yaml.safe_dump({"tasks": tasks}), encoding="utf-8")
        specs = task_specs(load_config(config))
    built = scored = 0.0
    count = 0
    requests, scores = Digest(), Digest()
    for spec in specs:
        stored = register(spec).data
        ids = list(range(min(docs, len(stored.docs))))
        random.Random(0).shuffle(ids)
        seconds, prompts = best(
            lambda spec=spec, stored=stored, ids=ids: build_prompts(spec, stored, ids, "completions"), rounds
        )
        built += seconds
        count += len(ids)
        answers = []
        for prompt in prompts:
            responses = []
            for request in prompt.requests:
                arguments = arguments_of(request)
                requests.add(spec.leaf, prompt.doc_id, request["idx"], list(arguments))
                responses.append([answer(request["type"], arguments, prompt.target)])
            answers.append(Answered(prompt.doc_id, prompt.requests, responses))
        seconds, results = best(
            lambda spec=spec, stored=stored, answers=answers: score(spec, stored, answers), rounds
        )
        scored += seconds
        for result in results:
            for name, metrics in result.metrics.items():
                scores.add(spec.leaf, result.doc_id, name, metrics)
    return report(count, built, scored, requests, scores)


def report(count: int, built: float, scored: float, requests: Digest, scores: Digest) -> dict[str, Any]:
    return {
        "docs": count,
        "build": count / built,
        "score": count / scored,
        "requests": str(requests),
        "scores": str(scores),
    }


def in_own_process(side: str, name: str, docs: int, rounds: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--case", name]
    done = subprocess.run(
        [*command, "--docs", str(docs), "--rounds", str(rounds)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{side} {name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=int, default=2000, help="at most so many docs per task")
    parser.add_argument("--rounds", type=int, default=3, help="the fastest round counts")
    parser.add_argument("--case", choices=sorted(cases()), action="append", help="default: all")
    parser.add_argument("--side", choices=["stock", "ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        (name,) = options.case
        measure = measure_stock if options.side == "stock" else measure_ours
        print(json.dumps(measure(cases()[name], options.docs, options.rounds)))
        return 0

    print(f"data: {DATA if DATA.is_dir() else 'starter catalog'}; docs per CPU second of one core")
    print(f"{'':32}{'docs':>6}  {'':6}{'stock':>9}{'ours':>9}{'ratio':>8}  target        identical")
    failed = False
    for name in options.case or cases():
        stock, ours = (in_own_process(s, name, options.docs, options.rounds) for s in ("stock", "ours"))
        for step, checked in (("build", "requests"), ("score", "scores")):
            same = stock[checked] == ours[checked] and stock["docs"] == ours["docs"]
            ratio = ours[step] / stock[step]
            failed |= not same
            target = cases()[name].build_target if step == "build" else SCORE_TARGET
            verdict = f">={target:g}x {'met' if ratio >= target else 'MISSED'}" if target else ""
            print(
                f"{cases()[name].title if step == 'build' else '':32}{ours['docs']:>6}  {step:6}"
                f"{stock[step]:>9,.0f}{ours[step]:>9,.0f}{ratio:>7.1f}x  {verdict:14}"
                f"{'yes' if same else 'NO'}"
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
