"""Looks at what an adapter gives back before anything is stored: says whose mistake it is, and which.

Adapters are written by others. A value of a wrong type would else break whatever comes to use it, far from
its cause, and other tasks with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbench_dagster.core.errors import TaskError, TaskInputError
from testbench_dagster.core.frameworks import FrameworkPlug
from testbench_dagster.core.ids import canonical_json
from testbench_dagster.core.prompt import GENERATED, BuiltPrompt, DocScore, Registered
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import TaskFlags

#: The kinds of requests and what each has to hold besides ``idx``; generations hold messages or a prompt.
REQUEST_FIELDS: Mapping[str, tuple[str, ...]] = {
    "generate_until": (),
    "chat": ("messages",),
    "loglikelihood": ("context", "continuation"),
    "loglikelihood_rolling": ("text",),
    "get": ("path",),
}


def checked_registration(plug: FrameworkPlug, spec: TaskSpec, given: object) -> Registered:
    """What ``register`` gave.

    Raises:
        TaskError: it is no registration, or one without docs, metrics or filters.
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
    for what, wanted, names in (
        ("metric", spec.metric, list(flags.metrics)),
        ("filter", spec.filter, flags.filters),
    ):
        if wanted is not None and wanted not in names:
            raise TaskInputError(
                f"task {spec.name!r}: {what}: {wanted!r} is no {what} of it; there are: {', '.join(names)}"
            )
    return given


def checked_prompts(
    plug: FrameworkPlug, spec: TaskSpec, doc_ids: Sequence[int], api: str, given: object
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
        _check_requests(f"{where}: doc {prompt.doc_id}", api, prompt)
    return given


def _check_requests(where: str, api: str, prompt: BuiltPrompt) -> None:
    if not prompt.requests:
        raise TaskError(f"{where} has no requests")
    try:
        canonical_json([prompt.requests, prompt.target])
    except (TypeError, ValueError, RecursionError) as error:
        raise TaskError(f"{where} holds what JSON cannot: {error}") from None
    for place, request in enumerate(prompt.requests):
        kind = request.get("type")
        if not isinstance(kind, str) or kind not in REQUEST_FIELDS:
            raise TaskError(f"{where} has a request of type {kind!r}; there are: {', '.join(REQUEST_FIELDS)}")
        if request.get("idx") != place:
            raise TaskError(f"{where}: the idx of request {place} is {request.get('idx')!r}; count from 0")
        needed = REQUEST_FIELDS[kind]
        if kind in GENERATED and not needed:
            needed = ("messages",) if api == "chat" else ("prompt",)
        for name in needed:
            if name not in request:
                raise TaskError(f"{where}: a request of type {kind!r} has no {name!r}, which {api} needs")


def checked_scores(plug: FrameworkPlug, function: str, given: object) -> list[DocScore]:
    """What a function that scores gave.

    Raises:
        TaskError: it is no list of scores.
    """
    if not isinstance(given, list):
        raise TaskError(f"framework {plug.name!r}: {function}() gave {type(given).__name__}, not DocScores")
    for score in given:
        if not isinstance(score, DocScore):
            raise TaskError(
                f"framework {plug.name!r}: {function}() gave {type(score).__name__}, not DocScore"
            )
    return given


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
