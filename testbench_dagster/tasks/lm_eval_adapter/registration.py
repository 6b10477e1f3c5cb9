"""Registering a task: its data is loaded and processed once, and described so that changes are noticed."""

from __future__ import annotations

import functools
import hashlib
import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import UndefinedError
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import ConfigurableTask

from testbench_dagster.core.errors import TaskError, TaskInputError
from testbench_dagster.core.ids import content_hash
from testbench_dagster.core.prompt import Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MetricFlags, TaskFlags
from testbench_dagster.tasks.lm_eval_adapter import code_eval
from testbench_dagster.tasks.lm_eval_adapter.building import (
    SourceTask,
    excludes_itself,
    finish,
    shots_of,
    stored_task,
)
from testbench_dagster.tasks.lm_eval_adapter.definitions import config_of, copy_config
from testbench_dagster.tasks.lm_eval_adapter.docs import doc_texts
from testbench_dagster.tasks.lm_eval_adapter.internals import filter_names, metric_names, set_instances
from testbench_dagster.tasks.lm_eval_version import LM_EVAL_VERSION

#: Raise it when our code, or another lm-eval, builds other requests from the same configuration, and the
#: number of SCORER with it: of bundles of one scorer `rescore` expects the same task hash.
REQUESTS = 1

#: Fields of lm-eval's ``TaskConfig`` that requests do not depend on: what scores answers, and mere names.
#: ``doc_to_target`` and ``output_type`` are not among them: few-shot examples show targets.
_NOT_OF_REQUESTS = frozenset(
    {
        "filter_list",
        "metric_list",
        "process_results",
        "should_decontaminate",
        "doc_to_decontamination_query",
        "unsafe_code",
        "task_alias",
        "tag",
    }
)
#: Of a multiple choice task this metric makes lm-eval ask each choice a second time, without its context.
_ASKS_MORE = "acc_mutual_info"


def register(spec: TaskSpec) -> Registered:
    """Load a task's data, process it once and describe it.

    Raises:
        TaskError: unknown task, missing data or split, a row without a needed column, a doc that JSON cannot
            hold, a package or resource that is not installed.
    """
    config = config_of(spec)
    if config.get("unsafe_code") and (problem := code_eval.CODE_EVAL.sandbox.problem()) is not None:
        raise TaskError(
            f"task {spec.name!r}: code that the model wrote runs in a sandbox alone, and that which "
            f"allow_code_execution: true asks for does not hold on this machine: {problem}; mend that "
            "(docs/code.md), or remove the task from testbench.yaml"
        )
    shots = shots_of(config, spec)
    random.seed(0)
    np.random.seed(1234)  # simple_evaluate's seeds: process_docs may draw
    try:
        task = SourceTask(copy_config(config), spec)
    except TaskError:
        raise
    except Exception as error:
        kind = TaskInputError if spec.data else TaskError  # the user's files, or the hub's
        raise kind(_build_failure(spec, error)) from error
    finish(task, spec, shots)
    docs = doc_texts(spec.name, task.task_docs)
    sampler = getattr(task, "sampler", None)
    fewshot = doc_texts(spec.name, sampler.df) if shots and sampler else []
    needed = _pool_needed(task, shots)
    if len(fewshot) < needed:
        raise TaskInputError(
            f"task {spec.name!r}: {shots} few-shot examples wanted, but its pool holds {len(fewshot)}"
            + (" and lm-eval draws one more, to leave out the doc itself" if needed > shots else "")
            + "; lower num_fewshot or give a larger few-shot split"
        )
    doc_hashes = [content_hash(text) for text in docs]
    fewshot_hashes = [content_hash(text) for text in fewshot]
    fingerprint = content_hash([doc_hashes, fewshot_hashes])
    task_hash, config_hash = _hashes(spec, task, shots, fingerprint)
    flags = TaskFlags(
        output_type=task.OUTPUT_TYPE,
        features=list(task.features),
        multiple_input=task.multiple_input,
        multiple_target=task.multiple_target,
        repeats=task.config.repeats,
        num_fewshot=shots,
        version=str(task.VERSION),
        metrics={
            name: MetricFlags(
                aggregation="mean" if function is mean else getattr(function, "__name__", "custom"),
                higher_is_better=bool(task.higher_is_better().get(name, True)),
            )
            for name, function in task.aggregation().items()
        },
        filters=filter_names(task),
    )
    if task.config.unsafe_code:
        flags = replace(flags, metrics=_metrics_of_code(task, flags.metrics))
    _check_choice(spec, flags)
    split = task.config.test_split if task.has_test_docs() else task.config.validation_split
    return Registered(
        task_hash=task_hash,
        config_hash=config_hash,
        fingerprint=fingerprint,
        eval_split=str(split),
        splits={name: len(rows) for name, rows in (task.dataset or {}).items()},
        doc_hashes=doc_hashes,
        fewshot_hashes=fewshot_hashes,
        data=TaskData(dict(enumerate(docs)), fewshot, flags),
    )


def _metrics_of_code(
    task: ConfigurableTask, declared: Mapping[str, MetricFlags]
) -> Mapping[str, MetricFlags]:
    """The metrics of a task that runs code by the names that its scores have: ``pass_at_k`` gives ``pass@1``.

    All are shares of programs that pass. Nothing is run for it.
    """
    doc = task.eval_docs[0]
    asked = Instance("generate_until", doc, ("", {}), 0, (task.config.task, 0, task.config.repeats))
    asked.resps = [""] * task.config.repeats
    set_instances(task, [asked])
    with code_eval.CODE_EVAL.idle():
        task.apply_filters()
        given = task.process_results(doc, [next(iter(asked.filtered_resps.values()))])
    first = next(iter(declared.values()))
    return {name: replace(declared.get(name, first), bounds=[0.0, 1.0]) for name in given}


def identify(spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str]:
    """Task hash and configuration hash that :func:`register` would give for data with this fingerprint.

    Any doc in ``data`` and its flags are enough: the definition is what is looked at.

    Raises:
        TaskError: the task is unknown here, or cannot be built.
    """
    task = stored_task(spec, data)
    return _hashes(spec, task, task.config.num_fewshot, fingerprint)


def _hashes(spec: TaskSpec, task: ConfigurableTask, shots: int, fingerprint: str) -> tuple[str, str]:
    """What requests are made of, and the whole configuration with its scoring code."""
    plain = _plain(task.config)
    asked = {name: value for name, value in plain.items() if name not in _NOT_OF_REQUESTS}
    asks_more = task.OUTPUT_TYPE == "multiple_choice" and _ASKS_MORE in metric_names(task)
    requests = [REQUESTS, shots, asked, asks_more, fingerprint]
    configured = [LM_EVAL_VERSION, shots, plain]
    beside = _beside_config(spec, task)
    if task.config.unsafe_code:
        configured = [*configured, code_eval.settings()]
    if beside:  # tasks without these settings keep the hashes they had before there were any
        requests, configured = [*requests, beside], [*configured, beside]
    return content_hash(requests)[:40], content_hash(configured)


def _beside_config(spec: TaskSpec, task: ConfigurableTask) -> dict[str, Any]:
    """What is set of how a task is asked and read that its configuration does not hold."""
    names = ["system"]
    if task.OUTPUT_TYPE == "generate_until":
        names.append("think_end_token")
    asked = spec.generation.settings()
    return {name: asked[name] for name in names if name in asked}


def _pool_needed(task: ConfigurableTask, shots: int) -> int:
    """Size of the smallest pool that lm-eval can draw ``shots`` examples from."""
    if not shots or not excludes_itself(task):
        return shots
    # the first n are taken after removing the doc itself, if it is there; drawing takes one more first
    only_first = isinstance(getattr(task, "sampler", None), FirstNSampler)
    return shots if only_first and task.fewshot_cfg.split is None else shots + 1


def _check_choice(spec: TaskSpec, flags: TaskFlags) -> None:
    for kind, chosen, known in (
        ("metric", spec.metric, list(flags.metrics)),
        ("filter", spec.filter, flags.filters),
    ):
        if chosen is not None and chosen not in known:
            raise TaskInputError(f"task {spec.name!r} has no {kind} {chosen!r}; it has {', '.join(known)}")


def _build_failure(spec: TaskSpec, error: Exception) -> str:
    text = f"{type(error).__name__}: {str(error)[:300]}"
    # a KeyError with a cause is lm-eval's own, about an unknown sampler or the like
    if isinstance(error, UndefinedError) or (isinstance(error, KeyError) and error.__cause__ is None):
        source = f"{', '.join(spec.data.values())}" if spec.data else "the dataset"
        return f"task {spec.name!r}: a row of {source} lacks a column the task needs ({text})"
    return f"task {spec.name!r} cannot be built: {text}"


def _plain(value: Any) -> Any:
    """Describe a configuration value stably: functions by name and source, no addresses, no paths."""
    if isinstance(value, functools.partial):
        return ["partial", _plain(value.func), _plain(value.args), _plain(value.keywords)]
    if hasattr(value, "__dataclass_fields__"):
        return {
            f.name: _plain(getattr(value, f.name))
            for f in fields(value)
            if f.name not in ("metadata", "dataset_path", "dataset_kwargs", "custom_dataset")
        }
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if k != "config_source"}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if callable(value):
        return [getattr(value, "__qualname__", type(value).__qualname__), _source_hash(value)]
    return value


def _source_hash(function: Callable[..., Any]) -> str:
    try:
        module = inspect.getsourcefile(function)
        return hashlib.sha256(Path(module or "").read_bytes()).hexdigest()
    except (OSError, TypeError):
        return "unknown"
