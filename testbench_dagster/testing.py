"""For authors of frameworks: whether a framework keeps what `docs/frameworks.md` asks of it.

In a test: ``assert not [one for one in check_framework("roman", TASKS) if one.failed]``. From a shell:
``python -m testbench_dagster.testing roman roman_write``. Nothing is stored and nobody is asked.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from testbench_dagster.config import Config, Settings
from testbench_dagster.core.chat_message import ChatMessage, ToolCall
from testbench_dagster.core.errors import TaskError, TestbenchError
from testbench_dagster.core.finding import Finding
from testbench_dagster.core.frameworks import framework_plug
from testbench_dagster.core.ids import canonical_json
from testbench_dagster.core.prompt import (
    Answered,
    BuiltPrompt,
    DocScore,
    Registered,
    TaskData,
    empty_response,
)
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MEAN, TaskFlags
from testbench_dagster.core.wording import counted
from testbench_dagster.stages.configured_tasks import configured_tasks
from testbench_dagster.tasks.frameworks import Framework
from testbench_dagster.tasks.worker import FrameworkWorker, WorkerStopped
from testbench_dagster.transports.payload import unsendable

#: Gives the response to a request of a prompt: a text, a ``(logprob, greedy)`` pair, or the text of a
#: :class:`~testbench_dagster.core.chat_message.ChatMessage`, by the request's kind.
Answer = Callable[[BuiltPrompt, Mapping[str, Any]], Any]

#: Bytes of a doc or prompt beyond which some store holds it no more.
MOST_BYTES = 15 << 20
#: Docs that are asked and scored; all are registered.
MOST_DOCS = 200
#: Seconds of CPU time that scoring one hostile answer may take.
_HOSTILE_S = 30.0
_SEEDS = ("a seed", "another seed")
#: What suppliers send: nothing, far too much, no text at all, JSON that is none.
_HOSTILE = {
    "of white space": " \n\t",
    "of a million letters": "A" * 1_000_000,
    "with zero bytes and lone surrogates": "\x00\ud800\udfff",
    "of JSON nested 100,000 levels deep": "[" * 100_000,
    "of JSON that Python alone reads": '{"answer": NaN, "answer": 1e999}',
    "of half a tag": "<think>" * 1_000,
}


def check_framework(
    framework: str,
    tasks: Iterable[str | Mapping[str, Any]] | None = None,
    *,
    oracle: Answer | None = None,
    wrong: Answer | None = None,
    most_docs: int = MOST_DOCS,
    on_finding: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Try a framework's tasks on their own docs, in two worker processes, and say what is wrong with it.

    Looked at: plug and registration; prompts, whether they can be kept and sent; that docs, hashes, requests
    and scores are the same in another process, where sets and dicts of objects have another order; that right
    answers score better than wrong ones; hostile answers; aggregation; and what ``testbench rescore`` needs.

    Args:
        framework: the name that ``tasks[].framework`` has.
        tasks: names, or entries as ``testbench.yaml`` has them (``{"name": …, "options": …}``); by default
            all that the plug names.
        oracle: gives the right response to a request of a prompt; by default the prompt's target as a text.
        wrong: gives a wrong one; by default a text that nobody asks for.
        most_docs: docs that are asked and scored.
        on_finding: called with each finding as it is made.

    Returns:
        One finding per thing that was looked at; ``failed`` is set where it is wrong, and ``detail`` says
        what, and how to mend it. A ``warning`` works, but is worth a look.
    """
    found = []
    for finding in _findings(framework, tasks, oracle, wrong or _nonsense, most_docs):
        if on_finding is not None:
            on_finding(finding)
        found.append(finding)
    return found


def _findings(
    framework: str,
    tasks: Iterable[str | Mapping[str, Any]] | None,
    oracle: Answer | None,
    wrong: Answer,
    most_docs: int,
) -> Iterator[Finding]:
    what = f"framework {framework}"
    try:
        specs = _specs(framework, tasks)
    except (TestbenchError, ValidationError) as error:
        yield Finding(what, str(error), ok=False)
        return
    plug = framework_plug(framework)
    yield Finding(what, f"plug {plug.name} {plug.version}, {counted(len(specs), 'task')}")
    # hashes of texts are seeded otherwise in the second: who walks a set shows here
    with FrameworkWorker() as one, FrameworkWorker(hash_seed=1) as two:
        for spec in specs:
            checked = _Task(spec, Framework(framework, one), Framework(framework, two), most_docs)
            try:
                yield from checked.findings(oracle, wrong)
            except TaskError as error:
                yield Finding(f"task {spec.name}", str(error), ok=False)


def _specs(framework: str, tasks: Iterable[str | Mapping[str, Any]] | None) -> list[TaskSpec]:
    plug = framework_plug(framework)
    if tasks is None and plug.task_names is None:
        raise TaskError(
            f"framework {framework!r} names no tasks of its own (task_names); say which tasks to try"
        )
    chosen: Iterable[str | Mapping[str, Any]] = tasks or (plug.task_names or tuple)()
    entries = [{"name": task} if isinstance(task, str) else dict(task) for task in chosen]
    settings = Settings.model_validate({"tasks": [{**entry, "framework": framework} for entry in entries]})
    return list(configured_tasks(Config(settings, Path.cwd() / "testbench.yaml", Path.cwd())).specs)


class _Task:
    """One task, in two processes."""

    def __init__(self, spec: TaskSpec, here: Framework, there: Framework, most_docs: int) -> None:
        self._spec, self._here, self._there = spec, here, there
        self._most_docs = most_docs
        self._what = f"task {spec.name}"

    def findings(self, oracle: Answer | None, wrong: Answer) -> Iterator[Finding]:
        """Look at one thing after the other; the rest is left where nothing more can be known.

        Raises:
            TaskError: the framework does not get on.
        """
        registered = self._here.register(self._spec)
        data, flags = registered.data, registered.data.flags
        docs = counted(len(data.docs), "doc")
        metrics, filters = ", ".join(flags.metrics), ", ".join(flags.filters)
        yield self._fine(f"{docs}, {flags.output_type}, metrics {metrics}, filters {filters}")
        yield from self._same_registration(registered)
        yield from self._too_large(data.docs)
        chosen = sorted(data.docs)[: self._most_docs]
        prompts: list[BuiltPrompt] = []
        for api in flags.request_forms:
            prompts = prompts or self._here.build_prompts(self._spec, data, chosen, api, _SEEDS[0])
            yield from self._prompts(data, chosen, api)
        yield from self._scores(data, prompts, oracle, wrong)
        yield from self._hostile(data, prompts[0])

    def _fine(self, detail: str) -> Finding:
        return Finding(self._what, detail)

    def _wrong(self, detail: str, *, warning: bool = False) -> Finding:
        return Finding(self._what, detail, ok=False, warning=warning)

    # -- registration -------------------------------------------------------------------------------------

    def _same_registration(self, registered: Registered) -> Iterator[Finding]:
        again = self._there.register(self._spec)
        for doc_id, text in registered.data.docs.items():
            if again.data.docs.get(doc_id) != text:
                yield self._wrong(
                    f"register(): doc {doc_id} is another one in another process; draw docs from the task's "
                    "options alone: no clocks, no global random state, no order of sets"
                )
                return
        for name in ("fingerprint", "task_hash", "config_hash"):
            if getattr(registered, name) != getattr(again, name):
                yield self._wrong(
                    f"register(): {name} is another one in another process; give `asked`, `scored` and flags "
                    "that are the same everywhere"
                )
                return
        yield self._fine("registers the same in another process")
        first = TaskData(dict(list(registered.data.docs.items())[:1]), [], registered.data.flags)
        found = self._here.identify(self._spec, first, registered.fingerprint)
        if found is None:
            yield self._wrong(
                "has no identify(): `testbench rescore` cannot say whether a bundle's task is this one; "
                "return identified(spec, data.flags, fingerprint, asked=…, scored=…) with what registered() "
                "got",
                warning=True,
            )
        elif tuple(found) != (registered.task_hash, registered.config_hash):
            yield self._wrong(
                "identify() gives other hashes than register(); give identified() the same `asked` and "
                "`scored` as registered()"
            )

    def _too_large(self, docs: Mapping[int, str]) -> Iterator[Finding]:
        doc_id, size = max(((doc_id, len(text)) for doc_id, text in docs.items()), key=lambda one: one[1])
        if size > MOST_BYTES:
            yield self._wrong(
                f"doc {doc_id} has {counted(size, 'byte')}, more than {MOST_BYTES}: no store may hold it; "
                "leave out what neither requests nor scores need"
            )

    # -- prompts ------------------------------------------------------------------------------------------

    def _prompts(self, data: TaskData, chosen: Sequence[int], api: str) -> Iterator[Finding]:
        spec = self._spec
        built = self._here.build_prompts(spec, data, chosen, api, _SEEDS[0])
        for prompt in built:
            for place, request in enumerate(prompt.requests):
                if problem := unsendable(request, api):  # type: ignore[arg-type]  # one of the forms
                    yield self._wrong(
                        f"build_prompts(): doc {prompt.doc_id}: request {place} cannot be sent as {api}: "
                        f"{problem}"
                    )
                    return
            size = len(canonical_json([prompt.requests, prompt.target]))
            if size > MOST_BYTES:
                yield self._wrong(
                    f"build_prompts(): doc {prompt.doc_id} as {api} takes {counted(size, 'byte')}, more than "
                    f"{MOST_BYTES}: no store may hold it; ask for less"
                )
                return
        again = self._there.build_prompts(spec, data, chosen, api, _SEEDS[0])
        if differs := _first_difference(built, again):
            yield self._wrong(
                f"build_prompts(): doc {differs} as {api} is asked otherwise in another process with the "
                "same seed; draw by `seed` alone: no global random state, no order of sets"
            )
            return
        alone = self._there.build_prompts(spec, data, chosen[-1:], api, _SEEDS[0])
        if _first_difference(built[-1:], alone):
            yield self._wrong(
                f"build_prompts(): doc {chosen[-1]} as {api} is asked otherwise when it is built alone; draw "
                "for each doc by a seed of its own, such as f'{seed}:{doc_id}'"
            )
            return
        other = self._here.build_prompts(spec, data, chosen, api, _SEEDS[1])
        drawn = _first_difference(built, other) is not None
        if data.flags.questions_of_epoch and not drawn:
            yield self._wrong(
                "says questions_of_epoch, but asks the same with another seed; draw by `seed`, or leave it "
                "out",
                warning=True,
            )
        how = "drawn by the seed" if drawn else "whatever the seed"
        yield self._fine(f"{counted(len(built), 'prompt')} as {api}, the same in another process, {how}")

    # -- scores -------------------------------------------------------------------------------------------

    def _scores(
        self, data: TaskData, prompts: Sequence[BuiltPrompt], oracle: Answer | None, wrong: Answer
    ) -> Iterator[Finding]:
        flags = data.flags
        primary = self._spec.metric or next(iter(flags.metrics))
        filter_ = self._spec.filter or flags.filters[0]
        bad = self._score(self._here, data, [_answered(prompt, wrong) for prompt in prompts])
        yield from self._errors("a wrong answer", bad)
        empty = self._here.score_empty(self._spec, data, [_answered(prompt, _nothing) for prompt in prompts])
        yield from self._errors("an empty answer", empty)
        if oracle is None and not all(isinstance(prompt.target, (str, int, float)) for prompt in prompts):
            yield self._wrong(
                "right answers were not tried: the targets are no texts; give check_framework(oracle=…)",
                warning=True,
            )
            return
        answers = [_answered(prompt, oracle or _target) for prompt in prompts]
        good = self._score(self._here, data, answers)
        yield from self._errors("a right answer", good)
        for label, again in (
            ("in another process", self._score(self._there, data, answers)),
            ("when it is scored alone", self._score(self._there, data, answers[-1:])),
        ):
            for one, two in zip(good[-len(again) :], again, strict=True):
                if one != two:
                    yield self._wrong(f"score(): doc {one.doc_id} has another score {label}; {_SAME}")
                    return
        values = [score.metrics.get(filter_, {}).get(primary) for score in good]
        if any(not isinstance(value, (int, float)) for value in values):
            yield from self._aggregated(flags, good)
            return
        metric = flags.metrics[primary]
        best = 1.0 if metric.higher_is_better else 0.0
        if metric.binary and (missed := [s.doc_id for s, v in zip(good, values, strict=True) if v != best]):
            yield self._wrong(
                f"right answers to {counted(len(missed), 'doc')} have not {primary} {best:g}, such as to doc "
                f"{missed[0]}; correct targets or score(), or give check_framework(oracle=…)"
            )
        elif not self._better(metric.higher_is_better, good, bad, filter_, primary):
            yield self._wrong(
                f"wrong answers have no worse {primary} than right ones; correct score(), or give "
                "check_framework(wrong=…)"
            )
        else:
            yield self._fine(
                f"right answers have {primary} {_mean(good, filter_, primary):.3g}, wrong ones "
                f"{_mean(bad, filter_, primary):.3g}, empty ones {_mean(empty, filter_, primary):.3g}"
            )
        yield from self._aggregated(flags, good)

    def _score(self, framework: Framework, data: TaskData, answers: Sequence[Answered]) -> list[DocScore]:
        needed = {answer.doc_id: data.docs[answer.doc_id] for answer in answers}
        return framework.score(self._spec, replace(data, docs=needed), answers, timeout_s=_HOSTILE_S)

    def _errors(self, what: str, scores: Sequence[DocScore]) -> Iterator[Finding]:
        failed = [score for score in scores if score.error is not None]
        if failed:
            yield self._wrong(
                f"{what} to {counted(len(failed), 'doc')} has no score, such as to doc {failed[0].doc_id}: "
                f"{failed[0].error}; score every answer, the worst value is one, too"
            )

    @staticmethod
    def _better(
        higher: bool, good: Sequence[DocScore], bad: Sequence[DocScore], filter_: str, metric: str
    ) -> bool:
        one, two = _mean(good, filter_, metric), _mean(bad, filter_, metric)
        return one > two if higher else one < two

    def _aggregated(self, flags: TaskFlags, scores: Sequence[DocScore]) -> Iterator[Finding]:
        for name, metric in flags.metrics.items():
            if metric.aggregation == MEAN:
                continue
            found = [
                s.metrics[f][name] for s in scores for f in flags.filters[:1] if name in s.metrics.get(f, {})
            ]
            one, two = (each.aggregate(self._spec, flags, name, found) for each in (self._here, self._there))
            if one != two:
                yield self._wrong(f"aggregate(): {name} is {one}, and {two} in another process; {_SAME}")
            else:
                yield self._fine(f"aggregate(): {name} of right answers is {one}")

    def _hostile(self, data: TaskData, prompt: BuiltPrompt) -> Iterator[Finding]:
        """Answers of a supplier that means no good; log-probabilities and pages are read by ourselves."""
        if data.flags.output_type not in ("generate_until", "chat"):
            return
        for what, text in _HOSTILE.items():
            hostile = text
            if data.flags.output_type == "chat":
                hostile = ChatMessage(text, (ToolCall(text[:200], text),), "stop").text
            answer = Answered(
                prompt.doc_id, prompt.requests, [[hostile] for _ in prompt.requests], prompt.target
            )
            try:
                (score,) = self._score(self._here, data, [answer])
            except WorkerStopped as error:
                yield self._wrong(
                    f"an answer {what} keeps score() busy or ends its process ({error}); bound what it reads "
                    "of an answer, and beware of regular expressions that try everything"
                )
                continue
            if score.error is not None:
                yield self._wrong(
                    f"an answer {what} has no score ({score.error}): it counts as wrong; better give it the "
                    "worst value",
                    warning=True,
                )
        yield self._fine(f"{counted(len(_HOSTILE), 'hostile answer')} tried")


_SAME = "the same answer has to have the same score everywhere"


def _answered(prompt: BuiltPrompt, answer: Answer) -> Answered:
    responses = [[answer(prompt, request)] for request in prompt.requests]
    return Answered(prompt.doc_id, prompt.requests, responses, prompt.target)


def _target(prompt: BuiltPrompt, request: Mapping[str, Any]) -> Any:
    text = str(prompt.target)
    return ChatMessage(text, (), "stop").text if request["type"] == "chat" else text


def _nonsense(prompt: BuiltPrompt, request: Mapping[str, Any]) -> Any:
    text = "qxz!"
    return ChatMessage(text, (), "stop").text if request["type"] == "chat" else text


def _nothing(prompt: BuiltPrompt, request: Mapping[str, Any]) -> Any:
    return empty_response(request)


def _mean(scores: Sequence[DocScore], filter_: str, metric: str) -> float:
    values = [score.metrics.get(filter_, {}).get(metric) for score in scores]
    numbers = [value for value in values if isinstance(value, (int, float))]
    return statistics.fmean(numbers) if numbers else 0.0


def _first_difference(one: Sequence[BuiltPrompt], two: Sequence[BuiltPrompt]) -> str | None:
    """The first doc whose prompts differ."""
    for here, there in zip(one, two, strict=True):
        if canonical_json([here.requests, here.target]) != canonical_json([there.requests, there.target]):
            return str(here.doc_id)
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the framework that is named first, of it the tasks that follow or all; 1 where it fails."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given:
        print("usage: python -m testbench_dagster.testing FRAMEWORK [TASK ...]", file=sys.stderr)
        return 2

    def show(finding: Finding) -> None:
        mark = "ok   " if finding.ok else "warn " if finding.warning else "FAIL "
        print(f"{mark} {finding.what}: {finding.detail}", flush=True)

    return int(any(one.failed for one in check_framework(given[0], given[1:] or None, on_finding=show)))


if __name__ == "__main__":
    sys.exit(main())
