"""Scoring answers with a task's own filters and metrics, and aggregating what they give."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, get_aggregation, get_metric_aggregation
from lm_eval.api.task import ConfigurableTask

from testbench_dagster.core.extracted import bounded_extract
from testbench_dagster.core.prompt import Answered, DocScore, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags
from testbench_dagster.core.text import escaped
from testbench_dagster.tasks.lm_eval_adapter.building import stored_task
from testbench_dagster.tasks.lm_eval_adapter.code_eval import CODE_EVAL, MAX_NOTE, why_not
from testbench_dagster.tasks.lm_eval_adapter.definitions import config_of
from testbench_dagster.tasks.lm_eval_adapter.internals import set_instances
from testbench_dagster.tasks.lm_eval_adapter.outages import is_outage
from testbench_dagster.tasks.lm_eval_adapter.requests import arguments_of
from testbench_dagster.tasks.lm_eval_adapter.values import json_value, raw_values

#: So many answers in a row for which a service is not there, and the rest of a batch is not tried.
_OUTAGES = 3
_ROLLING = "loglikelihood_rolling"


def score(spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> list[DocScore]:
    """Score answered docs with every filter of the task, in the order given.

    One batch should hold a task's docs together: some filters cost 150 ms per call whatever its size. An
    answer the scorer cannot digest yields an error of its own, never of its batch.
    """
    return list(score_each(spec, data, answers))


def score_each(spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> Iterator[DocScore]:
    """The same, one after the other: what ends the process, or the patience with it, costs one answer.

    Where the service that a metric asks is not there for some answers in a row, the rest is not tried.
    """
    task = stored_task(spec, replace(data, fewshot=[]))  # examples only ever show in prompts
    done = gone = 0
    for found in _scored(task, list(answers)):
        done += 1
        gone = gone + 1 if found.unavailable else 0
        yield found
        if gone >= _OUTAGES:
            break
    for answer in answers[done:]:
        yield DocScore(answer.doc_id, error="not tried", unavailable=True, tried=False)


def _scored(task: ConfigurableTask, answers: list[Answered]) -> Iterator[DocScore]:
    if not answers:
        return
    try:
        grouped = _filtered(task, answers)
    except Exception as error:
        if len(answers) == 1:
            yield _broken(answers[0], error)
            return
        grouped = []
    if grouped:
        with _code_ahead(task, answers, grouped):
            for answer, instances in zip(answers, grouped, strict=True):
                yield _scored_one(task, answer, instances)
        return
    middle = len(answers) // 2
    yield from _scored(task, answers[:middle])
    yield from _scored(task, answers[middle:])


def _code_ahead(
    task: ConfigurableTask, answers: list[Answered], grouped: list[list[Instance]]
) -> AbstractContextManager[None]:
    """The programs of a task that runs what the model wrote, begun on all processors; else nothing."""
    if not task.config.unsafe_code:
        return nullcontext()

    def ask() -> None:
        for answer, instances in zip(answers, grouped, strict=True):
            _scored_one(task, answer, instances)

    return CODE_EVAL.ahead(ask)


def _broken(answer: Answered, error: Exception) -> DocScore:
    text = f"{type(error).__name__}: {str(error)[:300]}"
    return DocScore(answer.doc_id, error=text, unavailable=is_outage(error))


def _filtered(task: ConfigurableTask, answers: list[Answered]) -> list[list[Instance]]:
    """The instances of each answer, through all filters together."""
    grouped: list[list[Instance]] = []
    for answer in answers:
        doc = task.eval_docs[answer.doc_id]
        instances = []
        for request, responses in zip(answer.requests, answer.responses, strict=True):
            instance = Instance(
                request_type=_ROLLING if task.OUTPUT_TYPE == _ROLLING else request["type"],
                doc=doc,
                arguments=arguments_of(request, task.OUTPUT_TYPE),
                idx=request["idx"],
                metadata=(task.config.task, answer.doc_id, task.config.repeats),
            )
            instance.resps = [_response(task, r) for r in responses]
            instances.append(instance)
        grouped.append(sorted(instances, key=lambda i: i.idx))
    set_instances(task, [instance for instances in grouped for instance in instances])
    seed_checkers(0)
    task.apply_filters()
    return grouped


def _response(task: ConfigurableTask, response: Any) -> Any:
    """A response as lm-eval's models give it: of a whole text the log-probability alone."""
    if not isinstance(response, (list, tuple)):
        return response
    return response[0] if task.OUTPUT_TYPE == _ROLLING else tuple(response)


def _scored_one(task: ConfigurableTask, answer: Answered, instances: Sequence[Instance]) -> DocScore:
    result = DocScore(answer.doc_id)
    CODE_EVAL.forget()
    try:
        for name in instances[0].filtered_resps:
            filtered = [i.filtered_resps[name] for i in instances]
            # before the metrics, which may change what they get; whatever a task's own filters and templates
            # make of an answer, what is shown of it never costs it its score
            with suppress(Exception):
                result.extracted |= _extracted(task, answer.doc_id, name, filtered)
            seed_checkers(answer.doc_id)
            result.metrics[name] = _metrics(task, answer.doc_id, filtered)
            if (note := why_not(CODE_EVAL.told())) is not None:
                result.notes[name] = escaped(note, MAX_NOTE)
    except Exception as error:
        return _broken(answer, error)
    return result


def _metrics(task: ConfigurableTask, doc_id: int, filtered: Sequence[Any]) -> dict[str, Any]:
    """What the task makes of a doc's filtered responses, as JSON.

    A response's greediness is None where the supplier does not show it. A metric that comes out otherwise
    with one than with the other is left out then. So is what is no finite number where a log-probability is
    minus infinity: a perplexity, say, or shares of several impossible options.
    """
    pairs = [r for r in filtered if isinstance(r, tuple) and len(r) == 2]
    unknown = any(greedy is None for _, greedy in pairs)
    doc, found = task.eval_docs[doc_id], []
    for greedy in (False, True) if unknown else (None,):
        known = [(r[0], greedy) if isinstance(r, tuple) and r[1:] == (None,) else r for r in filtered]
        metrics = task.process_results(doc, known if unknown else filtered)
        found.append({metric: json_value(value) for metric, value in metrics.items()})
    result = {
        metric: value
        for metric, value in found[0].items()
        # as texts: not-a-number equals itself there
        if all(metric in other and repr(other[metric]) == repr(value) for other in found[1:])
    }
    if -math.inf in filtered or any(logprob == -math.inf for logprob, _ in pairs):
        result = {metric: value for metric, value in result.items() if _is_finite(value)}
    return result


def _is_finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _extracted(task: ConfigurableTask, doc_id: int, name: str, filtered: Sequence[Any]) -> Mapping[str, str]:
    """By the filter's name what the metrics see of an answer, as a bounded text; nothing where there is none.

    Of a generation what the filter extracted, anything but a text as JSON; in multiple choice the index of
    the option whose log-probability is largest, the first of equal ones, as ``acc`` takes it.
    """
    if task.OUTPUT_TYPE == "generate_until":
        value = filtered[0] if len(filtered) == 1 else filtered
        if not isinstance(value, str):
            value = json.dumps(json_value(value), ensure_ascii=False, sort_keys=True)
        return {name: bounded_extract(value)}
    if task.OUTPUT_TYPE != "multiple_choice":
        return {}
    options = len(filtered)
    if "acc_mutual_info" in task.aggregation():  # each option stands there twice, without context at the end
        options = min(options, len(task.doc_to_choice(task.eval_docs[doc_id])))
    return {name: str(int(np.argmax([logprob for logprob, _ in filtered[:options]])))}


def seed_checkers(doc_id: int) -> None:
    """Make a checker that draws (ifeval's letters, its language detector) give one doc one verdict."""
    random.seed(doc_id)
    np.random.seed(doc_id % 2**32)
    detector = sys.modules.get("langdetect.detector_factory")
    if detector is not None:
        detector.DetectorFactory.seed = 0


def aggregate(spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]) -> float | None:
    """Aggregate raw per-doc values with the task's own function, in the order given (ascending docs)."""
    known = _aggregations(config_of(spec), flags.output_type)
    function = known[metric] if metric in known else _inherited(config_of(spec), known)
    result = float(function(raw_values(values)))
    return None if math.isnan(result) else result


def _aggregations(config: Mapping[str, Any], output_type: str) -> dict[str, Callable[..., Any]]:
    if config.get("metric_list") is None:
        return {name: get_metric_aggregation(name) for name in DEFAULT_METRIC_REGISTRY[output_type]}
    found: dict[str, Callable[..., Any]] = {}
    for entry in config["metric_list"]:
        name, chosen = _metric_name(entry), entry.get("aggregation")
        if chosen is None:
            found[name] = get_metric_aggregation(name)
        else:
            found[name] = get_aggregation(chosen) if isinstance(chosen, str) else chosen
    return found


def _metric_name(entry: Mapping[str, Any]) -> str:
    metric = entry["metric"]
    return metric if isinstance(metric, str) else str(metric.__name__)


def _inherited(config: Mapping[str, Any], known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Aggregation of a metric the task does not list.

    A metric function of a generative task may return several numbers by name; each takes the aggregation of
    the metric that gave it. Everything else unlisted is a mean, as in lm-eval.
    """
    average: Callable[..., Any] = mean
    if config.get("process_results") is not None:
        return average
    givers = {
        known[_metric_name(entry)]
        for entry in config.get("metric_list") or ()
        if callable(entry["metric"]) or entry.get("hf_evaluate")
    }
    return givers.pop() if len(givers) == 1 else average
