"""Looks at what an adapter gives back before anything is stored: says whose mistake it is, and which.

Adapters are written by others. A value of a wrong type would else break whatever comes to use it, far from
its cause, and other tasks with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import orjson

from testbench_dagster.core.errors import TaskError, TaskInputError
from testbench_dagster.core.extracted import bounded_extract
from testbench_dagster.core.frameworks import FrameworkPlug
from testbench_dagster.core.prompt import GENERATED, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MEAN, MetricFlags, TaskFlags
from testbench_dagster.core.wording import counted

#: The kinds of requests and what each has to hold besides ``idx``; generations hold messages or a prompt.
REQUEST_FIELDS: Mapping[str, tuple[str, ...]] = {
    "generate_until": (),
    "chat": ("messages",),
    "loglikelihood": ("context", "continuation"),
    "loglikelihood_rolling": ("text",),
    "get": ("path",),
}
#: The forms in which a task may be asked, and those kinds that have one alone.
FORMS = ("chat", "completions")
_ONLY_FORM: Mapping[str, str] = {"chat": "chat", "loglikelihood": "completions"}
#: What requests of kind ``chat`` alone carry.
_OFFERED = ("tools", "tool_choice", "response_format")
_SHOWN = 80  # characters of a value in a message
_LONGEST_PLACE = 1_000  # characters that say where in a value another one is


def json_problem(value: object) -> str | None:
    """Why JSON cannot hold a value, with the place of the first part that it cannot; None where it can."""
    try:
        json.dumps(value, allow_nan=False)
        return None
    except (TypeError, ValueError, RecursionError) as error:
        told = str(error)
    todo: list[tuple[str, object]] = [("", value)]
    while todo:
        place, part = todo.pop()
        if len(place) > _LONGEST_PLACE:  # too deep, or it holds itself
            return told
        where = f"{place} is " if place else ""
        if isinstance(part, float) and not math.isfinite(part):
            return f"{where}{part}, for which JSON has no word; give null, or leave it out"
        if isinstance(part, dict):
            for key in part:
                if not isinstance(key, (str, int, float, bool)) and key is not None:
                    return f"{where or 'it is '}an object with the key {shown(key)}; name it by a text"
            todo += [(f"{place}.{key}" if place else str(key), one) for key, one in reversed(part.items())]
        elif isinstance(part, (list, tuple)):
            todo += [(f"{place}[{n}]", one) for n, one in reversed(list(enumerate(part)))]
        elif part is not None and not isinstance(part, (str, int, float, bool)):
            return f"{where}{shown(part)}, which JSON cannot hold; give a text, number, list or object"
    return told


def shown(value: object) -> str:
    """A value and its type as a message has them."""
    try:
        text = repr(value)
    except Exception:  # whatever another package's class does
        text = "a value"
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"{text} ({type(value).__name__})"


# ------------------------------------------------------------------------------------- registrations


def checked_registration(plug: FrameworkPlug, spec: TaskSpec, given: object) -> Registered:
    """What ``register`` gave.

    Raises:
        TaskError: it is no registration, or a part of it is none that can be stored, asked and scored.
        TaskInputError: the task has not the metric or filter that is configured for it.
    """
    where = f"task {spec.name!r}: framework {plug.name!r}: register()"
    if not isinstance(given, Registered):
        raise TaskError(f"{where} gave {type(given).__name__}, not a Registered; see registered()")
    flags = given.data.flags
    if not given.data.docs:
        raise TaskError(f"{where} gave no docs; a task has at least one")
    for what, names in (("metrics", flags.metrics), ("filters", flags.filters)):
        if not names:
            raise TaskError(f"{where} gave no {what}; a task has at least one")
    if plug.of_lm_eval:
        return given  # whose adapter looks at these itself, and knows metrics beyond the listed ones
    problem = next(registration_problems(given), None)
    if problem is not None:
        raise TaskError(f"{where}: {problem}")
    _check_choice(spec, flags)
    return given


def registration_problems(given: Registered) -> Iterator[str]:
    """What of a registration cannot be stored, asked or scored, in words with field, value and remedy."""
    for name in ("task_hash", "config_hash", "fingerprint", "eval_split"):
        yield from _text_problem(name, getattr(given, name))
    for doc_id, text in given.data.docs.items():
        if problem := _doc_problem(text):
            yield f"doc {doc_id}: {problem}"
    if sorted(given.data.docs) != list(range(len(given.data.docs))):
        yield "its docs are not numbered from 0 on; number them in their order, as registered() does"
    elif len(given.doc_hashes) != len(given.data.docs):
        told = f"{counted(len(given.data.docs), 'doc')}, but {len(given.doc_hashes)} of doc_hashes"
        yield f"it has {told}; give one for each, as registered() does"
    yield from _flag_problems(given.data.flags)


def _flag_problems(flags: TaskFlags) -> Iterator[str]:
    yield from _text_problem("version", flags.version)
    if not isinstance(flags.output_type, str) or flags.output_type not in REQUEST_FIELDS:
        yield f"output_type is {shown(flags.output_type)}; name one of {', '.join(REQUEST_FIELDS)}"
        return
    for name, metric in flags.metrics.items():
        yield from _text_problem("the name of a metric", name)
        if not isinstance(metric, MetricFlags):
            yield f"metric {name!r} is {shown(metric)}, no MetricFlags"
            continue
        yield from _text_problem(f"metric {name!r}: aggregation", metric.aggregation)
        for field in ("higher_is_better", "binary", "of_some_docs"):
            value = getattr(metric, field)
            if not isinstance(value, bool) and (field == "higher_is_better" or value is not None):
                yield f"metric {name!r}: {field} is {shown(value)}; say True or False"
        if problem := _bounds_problem(metric):
            yield f"metric {name!r}: {problem}"
    if isinstance(flags.filters, str):
        yield f"filters is {shown(flags.filters)}; give a list of names"
    else:
        for filter_ in flags.filters:
            yield from _text_problem("the name of a filter", filter_)
        if len(set(map(str, flags.filters))) < len(flags.filters):
            yield f"filters are {', '.join(map(str, flags.filters))}; name each once"
    yield from _form_problems(flags)
    if not flags.metrics:
        return
    first = next(iter(flags.metrics))
    if metric_problem := _of_some_docs_alone(flags, first):
        yield f"the first metric is the task's score, but {metric_problem}"


def _bounds_problem(metric: MetricFlags) -> str | None:
    bounds: object = metric.bounds
    if bounds is None:
        return None
    if not isinstance(bounds, (list, tuple)) or len(bounds) != 2 or not all(map(_is_number, bounds)):
        return f"bounds is {shown(bounds)}; give the least and the greatest value of a doc, such as [-1, 1]"
    if not bounds[0] < bounds[1]:
        return f"bounds is {shown(bounds)}; the least value comes first, and is less than the greatest"
    if metric.binary or metric.aggregation != MEAN:
        return "bounds are of metrics that are a mean and not binary; leave them out"
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _form_problems(flags: TaskFlags) -> Iterator[str]:
    only = _ONLY_FORM.get(flags.output_type)
    if flags.forms is None:
        return
    if isinstance(flags.forms, str) or not flags.forms or any(form not in FORMS for form in flags.forms):
        yield f"forms is {shown(flags.forms)}; give a list of {' or '.join(FORMS)}, or both"
    elif only is not None and list(flags.forms) != [only]:
        yield f"forms is {shown(flags.forms)}, but requests of kind {flags.output_type!r} have only {only}"


def _text_problem(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, str) or not value:
        like = str(value) if isinstance(value, (int, float)) else "1"
        yield f"{name} is {shown(value)}; give a text, such as {like!r}"


def _doc_problem(text: object) -> str | None:
    """What is wrong with the text of a doc, as stored."""
    if not isinstance(text, str):
        return f"it is {shown(text)}; give the text of a JSON object, as registered() does"
    if "NaN" not in text and "Infinity" not in text:
        return None
    return json_problem(json.loads(text))


def _check_choice(spec: TaskSpec, flags: TaskFlags) -> None:
    """Whether a task has the metric and filter that are configured for it, and can be scored by it.

    Raises:
        TaskInputError: it has not, or it cannot.
    """
    for what, wanted, names in (
        ("metric", spec.metric, list(flags.metrics)),
        ("filter", spec.filter, flags.filters),
    ):
        if wanted is not None and wanted not in names:
            raise TaskInputError(
                f"task {spec.name!r}: {what}: {wanted!r} is no {what} of it; there are: {', '.join(names)}"
            )
    if spec.metric is not None and (problem := _of_some_docs_alone(flags, spec.metric)):
        raise TaskInputError(f"task {spec.name!r}: metric: {problem}")


def _of_some_docs_alone(flags: TaskFlags, metric: str) -> str | None:
    """Why a metric cannot be the score of a task: who avoids the docs that it is of would gain by it."""
    others = [name for name, one in flags.metrics.items() if not one.of_some_docs]
    if metric in others or not others:
        return None
    return (
        f"{metric!r} is of some answers alone, so that giving none of these would pay; choose one of "
        f"{', '.join(others)}"
    )


def doc_text(spec: TaskSpec, number: int, doc: object) -> str:
    """The text of a doc.

    Raises:
        TaskError: it is no JSON object.
    """
    if isinstance(doc, Mapping):
        try:
            # in the order of its keys, which requests may show; no store has to hold more than ASCII
            return json.dumps(dict(doc), separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            problem = json_problem(dict(doc)) or str(error)
    else:
        problem = f"it is {shown(doc)}, no JSON object"
    raise TaskError(f"task {spec.name!r}: framework {spec.framework!r}: doc {number}: {problem}")


def check_hashable(spec: TaskSpec, name: str, value: object) -> None:
    """Look at a part of what identifies a task.

    Raises:
        TaskError: JSON cannot hold it, so that it has no hash.
    """
    if problem := json_problem(value):
        raise TaskError(f"task {spec.name!r}: framework {spec.framework!r}: {name}: {problem}")


def check_flags(spec: TaskSpec, flags: TaskFlags) -> None:
    """Look at what ``registered`` is told of a task besides its docs.

    Raises:
        TaskError: a field has a value of another type than it has to have, or none that there is.
    """
    problem = next(_flag_problems(flags), None)
    if problem is not None:
        raise TaskError(f"task {spec.name!r}: framework {spec.framework!r}: {problem}")


# ------------------------------------------------------------------------------------------- prompts


def checked_prompts(
    plug: FrameworkPlug, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, given: object
) -> list[BuiltPrompt]:
    """What ``build_prompts`` gave: a prompt for each doc, ascending.

    Raises:
        TaskError: one is missing or too many, or holds a request that cannot be kept or sent.
    """
    where = f"task {spec.name!r}: framework {plug.name!r}: build_prompts()"
    if not isinstance(given, list) or not all(isinstance(one, BuiltPrompt) for one in given):
        raise TaskError(f"{where} gave no list of BuiltPrompt")
    wanted, found = sorted(set(doc_ids)), [prompt.doc_id for prompt in given]
    if found != wanted:
        missing = [doc for doc in wanted if doc not in found]
        what = f"no prompt for doc {missing[0]}" if missing else "prompts of other docs, or out of order"
        raise TaskError(f"{where} gave {what}; want one for each doc, ascending")
    for prompt in () if plug.of_lm_eval else given:  # whose requests are lm-eval's own
        problem = prompt_problem(prompt, data.flags.output_type, api)
        if problem is not None:
            raise TaskError(f"{where}: doc {prompt.doc_id}: {problem}")
    return given


def prompt_problem(prompt: BuiltPrompt, kind: str, api: str) -> str | None:
    """What of a prompt cannot be kept or sent, in words; None where all can.

    ``kind`` is that of its task's requests.
    """
    if not isinstance(prompt.requests, list) or not prompt.requests:
        return "it has no requests; give a list of at least one"
    if not isinstance(prompt.context_chars, int):
        return f"context_chars is {shown(prompt.context_chars)}; give the characters of its longest request"
    if not isinstance(prompt.relayable, bool):
        return f"relayable is {shown(prompt.relayable)}; say True or False"
    for what, value in (("target", prompt.target), ("requests", prompt.requests)):
        if problem := _store_problem(value):
            return f"{what}: {problem}"
    for place, request in enumerate(prompt.requests):
        if problem := _request_problem(request, place, kind, api):
            return f"request {place}: {problem}"
    return None


def _store_problem(value: object) -> str | None:
    """Why a value cannot be stored and sent as it is: JSON has no word for it, or its bytes are none."""
    try:
        json.dumps(value, allow_nan=False)
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:  # orjson: whole numbers beyond 64 bits, say
        return json_problem(value) or f"{error}"
    return None


def _request_problem(request: object, place: int, wanted: str, api: str) -> str | None:
    if not isinstance(request, dict):
        return f"it is {shown(request)}, no object"
    kind = request.get("type")
    if not isinstance(kind, str) or kind not in REQUEST_FIELDS:
        return f"it is of type {shown(kind)}; there are: {', '.join(REQUEST_FIELDS)}"
    if kind != wanted:
        return f"it is of type {kind!r}, but register() says output_type {wanted!r}; make them agree"
    if request.get("idx") != place:
        return f"its idx is {shown(request.get('idx'))}; count from 0"
    needed = REQUEST_FIELDS[kind]
    if kind in GENERATED and not needed:
        needed = ("messages",) if api == "chat" else ("prompt",)
    for name in needed:
        if name not in request:
            return f"a request of type {kind!r} has no {name!r}, which {api} needs"
        if problem := _field_problem(name, request[name]):
            return problem
    for name in _OFFERED:
        if name in request:
            if kind != "chat":
                return f"it has {name!r}, which only requests of type 'chat' carry; name that as output_type"
            if problem := _offer_problem(name, request[name]):
                return problem
    return _generation_problem(request["generation"]) if "generation" in request else None


def _field_problem(name: str, value: object) -> str | None:
    if name != "messages":
        if not isinstance(value, str):
            return f"{name} is {shown(value)}; give a text"
        empty = name == "continuation" and not value
        return f"{name} is empty; there is nothing to score then" if empty else None
    if not isinstance(value, list) or not value:
        return f"messages is {shown(value)}; give a list of at least one"
    for number, message in enumerate(value):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            return f"messages[{number}] is {shown(message)}; give an object with role and content"
        content = message.get("content")
        if not isinstance(content, (str, list)) and (content is not None or "tool_calls" not in message):
            return f"messages[{number}].content is {shown(content)}; give a text"
    return None


def _offer_problem(name: str, value: object) -> str | None:
    if name == "tools":
        if not isinstance(value, list) or not value:
            return f"tools is {shown(value)}; give a list of at least one, or leave it out"
        for number, tool in enumerate(value):
            function = tool.get("function") if isinstance(tool, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                like = "{'type': 'function', 'function': {'name': …, 'parameters': …}}"
                return f"tools[{number}] is {shown(tool)}; give {like}"
        return None
    if name == "response_format":
        fits = isinstance(value, dict) and isinstance(value.get("type"), str)
        return None if fits else f"response_format is {shown(value)}; give an object with a type"
    return None if isinstance(value, (str, dict)) else f"tool_choice is {shown(value)}; give a text or object"


def _generation_problem(generation: object) -> str | None:
    if not isinstance(generation, dict):
        return f"generation is {shown(generation)}; give an object, such as {{'max_gen_toks': 64}}"
    until = generation.get("until")
    if not isinstance(until, (str, list)) and until is not None:
        return f"generation.until is {shown(until)}; give a text or a list of texts"
    if isinstance(until, list) and not all(isinstance(stop, str) for stop in until):
        return f"generation.until is {shown(until)}; give a list of texts"
    for name in ("max_gen_toks", "max_tokens"):
        limit = generation.get(name, 1)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            return f"generation.{name} is {shown(limit)}; give a whole number from 1"
    temperature = generation.get("temperature", 0)
    if not isinstance(temperature, (int, float)) or isinstance(temperature, bool) or temperature < 0:
        return f"generation.temperature is {shown(temperature)}; give a number from 0"
    return None


# -------------------------------------------------------------------------------------------- scores


def checked_scores(
    plug: FrameworkPlug,
    spec: TaskSpec,
    function: str,
    flags: TaskFlags,
    given: object,
    doc_ids: Sequence[int] | None = None,
) -> list[DocScore]:
    """What a function that scores gave; of ``doc_ids``, in their order, where they are told.

    A value that is none of its metric's makes an error of that answer's score: what it is may depend on the
    answer, which is a supplier's, and must not stop the scoring of others.

    Raises:
        TaskError: it is no list of scores, not one for each doc, or of metrics that were not declared.
    """
    where = f"task {spec.name!r}: framework {plug.name!r}: {function}()"
    if not isinstance(given, list):
        raise TaskError(f"{where} gave {type(given).__name__}, not DocScores")
    for score in given:
        if not isinstance(score, DocScore):
            raise TaskError(f"{where} gave {type(score).__name__}, not DocScore")
    if doc_ids is not None and len(given) != len(doc_ids):
        told = f"{counted(len(given), 'score')} for {counted(len(doc_ids), 'answer')}"
        raise TaskError(f"{where} gave {told}; want a DocScore for each")
    if doc_ids is not None and [score.doc_id for score in given] != list(doc_ids):
        raise TaskError(f"{where} gave scores of other docs, or in another order; want that of the answers")
    if plug.of_lm_eval:
        return given
    if problem := undeclared(flags, given):
        raise TaskError(f"{where} gave {problem} (register() declares them)")
    return [_as_kept(where, flags, score) for score in given]


def undeclared(flags: TaskFlags, scores: Sequence[DocScore]) -> str | None:
    """A metric or filter that scores have and the registration has not, in words, if there is one."""
    for score in scores:
        for name, metrics in score.metrics.items():
            if name not in flags.filters:
                return f"the filter {name!r}; there are: {', '.join(flags.filters)}"
            for metric in metrics:
                if metric not in flags.metrics:
                    return f"the metric {metric!r}; there are: {', '.join(flags.metrics)}"
    return None


def _as_kept(where: str, flags: TaskFlags, score: DocScore) -> DocScore:
    """A score as it is stored, or one with an error where it holds what its metrics cannot be."""
    if score.error is not None:
        return score
    if problem := score_problem(flags, score):
        return DocScore(score.doc_id, error=f"{where} gave {problem}"[:300])
    if all(map(_is_bounded, score.extracted.values())):
        return score
    return replace(score, extracted={name: bounded_extract(text) for name, text in score.extracted.items()})


def _is_bounded(text: str) -> bool:
    """Whether the text that was read of an answer is stored as it is."""
    return bounded_extract(text) == text


def score_problem(flags: TaskFlags, score: DocScore) -> str | None:
    """What of the score of an answer is none of its metrics' values, in words; None where all are."""
    for filter_ in flags.filters:
        if filter_ not in score.metrics:
            return f"no values for the filter {filter_!r}; give them, or an error"
    for filter_, values in score.metrics.items():
        for name, metric in flags.metrics.items():
            if name not in values:
                if not metric.of_some_docs:
                    return f"no value of the metric {name!r}, filter {filter_!r}; give one, or an error"
            elif problem := _value_problem(metric, values[name]):
                return f"{problem} as the metric {name!r}, filter {filter_!r}"
    for filter_, text in score.extracted.items():
        if filter_ not in flags.filters or not isinstance(text, str):
            return f"{shown(text)} as extracted[{filter_!r}]; give a text by filter"
    return None


def _value_problem(metric: MetricFlags, value: object) -> str | None:
    if metric.aggregation != MEAN:
        return None if json_problem(value) is None else f"{shown(value)}, which JSON cannot hold,"
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return f"{shown(value)}, no finite number,"
    if metric.bounds is not None and not metric.bounds[0] <= value <= metric.bounds[1]:
        return f"{shown(value)}, not from {metric.bounds[0]:g} to {metric.bounds[1]:g},"
    return f"{shown(value)}, neither 0 nor 1," if metric.binary and value not in (0, 1) else None
