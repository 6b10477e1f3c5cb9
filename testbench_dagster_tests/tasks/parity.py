"""Runs one case through ``lm_eval.simple_evaluate`` and through the adapter, and lists every difference.

The reference side is stock lm-eval: its own TaskManager, ConfigurableTask and template rendering (without
the adapter's template cache), fed with the same rows by replacing ``datasets.load_dataset``. Our side takes
the way production takes: testbench.yaml, task_specs, register, JSON, build_prompts, JSON, score.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.utils
import numpy as np
import pytest
import yaml
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from testbench_dagster.config import load_config
from testbench_dagster.core.prompt import Answered, BuiltPrompt, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster.tasks.index import STARTER_PATH, lm_eval_tasks
from testbench_dagster.tasks.lm_eval_adapter import aggregate, build_prompts, register, score, seed_checkers
from testbench_dagster_tests.tasks.layouts import Splits
from testbench_dagster_tests.tasks.replay import Candidates, ReplayLM, answer, plain_args


@dataclass(frozen=True)
class Case:
    """One comparison.

    ``rows`` gives the splits of a dataset name; ``files`` replaces the files the harness would write of them
    by a ``data:`` block of its own. ``only`` restricts a group, ``folders`` names lm-eval's task folders
    (the whole catalog when empty), ``limit`` the first docs compared (all when None).
    """

    task: str
    rows: Callable[[str | None], Splits] | None = None
    candidates: Candidates | None = None
    folders: tuple[str, ...] = ()
    files: Mapping[str, Any] | None = None
    dataset_names: tuple[str | None, ...] = (None,)
    only: tuple[str, ...] | None = None
    own_yaml: Mapping[str, str] = field(default_factory=dict)
    num_fewshot: int | None = None
    api: str = "completions"
    limit: int | None = 40
    seed_by: str | None = None  # column that identifies a doc whose checker draws at random
    generation: Mapping[str, Any] = field(default_factory=dict)  # the task's block of that name
    gen_kwargs: Mapping[str, Any] | None = None  # the same as lm-eval is told it


@dataclass
class Side:
    """What one side says about one leaf task."""

    requests: dict[int, Any] = field(default_factory=dict)
    targets: dict[int, Any] = field(default_factory=dict)
    results: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)
    aggregates: dict[str, Any] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """Python numbers, lists and string keys only; floats keep every bit."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def through_json(value: Any) -> Any:
    """What is left of a value after it was stored."""
    return json.loads(json.dumps(value))


@lru_cache(maxsize=4)
def _manager(folders: tuple[str, ...]) -> TaskManager:
    if not folders:
        return TaskManager()
    return TaskManager(include_defaults=False, include_path=[Path(folder) for folder in folders])


def _task_folders(case: Case, own: Path) -> tuple[str, ...]:
    found = [str(lm_eval_tasks() / name) for name in case.folders if name != "starter"]
    found += [str(STARTER_PATH)] if "starter" in case.folders else []
    return tuple(found + ([str(own)] if case.own_yaml else []))


@contextmanager
def stock_lm_eval(case: Case) -> Iterator[None]:
    """Make lm-eval read the case's rows instead of the hub, and undo the adapter's template cache."""

    def load_dataset(path: str, name: str | None = None, **_: Any) -> DatasetDict:
        assert case.rows is not None
        return DatasetDict({s: Dataset.from_list(rows) for s, rows in case.rows(name).items()})

    def seeded(task: Any, doc: Any, results: Any) -> Any:
        seed_checkers(positions[doc[case.seed_by]])
        return process_results(task, doc, results)

    with pytest.MonkeyPatch.context() as patch:
        if case.rows is not None:
            patch.setattr("datasets.load_dataset", load_dataset)
        if "from_string" in vars(lm_eval.utils.env):
            patch.delattr(lm_eval.utils.env, "from_string")
        if case.limit is None:
            # Compiling templates anew for every text of every doc takes two thirds of the time. Cases of some
            # docs show that it makes no difference; for all docs of the same tasks each is compiled once.
            compiled = lru_cache(maxsize=4096)(lm_eval.utils.env.from_string)
            patch.setattr(lm_eval.utils.env, "from_string", compiled)
        if case.seed_by is not None:
            assert case.rows is not None
            (rows,) = case.rows(None).values()
            positions = {row[case.seed_by]: number for number, row in enumerate(rows)}
            process_results = ConfigurableTask.process_results
            patch.setattr(ConfigurableTask, "process_results", seeded)
        yield


def evaluated(case: Case, own: Path, *, bootstrap_iters: int = 0) -> tuple[dict[str, Any], ReplayLM]:
    """What ``simple_evaluate`` returns for the case, and the model that answered it."""
    chat = case.api == "chat"
    model = ReplayLM(case.candidates)
    with stock_lm_eval(case):
        return lm_eval.simple_evaluate(
            model,
            tasks=list(case.only or [case.task]),
            num_fewshot=case.num_fewshot,
            task_manager=_manager(_task_folders(case, own)),
            limit=case.limit,
            bootstrap_iters=bootstrap_iters,
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            gen_kwargs=None if case.gen_kwargs is None else dict(case.gen_kwargs),
            system_instruction=case.generation.get("system"),
        ), model


def reference(case: Case, own: Path) -> dict[str, Side]:
    """Run the case through ``simple_evaluate``."""
    results, model = evaluated(case, own)
    sides: dict[str, Side] = defaultdict(Side)
    instances = sorted(model.instances, key=lambda i: (i.task_name, i.doc_id, i.idx))
    for instance in instances:
        entry = [instance.request_type, instance.idx, instance.repeats, *plain_args(instance.args)]
        sides[instance.task_name].requests.setdefault(instance.doc_id, []).append(entry)
    for task, samples in results["samples"].items():
        for sample in samples:
            side = sides[task]
            side.targets[sample["doc_id"]] = plain(sample["target"])
            metrics = {name: plain(sample[name]) for name in sample["metrics"]}
            side.results.setdefault(sample["doc_id"], {})[sample["filter"]] = metrics
        for key, value in results["results"][task].items():
            if "," in key and "_stderr," not in key:
                sides[task].aggregates[key] = plain(value)
    return dict(sides)


def specs_of(case: Case, folder: Path) -> list[TaskSpec]:
    """Configure the case in a testbench.yaml, with its rows in files beside it."""
    own = folder / "yaml"
    task: dict[str, Any] = {"name": case.task, "samples": "all"}
    if case.num_fewshot is not None:
        task["num_fewshot"] = case.num_fewshot
    if case.only:
        task["only"] = list(case.only)
    if case.generation:
        task["generation"] = dict(case.generation)
    if case.files is not None:
        task["data"] = dict(case.files)
    elif case.rows is not None:
        for name in case.dataset_names:
            for split, rows in case.rows(name).items():
                path = folder / "data" / (name or "") / f"{split}.jsonl"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
                task.setdefault("data", {})[split] = (
                    f"data/{{dataset_name}}/{split}.jsonl" if name else f"data/{split}.jsonl"
                )
    for name, text in case.own_yaml.items():
        own.mkdir(exist_ok=True)
        (own / name).write_text(text, encoding="utf-8")
    config = folder / "testbench.yaml"
    paths = [str(own)] if case.own_yaml else []
    config.write_text(yaml.safe_dump({"tasks": [task], "task_paths": paths}), encoding="utf-8")
    return task_specs(load_config(config))


def stored(data: TaskData) -> TaskData:
    """The data as it comes back from a store."""
    docs = through_json({str(doc_id): text for doc_id, text in data.docs.items()})
    return TaskData(
        {int(doc_id): text for doc_id, text in docs.items()},
        through_json(list(data.fewshot)),
        TaskFlags.from_document(through_json(data.flags.to_document())),
    )


_ROLLING = "loglikelihood_rolling"


def _entry(request: Mapping[str, Any], flags: TaskFlags) -> list[Any]:
    if flags.output_type == _ROLLING:  # of lm-eval's kinds, one that is asked as another
        assert (request["type"], request["context"]) == ("loglikelihood", "")
        return [_ROLLING, request["idx"], flags.repeats, request["continuation"]]
    head = [request["type"], request["idx"], flags.repeats]
    if request["type"] == "generate_until":
        return [*head, request.get("messages", request.get("prompt")), request["generation"]]
    return [*head, request["context"], request["continuation"]]


def _answered(case: Case, prompt: BuiltPrompt, data: TaskData) -> Answered:
    repeats = data.flags.repeats
    doc = json.loads(data.docs[prompt.doc_id])
    responses = []
    for request in prompt.requests:
        kind, _, _, *args = _entry(request, data.flags)
        found = [answer(kind, args, n, doc, case.candidates) for n in range(repeats)]
        # suppliers' answers to texts are pairs as well
        responses.append([(one, n % 2 == 0) for n, one in enumerate(found)] if kind == _ROLLING else found)
    return Answered(prompt.doc_id, through_json(prompt.requests), through_json(responses))


def ours(case: Case, spec: TaskSpec) -> Side:
    """Run one leaf of the case through the adapter, in shuffled order and in batches."""
    draw = random.Random(spec.name)
    data = stored(register(spec).data)
    count = min(len(data.docs), case.limit or len(data.docs))
    ids = list(range(count))
    draw.shuffle(ids)
    prompts = build_prompts(spec, data, ids, case.api)
    assert [p.doc_id for p in prompts] == list(range(count)), "prompts come in ascending order"

    subset = draw.sample(ids, k=max(1, count // 3))
    chosen = set(subset)
    assert build_prompts(spec, data, subset, case.api) == [p for p in prompts if p.doc_id in chosen], (
        "a doc's prompt depends on which docs are drawn with it"
    )

    side = Side()
    for prompt in prompts:
        side.requests[prompt.doc_id] = [_entry(r, data.flags) for r in prompt.requests]
        side.targets[prompt.doc_id] = prompt.target
    answers = [_answered(case, prompt, data) for prompt in prompts]
    draw.shuffle(answers)
    cut = len(answers) // 3
    for batch in (answers[:cut], answers[cut:]):
        if not batch:
            continue
        # scoring gets only the docs it scores, and no few-shot pool
        part = TaskData({a.doc_id: data.docs[a.doc_id] for a in batch}, [], data.flags)
        scored = score(spec, part, batch)
        assert [s.doc_id for s in scored] == [a.doc_id for a in batch], "scores keep the order of the answers"
        for result in scored:
            assert result.error is None, f"doc {result.doc_id}: {result.error}"
            side.results[result.doc_id] = through_json(result.metrics)
    side.aggregates = _aggregates(spec, data, side)
    return side


def _aggregates(spec: TaskSpec, data: TaskData, side: Side) -> dict[str, Any]:
    values: dict[str, list[Any]] = defaultdict(list)
    for doc_id in sorted(side.results):
        for name, metrics in side.results[doc_id].items():
            for metric, value in metrics.items():
                values[f"{metric},{name}"].append(value)
    found = {}
    for key, items in values.items():
        metric = key.partition(",")[0]
        found[key] = aggregate(spec, data.flags, metric, items)
        known = data.flags.metrics.get(metric)
        if known is not None and known.aggregation == "mean":
            assert found[key] == sum(items) / len(items), f"{key} is a mean, but aggregate() says otherwise"
    return found


def _bits(value: Any) -> str:
    """Text that is equal only for equal types and equal bits."""
    return json.dumps(value, sort_keys=True)


def differences(case: Case, folder: Path) -> tuple[list[str], dict[str, Side]]:
    """Run both sides; every place where they differ, and our side by leaf name."""
    specs = specs_of(case, folder)
    expected = reference(case, folder / "yaml")
    assert {spec.leaf for spec in specs} == set(expected), "both sides cover the same leaf tasks"
    found: list[str] = []
    sides = {}
    for spec in specs:
        theirs, mine = expected[spec.leaf], ours(case, spec)
        sides[spec.leaf] = mine
        for what in ("requests", "targets", "results"):
            left, right = getattr(theirs, what), getattr(mine, what)
            for doc_id in sorted(left.keys() | right.keys()):
                if _bits(left.get(doc_id)) != _bits(right.get(doc_id)):
                    found.append(
                        f"{spec.leaf} doc {doc_id} {what}:\n  lm-eval {_bits(left.get(doc_id))[:2000]}\n"
                        f"  ours    {_bits(right.get(doc_id))[:2000]}"
                    )
        for key in sorted(theirs.aggregates.keys() | mine.aggregates.keys()):
            left, right = theirs.aggregates.get(key), mine.aggregates.get(key)
            if isinstance(left, float) and math.isnan(left):
                left = None
            # 1 and 1.0 are one aggregate; anything else must agree to the last bit
            if left != right:
                found.append(f"{spec.leaf} {key}: lm-eval {left!r}, ours {right!r}")
    return found, sides


def unvaried(sides: Mapping[str, Side]) -> list[str]:
    """Metrics with one and the same value everywhere: a comparison of those would prove little."""
    seen: dict[str, set[str]] = defaultdict(set)
    for side in sides.values():
        for filters in side.results.values():
            for name, metrics in filters.items():
                for metric, value in metrics.items():
                    seen[f"{metric},{name}"].add(_bits(value))
    return sorted(key for key, values in seen.items() if len(values) == 1)


def assert_parity(case: Case, folder: Path, constant: Sequence[str] = ()) -> dict[str, Side]:
    """Zero differences, over metrics that vary (``constant`` names those that cannot)."""
    found, sides = differences(case, folder)
    assert not found, f"{len(found)} differences; the first:\n" + "\n".join(found[:3])
    assert unvaried(sides) == sorted(constant)
    return sides
